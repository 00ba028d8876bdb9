//! The controllers' files that nobody vouches for, each read by a function of bytes that must not panic.
//!
//! The tests here replay a corpus of real files and mutate them; `scripts/fuzz` runs libFuzzer on the same functions.
//! The first byte of an input chooses its form, so that a wrong checksum is not the end of every input.

mod corpus;
mod directory;
mod forms;
#[cfg(test)]
mod tests;

use plimsoll_proto::ids::ClusterId;
use raft::eraftpb::Entry;

use crate::cluster::ClusterState;
use crate::raft_runtime::journal::{FileJournal, Journal as _, JournalError, Recovered};
use crate::raft_runtime::{DataDirError, Identity as _};
use directory::{BODY, CONTROLLER, Directory, FILE_BYTES, FILES, TERM};

pub use corpus::corpus;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: [(&str, Target); 2] = [("journal", journal), ("identity", identity)];

/// The files of a journal, and what follows from them. First byte, modulo 7:
///
/// ```text
/// 0  a.log, as long as it is               4  records of a.log behind a good head
/// 1  a.log, filled up to its length        5  records as in `forms::records`, with good checksums
/// 2  both files as in `forms::files`       6  the body of a snapshot, with a good checksum
/// 3  the same, checksums of heads made good
/// ```
pub fn journal(input: &[u8]) {
    journal_is_read(input);
}

/// Whether it could be read.
fn journal_is_read(input: &[u8]) -> bool {
    let Some((form, rest)) = input.split_first() else { return false };
    Directory::with(|directory| {
        let [first, second] = directory.images();
        match form % 7 {
            0 => {
                let len = rest.len().min(FILE_BYTES + 1);
                directory.put_files(&[rest.to_vec(), second]);
                directory.set_len(0, len);
                read_journal(directory, false)
            }
            1 => {
                directory.put_files(&[rest.to_vec(), second]);
                read_journal(directory, false)
            }
            checksums @ (2 | 3) => {
                directory.put_files(&forms::files(rest, checksums == 3));
                read_journal(directory, false)
            }
            behind => {
                let records = match behind {
                    4 => rest.to_vec(),
                    5 => forms::records(rest),
                    _ => return snapshot_is_read(&forms::snapshot(rest)),
                };
                let head = forms::without_synced_end(&first[..BODY]);
                directory.put_files(&[[head, records].concat(), second[..BODY].to_vec()]);
                read_journal(directory, true)
            }
        }
    })
}

