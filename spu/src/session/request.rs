//! Checking what came from outside, before anything is done with it.

use std::time::Duration;

use plimsoll_proto::batch::{self, BatchError, Limits};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};

use crate::runtime::{FetchFrom, ListOffsetsJob, ProduceJob};

/// Longest time that a produce may wait for the in-sync set.
pub(super) const TIMEOUT_MS_MAX: u32 = 60_000;
/// What a produce without `timeout_ms` gets.
pub(super) const TIMEOUT_MS_DEFAULT: u32 = 30_000;
/// Largest batch of a topic that does not say.
pub(super) const BATCH_BYTES_MAX_DEFAULT: u32 = 1 << 20;

/// Checks a produce. `batch_bytes_max` is the limit of its topic.
pub(super) fn produce(request: v1::ProduceRequest, batch_bytes_max: u32) -> Result<ProduceJob, ErrorDetail> {
    let partition = partition(&request.topic_id, request.partition)?;
    let acks = match v1::Acks::try_from(request.acks) {
        // What a client left out is the safest.
        Ok(v1::Acks::Unspecified | v1::Acks::All) => v1::Acks::All,
        Ok(given @ (v1::Acks::Leader | v1::Acks::None)) => given,
        Err(_) => return Err(invalid(format!("acks {} is not known", request.acks))),
    };
    let timeout_ms = match request.timeout_ms {
        0 => TIMEOUT_MS_DEFAULT,
        given if given <= TIMEOUT_MS_MAX => given,
        given => {
            let mut detail = invalid(format!("timeout_ms {given} is over {TIMEOUT_MS_MAX}"));
            detail.limit = u64::from(TIMEOUT_MS_MAX);
            return Err(detail);
        }
    };
    if request.batch.is_empty() {
        return Err(invalid("the batch is empty"));
    }
    let limits =
        Limits { batch_bytes_max: usize::try_from(batch_bytes_max).unwrap_or(usize::MAX), ..Limits::CLIENT };
    batch::verify(&request.batch, &limits).map_err(refused_batch)?;
    Ok(ProduceJob {
        partition,
        leader_epoch: LeaderEpoch(request.leader_epoch),
        acks,
        timeout: Duration::from_millis(u64::from(timeout_ms)),
        batch: request.batch,
    })
}

/// Largest batch that the topic takes; the default while the topic is not known here.
pub(super) fn batch_bytes_max(image: &MetadataImage, topic_id: &[u8]) -> u32 {
    let topic = TopicId::from_slice(topic_id).ok().and_then(|id| image.topics.get(&id));
    match topic.and_then(|topic| topic.config.as_ref()).map(|config| config.batch_bytes_max) {
        None | Some(0) => BATCH_BYTES_MAX_DEFAULT,
        Some(configured) => configured,
    }
}

/// A checked opening of a fetch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) partition: PartitionId,
    pub(super) from: FetchFrom,
    pub(super) credit_bytes: u64,
    pub(super) any_replica: bool,
    pub(super) leader_epoch: Option<LeaderEpoch>,
}

/// Checks the first message of a fetch stream.
pub(super) fn opening(request: v1::FetchRequest) -> Result<Opening, ErrorDetail> {
    let Some(v1::fetch_request::Request::Open(open)) = request.request else {
        return Err(invalid("the first message of a fetch stream must open it"));
    };
    let partition = partition(&open.topic_id, open.partition)?;
    let from = match v1::StartAt::try_from(open.start_at) {
        Ok(v1::StartAt::Offset) => FetchFrom::Offset(
            Offset::new(open.offset).map_err(|error| invalid(format!("offset {}: {error}", open.offset)))?,
        ),
        Ok(v1::StartAt::Earliest) => FetchFrom::Earliest,
        Ok(v1::StartAt::Latest) => FetchFrom::Latest,
        Ok(v1::StartAt::Unspecified) | Err(_) => {
            return Err(invalid("start_at must be an offset, earliest or latest"));
        }
    };
    let leader_epoch = (open.leader_epoch != 0).then_some(LeaderEpoch(open.leader_epoch));
    Ok(Opening {
        partition,
        from,
        credit_bytes: open.credit_bytes,
        any_replica: open.any_replica,
        leader_epoch,
    })
}

/// Checks a question for offsets.
pub(super) fn list_offsets(request: &v1::ListOffsetsRequest) -> Result<ListOffsetsJob, ErrorDetail> {
    Ok(ListOffsetsJob {
        partition: partition(&request.topic_id, request.partition)?,
        any_replica: request.any_replica,
        timestamp_ms: request.timestamp_ms,
    })
}

/// A refusal for a request that breaks the contract.
pub(super) fn invalid(message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::not_written(Reason::InvalidArgument, message)
}

fn partition(topic_id: &[u8], index: u32) -> Result<PartitionId, ErrorDetail> {
    let topic_id = TopicId::from_slice(topic_id).map_err(|error| invalid(error.to_string()))?;
    Ok(PartitionId { topic_id, index })
}

