//! The follower of a partition: what to do with its leader's answers.

use bytes::Bytes;
use plimsoll_proto::ids::{LeaderEpoch, Offset, SpuId};

use super::position::EpochEnd;

/// State of a follower. Made anew for each leader epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Whom it follows.
    pub leader: SpuId,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// Why it stopped, if it did. Only another leader epoch starts it again.
    pub stopped: Option<StopReason>,
    /// Leader epoch of the last election that may have lost committed records; 0 without one. A log from before
    /// it may be cut below its high watermark.
    pub lossy_epoch: LeaderEpoch,
}

/// Why a follower takes nothing more from its leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The leader does not have what is committed here. One of the two logs is not what it should be.
    #[error("the leader's log ends at {to} for this history, below the high watermark {high_watermark}")]
    CutBelowHighWatermark {
        /// Where the log would have been cut.
        to: Offset,
        /// What is committed here.
        high_watermark: Offset,
    },
}

/// A leader's answer for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderAnswer {
    /// Whole batches from the log end that was asked for; may be empty.
    Batches(Bytes),
    /// The log is not the leader's: cut back.
    Diverging(EpochEnd),
    /// The leader's log starts later.
    Trimmed,
}

/// What to do next, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowerStep {
    /// Append; then ask [`Follower::after_append`].
    Append(Bytes),
    /// Cut the tail back to here.
    TruncateTail(Offset),
    /// Forget the log and start again, empty, here.
    Restart(Offset),
    /// Raise the high watermark.
    HighWatermark(Offset),
    /// Follow the leader's log start.
    TrimHead(Offset),
    /// Stop, loudly.
    Stop(StopReason),
}

/// The follower's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLog {
    /// First offset that is there.
    pub log_start: Offset,
    /// Known end of committed records.
    pub high_watermark: Offset,
    /// End of the log.
    pub log_end: Offset,
    /// Epoch of the last record; `None` for an empty log.
    pub last_epoch: Option<LeaderEpoch>,
}

/// The position that an answer was asked for. Together the two say which log it was: an answer to another
/// position is late, and what it says to cut is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// End of the log at that time.
    pub log_end: Offset,
    /// Epoch of the last record at that time.
    pub last_epoch: Option<LeaderEpoch>,
}

impl Follower {
    /// Starts to follow.
    pub fn new(leader: SpuId, epoch: LeaderEpoch) -> Self {
        Self { leader, epoch, stopped: None, lossy_epoch: LeaderEpoch(0) }
    }

    /// Tells of the last election that may have lost committed records.
    #[must_use]
    pub fn after_loss(self, lossy_epoch: LeaderEpoch) -> Self {
        Self { lossy_epoch, ..self }
    }

    /// What an answer asks for. `lookup` gives the own [`EpochEnd`] for an epoch.
    pub fn on_answer(
        &mut self,
        own: OwnLog,
        asked: Asked,
        answer: LeaderAnswer,
        leader_log_start: Offset,
        lookup: impl Fn(LeaderEpoch) -> Option<EpochEnd>,
    ) -> Option<FollowerStep> {
        if self.stopped.is_some() || (asked.log_end, asked.last_epoch) != (own.log_end, own.last_epoch) {
            return None;
        }
        match answer {
            LeaderAnswer::Batches(batches) if batches.is_empty() => None,
            LeaderAnswer::Batches(batches) => Some(FollowerStep::Append(batches)),
            LeaderAnswer::Diverging(end) => Some(self.cut(own, common_end(own, end, lookup))),
            LeaderAnswer::Trimmed if leader_log_start > own.log_end => {
                Some(FollowerStep::Restart(leader_log_start))
            }
            LeaderAnswer::Trimmed => None,
        }
    }

    /// What the leader's ends ask for, once its batches are in the own log.
    pub fn after_append(
        &self,
        own: OwnLog,
        leader_high_watermark: Offset,
        leader_log_start: Offset,
    ) -> Vec<FollowerStep> {
        if self.stopped.is_some() {
            return Vec::new();
        }
        let high_watermark = leader_high_watermark.min(own.log_end).max(own.high_watermark);
        let log_start = leader_log_start.min(high_watermark);
        let mut steps = Vec::new();
        if high_watermark > own.high_watermark {
            steps.push(FollowerStep::HighWatermark(high_watermark));
        }
        if log_start > own.log_start {
            steps.push(FollowerStep::TrimHead(log_start));
        }
        steps
    }

    fn cut(&mut self, own: OwnLog, to: Offset) -> FollowerStep {
        // The committed metadata says that records may be lost, and this log does not go on from after that.
        let may_lose = own.last_epoch.is_some_and(|last| last < self.lossy_epoch);
        if to < own.high_watermark && !may_lose {
            let reason = StopReason::CutBelowHighWatermark { to, high_watermark: own.high_watermark };
            self.stopped = Some(reason.clone());
            return FollowerStep::Stop(reason);
        }
        FollowerStep::TruncateTail(to)
    }
}

