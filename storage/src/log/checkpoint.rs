//! What a log writes down now and then, so that opening it reads only what came later.
//!
//! ```text
//!   topic id 16, index 4, flags 1 (1 = being deleted, 2 = producers follow, 4 = and the log knows more)
//!   log start 8, high watermark 8, durable end 8, written end 8
//!   active base 8, first append 8, last append 8
//!   count 4, { leader epoch 4, start 8 }*
//!   forgotten to 8 (-1 = none), count 4, { producer id 8, epoch 2, has older 1, count 1,
//!                                          { sequence 4, records 4, offset 8 }* }*
//! ```
//!
//! All integers are big-endian; the slot around it has the version and the CRC.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use plimsoll_proto::batch::Sequence;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId};

use super::epochs::Epochs;
use super::producers::{BATCHES_KEPT, KeptBatch, Producer, Producers};
use super::slots::PAYLOAD_BYTES_MAX;

pub(crate) const MAGIC: [u8; 4] = *b"PLCP";
const DELETED: u8 = 1;
const HAS_PRODUCERS: u8 = 2;
const READ_LOG: u8 = 4;
/// Epochs in a checkpoint that must need no space.
const EPOCHS_SHORT: usize = 128;

/// Age of the active segment, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveTimes {
    pub(crate) base_offset: Offset,
    /// 0 when nothing was appended.
    pub(crate) first_append_ms: u64,
    pub(crate) last_append_ms: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) partition: PartitionId,
    /// The partition is being deleted: finish that.
    pub(crate) deleted: bool,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    /// End of what a sync covers.
    pub(crate) durable_end: Offset,
    /// End of the log when the checkpoint was made: trusted as long as the page cache lives.
    pub(crate) written_end: Offset,
    /// The active segment, and the cluster times of its first and last append.
    pub(crate) active: ActiveTimes,
    pub(crate) epochs: Epochs,
    /// State of the producers at `written_end`.
    pub(crate) producers: Producers,
    /// The log has to be read for producers that are not among them: there was no room, or a cut left of these only
    /// what the log still has.
    pub(crate) read_log: bool,
}

impl Checkpoint {
    /// Everything; without producers when they are too many for the largest slot.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let full = self.encode_parts(self.epochs.starts(), &self.producers, self.read_log);
        if full.len() <= PAYLOAD_BYTES_MAX { full } else { self.encode_short() }
    }

    /// What fits into a slot that needs no space: no producers, the latest epochs.
    pub(crate) fn encode_short(&self) -> Vec<u8> {
        let starts = self.epochs.starts();
        // Of a whole log everything is found again. In front of a log start that moved nobody can look.
        let producers = self.producers.to_be_read(self.log_start > Offset::ZERO);
        self.encode_parts(&starts[starts.len().saturating_sub(EPOCHS_SHORT)..], &producers, true)
    }

    fn encode_parts(
        &self,
        epochs: &[(LeaderEpoch, Offset)],
        producers: &Producers,
        read_log: bool,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.put_slice(&self.partition.topic_id.0);
        out.put_u32(self.partition.index);
        let deleted = if self.deleted { DELETED } else { 0 };
        out.put_u8(deleted | HAS_PRODUCERS | if read_log { READ_LOG } else { 0 });
        for offset in [self.log_start, self.high_watermark, self.durable_end, self.written_end] {
            out.put_u64(offset.get());
        }
        out.put_u64(self.active.base_offset.get());
        out.put_u64(self.active.first_append_ms);
        out.put_u64(self.active.last_append_ms);
        out.put_u32(count(epochs.len()));
        for (epoch, start) in epochs {
            out.put_u32(epoch.0);
            out.put_u64(start.get());
        }
        encode_producers(&mut out, producers);
        out
    }

    /// `None` when the bytes are not such a checkpoint.
    pub(crate) fn decode(mut bytes: &[u8], producers_max: usize) -> Option<Self> {
        let from = &mut bytes;
        let mut topic_id = [0; 16];
        from.try_copy_to_slice(&mut topic_id).ok()?;
        let partition = PartitionId { topic_id: TopicId(topic_id), index: from.try_get_u32().ok()? };
        let flags = from.try_get_u8().ok()?;
        let log_start = offset(from)?;
        let high_watermark = offset(from)?;
        let durable_end = offset(from)?;
        let written_end = offset(from)?;
        let active = ActiveTimes {
            base_offset: offset(from)?,
            first_append_ms: from.try_get_u64().ok()?,
            last_append_ms: from.try_get_u64().ok()?,
        };
        let mut starts = Vec::new();
        for _ in 0..from.try_get_u32().ok()? {
            starts.push((LeaderEpoch(from.try_get_u32().ok()?), offset(from)?));
        }
        let has_producers = flags & HAS_PRODUCERS != 0;
        let producers = match has_producers {
            false => Producers::new(producers_max),
            true => decode_producers(from, producers_max)?,
        };
        let sane = log_start <= high_watermark && high_watermark <= written_end && durable_end <= written_end;
        (sane && from.is_empty()).then_some(Self {
            partition,
            deleted: flags & DELETED != 0,
            log_start,
            high_watermark,
            durable_end,
            written_end,
            active,
            epochs: Epochs::from_starts(starts)?,
            producers,
            read_log: !has_producers || flags & READ_LOG != 0,
        })
    }
}

