//! Records on their way in and out.

use bytes::Bytes;
use plimsoll_proto::ids::{LeaderEpoch, Offset};

/// A record to be produced.
///
/// ```
/// use plimsoll_client::Record;
///
/// let record = Record::new("on time").key("N14228").header("origin", "EWR").timestamp_ms(1_357_034_400_000);
/// assert_eq!(record.key.as_deref(), Some(&b"N14228"[..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    /// Decides the partition unless one is named; absent for keyless records.
    pub key: Option<Bytes>,
    /// The payload; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970; now when absent.
    pub timestamp_ms: Option<i64>,
    /// The partition to go to, whatever the key says.
    pub partition: Option<u32>,
}

impl Record {
    /// A keyless record.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record that marks its key as deleted.
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Appends a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((key.into(), Some(value.into())));
        self
    }

    /// Sets the time of the record, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Names the partition, whatever the key says.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A committed record, as read from a partition. Cloning copies no payload.
///
/// ```
/// use plimsoll_client::ConsumedRecord;
///
/// fn origin(record: &ConsumedRecord) -> Option<&[u8]> {
///     let header = record.headers.iter().find(|(key, _)| key == "origin");
///     header.and_then(|(_, value)| value.as_deref())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Partition it was read from.
    pub partition: u32,
    /// Its position there.
    pub offset: Offset,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value, if any.
    pub value: Option<Bytes>,
    /// Headers in order; keys are UTF-8 by convention.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since 1970, as the producer set them.
    pub timestamp_ms: i64,
    /// Epoch of the leader that appended the record.
    pub leader_epoch: LeaderEpoch,
}