/// Opens, loads twice, and goes on. With `cut` the zeros behind what was used are gone between opening and loading: they
/// say nothing, and looking through a whole file takes most of the time.
fn read_journal(directory: &mut Directory, cut: bool) -> bool {
    let before = directory.read_files();
    let (mut journal, found) = match open_and_load(directory, cut) {
        Ok(read) => read,
        Err(JournalError::Damaged { file, at, why }) => {
            assert!(
                FILES.iter().any(|name| file.ends_with(name)) && at <= FILE_BYTES as u64,
                "{file} {at} {why}"
            );
            assert!(before == directory.read_files(), "a refusal changes nothing");
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    check(&found);
    snapshot_is_read(&found.snapshot.data);
    assert_eq!(load_again(directory, &mut journal, cut), Ok(found.clone()), "the same when it is read again");
    go_on(directory, journal, found, cut);
    true
}

fn open_and_load(directory: &mut Directory, cut: bool) -> Result<(FileJournal, Recovered), JournalError> {
    let mut journal = directory.open_journal()?;
    if cut {
        directory.cut();
    }
    let found = journal.load()?;
    Ok((journal, found))
}

/// A journal that was cut can't be opened again, but it reads the file anew.
fn load_again(
    directory: &Directory,
    journal: &mut FileJournal,
    cut: bool,
) -> Result<Recovered, JournalError> {
    if !cut {
        *journal = directory.open_journal()?;
    }
    journal.load()
}

/// What [`Recovered`] promises.
fn check(found: &Recovered) {
    let last = found.last_index();
    let indexes = found.entries.iter().map(|entry| entry.index);
    assert!(indexes.eq((0..found.entries.len() as u64).map(|n| found.truncated.0 + 1 + n)), "a gap");
    assert!(found.hard_state.commit <= last, "commit {} behind {last}", found.hard_state.commit);
    let snapshot = found.snapshot.get_metadata().index;
    assert!(snapshot <= last, "the snapshot is of {snapshot}, behind {last}");
    assert!(found.truncated.0 <= snapshot, "the log begins at {:?}, behind {snapshot}", found.truncated);
}

/// Whatever was found must be usable, and found again.
fn go_on(directory: &mut Directory, mut journal: FileJournal, mut contents: Recovered, cut: bool) {
    let Some(index) = contents.last_index().checked_add(1) else { return };
    let next = Entry { index, term: contents.hard_state.term, data: b"next".to_vec(), ..Entry::default() };
    journal.append(std::slice::from_ref(&next)).expect("room");
    contents.entries.push(next);
    contents.hard_state.vote = contents.hard_state.vote.wrapping_add(1);
    journal.set_hard_state(&contents.hard_state).expect("room");
    journal.sync().expect("works");
    directory.touch(journal.fill().used);
    assert_eq!(load_again(directory, &mut journal, cut), Ok(contents.clone()), "with one more");
    journal.replace(&contents).expect("room");
    directory.touch(journal.fill().used);
    assert_eq!(load_again(directory, &mut journal, cut), Ok(contents), "compacted");
}

/// What could be read is written and read again as the same.
fn snapshot_is_read(bytes: &[u8]) -> bool {
    let Ok(state) = ClusterState::decode_snapshot(bytes) else { return false };
    let written = state.encode_snapshot();
    let again = ClusterState::decode_snapshot(&written).map(|state| state.encode_snapshot());
    assert_eq!(again, Ok(written), "survives the way there and back");
    true
}

/// `controller.id` in the directory of a controller that has voted. First byte, modulo 3: 0 the file, 1 its two slots, 2 the
/// same with good checksums. What its checksum vouches for is believed: one that says that the directory is being made
/// has it made.
pub fn identity(input: &[u8]) {
    identity_is_read(input);
}

/// Whether the controller would start.
fn identity_is_read(input: &[u8]) -> bool {
    let Some((form, rest)) = input.split_first() else { return false };
    let file = match form % 3 {
        0 => rest.to_vec(),
        sums => forms::slots(&mut &*rest, sums == 2),
    };
    Directory::with(|directory| {
        directory.put_files(&directory.images());
        directory.put_identity(&file);
        match directory.open(false) {
            Ok((dir, journal)) => {
                let known = dir.cluster_id();
                drop((dir, journal));
                names_a_cluster(directory, known);
                true
            }
            Err(DataDirError::NotBootstrapped { .. }) => {
                assert!(
                    forms::is_being_made(&file),
                    "nothing says that it is being made: a vote would be lost"
                );
                directory.open(true).map(drop).expect("made anew");
                directory.forget();
                true
            }
            Err(refused @ (DataDirError::Damaged { .. } | DataDirError::ForeignIdentity { .. })) => {
                assert_eq!(directory.open(true).err(), Some(refused), "--bootstrap changes nothing");
                assert!(directory.read_identity() == file, "a refusal changes nothing");
                false
            }
            Err(error) => panic!("{error}"),
        }
    })
}

/// The next leader does so; it is there at the next start, and so are what it was before and the vote.
fn names_a_cluster(directory: &mut Directory, known: Option<ClusterId>) {
    let named = ClusterId([9; 16]);
    let (mut dir, _) = directory.open(true).expect("opened before");
    assert_eq!(dir.cluster_id(), known);
    dir.set_cluster_id(named).expect("room");
    drop(dir);
    let (dir, mut journal) = directory.open(false).expect("opened before");
    assert_eq!(dir.cluster_id(), Some(named));
    assert_eq!(journal.load().expect("whole").hard_state.term, TERM, "the vote of controller {CONTROLLER}");
}
