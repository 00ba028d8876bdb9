//! Files that nobody vouches for: mutated ones are refused with a typed error or read as something that was once
//! written there. Nothing panics, and a refusal leaves the files as they are.

use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_storage::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use plimsoll_storage::fs::{DiskFile, OpenMode, SharedDisk};
use prost_raft::Message as _;

use super::told::{self, Call};
use super::{CONTROLLER, FILE_BYTES, Random, Recovered};
use super::{entry, fresh, in_full, new_disk, seed, settings, snapshot, start, vote};
use crate::cluster::ClusterState;
use crate::raft_runtime::journal::record::{self, Chain, Kind};
use crate::raft_runtime::journal::{FileJournal, Journal as _, JournalError, header, replay};
use crate::raft_runtime::{DataDir, DataDirError, Identity as _};

const FILES: [&str; 2] = ["journal/a.log", "journal/b.log"];
/// What the histories below use of a file, and a little of what was never used.
const USED: usize = 24 * 1024;
/// Writes and syncs: a claim in both slots, the records, the switch, and both heads after it.
const CALLS_OF_A_COMPACTION: u64 = 14;

impl Random {
    /// In the parts that hold something: the two slots, and the records.
    fn mutate_file(&mut self, from: &[u8]) -> Vec<u8> {
        let parts = [0..header::SLOT_BYTES, 4096..4096 + header::SLOT_BYTES, 8192..from.len()];
        let mut out = from.to_vec();
        for _ in 0..=self.below(2) {
            let part = parts[[0, 1, 2, 2][self.below(4)]].clone();
            let changed = self.mutate(&from[part.clone()], false);
            out[part].copy_from_slice(&changed);
        }
        out
    }
}

/// The used parts of both files, and what was written until then.
struct Image {
    files: [Vec<u8>; 2],
    states: Vec<Recovered>,
    /// How many of the states are older than the one that was synced last.
    superseded: usize,
}

impl Image {
    /// What a start may show: nothing older than the last sync, unless a head rotted, too.
    fn may_show(&self, files: &[Vec<u8>; 2]) -> &[Recovered] {
        let records = usize::try_from(header::BODY).expect("small");
        let whole_heads = self.files.iter().zip(files).all(|(was, is)| was[..records] == is[..records]);
        if whole_heads { &self.states[self.superseded..] } else { &self.states }
    }
}

fn open(disk: &SharedDisk, path: &str) -> Box<dyn DiskFile> {
    disk.open(path, OpenMode::Write).expect("there")
}

fn read(disk: &SharedDisk) -> [Vec<u8>; 2] {
    FILES.map(|path| {
        let mut bytes = vec![0; USED];
        let read = open(disk, path).read_at(&mut bytes, 0).expect("reads");
        bytes.truncate(read);
        bytes
    })
}

fn calls() -> Vec<Call> {
    let some = |range: std::ops::RangeInclusive<u64>, term| {
        range.map(|index| entry(index, term, vec![7; 20 * usize::try_from(index).expect("few")])).collect()
    };
    let compaction = |index, term, entries| {
        let (hard_state, snapshot) = (vote(term, index), snapshot(index, term, vec![9; 700]));
        Call::Replace(Box::new(Recovered { hard_state, snapshot, truncated: (index, term), entries }))
    };
    vec![
        Call::Append(some(1..=4, 1)),
        Call::Vote(vote(1, 2)),
        Call::Sync,
        Call::Append(some(4..=6, 2)),
        Call::Vote(vote(2, 4)),
        Call::Sync,
        compaction(4, 2, some(5..=6, 2)),
        Call::Append(some(7..=9, 2)),
        Call::Sync,
        Call::Vote(vote(3, 8)),
        Call::Sync,
        compaction(8, 3, Vec::new()),
        Call::Append(some(9..=12, 3)),
        Call::Sync,
    ]
}

