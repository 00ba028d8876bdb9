//! What reads bytes that nobody vouches for, each as a function of bytes that must not panic.
//!
//! The tests here replay a corpus of real files and mutate them; `scripts/fuzz` runs libFuzzer on the same functions.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{
    self, BatchBuilder, BatchHeader, Compression, Limits, NewRecord, iter_batches, records,
};
use plimsoll_proto::ids::{ClusterId, LeaderEpoch, Offset, PartitionId, SpuId, TopicId, VolumeId};

use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::fs::{Disk, DiskFile, OpenMode};
use crate::inspect::Seen;
use crate::log::{CHECKPOINT_MAGIC, Checkpoint, LogSettings, ReadError, SlotFile};
use crate::recovery::dir_of;
use crate::segment::{FileKind, IndexFile, IndexKind, path_of};
use crate::space::TwoSlotFile;
use crate::volume::{Volume, VolumeSettings};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("batch", batch),
    ("index", index),
    ("checkpoint", checkpoint),
    ("producers", producers),
    ("recovery", recovery),
];

const NOW: Duration = Duration::from_secs(1);
const WALL_MS: u64 = 1_700_000_000_000;
/// Where the flags of a checkpoint are, and the one that says that producers follow.
const FLAGS_AT: usize = 20;
const HAS_PRODUCERS: u8 = 2;

fn partition() -> PartitionId {
    PartitionId { topic_id: TopicId([7; 16]), index: 0 }
}

fn file(disk: &MemoryDisk, path: &str, bytes: &[u8]) -> Option<Box<dyn DiskFile>> {
    let file = disk.open(path, OpenMode::CreateNew).ok()?;
    file.write_at(bytes, 0).ok()?;
    Some(file)
}

fn memory() -> MemoryDisk {
    MemoryDisk::new(MemoryDiskSettings::plain(64 << 20))
}

/// Record batches from a producer, a leader or a file.
pub fn batch(input: &[u8]) {
    let _ = BatchHeader::parse(input);
    let bytes = Bytes::copy_from_slice(input);
    for limits in [&Limits::REPLICA, &Limits::default()] {
        let _ = batch::verify(input, limits);
        for item in iter_batches(&bytes) {
            let Ok((header, whole)) = item else { break };
            assert_eq!(header.size_bytes, whole.len());
            if let Ok(found) = records(&whole, limits) {
                // A decoder that never ends is as bad as one that panics.
                let _ = found.take_while(Result::is_ok).count();
            }
        }
    }
}

/// An index file; also with a head that fits, so that the entries are reached.
pub fn index(input: &[u8]) {
    let base = Offset::ZERO;
    for (kind, name) in [(IndexKind::Offsets, "offsets"), (IndexKind::Times, "times")] {
        let disk = memory();
        let Some(opened) = file(&disk, name, input) else { return };
        let raw = IndexFile::new(opened, kind, base);
        let _ = (raw.load(), raw.read_seal());
        let Some(opened) = file(&disk, "fits", &[]) else { return };
        let fits = IndexFile::new(opened, kind, base);
        if fits.format().is_err() {
            return;
        }
        if let Ok(opened) = disk.open("fits", OpenMode::Write) {
            let _ = opened.write_at(input, 96);
        }
        let Ok(entries) = fits.load() else { return };
        let _ = (entries.floor(0), entries.floor(u64::MAX), entries.last_key(), fits.read_seal());
    }
}

/// A checkpoint's content, and the slots around one.
pub fn checkpoint(input: &[u8]) {
    if let Some(found) = Checkpoint::decode(input, 8) {
        assert_eq!(Checkpoint::decode(&found.encode(), 8), Some(found), "survives the way there and back");
    }
    let disk = memory();
    if file(&disk, "slots", input).is_some() {
        let _ = SlotFile::open(&disk, "slots".to_owned(), CHECKPOINT_MAGIC);
    }
    if file(&disk, "two", input).is_some() {
        let _ = TwoSlotFile::open(&disk, "two", 1000);
    }
}

/// A checkpoint that claims to hold the state of producers.
pub fn producers(input: &[u8]) {
    let mut input = input.to_vec();
    if let Some(flags) = input.get_mut(FLAGS_AT) {
        *flags |= HAS_PRODUCERS;
    }
    checkpoint(&input);
}

