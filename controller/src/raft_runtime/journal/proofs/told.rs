//! What a journal was told, as plain lists of what may be found after it ends.

use raft::eraftpb::{Entry, HardState};

use crate::raft_runtime::journal::{Journal, JournalError, Recovered};

/// One call of the lane.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Append(Vec<Entry>),
    Vote(HardState),
    Sync,
    Replace(Box<Recovered>),
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process goes, what was written stays.
    Killed,
    /// The machine goes, and what was not synced with it or in part.
    PowerLost,
}

pub(super) struct Told {
    /// From what was synced last to what was written last, one state after the other.
    written: Vec<Recovered>,
    /// What calls that failed for good may have left. Nobody was told that it is there.
    leftovers: Vec<Recovered>,
    /// Term and vote that others may have been told.
    promised: HardState,
}

impl Told {
    pub(super) fn new(loaded: Recovered) -> Self {
        let promised = loaded.hard_state.clone();
        Self { written: vec![loaded], leftovers: Vec::new(), promised }
    }

    pub(super) fn newest(&self) -> &Recovered {
        self.written.last().expect("never empty")
    }

    /// Makes the call and remembers what it says.
    pub(super) fn call(&mut self, journal: &mut dyn Journal, call: &Call) -> Result<(), JournalError> {
        match call {
            Call::Append(entries) => {
                let mut next = self.newest().clone();
                // False only behind a call that failed.
                let fits = entries.iter().all(|entry| next.put(entry.clone()));
                let done = journal.append(entries);
                assert!(done.is_err() || fits, "an entry was taken behind a gap");
                self.wrote(next, &done);
                done
            }
            Call::Vote(vote) => {
                let done = journal.set_hard_state(vote);
                self.wrote(Recovered { hard_state: vote.clone(), ..self.newest().clone() }, &done);
                done
            }
            Call::Sync => {
                journal.sync()?;
                let newest = self.newest().clone();
                self.promised = newest.hard_state.clone();
                self.written = vec![newest];
                Ok(())
            }
            Call::Replace(contents) => {
                let done = journal.replace(contents);
                match done {
                    Ok(()) => *self = Self::new(contents.as_ref().clone()),
                    Err(_) => self.wrote(contents.as_ref().clone(), &done),
                }
                done
            }
        }
    }

    /// All of it or nothing; a refusal left nothing.
    fn wrote(&mut self, next: Recovered, done: &Result<(), JournalError>) {
        match done {
            Ok(()) => self.written.push(next),
            Err(JournalError::Failed(_)) => self.leftovers.push(next),
            Err(_) => {}
        }
    }

    /// Nothing synced is lost, nothing is invented, and a vote never goes back.
    pub(super) fn check(&self, loaded: &Recovered, end: End, what: &str) {
        let (found, promised) = (&loaded.hard_state, &self.promised);
        assert!(
            found.term > promised.term
                || found.term == promised.term && (promised.vote == 0 || found.vote == promised.vote),
            "{what}: a vote went back from {promised:?} to {found:?}"
        );
        let known = match end {
            End::Killed => self.newest() == loaded,
            End::PowerLost => self.written.contains(loaded),
        };
        assert!(
            known || self.leftovers.contains(loaded),
            "{what}: {end:?}, found {}, told {}",
            short(loaded),
            short(self.newest())
        );
    }
}

/// Contents without their bytes.
pub(super) fn short(contents: &Recovered) -> String {
    let entries: Vec<_> =
        contents.entries.iter().map(|entry| (entry.index, entry.term, entry.data.len())).collect();
    let snapshot = contents.snapshot.get_metadata();
    let (hard_state, truncated) = (&contents.hard_state, contents.truncated);
    format!("{hard_state:?}, snapshot {} {}, after {truncated:?}: {entries:?}", snapshot.index, snapshot.term)
}
