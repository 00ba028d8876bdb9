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
    /// What a call that did not succeed may have left, until the next one writes over it.
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
                let mut steps = Vec::new();
                let mut next = self.newest().clone();
                // False only behind a call that failed.
                let fits = entries.iter().all(|entry| {
                    let fits = next.put(entry.clone());
                    steps.push(next.clone());
                    fits
                });
                let done = journal.append(entries);
                match done {
                    Ok(()) => {
                        assert!(fits, "an entry was taken behind a gap");
                        self.wrote(steps);
                    }
                    // The first of them may be there: nobody was told that they are.
                    Err(JournalError::Refused(_) | JournalError::Failed(_)) if fits => {
                        self.leftovers.extend(steps);
                    }
                    Err(_) => {}
                }
                done
            }
            Call::Vote(vote) => {
                journal.set_hard_state(vote)?;
                let next = Recovered { hard_state: vote.clone(), ..self.newest().clone() };
                self.wrote(vec![next]);
                Ok(())
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
                    Err(JournalError::Failed(_)) => self.leftovers.push(contents.as_ref().clone()),
                    Err(_) => {}
                }
                done
            }
        }
    }

    fn wrote(&mut self, steps: Vec<Recovered>) {
        self.written.extend(steps);
        self.leftovers.clear();
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
fn short(contents: &Recovered) -> String {
    let entries: Vec<_> =
        contents.entries.iter().map(|entry| (entry.index, entry.term, entry.data.len())).collect();
    let snapshot = contents.snapshot.get_metadata();
    let (hard_state, truncated) = (&contents.hard_state, contents.truncated);
    format!("{hard_state:?}, snapshot {} {}, after {truncated:?}: {entries:?}", snapshot.index, snapshot.term)
}
