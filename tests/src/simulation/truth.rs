//! What is really committed, seen from outside: where the logs on the disks end, and the sets that the controllers applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_controller::raft_runtime::View;
use plimsoll_proto::ids::{Incarnation, Offset, PartitionId, SpuId};
use plimsoll_storage::fs::memory::MemoryDisk;
use plimsoll_storage::fs::{Disk as _, OpenMode};
use tokio::sync::watch;

use super::faults::Node;

/// Of a record batch, up to its last offset delta; the layout is that of docs/formats.md.
const HEAD_BYTES: usize = 27;

/// Everything that it takes to know what is committed. It only looks: a run with it is the run without it.
#[derive(Default)]
pub(super) struct Truth {
    disks: BTreeMap<Node, MemoryDisk>,
    views: BTreeMap<Node, watch::Receiver<Arc<View>>>,
    /// What was applied last by a run of a controller that ended: the next one begins with less.
    former: Option<Arc<View>>,
    committed: BTreeMap<PartitionId, Offset>,
    /// What a run of a node had when its machine lost its power: its leader may count that until it hears of the next run.
    lost: BTreeMap<(SpuId, PartitionId), (Incarnation, Offset)>,
    walked: BTreeMap<(Node, String), Walked>,
}

/// How far a segment was read before.
#[derive(Clone, Copy)]
struct Walked {
    /// Position of the last whole batch.
    position: u64,
    base: u64,
}

impl Truth {
    pub(super) fn add_disk(&mut self, node: Node, disk: MemoryDisk) {
        self.disks.insert(node, disk);
    }

    pub(super) fn disks(&self) -> &BTreeMap<Node, MemoryDisk> {
        &self.disks
    }

    /// A controller runs, and tells what it applied.
    pub(super) fn add_view(&mut self, node: Node, view: watch::Receiver<Arc<View>>) {
        let ended = self.views.insert(node, view).map(|view| Arc::clone(&view.borrow()));
        self.former = self.former.take().into_iter().chain(ended).max_by_key(|view| view.applied_index);
    }

    /// Offset below which everything is committed, or was before, and whether that is news. Whoever is in the set that
    /// was applied last has it on its disk; what is on the disk of all of them is the most that anybody may read.
    pub(super) fn committed(&mut self, partition: PartitionId) -> (Offset, bool) {
        let known = self.committed.get(&partition).copied();
        let now = self.everywhere(partition).unwrap_or_default().max(known.unwrap_or_default());
        self.committed.insert(partition, now);
        (now, known != Some(now))
    }

    /// What was known to be committed when somebody looked last.
    pub(super) fn known(&self, partition: PartitionId) -> Option<Offset> {
        self.committed.get(&partition).copied()
    }

    fn everywhere(&mut self, partition: PartitionId) -> Option<Offset> {
        let views = self.views.values().map(|view| Arc::clone(&view.borrow()));
        let newest = views.chain(self.former.clone()).max_by_key(|view| view.applied_index)?;
        let in_sync = &newest.state.partition(partition)?.in_sync;
        let has = |spu: &SpuId| {
            let run = newest.state.spu(*spu).map(|registered| registered.incarnation);
            let lost = self.lost.get(&(*spu, partition)).filter(|(of, _)| run == Some(*of));
            (*spu, lost.map_or(Offset::ZERO, |(_, end)| *end))
        };
        let has: Vec<_> = in_sync.iter().map(has).collect();
        has.into_iter().map(|(spu, lost)| self.log_end(spu, partition).max(lost)).min()
    }

    /// The machine of a storage node is about to lose its power; this is the run of the node that ends.
    pub(super) fn loses_power(&mut self, spu: SpuId, run: Incarnation, partition: PartitionId) {
        let end = self.log_end(spu, partition);
        self.lost.insert((spu, partition), (run, end));
    }

