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

/// What nobody was told is there, and may be found nevertheless until what was written over it is synced.
struct Leftover {
    contents: Recovered,
    written_over: bool,
    /// The power went before it was whole on the disk. What is missing may come with the next loss of power, out of a
    /// record of the same size that was written over it.
    torn: bool,
}

pub(super) struct Told {
    /// From what was synced last to what was written last, one state after the other.
    written: Vec<Recovered>,
    /// What calls that did not succeed may have left.
    leftovers: Vec<Leftover>,
    /// Term and vote that others may have been told.
    promised: HardState,
}

impl Told {
    pub(super) fn new(loaded: Recovered) -> Self {
        let promised = loaded.hard_state.clone();
        Self { written: vec![loaded], leftovers: Vec::new(), promised }
    }

    /// The same journal, which was found with `loaded` after this end.
    pub(super) fn started_again(self, loaded: Recovered, end: End) -> Self {
        let mut told = Self::new(loaded);
        if end == End::PowerLost {
            let left = self.leftovers.into_iter().map(|left| left.contents);
            let torn = self.written.into_iter().chain(left);
            told.leftovers.extend(torn.map(|contents| Leftover {
                contents,
                written_over: false,
                torn: true,
            }));
        } else {
            told.leftovers.extend(
                self.leftovers
                    .into_iter()
                    .filter(|left| left.torn || left.written_over)
                    .map(|left| Leftover { torn: true, ..left }),
            );
        }
        told
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
                        self.may_have_left(steps);
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
                self.leftovers.retain(|left| !left.written_over);
                Ok(())
            }
            Call::Replace(contents) => {
                let done = journal.replace(contents);
                match done {
                    Ok(()) => *self = Self::new(contents.as_ref().clone()),
                    Err(JournalError::Failed(_)) => self.may_have_left(vec![contents.as_ref().clone()]),
                    Err(_) => {}
                }
                done
            }
        }
    }

    fn wrote(&mut self, steps: Vec<Recovered>) {
        self.written.extend(steps);
        for left in &mut self.leftovers {
            left.written_over = true;
        }
    }

    fn may_have_left(&mut self, steps: Vec<Recovered>) {
        let left = steps.into_iter().map(|contents| Leftover { contents, written_over: false, torn: false });
        self.leftovers.extend(left);
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
        let left = self.leftovers.iter().any(|left| {
            (end == End::PowerLost || !left.written_over && !left.torn) && left.contents == *loaded
        });
        assert!(known || left, "{what}: {end:?}, found {}, told {}", short(loaded), short(self.newest()));
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