fn encode_producers(out: &mut Vec<u8>, producers: &Producers) {
    out.put_i64(producers.forgotten_to().map_or(-1, |id| id.0));
    out.put_u32(count(producers.iter().count()));
    for (id, producer) in producers.iter() {
        out.put_i64(id.0);
        out.put_i16(producer.epoch.0);
        out.put_u8(u8::from(producer.has_older));
        out.put_u8(u8::try_from(producer.batches.len()).expect("five batches at most"));
        for batch in &producer.batches {
            out.put_i32(batch.base_sequence.to_i32());
            out.put_u32(batch.records);
            out.put_u64(batch.base_offset.get());
        }
    }
}

fn decode_producers(from: &mut &[u8], producers_max: usize) -> Option<Producers> {
    let mut producers = Producers::new(producers_max);
    let forgotten_to = from.try_get_i64().ok()?;
    producers.set_forgotten_to((forgotten_to >= 0).then_some(ProducerId(forgotten_to)));
    for _ in 0..from.try_get_u32().ok()? {
        let id = ProducerId(from.try_get_i64().ok()?);
        let epoch = ProducerEpoch(from.try_get_i16().ok()?);
        let has_older = from.try_get_u8().ok()? != 0;
        let kept = usize::from(from.try_get_u8().ok()?);
        if kept > BATCHES_KEPT {
            return None;
        }
        let mut batches = VecDeque::with_capacity(kept);
        for _ in 0..kept {
            batches.push_back(KeptBatch {
                base_sequence: Sequence::from_i32(from.try_get_i32().ok()?)?,
                records: from.try_get_u32().ok()?,
                base_offset: offset(from)?,
            });
        }
        producers.insert(id, Producer { epoch, has_older, batches });
    }
    Some(producers)
}

fn offset(from: &mut &[u8]) -> Option<Offset> {
    Offset::new(from.try_get_u64().ok()?).ok()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("bounded far below")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_there_and_back_and_every_cut() {
        let mut epochs = Epochs::default();
        epochs.note(LeaderEpoch(4), Offset::new(3).unwrap());
        let mut producers = Producers::new(10);
        let batches = VecDeque::from([KeptBatch {
            base_sequence: Sequence::ZERO,
            records: 3,
            base_offset: Offset::new(5).unwrap(),
        }]);
        producers.insert(ProducerId(7), Producer { epoch: ProducerEpoch(1), has_older: true, batches });
        let checkpoint = Checkpoint {
            partition: PartitionId { topic_id: TopicId([9; 16]), index: 2 },
            deleted: false,
            log_start: Offset::ZERO,
            high_watermark: Offset::new(5).unwrap(),
            durable_end: Offset::ZERO,
            written_end: Offset::new(8).unwrap(),
            active: ActiveTimes { base_offset: Offset::ZERO, first_append_ms: 1, last_append_ms: 2 },
            epochs,
            producers,
            read_log: false,
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes, 10), Some(checkpoint));
        for end in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..end], 10), None, "{end}");
        }
        let checkpoint = Checkpoint::decode(&bytes, 10).unwrap();
        let forgotten_to = |checkpoint: &Checkpoint| {
            let short = Checkpoint::decode(&checkpoint.encode_short(), 10).unwrap();
            assert!(short.read_log && short.producers.iter().count() == 0);
            short.producers.forgotten_to()
        };
        assert_eq!(forgotten_to(&checkpoint), None);
        let trimmed = Checkpoint { log_start: Offset::new(1).unwrap(), ..checkpoint };
        assert_eq!(forgotten_to(&trimmed), Some(ProducerId(7)));
    }
}