/// Files as a journal leaves them: after each call, and where a compaction was cut short.
fn images() -> Vec<Image> {
    let (_, disk) = new_disk();
    let (faulty, faults) = FaultyDisk::new(disk.clone());
    let faulty: SharedDisk = Arc::new(faulty);
    let (mut journal, loaded) = start(&faulty).expect("just made");
    let mut states = vec![loaded];
    let mut superseded = 0;
    let mut images = Vec::new();
    for call in calls() {
        let newest = states.last().expect("never empty").clone();
        match &call {
            Call::Append(entries) => {
                let mut next = newest;
                assert!(entries.iter().all(|entry| next.put(entry.clone())));
                states.push(next);
                journal.append(entries).expect("room");
            }
            Call::Vote(vote) => {
                states.push(Recovered { hard_state: vote.clone(), ..newest });
                journal.set_hard_state(vote).expect("room");
            }
            Call::Sync => {
                journal.sync().expect("works");
                superseded = states.len() - 1;
            }
            Call::Replace(contents) => {
                states.push(contents.as_ref().clone());
                for call in 2..=CALLS_OF_A_COMPACTION {
                    faults.arm(Fault { kind: FaultKind::Dead, call, then: Then::StaysSo });
                    drop(journal.replace(contents));
                    faults.reset();
                    images.push(Image { files: read(&disk), states: states.clone(), superseded });
                    (journal, _) = start(&faulty).expect("either of both");
                }
                journal.replace(contents).expect("room");
                superseded = states.len() - 1;
            }
        }
        images.push(Image { files: read(&disk), states: states.clone(), superseded });
    }
    images
}

/// Puts the files back to these bytes, and to their length.
fn restore(disk: &SharedDisk, files: &[Vec<u8>; 2]) {
    for (path, bytes) in FILES.into_iter().zip(files) {
        let file = open(disk, path);
        file.write_at(bytes, 0).expect("room");
        if file.len().expect("known") != FILE_BYTES {
            file.set_len(FILE_BYTES).expect("room");
        }
    }
}

/// What was read can be used and is found again.
fn usable(disk: &SharedDisk, mut journal: FileJournal, mut contents: Recovered, what: &str) {
    let next = entry(contents.last_index() + 1, 9, b"next".to_vec());
    journal.append(std::slice::from_ref(&next)).expect("room");
    assert!(contents.put(next));
    contents.hard_state.term += 1;
    journal.set_hard_state(&contents.hard_state).expect("room");
    journal.sync().expect("works");
    assert_eq!(start(disk).map(|(_, found)| found), Ok(contents.clone()), "{what}");
    journal.replace(&contents).expect("room");
    assert_eq!(start(disk).map(|(_, found)| found), Ok(contents), "{what}, compacted");
}

