//! What was once lost, invented or refused: short histories, each of which failed before its cure.

use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_storage::fs::faulty::{Fault, FaultKind, FaultyDisk, Then};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use plimsoll_storage::fs::{OpenMode, SharedDisk};

use super::told::{Call, Told};
use super::{CONTROLLER, FILE_BYTES, Recovered, current, entry, new_disk, settings, snapshot, start, vote};
use crate::raft_runtime::DataDir;
use crate::raft_runtime::journal::{Journal as _, JournalError, header};

/// One slot of the identity rots between the bootstrap and the first agreed cluster id.
#[test]
fn a_vote_outlives_rot_in_one_slot_of_the_identity() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(4 << 20)));
    let open =
        || DataDir::open(&disk, ControllerId(CONTROLLER), true, [1, 2, 3].map(ControllerId), &settings());
    let (dir, mut journal) = open().expect("empty");
    journal.load().expect("new");
    journal.set_hard_state(&vote(5, 0)).expect("room");
    journal.sync().expect("works");
    drop((dir, journal));
    let file = disk.open("controller.id", OpenMode::Write).expect("there");
    file.write_at(&[0xff; 8], 4096 + 20).expect("rots");
    if let Ok((_dir, mut journal)) = open() {
        assert_eq!(journal.load().map(|found| found.hard_state), Ok(vote(5, 0)));
    }
}

/// A compaction is cut short, then a slot that claimed its generation rots: the next one takes another generation.
#[test]
fn a_compaction_behind_one_that_was_cut_short_and_a_rotten_slot_is_read() {
    let (_, disk) = new_disk();
    let (faulty, faults) = FaultyDisk::new(disk.clone());
    let (mut journal, mut contents) = start(&(Arc::new(faulty) as SharedDisk)).expect("made");
    let entries: Vec<_> = (1..=9).map(|index| entry(index, 1, vec![7; 200])).collect();
    journal.append(&entries).expect("room");
    journal.set_hard_state(&vote(1, 4)).expect("room");
    journal.sync().expect("works");
    (contents.entries, contents.hard_state) = (entries, vote(1, 4));
    // Claim, sync, body; then the process dies.
    faults.arm(Fault { kind: FaultKind::Dead, call: 4, then: Then::StaysSo });
    let cut_short = journal.replace(&contents);
    assert!(cut_short.is_err());
    drop(journal);
    let file = disk.open("journal/b.log", OpenMode::Write).expect("there");
    file.write_at(&[0xff; 8], 20).expect("the slot of the claim rots");
    let (mut journal, found) = start(&disk).expect("the other slot is good");
    assert_eq!(found, contents);
    let smaller = Recovered {
        snapshot: snapshot(4, 1, vec![9; 50]),
        truncated: (4, 1),
        entries: contents.entries[4..6].to_vec(),
        hard_state: vote(2, 4),
    };
    assert_eq!(journal.replace(&smaller), Ok(()), "acknowledged");
    drop(journal);
    assert_eq!(start(&disk).map(|(_, found)| found), Ok(smaller));
}

/// Half of it is written. What is missing is there already: several entries of which the first are whole, or one that ends
/// in zeros, as the file does.
#[test]
fn an_append_that_was_refused_is_not_shown() {
    for entries in
        [vec![entry(1, 1, vec![7; 8]), entry(2, 1, vec![7; 300])], vec![entry(1, 1, vec![0; 4000])]]
    {
        let (_, disk) = new_disk();
        let (faulty, faults) = FaultyDisk::new(disk.clone());
        let (mut journal, before) = start(&(Arc::new(faulty) as SharedDisk)).expect("made");
        faults.arm(Fault { kind: FaultKind::ShortWrite, call: 1, then: Then::Works });
        assert!(journal.append(&entries).is_err_and(|error| error.is_retryable()));
        drop(journal);
        assert_eq!(start(&disk).map(|(_, found)| found), Ok(before));
    }
}

/// The same, where what was written can't be taken back: then nobody is told that nothing was.
#[test]
fn an_append_that_can_not_be_taken_back_is_not_called_refused() {
    let (_, disk) = new_disk();
    let (faulty, faults) = FaultyDisk::new(disk.clone());
    let (mut journal, _) = start(&(Arc::new(faulty) as SharedDisk)).expect("made");
    faults.arm(Fault { kind: FaultKind::ShortWrite, call: 1, then: Then::StaysSo });
    let failed = journal.append(&[entry(1, 1, vec![0; 4000])]);
    assert!(matches!(failed, Err(JournalError::Failed(_))), "{failed:?}");
    faults.reset();
    assert_eq!(journal.append(&[entry(1, 1, vec![7; 8])]), failed, "and it stays so");
}

