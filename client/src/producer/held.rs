//! A batch while the window knows it: its bytes, and who waits for it.

use std::sync::Arc;

use bytes::Bytes;
use plimsoll_proto::batch::{
    self, BatchBuilder, BatchError, BatchHeader, Limits, NewRecord, ProducerSequence,
};

use super::accumulator::SealedBatch;
use super::delivery::Completion;
use crate::error::ProduceErrorKind;

/// A batch that the window knows.
pub(crate) struct Held {
    pub(crate) payload: Payload,
    pub(crate) completion: Arc<Completion>,
    pub(crate) records: u32,
    pub(crate) sends: u32,
    // Gives its buffer back when dropped.
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

pub(crate) enum Payload {
    Open(Box<BatchBuilder>),
    Encoded {
        stamp: Option<ProducerSequence>,
        bytes: Bytes,
    },
    /// It could not be encoded.
    Broken,
}

impl Held {
    /// The batch with this stamp.
    pub(crate) fn encode(&mut self, wanted: Option<ProducerSequence>) -> Result<Bytes, BatchError> {
        let encoded = match std::mem::replace(&mut self.payload, Payload::Broken) {
            Payload::Encoded { stamp, bytes } if stamp == wanted => bytes,
            Payload::Encoded { bytes, .. } => rebuild(&bytes, wanted)?,
            Payload::Open(mut builder) => {
                builder.set_producer(wanted);
                builder.build_shared()?
            }
            Payload::Broken => {
                return Err(BatchError::Encode { why: "the batch could not be encoded before" });
            }
        };
        self.payload = Payload::Encoded { stamp: wanted, bytes: encoded.clone() };
        Ok(encoded)
    }

    pub(crate) fn give_up(self, kind: ProduceErrorKind) {
        let bytes = match self.payload {
            Payload::Encoded { bytes, .. } => Some(bytes),
            Payload::Open(builder) => builder.build_shared().ok(),
            Payload::Broken => None,
        };
        // A batch that was under way when the producer was dropped may have been written.
        let kind = match kind {
            ProduceErrorKind::Closed if self.sends > 0 => ProduceErrorKind::ConnectionLost {
                spu: 0,
                why: "the producer was dropped before the answer".to_owned(),
            },
            other => other,
        };
        self.completion.failed(kind, bytes);
    }
}

pub(crate) fn hold(sealed: SealedBatch) -> Held {
    Held {
        records: sealed.builder.len(),
        payload: Payload::Open(Box::new(sealed.builder)),
        completion: sealed.completion,
        sends: 0,
        _permit: sealed.permit,
    }
}

/// The same records under another stamp, which the CRC covers.
fn rebuild(bytes: &Bytes, stamp: Option<ProducerSequence>) -> Result<Bytes, BatchError> {
    let mut builder = BatchBuilder::new(BatchHeader::parse(bytes)?.compression);
    for record in batch::records(bytes, &Limits::REPLICA)? {
        let record = record?;
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        let keys: Vec<String> = record.headers.iter().map(|header| text(&header.key)).collect();
        let headers: Vec<_> =
            keys.iter().zip(&record.headers).map(|(key, h)| (key.as_str(), h.value.as_deref())).collect();
        builder.push(&NewRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms,
        })?;
    }
    builder.set_producer(stamp);
    builder.build_shared()
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::batch::{Compression, Sequence, verify};
    use plimsoll_proto::ids::{ProducerEpoch, ProducerId};

    use super::*;

    #[test]
    fn another_stamp_changes_no_record() {
        for compression in [Compression::None, Compression::Lz4] {
            let mut builder = BatchBuilder::new(compression);
            for value in ["one", "two"] {
                let headers = [("h", Some(&b"v"[..])), ("n", None)];
                let record = NewRecord {
                    key: Some(b"k"),
                    value: Some(value.as_bytes()),
                    headers: &headers,
                    timestamp_ms: 9,
                };
                builder.push(&record).expect("a small record fits");
            }
            let before = builder.build_shared().expect("a batch with records can be built");
            let stamp = ProducerSequence {
                id: ProducerId(5),
                epoch: ProducerEpoch(0),
                base: Sequence::ZERO.advance(7),
            };
            let after = rebuild(&before, Some(stamp)).expect("a batch of ours can be read");
            let header = verify(&after, &Limits::CLIENT).expect("a rebuilt batch is acceptable");
            assert_eq!(header.producer, Some(stamp));
            let read = |bytes: &Bytes| -> Vec<_> {
                batch::records(bytes, &Limits::CLIENT)
                    .expect("readable")
                    .map(|r| r.expect("readable"))
                    .collect()
            };
            assert_eq!(read(&before), read(&after));
        }
    }
}