#[test]
fn mutated_files_are_refused_or_read_as_what_was_written() {
    let (rounds, seed) = (if in_full() { 60_000 } else { 1500 }, seed());
    let mut random = Random(seed | 1);
    let images = images();
    let (_, disk) = new_disk();
    let (mut refused, mut read_on) = (0, 0);
    for round in 0..rounds {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove controller-journal: files, round {round}");
        let image = &images[random.below(images.len())];
        let mut files = image.files.clone();
        let chosen = random.below(2);
        files[chosen] = random.mutate_file(&image.files[chosen]);
        if random.below(4) == 0 {
            files[1 - chosen] = random.mutate_file(&image.files[1 - chosen]);
        }
        restore(&disk, &files);
        if random.below(20) == 0 {
            let len = random.below(usize::try_from(FILE_BYTES).expect("small")) as u64;
            open(&disk, FILES[chosen]).set_len(len + FILE_BYTES * (round % 2)).expect("room");
        }
        let before = read(&disk);
        match start(&disk) {
            Ok((journal, found)) => {
                let known = image.may_show(&files).contains(&found);
                assert!(known, "{what}: lost or made up {}", told::short(&found));
                usable(&disk, journal, found, &what);
                read_on += 1;
            }
            Err(JournalError::Damaged { file, at, .. }) => {
                assert!(
                    FILES.iter().any(|path| file.ends_with(path)) && at <= FILE_BYTES,
                    "{what}: {file} {at}"
                );
                assert!(before == read(&disk), "{what}: a refusal changes nothing");
                refused += 1;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(refused > rounds / 10 && read_on > rounds / 10, "{refused} refused, {read_on} read");
    println!("CASES controller-journal files cases={rounds} refused={refused} read={read_on} seed={seed}");
}

/// Records whose checksums hold, with contents that do not: what reads them must not rely on the checksum.
#[test]
fn records_of_any_content_are_read_or_refused() {
    let (rounds, seed) = (if in_full() { 400_000 } else { 20_000 }, seed());
    let mut random = Random(seed | 1);
    let mut payloads = vec![(Kind::Base, replay::encode_base(&fresh())), (Kind::HardState, Vec::new())];
    for call in calls() {
        match call {
            Call::Append(entries) => {
                payloads.extend(entries.iter().map(|entry| (Kind::Entry, entry.encode_to_vec())));
            }
            Call::Vote(vote) => payloads.push((Kind::HardState, vote.encode_to_vec())),
            Call::Replace(contents) => payloads.push((Kind::Base, replay::encode_base(&contents))),
            Call::Sync => {}
        }
    }
    let mut read = 0;
    for _ in 0..rounds {
        let mut bytes = vec![0; usize::try_from(header::BODY).expect("small")];
        let mut chain = Chain::new(1);
        let (mut kind, mut payload) = payloads[0].clone();
        for _ in 0..1 + random.below(6) {
            if random.below(3) == 0 {
                payload = random.mutate(&payload, true);
            }
            let more = [0, 0, 1, 2, u32::MAX][random.below(5)];
            record::encode(&mut bytes, &mut chain, kind, &payload, more).expect("small");
            if random.below(3) == 0 {
                chain.synced_end = bytes.len() as u64;
            }
            (kind, payload) = payloads[random.below(payloads.len())].clone();
        }
        if random.below(3) == 0 {
            let records = usize::try_from(header::BODY).expect("small");
            let changed = random.mutate(&bytes[records..], true);
            bytes.splice(records.., changed);
        }
        if let Ok(replayed) = replay::replay(&bytes, 1, 0) {
            let contents = replayed.contents;
            let indexes = contents.entries.iter().map(|entry| entry.index);
            assert!(indexes.eq((1..).take(contents.entries.len()).map(|n| contents.truncated.0 + n)));
            assert!(contents.hard_state.commit <= contents.last_index());
            assert!(replayed.end <= bytes.len() as u64);
            let synced_end = random.below(2 * bytes.len()) as u64;
            let vouched = replay::replay(&bytes, 1, synced_end).is_ok();
            assert_eq!(vouched, synced_end <= replayed.end);
            drop(ClusterState::decode_snapshot(&contents.snapshot.data));
            read += 1;
        }
    }
    assert!(read > rounds / 10, "{read} were read");
    println!("CASES controller-journal records cases={rounds} read={read} seed={seed}");
}

#[test]
fn a_mutated_identity_is_refused_or_read_as_what_was_written() {
    let (rounds, seed) = (if in_full() { 60_000 } else { 1500 }, seed());
    let mut random = Random(seed | 1);
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(4 << 20));
    let disk: SharedDisk = Arc::new(memory);
    let open_dir = || DataDir::open(&disk, ControllerId(CONTROLLER), true, [ControllerId(1)], &settings());
    let cluster = ClusterId([7; 16]);
    let (mut dir, mut journal) = open_dir().expect("empty");
    dir.set_cluster_id(cluster).expect("room");
    journal.load().expect("just made");
    journal.set_hard_state(&vote(5, 0)).expect("room");
    journal.sync().expect("works");
    drop((dir, journal));
    let file = open(&disk, "controller.id");
    let mut good = vec![0; 8192];
    file.read_at(&mut good, 0).expect("reads");
    let mut refused = 0;
    for round in 0..rounds {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove controller-journal: identity, round {round}");
        let mut bytes = good.clone();
        let part = [0..64, 4096..4160, 0..8192][random.below(3)].clone();
        bytes.splice(part.clone(), random.mutate(&good[part], true));
        file.set_len(0).expect("cuts");
        file.write_at(&bytes, 0).expect("room");
        match open_dir() {
            // The slot before the last one does not name the cluster; the next leader does.
            Ok((dir, mut journal)) => {
                assert!([None, Some(cluster)].contains(&dir.cluster_id()), "{what}");
                assert_eq!(journal.load().map(|found| found.hard_state), Ok(vote(5, 0)), "{what}");
            }
            Err(DataDirError::Damaged { dir, why }) => {
                refused += 1;
                assert!(!dir.is_empty() && why.contains("controller.id"), "{what}: {why}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(refused > 0, "none was refused");
    println!("CASES controller-journal identity cases={rounds} refused={refused} seed={seed}");
}