/// The power goes when the second of two entries is on the disk and the first is not. The next run writes the first
/// one again, alone.
#[test]
fn what_an_earlier_run_left_does_not_continue_the_chain() {
    let (_, disk) = new_disk();
    let (mut journal, before) = start(&disk).expect("made");
    let at = header::BODY + journal.fill().used;
    let first = entry(1, 1, vec![7; 2000]);
    journal.append(std::slice::from_ref(&first)).expect("room");
    journal.append(&[entry(2, 1, vec![7; 2000])]).expect("room");
    drop(journal);
    let file = disk.open("journal/a.log", OpenMode::Write).expect("there");
    file.write_at(&[0; 512], at).expect("the sector is lost");
    let (mut journal, found) = start(&disk).expect("a torn tail");
    assert_eq!(found, before);
    journal.append(std::slice::from_ref(&first)).expect("room");
    journal.sync().expect("works");
    drop(journal);
    assert_eq!(start(&disk).map(|(_, found)| found.entries), Ok(vec![first]));
}

/// The power goes within an append of two entries: the first one is on the disk whole, and is not shown without the second.
#[test]
fn half_an_append_is_not_shown() {
    let (_, disk) = new_disk();
    let (mut journal, before) = start(&disk).expect("made");
    let entries = [1, 2].map(|index| entry(index, 1, vec![7; 2000]));
    journal.append(&entries).expect("room");
    let end = header::BODY + journal.fill().used;
    drop(journal);
    let file = disk.open("journal/a.log", OpenMode::Write).expect("there");
    file.write_at(&[0; 512], end - 512).expect("the sector is lost");
    assert_eq!(start(&disk).map(|(_, found)| found), Ok(before));
}

/// Rot from anywhere in a new compaction to the end of it is not a torn tail: it was synced before it counted.
#[test]
fn damage_from_anywhere_in_a_compaction_to_its_end_is_damage() {
    let (_, disk) = new_disk();
    let (mut journal, _) = start(&disk).expect("made");
    let rest = (5..=6).map(|index| entry(index, 2, vec![7; 700])).collect();
    let (hard_state, snapshot) = (vote(2, 4), snapshot(4, 2, vec![9; 700]));
    let contents = Recovered { hard_state, snapshot, truncated: (4, 2), entries: rest };
    journal.replace(&contents).expect("room");
    let end = header::BODY + journal.fill().used;
    drop(journal);
    let file = disk.open("journal/b.log", OpenMode::Write).expect("there");
    for from in (1..=(end - header::BODY) / 8).map(|back| end - 8 * back) {
        file.write_at(&vec![0xff; usize::try_from(end - from).expect("small")], from).expect("rots");
        let refused = start(&disk).err();
        assert!(matches!(refused, Some(JournalError::Damaged { .. })), "from {from}: {refused:?}");
    }
}

/// The last thing that was synced rots: a vote that was given, or entries that were acknowledged. Without the vote, the
/// next start would give another one in the same term.
#[test]
fn rot_in_what_was_synced_last_is_damage() {
    let batch = vec![entry(1, 1, vec![7; 40]), entry(2, 1, vec![7; 40])];
    for (call, power_lost) in [Call::Vote(vote(5, 0)), Call::Append(batch)]
        .into_iter()
        .flat_map(|call| [(call.clone(), false), (call, true)])
    {
        let (memory, disk) = new_disk();
        let (mut journal, loaded) = start(&disk).expect("made");
        let mut told = Told::new(loaded);
        let from = header::BODY + journal.fill().used;
        for call in [call, Call::Sync] {
            told.call(&mut journal, &call).expect("room");
        }
        let end = header::BODY + journal.fill().used;
        drop(journal);
        if power_lost {
            memory.power_loss(PowerLoss::LosesAllUnsynced);
        }
        let file = disk.open("journal/a.log", OpenMode::Write).expect("there");
        for at in from..end {
            let mut byte = [0; 1];
            file.read_at(&mut byte, at).expect("reads");
            file.write_at(&[byte[0] ^ 4], at).expect("rots");
            match start(&disk).err() {
                Some(JournalError::Damaged { at: found, .. }) => assert_eq!(found, from),
                other => panic!("at {at}: {other:?}"),
            }
            file.write_at(&byte, at).expect("is put back");
        }
        assert_eq!(start(&disk).map(|(_, found)| found).as_ref(), Ok(told.newest()));
    }
}

/// A build before this one wrote heads that vouch for nothing: rot before what was synced last is told all the same.
#[test]
fn a_head_that_vouches_for_nothing_is_read_and_rot_behind_it_is_told() {
    let (_, disk) = new_disk();
    let (mut journal, loaded) = start(&disk).expect("made");
    let mut told = Told::new(loaded);
    let from = header::BODY + journal.fill().used;
    for call in [Call::Vote(vote(5, 0)), Call::Sync, Call::Vote(vote(6, 0)), Call::Sync] {
        told.call(&mut journal, &call).expect("room");
    }
    drop(journal);
    let (path, slot) = current(&disk);
    let file = disk.open(path, OpenMode::Write).expect("there");
    for at in [0, 4096] {
        file.write_at(&header::Slot { synced_end: 0, ..slot }.encode(), at).expect("room");
    }
    let mut byte = [0; 1];
    file.read_at(&mut byte, from + 60).expect("reads");
    file.write_at(&[byte[0] ^ 4], from + 60).expect("rots");
    let refused = start(&disk).err();
    assert!(matches!(refused, Some(JournalError::Damaged { at, .. }) if at == from), "{refused:?}");
    file.write_at(&byte, from + 60).expect("is put back");
    assert_eq!(start(&disk).map(|(_, found)| found).as_ref(), Ok(told.newest()));
}

