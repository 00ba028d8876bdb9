//! Callers that wait for an answer of the lane.

use std::collections::BTreeMap;
use std::time::Duration;

use super::handle::{Answer, ProposeError, Proposed};

/// A read is asked again when no majority has confirmed it for this long: the leader drops it silently before its
/// first commit, and messages get lost.
const READ_AGAIN: Duration = Duration::from_millis(200);
/// Callers that may wait at once.
const WAITING_MAX: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    proposals: BTreeMap<[u8; 16], Proposal>,
    reads: BTreeMap<u64, Read>,
    confirmed: Vec<(u64, Answer<u64>)>,
    /// Answers held back until the picture they belong to is published.
    ready: Vec<(Answer<Proposed>, Proposed)>,
    next_read: u64,
}

struct Proposal {
    deadline: Duration,
    answer: Answer<Proposed>,
}

struct Read {
    deadline: Duration,
    again_at: Duration,
    answer: Answer<u64>,
}

impl Pending {
    /// Whether more callers may wait.
    pub(super) fn has_room(&self) -> bool {
        self.proposals.len() + self.reads.len() + self.confirmed.len() < WAITING_MAX
    }

    pub(super) fn add_proposal(&mut self, id: [u8; 16], deadline: Duration, answer: Answer<Proposed>) {
        // An id used twice: nobody can tell which entry the first one would be answered for.
        if let Some(former) = self.proposals.insert(id, Proposal { deadline, answer }) {
            drop(former.answer.send(Err(ProposeError::TimedOut)));
        }
    }

    /// The entry of this proposal was applied.
    pub(super) fn applied(&mut self, id: &[u8], proposed: impl FnOnce() -> Proposed) {
        let Ok(id) = <[u8; 16]>::try_from(id) else { return };
        if let Some(waiting) = self.proposals.remove(&id) {
            self.ready.push((waiting.answer, proposed()));
        }
    }

    /// Starts a read; returns what to ask the library with.
    pub(super) fn add_read(&mut self, deadline: Duration, now: Duration, answer: Answer<u64>) -> Vec<u8> {
        self.next_read += 1;
        let again_at = now.saturating_add(READ_AGAIN);
        self.reads.insert(self.next_read, Read { deadline, again_at, answer });
        self.next_read.to_le_bytes().to_vec()
    }

    /// Reads to ask again.
    pub(super) fn unanswered_reads(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let due = self.reads.iter_mut().filter(|(_, read)| now >= read.again_at);
        due.map(|(id, read)| {
            read.again_at = now.saturating_add(READ_AGAIN);
            id.to_le_bytes().to_vec()
        })
        .collect()
    }

    /// A majority confirmed the read at `index`.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64) {
        let id = <[u8; 8]>::try_from(context).ok().map(u64::from_le_bytes);
        if let Some(read) = id.and_then(|id| self.reads.remove(&id)) {
            self.confirmed.push((index, read.answer));
        }
    }

    /// Answers everything that `applied_index` allows; the picture was published.
    pub(super) fn answer(&mut self, applied_index: u64) {
        for (answer, proposed) in self.ready.drain(..) {
            drop(answer.send(Ok(proposed)));
        }
        for (index, answer) in std::mem::take(&mut self.confirmed) {
            if index <= applied_index {
                drop(answer.send(Ok(applied_index)));
            } else {
                self.confirmed.push((index, answer));
            }
        }
    }

    /// Forgets those whose time is over: their callers have gone.
    pub(super) fn expire(&mut self, now: Duration) {
        self.proposals.retain(|_, proposal| now < proposal.deadline && !proposal.answer.is_closed());
        self.reads.retain(|_, read| now < read.deadline && !read.answer.is_closed());
        self.confirmed.retain(|(_, answer)| !answer.is_closed());
    }
}