/// Where the own log stops to agree with a leader whose log has `leader` as its end for the own last epoch.
fn common_end(own: OwnLog, leader: EpochEnd, lookup: impl Fn(LeaderEpoch) -> Option<EpochEnd>) -> Offset {
    let agreed = match lookup(leader.epoch) {
        // Without the leader's epoch here, at most up to where the older ones end.
        Some(mine) => mine.end.min(leader.end),
        None => own.log_start.min(leader.end),
    };
    agreed.min(own.log_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset).expect("a small offset")
    }

    fn own(log_start: u64, high_watermark: u64, log_end: u64) -> OwnLog {
        let last_epoch = Some(LeaderEpoch(4));
        OwnLog {
            log_start: at(log_start),
            high_watermark: at(high_watermark),
            log_end: at(log_end),
            last_epoch,
        }
    }

    const ASKED: Asked = Asked { log_end: Offset::ZERO, last_epoch: Some(LeaderEpoch(4)) };

    /// Own log: epoch 2 in [0, 10), epoch 4 in [10, 20).
    fn lookup(epoch: LeaderEpoch) -> Option<EpochEnd> {
        match epoch.0 {
            0 | 1 => None,
            2 | 3 => Some(EpochEnd { epoch: LeaderEpoch(2), end: at(10) }),
            _ => Some(EpochEnd { epoch: LeaderEpoch(4), end: at(20) }),
        }
    }

    #[test]
    fn divergence_is_cut_by_epochs() {
        for (epoch, end, expected) in [(4, 15, 15), (4, 25, 20), (3, 12, 10), (2, 8, 8), (2, 10, 10)] {
            let mut follower = Follower::new(SpuId(1), LeaderEpoch(6));
            let answer = LeaderAnswer::Diverging(EpochEnd { epoch: LeaderEpoch(epoch), end: at(end) });
            let asked = Asked { log_end: at(20), ..ASKED };
            let step = follower.on_answer(own(0, 7, 20), asked, answer.clone(), at(0), lookup);
            assert_eq!(step, Some(FollowerStep::TruncateTail(at(expected))), "{epoch} {end}");
            for late in
                [Asked { log_end: at(19), ..asked }, Asked { last_epoch: Some(LeaderEpoch(2)), ..asked }]
            {
                assert_eq!(follower.on_answer(own(0, 7, 20), late, answer.clone(), at(0), lookup), None);
            }
        }
    }

    #[test]
    fn a_cut_below_the_high_watermark_stops_until_the_next_epoch() {
        let mut follower = Follower::new(SpuId(1), LeaderEpoch(6));
        let answer = LeaderAnswer::Diverging(EpochEnd { epoch: LeaderEpoch(2), end: at(8) });
        let asked = Asked { log_end: at(20), ..ASKED };
        let step = follower.on_answer(own(0, 9, 20), asked, answer, at(0), lookup);
        assert!(matches!(step, Some(FollowerStep::Stop(_))), "{step:?}");
        let more = LeaderAnswer::Batches(Bytes::from_static(b"x"));
        assert_eq!(follower.on_answer(own(0, 9, 20), asked, more, at(0), lookup), None);
        assert!(follower.after_append(own(0, 9, 20), at(20), at(0)).is_empty());
    }

    #[test]
    fn an_election_that_lost_records_lets_older_logs_be_cut_below_their_high_watermark() {
        for (lossy_epoch, cut) in [(0, false), (4, false), (5, true)] {
            let mut follower = Follower::new(SpuId(1), LeaderEpoch(6)).after_loss(LeaderEpoch(lossy_epoch));
            let answer = LeaderAnswer::Diverging(EpochEnd { epoch: LeaderEpoch(2), end: at(8) });
            let asked = Asked { log_end: at(20), ..ASKED };
            let step = follower.on_answer(own(0, 9, 20), asked, answer, at(0), lookup);
            assert_eq!(step == Some(FollowerStep::TruncateTail(at(8))), cut, "{lossy_epoch}: {step:?}");
        }
    }

    #[test]
    fn the_high_watermark_follows_up_to_the_own_end_and_the_start_follows_the_leader() {
        let follower = Follower::new(SpuId(1), LeaderEpoch(6));
        assert_eq!(
            follower.after_append(own(0, 5, 20), at(30), at(8)),
            [FollowerStep::HighWatermark(at(20)), FollowerStep::TrimHead(at(8))]
        );
        assert!(follower.after_append(own(3, 20, 20), at(10), at(2)).is_empty());
        let mut follower = follower;
        let asked = Asked { log_end: at(20), ..ASKED };
        let restart = follower.on_answer(own(0, 5, 20), asked, LeaderAnswer::Trimmed, at(40), lookup);
        assert_eq!(restart, Some(FollowerStep::Restart(at(40))));
    }
}
