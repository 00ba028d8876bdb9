//! What an area writes down beside its ring.
//!
//! ```text
//!   topic id 16, index 4, flags 1 (1 = being deleted)
//!   log start 8, position of its frame 8, chain before it 4
//!   high watermark 8, durable end 8
//!   count 4, { leader epoch 4, start 8 }*
//! ```
//!
//! Big-endian; the slot around it has version, sequence and CRC. It always fits into a slot that needs no space.

use bytes::{Buf, BufMut};
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, TopicId};

use crate::log::Epochs;

pub(super) const MAGIC: [u8; 4] = *b"PLOA";
/// The oldest epochs go first; divergence further back is cut more than needed.
const EPOCHS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) partition: PartitionId,
    pub(super) deleted: bool,
    pub(super) log_start: Offset,
    pub(super) position: u64,
    pub(super) chain: u32,
    pub(super) high_watermark: Offset,
    pub(super) durable_end: Offset,
    pub(super) epochs: Epochs,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_slice(&self.partition.topic_id.0);
        out.put_u32(self.partition.index);
        out.put_u8(u8::from(self.deleted));
        out.put_u64(self.log_start.get());
        out.put_u64(self.position);
        out.put_u32(self.chain);
        out.put_u64(self.high_watermark.get());
        out.put_u64(self.durable_end.get());
        let starts = self.epochs.starts();
        let starts = &starts[starts.len().saturating_sub(EPOCHS_MAX)..];
        out.put_u32(u32::try_from(starts.len()).expect("bounded above"));
        for (epoch, start) in starts {
            out.put_u32(epoch.0);
            out.put_u64(start.get());
        }
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let mut topic_id = [0; 16];
        from.try_copy_to_slice(&mut topic_id).ok()?;
        let partition = PartitionId { topic_id: TopicId(topic_id), index: from.try_get_u32().ok()? };
        let deleted = from.try_get_u8().ok()? != 0;
        let log_start = Offset::new(from.try_get_u64().ok()?).ok()?;
        let position = from.try_get_u64().ok()?;
        let chain = from.try_get_u32().ok()?;
        let high_watermark = Offset::new(from.try_get_u64().ok()?).ok()?;
        let durable_end = Offset::new(from.try_get_u64().ok()?).ok()?;
        let mut starts = Vec::new();
        for _ in 0..from.try_get_u32().ok()? {
            starts.push((LeaderEpoch(from.try_get_u32().ok()?), Offset::new(from.try_get_u64().ok()?).ok()?));
        }
        let epochs = Epochs::from_starts(starts)?;
        from.is_empty().then_some(Self {
            partition,
            deleted,
            log_start,
            position,
            chain,
            high_watermark,
            durable_end,
            epochs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_there_and_back_and_every_cut_and_fits_a_small_slot() {
        let mut epochs = Epochs::default();
        for epoch in 0..1000u32 {
            epochs.note(LeaderEpoch(epoch), Offset::new(u64::from(epoch) * 3).unwrap());
        }
        let mut checkpoint = Checkpoint {
            partition: PartitionId { topic_id: TopicId([9; 16]), index: 2 },
            deleted: true,
            log_start: Offset::new(5).unwrap(),
            position: 4096,
            chain: 77,
            high_watermark: Offset::new(8).unwrap(),
            durable_end: Offset::new(9).unwrap(),
            epochs,
        };
        let bytes = checkpoint.encode();
        assert!(bytes.len() <= 4096 - 24);
        let found = Checkpoint::decode(&bytes).unwrap();
        assert_eq!(found.epochs.starts().len(), 256);
        checkpoint.epochs = found.epochs.clone();
        assert_eq!(found, checkpoint);
        for end in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..end]), None, "{end}");
        }
    }
}
