//! A volume on a memory disk, and what it has promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{
    BatchBuilder, Compression, Limits, NewRecord, ProducerSequence, Sequence, iter_batches, records,
};
use plimsoll_proto::ids::{
    ClusterId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, SpuId, TopicId, VolumeId,
};

use crate::fs::SharedDisk;
use crate::log::{AppendError, Appended, LogSettings, ReadError};
use crate::volume::{OpenReport, Volume, VolumeSettings};

pub(super) const WALL_MS: u64 = 1_700_000_000_000;

pub(super) fn partition(index: u32) -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index }
}

pub(super) fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

pub(super) fn settings() -> VolumeSettings {
    VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]))
}

pub(super) fn open(disk: SharedDisk, now: Duration) -> (Volume, OpenReport) {
    Volume::open(disk, settings(), now, WALL_MS).unwrap()
}

/// One batch of one record per value.
pub(super) fn batch(values: &[&[u8]], producer: Option<(i64, i16, i32)>) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    for (i, value) in values.iter().enumerate() {
        let timestamp_ms = i64::try_from(i).unwrap() + 1000;
        builder.push(&NewRecord { value: Some(value), timestamp_ms, ..NewRecord::default() }).unwrap();
    }
    builder.set_producer(producer.map(|(id, epoch, base)| ProducerSequence {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base: Sequence::from_i32(base).unwrap(),
    }));
    builder.build().unwrap()
}

/// All records from the log start to `limit`, or the log end.
pub(super) fn read_all(
    volume: &mut Volume,
    partition: &PartitionId,
    limit: Option<Offset>,
) -> Vec<(u64, Bytes)> {
    let view = volume.log(partition).unwrap();
    let limit = limit.unwrap_or(view.log_end);
    let mut from = view.log_start;
    let mut all = Vec::new();
    while from < limit {
        let bytes = volume.read(partition, from, limit, 64 * 1024).unwrap();
        assert!(!bytes.is_empty(), "a read below the limit gives something at {from}");
        for item in iter_batches(&bytes) {
            let (header, bytes) = item.unwrap();
            for record in records(&bytes, &Limits::REPLICA).unwrap() {
                let record = record.unwrap();
                if record.offset >= from {
                    all.push((record.offset.get(), record.value.unwrap()));
                }
            }
            from = header.end_offset();
        }
    }
    all
}

/// What a volume was asked and answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// Per partition: value by offset of everything acknowledged.
    pub(super) acked: BTreeMap<PartitionId, BTreeMap<u64, Vec<u8>>>,
    /// Values that were refused and must never be seen.
    pub(super) refused: BTreeSet<Vec<u8>>,
    next: u64,
}

impl Promises {
    /// A value that was never used before, of `bytes`.
    pub(super) fn value(&mut self, bytes: usize) -> Vec<u8> {
        self.next += 1;
        let mut value = format!("value-{:08}-", self.next).into_bytes();
        value.resize(bytes.max(value.len()), b'x');
        value
    }

    /// Appends one record and notes the answer.
    pub(super) fn produce(
        &mut self,
        volume: &mut Volume,
        partition: &PartitionId,
        bytes: usize,
        now: Duration,
    ) -> Result<Appended, AppendError> {
        let value = self.value(bytes);
        let result = volume.append_as_leader(partition, batch(&[&value], None), LeaderEpoch(1), now, WALL_MS);
        match &result {
            Ok(appended) => {
                self.acked.entry(*partition).or_default().insert(appended.base_offset.get(), value);
            }
            Err(AppendError::VolumeFailed { written: true, .. }) => {}
            Err(_) => {
                self.refused.insert(value);
            }
        }
        result
    }

    pub(super) fn cut(&mut self, partition: &PartitionId, to: u64) {
        if let Some(acked) = self.acked.get_mut(partition) {
            for (_, value) in acked.split_off(&to) {
                self.refused.insert(value);
            }
        }
    }

    /// What lay from `to` on promises nothing any more.
    pub(super) fn forget(&mut self, partition: &PartitionId, to: u64) {
        if let Some(acked) = self.acked.get_mut(partition) {
            acked.split_off(&to);
        }
    }

    /// Everything acknowledged at or behind the log start is there, nothing refused is, and the offsets hold
    /// together.
    pub(super) fn check(&self, volume: &mut Volume, what: &str) {
        for partition in volume.partitions() {
            let view = volume.log(&partition).unwrap();
            assert!(view.log_start <= view.high_watermark && view.high_watermark <= view.log_end, "{what}");
            assert!(view.durable_end <= view.log_end, "{what}");
            let found: BTreeMap<u64, Bytes> = read_all(volume, &partition, None).into_iter().collect();
            let start = view.log_start.get();
            for (at, value) in &found {
                assert!(!self.refused.contains(&value[..]), "{what}: refused value at {at} of {partition}");
            }
            if let Some(acked) = self.acked.get(&partition) {
                for (at, value) in acked.range(start..) {
                    assert_eq!(
                        found.get(at).map(|v| &v[..]),
                        Some(&value[..]),
                        "{what}: offset {at} of {partition}"
                    );
                }
            }
            let expected: Vec<u64> = (start..view.log_end.get()).collect();
            let offsets: Vec<u64> = found.keys().copied().collect();
            assert_eq!(offsets, expected, "{what}: offsets are without gap");
        }
    }
}

/// Small segments, so that a few kilobytes roll.
pub(super) fn small_segments() -> LogSettings {
    LogSettings { segment_bytes_max: 64 * 1024, retention_age_max: None, ..LogSettings::default() }
}

pub(super) fn shared(disk: &crate::fs::memory::MemoryDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

pub(super) fn trimmed(result: Result<Bytes, ReadError>) -> Option<Offset> {
    match result {
        Err(ReadError::OffsetTrimmed { log_start, .. }) => Some(log_start),
        _ => None,
    }
}

/// Whether `scripts/prove` asked for all repetitions.
pub(super) fn in_full() -> bool {
    std::env::var_os("PLIMSOLL_PROVE_FULL").is_some()
}

/// The seed to replay, when one was given.
pub(super) fn seed() -> Option<u64> {
    std::env::var("PLIMSOLL_SEED").ok()?.parse().ok()
}