/// The files of a partition: any number of { which u8, base offset u8, length u16, content }.
pub fn recovery(mut input: &[u8]) {
    let disk = memory();
    let settings = || VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let open = || Volume::open(Arc::new(disk.clone()), settings(), NOW, WALL_MS);
    drop(open());
    let dir = dir_of(partition());
    if disk.create_dir(&dir).is_err() {
        return;
    }
    while let Some((&[which, base, high, low], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let base = Offset::new(u64::from(base)).unwrap_or(Offset::ZERO);
        let path = match which % 4 {
            0 => path_of(&dir, base, FileKind::Log),
            1 => path_of(&dir, base, FileKind::Index),
            2 => path_of(&dir, base, FileKind::TimeIndex),
            _ => format!("{dir}/checkpoint"),
        };
        let _ = file(&disk, &path, content);
        input = rest;
    }
    inspect(&disk);
    let Ok((mut volume, _)) = open() else { return };
    for partition in volume.partitions() {
        live(&mut volume, &partition);
    }
    drop(volume);
    drop(open());
}

/// What reads the same files for people.
fn inspect(disk: &MemoryDisk) {
    for log in crate::inspect::find_logs(disk).unwrap_or_default() {
        let _ = log.walk(disk, |seen| {
            if let Seen::Batch(batch) = seen {
                let _ = batch.records().map(|records| records.take_while(Result::is_ok).count());
            }
            ControlFlow::Continue(())
        });
        let _ = log.verify(disk);
    }
}

/// Whatever was found must be usable.
fn live(volume: &mut Volume, partition: &PartitionId) {
    let Some(view) = volume.log(partition) else { return };
    assert!(view.log_start <= view.high_watermark && view.high_watermark <= view.log_end);
    let mut from = view.log_start;
    while from < view.log_end {
        let before = from;
        from = match volume.read(partition, from, view.log_end, 4096) {
            Ok(bytes) => iter_batches(&bytes).last().and_then(Result::ok).map_or(from, |b| b.0.end_offset()),
            Err(ReadError::Damaged { to, .. }) => to,
            Err(_) => break,
        };
        assert!(from > before, "a read goes on");
    }
    let _ = volume.offset_at(partition, 1000);
    if let Some(batch) = one_record() {
        let _ = volume.append_as_leader(partition, batch, LeaderEpoch(u32::MAX >> 1), NOW, WALL_MS);
    }
    let half = Offset::new(view.log_end.get() / 2).unwrap_or(Offset::ZERO);
    let _ = volume.truncate_tail(partition, half);
    let end = volume.log(partition).map_or(Offset::ZERO, |view| view.log_end);
    let _ = volume.trim_head(partition, end);
}

fn one_record() -> Option<BytesMut> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(b"v"), timestamp_ms: 1000, ..NewRecord::default() }).ok()?;
    builder.build().ok()
}

/// What fuzzing begins with: files as a volume leaves them, also all of them in the form of [`recovery`].
///
/// # Panics
/// When a volume on a memory disk with room does not take a few records.
#[expect(clippy::unwrap_used, reason = "a volume with room takes a few records")]
pub fn corpus() -> Vec<Vec<u8>> {
    let disk = memory();
    let settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(3), VolumeId([2; 16]));
    let (mut volume, _) = Volume::open(Arc::new(disk.clone()), settings, NOW, WALL_MS).unwrap();
    let small = LogSettings { segment_bytes_max: 64 * 1024, ..LogSettings::default() };
    volume.create_partition(partition(), small, NOW).unwrap();
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
    for codec in codecs.into_iter().chain([Compression::Zstd]) {
        for _ in 0..8 {
            let mut builder = BatchBuilder::new(codec);
            let record = NewRecord { value: Some(&[b'v'; 300]), timestamp_ms: 1000, ..NewRecord::default() };
            builder.push(&record).unwrap();
            builder.push(&record).unwrap();
            let batch = builder.build().unwrap();
            volume.append_as_leader(&partition(), batch, LeaderEpoch(1), NOW, WALL_MS).unwrap();
        }
    }
    volume.close(WALL_MS).unwrap();
    let dir = dir_of(partition());
    let mut found = vec![Vec::new()];
    let mut all = Vec::new();
    for entry in disk.list(&dir).unwrap() {
        let file = disk.open(&format!("{dir}/{}", entry.name), OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        let which = match entry.name.rsplit('.').next().unwrap() {
            "log" => 0,
            "index" => 1,
            "timeindex" => 2,
            _ => 3,
        };
        all.extend([which, 0]);
        all.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        all.extend(&bytes);
        // The content of a checkpoint, without its slot.
        found.extend(bytes.get(24..).map(<[u8]>::to_vec));
        found.push(bytes);
    }
    found.push(all);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % n.max(1)
        }

        fn mutate(&mut self, from: &[u8]) -> Vec<u8> {
            let mut out = from.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(out.len());
                match self.below(5) {
                    0 => out.truncate(at),
                    1 => {
                        let copy = out[at..(at + 40).min(out.len())].to_vec();
                        let to = self.below(out.len());
                        out.splice(to..to, copy);
                    }
                    2 if at + 4 <= out.len() => out[at..at + 4].copy_from_slice(&[0xff; 4]),
                    3 => out.insert(at, [0, 1, 0x7f, 0x80, 0xff][self.below(5)]),
                    _ if at < out.len() => out[at] ^= 1 << self.below(8),
                    _ => {}
                }
            }
            out
        }
    }

    fn fuzz(name: &str, quick: u32) {
        let (_, target) = TARGETS.into_iter().find(|(found, _)| *found == name).unwrap();
        let full = std::env::var_os("PLIMSOLL_PROVE_FULL").is_some();
        let rounds = if full { quick * 50 } else { quick };
        let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        let mut random = Random(seed | 1);
        let corpus = corpus();
        for input in &corpus {
            target(input);
        }
        for _ in 0..rounds {
            let chosen = random.below(corpus.len());
            target(&random.mutate(&corpus[chosen]));
        }
        let cases = corpus.len() + usize::try_from(rounds).unwrap();
        println!("CASES fuzz {name} cases={cases} seed={seed}");
    }

    #[test]
    fn batches() {
        fuzz("batch", 4000);
    }

    #[test]
    fn indexes() {
        fuzz("index", 1000);
    }

    #[test]
    fn checkpoints() {
        fuzz("checkpoint", 2000);
    }

    #[test]
    fn producer_states() {
        fuzz("producers", 2000);
    }

    #[test]
    fn partition_directories() {
        fuzz("recovery", 400);
    }
}
