//! The real input of the demo: every departure from New York City in 2013.
//!
//! What it is, where it is from and under which licence stands in `chaos/data/ORIGIN.md`.

use std::io::Cursor;

use anyhow::{Context as _, bail};
use bytes::Bytes;

/// Departures in the data set.
pub const FLIGHTS: usize = 336_776;

static PACKED: &[u8] = include_bytes!("../data/flights.csv.xz");

/// One departure as it is produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Tail number of the aircraft. Empty, but present, where the source has none: so those flights share one
    /// partition, and order by key can be checked for every record.
    pub key: Bytes,
    /// One JSON object; `n` counts the departures in order of time.
    pub value: Bytes,
}

/// All departures, in order of time. Their index is their number.
///
/// # Errors
/// When the embedded file is damaged.
pub fn load() -> anyhow::Result<Vec<Flight>> {
    let mut plain = Vec::with_capacity(16 << 20);
    lzma_rs::xz_decompress(&mut Cursor::new(PACKED), &mut plain).context("flights.csv.xz is damaged")?;
    let text = std::str::from_utf8(&plain).context("flights.csv is not text")?;
    let mut rows = text.lines();
    if rows.next() != Some("hour,carrier,flight,tailnum,origin,dest,dep_delay,arr_delay,distance") {
        bail!("flights.csv has other columns than expected");
    }
    let flights = rows.enumerate().map(|(n, row)| flight(n, row)).collect::<anyhow::Result<Vec<_>>>()?;
    if flights.len() != FLIGHTS {
        bail!("flights.csv has {} rows instead of {FLIGHTS}", flights.len());
    }
    Ok(flights)
}

fn flight(n: usize, row: &str) -> anyhow::Result<Flight> {
    let columns: Vec<&str> = row.split(',').collect();
    let [hour, carrier, number, tail, origin, dest, dep_delay, arr_delay, distance] = columns.as_slice()
    else {
        bail!("row {n} of flights.csv has {} columns", columns.len());
    };
    // The columns hold codes, numbers and one plain time: nothing that JSON would have to escape.
    let value = format!(
        "{{\"n\":{n},\"hour\":\"{hour}\",\"carrier\":\"{carrier}\",\"flight\":{number},\"tail\":{},\"origin\":\"{origin}\",\
         \"dest\":\"{dest}\",\"dep_delay\":{},\"arr_delay\":{},\"distance\":{distance}}}",
        if tail.is_empty() { "null".to_owned() } else { format!("\"{tail}\"") },
        if dep_delay.is_empty() { "null" } else { dep_delay },
        if arr_delay.is_empty() { "null" } else { arr_delay },
    );
    Ok(Flight { key: Bytes::copy_from_slice(tail.as_bytes()), value: Bytes::from(value) })
}

/// Number of the flight in an event, as [`load`] wrote it; `None` when the bytes are no such event.
pub fn number(value: &[u8]) -> Option<usize> {
    let digits = value.strip_prefix(b"{\"n\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flight_is_a_json_event_with_its_number() {
        let flights = load().expect("the embedded data are whole");
        assert_eq!(flights.len(), FLIGHTS);
        for (n, flight) in flights.iter().enumerate() {
            assert_eq!(number(&flight.value), Some(n));
            if n % 997 == 0 || flight.key.is_empty() {
                let event: serde_json::Value = serde_json::from_slice(&flight.value).expect("JSON");
                assert_eq!(event["tail"].as_str().unwrap_or_default().as_bytes(), &flight.key[..]);
            }
        }
    }

    #[test]
    fn what_is_no_event_has_no_number() {
        for bytes in [&b""[..], b"{", b"{\"n\":", b"{\"n\":12", b"{\"n\":x}", b"{\"n\":99999999999999999999}"]
        {
            assert_eq!(number(bytes), None);
        }
    }
}