/// Any one slot rots after a vote.
#[test]
fn rot_in_one_slot_forgets_no_vote() {
    for (file, at) in [("a.log", 0), ("a.log", 4096), ("b.log", 0), ("b.log", 4096)] {
        let (_, disk) = new_disk();
        let (mut journal, _) = start(&disk).expect("made");
        journal.set_hard_state(&vote(5, 0)).expect("room");
        journal.sync().expect("works");
        drop(journal);
        let file = disk.open(&format!("journal/{file}"), OpenMode::Write).expect("there");
        file.write_at(&[0xff; 8], at + 20).expect("rots");
        assert_eq!(start(&disk).map(|(_, found)| found.hard_state), Ok(vote(5, 0)));
    }
}

/// A sync in the midst of a compaction fails, the process starts again on what the page cache shows, the next head is
/// written in part, and then the power goes: of each file one slot is still readable.
#[test]
fn a_failed_sync_half_a_head_and_a_power_loss_leave_a_readable_slot() {
    for failing in 1..=14 {
        for half in 1..=20 {
            let (memory, disk) = new_disk();
            let (faulty, faults) = FaultyDisk::new(disk.clone());
            let faulty: SharedDisk = Arc::new(faulty);
            let (mut journal, contents) = start(&faulty).expect("made");
            faults.arm(Fault { kind: FaultKind::SyncIo, call: failing, then: Then::Works });
            drop(journal.replace(&contents));
            faults.arm(Fault { kind: FaultKind::ShortWrite, call: half, then: Then::StaysSo });
            drop(start(&faulty));
            faults.reset();
            memory.power_loss(PowerLoss::LosesAllUnsynced);
            let found = start(&disk).map(|(_, found)| found);
            assert_eq!(found, Ok(contents), "sync {failing}, write {half}");
        }
    }
}

/// Heads with good checksums whose numbers are the last ones there are: the next ones could not be written.
#[test]
fn the_greatest_sequence_and_generation_of_a_head_are_not_believed() {
    for (sequence, generation) in [(u64::MAX, 1), (1, u64::MAX)] {
        let (_, disk) = new_disk();
        let file = disk.open("journal/a.log", OpenMode::Write).expect("there");
        let usage = header::Use::Current;
        let slot = header::Slot {
            sequence,
            generation,
            usage,
            file_bytes: FILE_BYTES,
            controller: CONTROLLER,
            synced_end: 0,
        };
        for at in [0, 4096] {
            file.write_at(&slot.encode(), at).expect("room");
        }
        let refused = start(&disk).err();
        assert!(
            matches!(refused, Some(JournalError::Damaged { .. })),
            "{sequence} {generation}: {refused:?}"
        );
    }
}

/// The same of an identity.
#[test]
fn the_greatest_sequence_of_an_identity_is_not_believed() {
    use crate::raft_runtime::Identity as _;

    let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(4 << 20)));
    let open = || DataDir::open(&disk, ControllerId(CONTROLLER), true, [ControllerId(1)], &settings());
    drop(open().expect("empty"));
    let file = disk.open("controller.id", OpenMode::Write).expect("there");
    let mut slot = [0; 64];
    file.read_at(&mut slot, 0).expect("reads");
    slot[16..24].fill(0xff);
    let crc = crc32c::crc32c(&slot[16..]);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
    file.write_at(&slot, 0).expect("room");
    let (mut dir, _) = open().expect("the other slot is good");
    assert_eq!(dir.set_cluster_id(ClusterId([7; 16])), Ok(()));
}

/// A snapshot record with a good checksum whose index is the last one there is.
#[test]
fn an_entry_behind_the_greatest_index_is_damage() {
    use prost_raft::Message as _;

    use crate::raft_runtime::journal::record::{self, Chain, Kind};
    use crate::raft_runtime::journal::replay;
    let contents = Recovered { truncated: (u64::MAX, 1), ..Recovered::fresh([1]) };
    let mut bytes = vec![0; usize::try_from(header::BODY).expect("small")];
    let mut chain = Chain::new(1);
    record::encode(&mut bytes, &mut chain, Kind::Base, &replay::encode_base(&contents), 1).expect("small");
    let payload = entry(1, 1, Vec::new()).encode_to_vec();
    record::encode(&mut bytes, &mut chain, Kind::Entry, &payload, 0).expect("small");
    assert!(replay::replay(&bytes, 1, 0).is_err());
}