fn refused_batch(error: BatchError) -> ErrorDetail {
    let reason = match error {
        BatchError::TooLarge { .. } => Reason::RecordTooLarge,
        BatchError::Truncated { .. }
        | BatchError::TrailingBytes { .. }
        | BatchError::Length { .. }
        | BatchError::Magic { .. }
        | BatchError::Checksum { .. }
        | BatchError::Record { .. }
        | BatchError::Decompress { .. } => Reason::CorruptBatch,
        // The bytes are what the producer meant, and it may not mean that.
        BatchError::Header { .. } | BatchError::Encode { .. } => Reason::InvalidArgument,
    };
    let mut detail = ErrorDetail::not_written(reason, error.to_string());
    if let BatchError::TooLarge { limit, .. } = error {
        detail.limit = limit;
    }
    detail
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord};

    use super::*;

    fn good_batch(value: &[u8]) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord { value: Some(value), ..NewRecord::default() }).expect("a small record");
        builder.build_shared().expect("a small batch")
    }

    fn request(batch: Bytes) -> v1::ProduceRequest {
        v1::ProduceRequest {
            request_id: 1,
            topic_id: Bytes::from_static(&[1; 16]),
            partition: 0,
            leader_epoch: 3,
            acks: v1::Acks::All.into(),
            timeout_ms: 1000,
            batch,
        }
    }

    fn with(change: impl FnOnce(&mut v1::ProduceRequest)) -> v1::ProduceRequest {
        let mut request = request(good_batch(b"x"));
        change(&mut request);
        request
    }

    fn bytes_with(at: usize, byte: u8) -> Bytes {
        let mut bytes = good_batch(b"x").to_vec();
        bytes[at] = byte;
        bytes.into()
    }

    #[test]
    fn a_good_produce_passes_and_what_is_left_out_has_a_default() {
        let job = produce(with(|r| r.acks = 0), 1 << 20).expect("good");
        assert_eq!((job.acks, job.leader_epoch), (v1::Acks::All, LeaderEpoch(3)));
        assert_eq!(job.timeout, Duration::from_secs(1));
        let job = produce(with(|r| r.timeout_ms = 0), 1 << 20).expect("good");
        assert_eq!(job.timeout, Duration::from_millis(u64::from(TIMEOUT_MS_DEFAULT)));
    }

    #[test]
    fn every_bad_field_is_refused_with_its_reason() {
        let cases = [
            (with(|r| r.topic_id = Bytes::from_static(b"short")), Reason::InvalidArgument, "short topic id"),
            (with(|r| r.topic_id = Bytes::new()), Reason::InvalidArgument, "no topic id"),
            (with(|r| r.acks = 77), Reason::InvalidArgument, "unknown acks"),
            (with(|r| r.timeout_ms = TIMEOUT_MS_MAX + 1), Reason::InvalidArgument, "timeout"),
            (with(|r| r.batch = Bytes::new()), Reason::InvalidArgument, "empty batch"),
            (with(|r| r.batch = r.batch.slice(..60)), Reason::CorruptBatch, "cut header"),
            (with(|r| r.batch = r.batch.slice(..r.batch.len() - 1)), Reason::CorruptBatch, "cut records"),
            (with(|r| r.batch = bytes_with(16, 1)), Reason::CorruptBatch, "wrong magic"),
            (with(|r| r.batch = bytes_with(17, 0xee)), Reason::CorruptBatch, "wrong CRC"),
            (with(|r| r.batch = bytes_with(65, 0xee)), Reason::CorruptBatch, "changed record"),
            (with(|r| r.batch = good_batch(&[7; 5000])), Reason::RecordTooLarge, "over the limit"),
        ];
        for (request, reason, case) in cases {
            let detail = produce(request, 4096).expect_err(case);
            assert_eq!(detail.reason(), reason, "{case}: {}", detail.message);
            assert_eq!(detail.outcome(), v1::Outcome::NotWritten, "{case}");
        }
    }

    #[test]
    fn any_change_of_one_byte_is_refused_or_harmless_and_never_panics() {
        let good = good_batch(b"some value");
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                drop(produce(with(|r| r.batch = bytes.into()), 1 << 20));
            }
        }
    }

    #[test]
    fn an_opening_must_be_whole() {
        let open = |change: fn(&mut v1::FetchOpen)| {
            let mut open = v1::FetchOpen {
                topic_id: Bytes::from_static(&[1; 16]),
                start_at: v1::StartAt::Offset.into(),
                offset: 7,
                credit_bytes: 10,
                ..v1::FetchOpen::default()
            };
            change(&mut open);
            opening(v1::FetchRequest { request: Some(v1::fetch_request::Request::Open(open)) })
        };
        let good = open(|_| ()).expect("good");
        assert_eq!(good.from, FetchFrom::Offset(Offset::new(7).expect("small")));
        assert_eq!(good.leader_epoch, None);
        assert_eq!(open(|o| o.leader_epoch = 2).expect("good").leader_epoch, Some(LeaderEpoch(2)));
        for bad in [
            open(|o| o.start_at = 0),
            open(|o| o.start_at = 99),
            open(|o| o.offset = u64::MAX),
            open(|o| o.topic_id = Bytes::new()),
            opening(v1::FetchRequest { request: None }),
            opening(v1::FetchRequest { request: Some(v1::fetch_request::Request::CreditBytes(1)) }),
        ] {
            assert_eq!(bad.expect_err("bad").reason(), Reason::InvalidArgument);
        }
    }

    #[test]
    fn the_limit_of_a_batch_is_that_of_its_topic() {
        let mut image = MetadataImage::empty();
        let topic = |batch_bytes_max| v1::TopicInfo {
            config: Some(v1::TopicConfig { batch_bytes_max, ..Default::default() }),
            ..Default::default()
        };
        image.topics.insert(TopicId([1; 16]), topic(5000));
        image.topics.insert(TopicId([2; 16]), topic(0));
        for (id, limit) in [
            (&[1u8; 16][..], 5000),
            (&[2; 16], BATCH_BYTES_MAX_DEFAULT),
            (&[3; 16], BATCH_BYTES_MAX_DEFAULT),
            (&[3], BATCH_BYTES_MAX_DEFAULT),
        ] {
            assert_eq!(batch_bytes_max(&image, id), limit);
        }
    }
}