    fn log_end(&mut self, spu: SpuId, partition: PartitionId) -> Offset {
        let node = Node::Spu(u8::try_from(spu.0).unwrap_or(0));
        let end = self.disks.get(&node).and_then(|disk| {
            let dir = format!("partitions/{}-{}", partition.topic_id, partition.index);
            // Names have 20 digits: the greatest name is the last segment.
            let segments = disk
                .list(&dir)
                .ok()?
                .into_iter()
                .filter_map(|entry| entry.name.strip_suffix(".log").map(str::to_owned));
            let last = segments.max()?;
            let path = format!("{dir}/{last}.log");
            let from = self.walked.get(&(node, path.clone())).copied();
            let (end, walked) = walk(disk, &path, last.parse().ok()?, from)?;
            if let Some(walked) = walked {
                self.walked.insert((node, path), walked);
            }
            Some(end)
        });
        Offset::new(end.unwrap_or(0)).unwrap_or_default()
    }
}

/// End of the whole batches of a segment, and the last of them; a batch that is torn, or does not continue the one before
/// it, ends the reading.
fn walk(disk: &MemoryDisk, path: &str, base: u64, from: Option<Walked>) -> Option<(u64, Option<Walked>)> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let length = file.len().ok()?;
    let head = |position: u64| {
        let mut head = [0; HEAD_BYTES];
        let whole = file.read_at(&mut head, position).is_ok_and(|read| read == HEAD_BYTES);
        let batch = whole.then(|| Batch::of(&head))?;
        (position + batch.bytes <= length).then_some(batch)
    };
    // What was cut and written anew since then does not begin with the same offset at the same place.
    let from = from.filter(|from| head(from.position).is_some_and(|batch| batch.base == from.base));
    let (mut position, mut end) = from.map_or((0, base), |from| (from.position, from.base));
    let mut last = None;
    while let Some(batch) = head(position).filter(|batch| batch.base == end) {
        last = Some(Walked { position, base: batch.base });
        position += batch.bytes;
        end = batch.end;
    }
    Some((end, last))
}

struct Batch {
    base: u64,
    end: u64,
    bytes: u64,
}

impl Batch {
    fn of(head: &[u8; HEAD_BYTES]) -> Self {
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let base = u64::from(number(0)) << 32 | u64::from(number(4));
        Self { base, end: base + u64::from(number(23)) + 1, bytes: 12 + u64::from(number(8)) }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_storage::fs::DiskFile;
    use plimsoll_storage::fs::memory::MemoryDiskSettings;

    use super::*;

    const PATH: &str = "00000000000000000007.log";

    /// A batch as far as its last offset delta, with as much behind it.
    fn batch(base: u64, records: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES * 2];
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(HEAD_BYTES * 2 - 12).unwrap().to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes
    }

    fn segment(batches: &[Vec<u8>]) -> (MemoryDisk, Box<dyn DiskFile>) {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(1 << 20));
        let file = disk.open(PATH, OpenMode::CreateNew).unwrap();
        file.write_at(&batches.concat(), 0).unwrap();
        (disk, file)
    }

    fn end(disk: &MemoryDisk, from: Option<Walked>) -> (u64, Option<Walked>) {
        walk(disk, PATH, 7, from).unwrap()
    }

    #[test]
    fn whole_batches_count_and_torn_or_strange_ones_end_the_reading() {
        assert_eq!(end(&segment(&[]).0, None).0, 7);
        let (disk, file) = segment(&[batch(7, 3), batch(10, 1)]);
        assert_eq!(end(&disk, None).0, 11);
        file.set_len(file.len().unwrap() - 1).unwrap();
        assert_eq!(end(&disk, None).0, 10);
        assert_eq!(end(&segment(&[batch(7, 3), batch(12, 1)]).0, None).0, 10);
    }

    #[test]
    fn what_was_walked_before_is_believed_only_while_it_is_there() {
        let (disk, file) = segment(&[batch(7, 3), batch(10, 2)]);
        let (first, walked) = end(&disk, None);
        assert_eq!((first, walked.map(|walked| walked.base)), (12, Some(10)));
        let more = batch(12, 1);
        file.write_at(&more, file.len().unwrap()).unwrap();
        assert_eq!(end(&disk, walked).0, 13);
        // Cut to its first batch, and written anew with others.
        let position = u64::try_from(HEAD_BYTES * 2).unwrap();
        file.set_len(position).unwrap();
        assert_eq!(end(&disk, walked).0, 10);
        file.write_at(&batch(10, 1), position).unwrap();
        assert_eq!(end(&disk, walked).0, 11);
    }
}
