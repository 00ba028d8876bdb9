//! Trace context across the log: the `traceparent` and `tracestate` of W3C Trace Context in record headers.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::record::{ConsumedRecord, Record};

/// Header of the trace and of the span that produced the record.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Header of what vendors add.
const TRACESTATE: &str = "tracestate";
/// Every carrier must take so much (section 3.3.1.5); more is dropped.
const STATE_BYTES_MAX: usize = 512;
/// `00-` + 32 digits + `-` + 16 digits + `-` + 2 digits.
const PARENT_BYTES: usize = 55;

/// Which trace a record belongs to, and the span that produced it. Any tracing library can be bridged by the text form,
/// which is that of the HTTP header `traceparent`.
///
/// ```
/// use plimsoll_client::{Record, TraceContext};
///
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = parent.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), parent);
///
/// let record = Record::new("on time").trace(&context);
/// assert_eq!(record.headers[0].0, "traceparent");
/// # Ok::<(), plimsoll_client::InvalidTraceContext>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
    state: Option<String>,
}

/// A text is not a `traceparent`.
///
/// ```
/// use plimsoll_client::TraceContext;
///
/// let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01".parse::<TraceContext>();
/// assert_eq!(zero.expect_err("zeros").to_string(), "not a traceparent: the trace id is zero");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a traceparent: {0}")]
pub struct InvalidTraceContext(&'static str);

impl TraceContext {
    /// A context from the ids of a span; `None` when one of them is zero, which means that there is none.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        let known = trace_id != [0; 16] && span_id != [0; 8];
        known.then_some(Self { trace_id, parent_id: span_id, flags: u8::from(sampled), state: None })
    }

    /// Adds what vendors want to travel along, the text of a header `tracestate`. What is empty, over 512 bytes or not
    /// printable ASCII is dropped, as the standard allows.
    #[must_use]
    pub fn state(mut self, state: &str) -> Self {
        let printable = state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let usable = !state.trim().is_empty() && state.len() <= STATE_BYTES_MAX && printable;
        self.state = usable.then(|| state.to_owned());
        self
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that produced the record: the parent of what a consumer does with it.
    pub fn span_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// Whether whoever produced it may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What vendors added.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    /// Takes version 00, and later ones as far as they begin alike, as the standard asks.
    fn from_str(text: &str) -> Result<Self, InvalidTraceContext> {
        let bytes = text.as_bytes();
        let wrong = InvalidTraceContext;
        let fixed = bytes.first_chunk::<PARENT_BYTES>().ok_or(wrong("it is too short"))?;
        let [version] = digits::<1>(&fixed[..2])?;
        match (version, bytes.get(PARENT_BYTES)) {
            (0xff, _) => return Err(wrong("version ff is not allowed")),
            (0, None) | (1.., None | Some(b'-')) => {}
            (_, Some(_)) => return Err(wrong("it is too long")),
        }
        if [2, 35, 52].iter().any(|at| fixed[*at] != b'-') {
            return Err(wrong("its fields are not separated by '-'"));
        }
        let trace_id = digits(&fixed[3..35])?;
        let parent_id = digits(&fixed[36..52])?;
        let [flags] = digits(&fixed[53..55])?;
        if trace_id == [0; 16] {
            return Err(wrong("the trace id is zero"));
        }
        if parent_id == [0; 8] {
            return Err(wrong("the span id is zero"));
        }
        // Only one flag is defined; the others must not be passed on.
        Ok(Self { trace_id, parent_id, flags: flags & 1, state: None })
    }
}

/// Lower-case hexadecimal digits, two for each byte.
fn digits<const N: usize>(text: &[u8]) -> Result<[u8; N], InvalidTraceContext> {
    let wrong = InvalidTraceContext("it has something else than lower-case hexadecimal digits");
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(wrong),
    };
    let mut bytes = [0; N];
    let (pairs, _) = text.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(bytes)
}

impl Record {
    /// Says which trace the record belongs to, in the headers `traceparent` and `tracestate`; replaces what was said
    /// before.
    #[must_use]
    pub fn trace(mut self, context: &TraceContext) -> Self {
        self.headers.retain(|(key, _)| key != TRACEPARENT && key != TRACESTATE);
        let this = self.header(TRACEPARENT, context.to_string());
        match &context.state {
            Some(state) => this.header(TRACESTATE, state.clone()),
            None => this,
        }
    }
}

impl ConsumedRecord {
    /// The trace that the record belongs to, and the span that produced it. `None` when it carries none, or one that is
    /// malformed.
    pub fn trace(&self) -> Option<TraceContext> {
        let text = |wanted: &str| {
            let found = self.headers.iter().find(|(key, _)| key == wanted.as_bytes());
            found.and_then(|(_, value)| value.as_ref()).map(Bytes::as_ref)
        };
        let context: TraceContext = std::str::from_utf8(text(TRACEPARENT)?).ok()?.parse().ok()?;
        match text(TRACESTATE).and_then(|state| std::str::from_utf8(state).ok()) {
            Some(state) => Some(context.state(state)),
            None => Some(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::{LeaderEpoch, Offset};

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn texts_of_the_standard_are_read_as_it_says() {
        let good: TraceContext = GOOD.parse().expect("the example of the standard");
        for (text, is) in [
            (GOOD, Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            // Flags that nobody knows are no reason to refuse.
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some(true)),
            // A later version may say more.
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-next", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what-next", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-no", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
            ("0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("", None),
            ("ä", None),
        ] {
            let read = text.parse::<TraceContext>();
            assert_eq!(read.as_ref().ok().map(TraceContext::is_sampled), is, "{text}");
            if let Ok(read) = read {
                assert_eq!((read.trace_id(), read.span_id()), (good.trace_id(), good.span_id()), "{text}");
            }
        }
    }

    #[test]
    fn a_record_carries_its_trace_from_producer_to_consumer() {
        let first: TraceContext = GOOD.parse().expect("good");
        let second = TraceContext::new([7; 16], [8; 8], false).expect("not zero").state("vendor=1,other=2");
        let record = Record::new("v").header("h", "x").trace(&first).trace(&second);
        assert_eq!(record.headers.len(), 3, "{:?}", record.headers);
        let consumed = ConsumedRecord {
            partition: 0,
            offset: Offset::ZERO,
            key: None,
            value: record.value,
            headers: record.headers.into_iter().map(|(key, value)| (Bytes::from(key), value)).collect(),
            timestamp_ms: 0,
            leader_epoch: LeaderEpoch(0),
        };
        assert_eq!(consumed.trace(), Some(second));
        assert_eq!(ConsumedRecord { headers: Vec::new(), ..consumed }.trace(), None);
    }

    #[test]
    fn state_that_cannot_travel_is_dropped() {
        let context: TraceContext = GOOD.parse().expect("good");
        for bad in ["", "   ", "a=\n", "a=ä", &"x".repeat(513)] {
            assert_eq!(context.clone().state(bad).tracestate(), None, "{bad:?}");
        }
        assert_eq!(TraceContext::new([0; 16], [1; 8], true), None);
        assert_eq!(TraceContext::new([1; 16], [0; 8], true), None);
    }
}
