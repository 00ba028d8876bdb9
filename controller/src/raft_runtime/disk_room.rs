//! Whether this controller's disk has room for more topics.
//!
//! What must go on (votes, elections, in-sync and volume states, deletes) lives in blocks that were allocated when
//! the data directory was made. What makes the cluster larger is refused sooner: while the disk is full, the metadata
//! store can't be written, and every start replays everything from the journal.
//!
//! A lane of its own asks the disk, because a hung mount never answers; the Raft lane takes the last answer, and one
//! that is too old counts as none.

use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_storage::fs::{SharedDisk, SpaceSample};
use tokio::sync::watch;

/// How often the disk is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// An answer that is older says nothing any more.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Inodes that must be free, where the filesystem says how many are.
const INODES_MIN: u64 = 32;

/// Whether the disk has room for more topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DiskRoom {
    /// It has.
    #[default]
    Ample,
    /// It has not.
    Full {
        /// Bytes that are free.
        free_bytes: u64,
        /// Inodes that are free.
        free_inodes: u64,
    },
    /// The disk does not answer. Unknown is never plenty.
    Unknown,
}

/// The last answer of the disk, and when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    at: Duration,
    sample: Option<SpaceSample>,
}

/// From answers to [`DiskRoom`], with a gap between where it is entered and left.
#[derive(Debug)]
pub(super) struct RoomSense {
    answers: watch::Receiver<Answer>,
    full_below: u64,
    room: DiskRoom,
}

impl RoomSense {
    /// Asks `disk` for as long as this lives.
    pub(super) fn start(host: &Host, disk: SharedDisk, full_below: u64) -> Self {
        let (sender, answers) = watch::channel(Answer { at: host.clock.now(), sample: None });
        let asking = ask(host.clone(), disk, sender);
        // It ends when nobody listens.
        host.tasks.spawn_lane("disk room", move || Box::pin(asking));
        Self { answers, full_below, room: DiskRoom::Ample }
    }

    /// What counts now.
    pub(super) fn look(&mut self, now: Duration) -> DiskRoom {
        let answer = *self.answers.borrow_and_update();
        self.room = next(self.room, answer, self.full_below, now);
        self.room
    }
}

/// Full below `full_below` bytes or too few inodes, ample again from twice as many.
fn next(before: DiskRoom, answer: Answer, full_below: u64, now: Duration) -> DiskRoom {
    if now.saturating_sub(answer.at) > ANSWER_MAX {
        return DiskRoom::Unknown;
    }
    // Before the first answer, and after one that can't be used: as before, until that is too old.
    let Some(sample) = answer.sample else { return before };
    let factor = if before == DiskRoom::Ample { 1 } else { 2 };
    let inodes = sample.total_inodes == 0 || sample.available_inodes >= INODES_MIN * factor;
    if inodes && sample.available_bytes >= full_below.saturating_mul(factor) {
        DiskRoom::Ample
    } else {
        DiskRoom::Full { free_bytes: sample.available_bytes, free_inodes: sample.available_inodes }
    }
}

async fn ask(host: Host, disk: SharedDisk, answers: watch::Sender<Answer>) {
    while !answers.is_closed() {
        if let Ok(sample) = disk.space()
            && sample.total_bytes > 0
            && sample.available_bytes <= sample.total_bytes
        {
            answers.send_replace(Answer { at: host.clock.now(), sample: Some(sample) });
        }
        tokio::select! {
            () = host.clock.sleep(ASK_EVERY) => {}
            () = answers.closed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at: u64, free: u64, inodes: u64) -> Answer {
        let sample = SpaceSample {
            total_bytes: 1000,
            available_bytes: free,
            total_inodes: 1000,
            available_inodes: inodes,
        };
        Answer { at: Duration::from_secs(at), sample: Some(sample) }
    }

    #[test]
    fn it_fills_at_the_mark_is_ample_at_twice_and_unknown_is_never_plenty() {
        let at = Duration::from_secs;
        let full = |free_bytes| DiskRoom::Full { free_bytes, free_inodes: 900 };
        let mut room = DiskRoom::Ample;
        for (second, answer, expected) in [
            (0, Answer { at: at(0), sample: None }, DiskRoom::Ample),
            (1, answer(1, 100, 900), DiskRoom::Ample),
            (2, answer(2, 99, 900), full(99)),
            (3, answer(3, 150, 900), full(150)),
            (4, answer(4, 200, 900), DiskRoom::Ample),
            (5, answer(5, 900, 31), DiskRoom::Full { free_bytes: 900, free_inodes: 31 }),
            (6, answer(6, 900, 63), DiskRoom::Full { free_bytes: 900, free_inodes: 63 }),
            (7, answer(7, 900, 64), DiskRoom::Ample),
            (10, answer(7, 900, 64), DiskRoom::Ample),
            (11, answer(7, 900, 64), DiskRoom::Unknown),
            (12, answer(12, 150, 900), full(150)),
            (13, answer(13, 900, 900), DiskRoom::Ample),
        ] {
            room = next(room, answer, 100, at(second));
            assert_eq!(room, expected, "second {second}");
        }
    }
}
