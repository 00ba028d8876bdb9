//! What a controller and the process of its metadata store say to each other: one request, one answer.
//!
//! ```text
//! frame = length u32 | CRC-32C u32 of the body | body (protobuf)          little-endian
//! ```
//!
//! Both ends are the same program, so nothing of this outlives it. The bytes of the other end are checked all the
//! same: the process at it may be dying.

use std::io;

use prost::Message;

use super::{Batch, Stored};
use crate::raft_runtime::journal::JournalSettings;

/// Largest body: a whole state, which the journal has to hold as well.
pub(super) const BODY_BYTES_MAX: u64 = JournalSettings::FILE_BYTES_MAX;
pub(super) const HEADER_BYTES: usize = 8;

/// Asks for what is stored, or has something written.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(super) write: Option<Contents>,
}

/// Answer to a request that was served. What ends the process has no answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    /// There was too little room, and nothing was touched.
    #[prost(bool, tag = "1")]
    pub(super) no_room: bool,
    /// What is stored; only to a request for it.
    #[prost(message, optional, tag = "2")]
    pub(super) stored: Option<Contents>,
    /// Why an unreadable store was emptied while the request was served.
    #[prost(string, optional, tag = "3")]
    pub(super) begun_anew: Option<String>,
}

/// Records, and what they reflect.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Contents {
    #[prost(message, repeated, tag = "1")]
    records: Vec<Record>,
    #[prost(bool, tag = "2")]
    pub(super) replace_all: bool,
    #[prost(uint64, tag = "3")]
    applied_index: u64,
    #[prost(uint64, tag = "4")]
    applied_term: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

impl From<&Batch> for Contents {
    fn from(batch: &Batch) -> Self {
        let record =
            |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| Record { key: key.clone(), value: value.clone() };
        Self {
            records: batch.changes.iter().map(record).collect(),
            replace_all: batch.replace_all,
            applied_index: batch.applied_index,
            applied_term: batch.applied_term,
        }
    }
}

impl From<Contents> for Batch {
    fn from(contents: Contents) -> Self {
        Self {
            changes: contents.records.into_iter().map(|record| (record.key, record.value)).collect(),
            replace_all: contents.replace_all,
            applied_index: contents.applied_index,
            applied_term: contents.applied_term,
        }
    }
}

impl From<Stored> for Contents {
    fn from(stored: Stored) -> Self {
        let record = |(key, value)| Record { key, value: Some(value) };
        Self {
            records: stored.records.into_iter().map(record).collect(),
            replace_all: false,
            applied_index: stored.applied_index,
            applied_term: stored.applied_term,
        }
    }
}

impl TryFrom<Contents> for Stored {
    type Error = io::Error;

    fn try_from(contents: Contents) -> Result<Self, io::Error> {
        let in_order = contents.records.is_sorted_by(|one, next| one.key < next.key);
        let record = |record: Record| Some((record.key, record.value?));
        let records: Option<Vec<_>> = contents.records.into_iter().map(record).collect();
        match records {
            Some(records) if in_order => Ok(Self {
                applied_index: contents.applied_index,
                applied_term: contents.applied_term,
                records,
            }),
            _ => Err(nonsense("records that no store holds")),
        }
    }
}

/// A frame with this in it.
pub(super) fn frame(message: &impl Message) -> io::Result<Vec<u8>> {
    let bytes = message.encoded_len();
    let length = u32::try_from(bytes).ok().filter(|length| u64::from(*length) <= BODY_BYTES_MAX);
    let length = length.ok_or_else(|| nonsense("more than a frame holds"))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes);
    frame.extend_from_slice(&[0; HEADER_BYTES]);
    message.encode(&mut frame).map_err(io::Error::other)?;
    let (header, body) = frame.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    Ok(frame)
}

/// How long the body is that follows, and its checksum.
///
/// # Errors
/// `InvalidData` for a length that no frame has.
pub(super) fn body_of(header: [u8; HEADER_BYTES]) -> io::Result<(u64, u32)> {
    let [a, b, c, d, e, f, g, h] = header;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > BODY_BYTES_MAX {
        return Err(nonsense("a frame longer than any"));
    }
    Ok((length, u32::from_le_bytes([e, f, g, h])))
}

/// Reads a body; `length` and `checksum` are what its header said.
///
/// # Errors
/// `UnexpectedEof` for one that ends early, `InvalidData` for one that is not what was sent.
pub(super) fn message_in<M: Message + Default>(body: &[u8], length: u64, checksum: u32) -> io::Result<M> {
    if u64::try_from(body.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if crc32c::crc32c(body) != checksum {
        return Err(nonsense("a frame with a wrong checksum"));
    }
    M::decode(body).map_err(|_| nonsense("a frame that is no message"))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<M: Message + Default>(frame: &[u8]) -> io::Result<M> {
        let header = *frame.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (length, checksum) = body_of(header)?;
        message_in(&frame[HEADER_BYTES..], length, checksum)
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..20)
    }

    fn batches() -> impl Strategy<Value = Batch> {
        let changes = prop::collection::btree_map(bytes(), prop::option::of(bytes()), 0..10);
        (changes, any::<bool>(), any::<u64>(), any::<u64>()).prop_map(
            |(changes, replace_all, applied_index, applied_term)| Batch {
                changes,
                replace_all,
                applied_index,
                applied_term,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(batch in batches(), begun_anew in prop::option::of(".*")) {
            let request = Request { write: Some(Contents::from(&batch)) };
            let heard: Request = read(&frame(&request).unwrap()).unwrap();
            prop_assert_eq!(heard.write.map(Batch::from), Some(batch.clone()));
            let records = batch.changes.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
            let stored = Stored { applied_index: 7, applied_term: 2, records };
            let answer = Answer { no_room: false, stored: Some(stored.clone().into()), begun_anew };
            let heard: Answer = read(&frame(&answer).unwrap()).unwrap();
            prop_assert_eq!(&heard, &answer);
            prop_assert_eq!(Stored::try_from(heard.stored.unwrap()).unwrap(), stored);
        }

        #[test]
        fn what_was_cut_or_bent_is_refused(batch in batches(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let whole = frame(&Request { write: Some(Contents::from(&batch)) }).unwrap();
            let at = at.index(whole.len());
            prop_assert!(read::<Request>(&whole[..at]).is_err());
            let mut bent = whole;
            bent[at] ^= 1 << bit;
            prop_assert!(read::<Request>(&bent).is_err());
        }

        #[test]
        fn any_bytes_are_an_error_or_a_message(noise in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(read::<Answer>(&noise));
            if let Ok(answer) = Answer::decode(&noise[..]) {
                drop(answer.stored.map(Stored::try_from));
            }
        }
    }

    #[test]
    fn records_out_of_order_or_without_a_value_are_no_store() {
        let record = |key: &str, value: Option<&str>| Record {
            key: key.into(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        let contents = |records| Contents { records, ..Contents::default() };
        assert!(Stored::try_from(contents(vec![record("a", Some("1")), record("b", Some(""))])).is_ok());
        for records in [
            vec![record("b", Some("1")), record("a", Some("1"))],
            vec![record("a", Some("1")), record("a", Some("1"))],
            vec![record("a", None)],
        ] {
            assert!(Stored::try_from(contents(records.clone())).is_err(), "{records:?}");
        }
    }
}
