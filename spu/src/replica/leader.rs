//! The leader of a partition: progress of its followers, the high watermark, the in-sync set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{Incarnation, Offset, SpuId};
use plimsoll_proto::v1::Acks;

use super::term::{LogEnds, Peer, ProduceRefusal, Proposal, Term};

/// A gap between two ticks beyond which the leader itself was paused: followers are not blamed for it.
const OWN_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Pause before the next proposal after one was turned down or got no answer.
const PROPOSAL_PAUSE: Duration = Duration::from_secs(1);

/// State of a leader. Made anew for each leader epoch.
#[derive(Clone, Debug)]
pub struct Leader {
    term: Term,
    lag_max: Duration,
    epoch_start: Offset,
    ends: LogEnds,
    high_watermark: Offset,
    followers: BTreeMap<SpuId, Progress>,
    proposed: Option<Proposed>,
    propose_not_before: Duration,
    ticked_at: Duration,
}

/// What is known of a follower in this epoch.
#[derive(Clone, Copy, Debug)]
struct Progress {
    fetched: Option<Fetch>,
    /// When it last had everything that the leader had.
    caught_up_at: Duration,
    level: DiskLevel,
    /// Number of the answer that last brought it something.
    served: u64,
}

#[derive(Clone, Copy, Debug)]
struct Fetch {
    incarnation: Incarnation,
    ends: LogEnds,
    at: Duration,
    /// End of the leader's log at that time.
    leader_end: Offset,
}

#[derive(Clone, Debug)]
struct Proposed {
    proposal: Proposal,
    /// When to send it (again); `None` while an answer or the committed set is awaited.
    send_at: Option<Duration>,
}

/// A follower's position, compared with the leader's log before ([`super::Position::Continues`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedPosition {
    /// Incarnation of its node.
    pub incarnation: Incarnation,
    /// Its ends.
    pub ends: LogEnds,
    /// Level of its volume.
    pub level: DiskLevel,
}

/// A fetch that counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaleFetch {
    /// The sender has no replica of this partition.
    #[error("the sender has no replica of this partition")]
    NotAssigned,
    /// The sender's node has started again since.
    #[error("the sender has been replaced by incarnation {current}")]
    OldIncarnation {
        /// The latest one known.
        current: Incarnation,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// It was committed; the metadata will show it.
    Applied,
    /// It changed nothing, and the partition is at this version. Beyond the expected one, nothing made from
    /// that can be committed any more; at it, a copy of the proposal still on its way could be.
    Rejected {
        /// Version of the partition when it was turned down.
        partition_epoch: plimsoll_proto::ids::PartitionEpoch,
    },
    /// No answer. It may still be committed, so it keeps counting and is sent again.
    Unknown,
}

impl Leader {
    /// Takes over with a log that ends at `ends`, knowing `high_watermark`.
    pub fn new(term: Term, ends: LogEnds, high_watermark: Offset, lag_max: Duration, now: Duration) -> Self {
        assert!(high_watermark <= ends.log_end, "the high watermark is never beyond the log end");
        let mut leader = Self {
            term,
            lag_max,
            epoch_start: ends.log_end,
            ends,
            high_watermark,
            followers: BTreeMap::new(),
            proposed: None,
            propose_not_before: now,
            ticked_at: now,
        };
        leader.term.in_sync.insert(leader.term.me);
        leader.follow_assignment(now);
        leader.advance();
        leader
    }

    /// The committed metadata as last told.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// End of committed records.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The end for reads of the latest: known only when the high watermark has reached the start of this
    /// leader's epoch, since a former leader may have acknowledged up to there.
    pub fn latest(&self) -> Option<Offset> {
        (self.high_watermark >= self.epoch_start).then_some(self.high_watermark)
    }

    /// Metadata of the same epoch changed. Returns whether the high watermark moved.
    pub fn on_term(&mut self, term: Term, now: Duration) -> bool {
        assert_eq!(term.epoch, self.term.epoch, "another epoch is another leader");
        let newer = term.partition_epoch > self.term.partition_epoch;
        let in_sync = if newer { term.in_sync.clone() } else { self.term.in_sync.clone() };
        let partition_epoch = self.term.partition_epoch.max(term.partition_epoch);
        self.term = Term { in_sync, partition_epoch, ..term };
        self.term.in_sync.insert(self.term.me);
        if self.proposed.as_ref().is_some_and(|p| p.proposal.partition_epoch < self.term.partition_epoch) {
            self.proposed = None;
        }
        self.follow_assignment(now);
        self.advance()
    }

    /// The own log moved. Returns whether the high watermark moved.
    pub fn on_own_log(&mut self, ends: LogEnds) -> bool {
        assert!(ends.log_end >= self.ends.log_end, "a leader never cuts its log");
        self.ends = ends;
        self.advance()
    }

    /// A follower fetches in this epoch. Returns whether the high watermark moved.
    ///
    /// # Errors
    /// [`StaleFetch`]; nothing changed.
    pub fn on_fetch(
        &mut self,
        spu: SpuId,
        position: ReportedPosition,
        now: Duration,
    ) -> Result<bool, StaleFetch> {
        let registered = self.term.peers.get(&spu).ok_or(StaleFetch::NotAssigned)?.incarnation;
        let leader_end = self.ends.log_end;
        let progress = self.followers.get_mut(&spu).ok_or(StaleFetch::NotAssigned)?;
        let seen = progress.fetched.map(|fetch| fetch.incarnation);
        if let Some(current) = registered.max(seen).filter(|current| position.incarnation < *current) {
            return Err(StaleFetch::OldIncarnation { current });
        }
        if position.ends.log_end >= leader_end {
            progress.caught_up_at = now;
        } else if let Some(last) = progress.fetched
            && position.ends.log_end >= last.leader_end
        {
            progress.caught_up_at = progress.caught_up_at.max(last.at);
        }
        progress.level = position.level;
        progress.fetched =
            Some(Fetch { incarnation: position.incarnation, ends: position.ends, at: now, leader_end });
        Ok(self.advance())
    }

    /// Says only how full the follower's volume is, of one whose log does not continue the leader's yet.
    pub fn on_level(&mut self, spu: SpuId, level: DiskLevel) {
        if let Some(progress) = self.followers.get_mut(&spu) {
            progress.level = level;
        }
    }

    /// Whether the high watermark waits for the follower: it is in the set, or in a proposed one.
    pub fn counts(&self, spu: SpuId) -> bool {
        let proposed =
            self.proposed.as_ref().is_some_and(|proposed| proposed.proposal.in_sync.contains(&spu));
        self.term.in_sync.contains(&spu) || proposed
    }

    /// In which answer the follower last got something; 0 for none.
    pub fn served(&self, spu: SpuId) -> u64 {
        self.followers.get(&spu).map_or(0, |progress| progress.served)
    }

    /// The follower gets something in this answer.
    pub fn on_served(&mut self, spu: SpuId, answer: u64) {
        if let Some(progress) = self.followers.get_mut(&spu) {
            progress.served = answer;
        }
    }

    /// Whether a produce may be appended now.
    ///
    /// # Errors
    /// [`ProduceRefusal`].
    pub fn admit(&self, acks: Acks, lease_runs: bool) -> Result<(), ProduceRefusal> {
        let all = matches!(acks, Acks::All | Acks::Unspecified);
        if !all && !lease_runs {
            return Err(ProduceRefusal::LeaseRanOut);
        }
        let members = self.term.in_sync.len();
        let full = self.term.in_sync.iter().filter(|spu| self.is_full(**spu)).count();
        // A full member leaves the set by the entry that takes its volume offline, unless too few would remain.
        let too_few = members < self.term.min_in_sync;
        let full_ones_stay = members - full < self.term.min_in_sync;
        let refused = if all { too_few || full_ones_stay } else { !too_few && full_ones_stay };
        if !refused {
            return Ok(());
        }
        let why = |spu: &SpuId| {
            let progress = self.followers.get(spu);
            match progress.map(|p| p.level) {
                Some(level) if level >= DiskLevel::ReadOnly => Some(format!("its volume is {level}")),
                _ if !self.term.in_sync.contains(spu) => Some(match progress.and_then(|p| p.fetched) {
                    Some(_) => "it is catching up".to_owned(),
                    None => "it does not fetch".to_owned(),
                }),
                _ => None,
            }
        };
        Err(ProduceRefusal::NotEnoughInSync {
            in_sync: self.term.in_sync.iter().copied().collect(),
            min_in_sync: self.term.min_in_sync,
            out: self.term.peers.keys().filter_map(|spu| Some((*spu, why(spu)?))).collect(),
        })
    }

    /// Whether the committed set is large enough: below its minimum the high watermark stands still, and what it has
    /// reached is not acknowledged as replicated.
    pub fn acknowledges(&self) -> bool {
        self.term.in_sync.len() >= self.term.min_in_sync
    }

    /// Replicas, the leader included, that have everything below `end`.
    pub fn copies(&self, end: Offset) -> u32 {
        let followers = self.followers.values().filter_map(|p| p.fetched);
        let having = followers.filter(|fetch| self.counted_end(fetch.ends) >= end).count();
        u32::try_from(having)
            .unwrap_or(u32::MAX)
            .saturating_add(u32::from(self.counted_end(self.ends) >= end))
    }

    /// End of what at least `min_in_sync` replicas have: nothing beyond it may be reclaimed.
    pub fn replicated_to(&self) -> Offset {
        let mut ends: Vec<Offset> =
            self.followers.values().filter_map(|p| p.fetched).map(|fetch| fetch.ends.log_end).collect();
        ends.push(self.ends.log_end);
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.term.min_in_sync.max(1) - 1).copied().unwrap_or(Offset::ZERO).min(self.high_watermark)
    }

    /// Time passes. Returns the proposal to send now, if any; the same one again when the last got no answer.
    pub fn tick(&mut self, now: Duration) -> Option<Proposal> {
        let gap = now.saturating_sub(self.ticked_at);
        self.ticked_at = now;
        if gap > OWN_PAUSE_MIN {
            // Who did not look can't say that the others were late.
            for progress in self.followers.values_mut() {
                progress.caught_up_at = (progress.caught_up_at + gap).min(now);
            }
        }
        if let Some(proposed) = &mut self.proposed {
            let due = proposed.send_at.is_some_and(|at| at <= now);
            proposed.send_at = proposed.send_at.filter(|_| !due);
            return due.then(|| proposed.proposal.clone());
        }
        if now < self.propose_not_before {
            return None;
        }
        let proposal = self.shrink(now).or_else(|| self.expand(now))?;
        assert!(proposal.in_sync.contains(&self.term.me), "a leader never proposes a set without itself");
        self.proposed = Some(Proposed { proposal: proposal.clone(), send_at: None });
        Some(proposal)
    }

    /// What became of the proposal made from `partition_epoch`. Whatever the answer, the proposed set counts until
    /// the metadata shows a later version of the partition: only then is it known what was committed.
    pub fn on_proposal(
        &mut self,
        partition_epoch: plimsoll_proto::ids::PartitionEpoch,
        outcome: ProposalOutcome,
        now: Duration,
    ) {
        let Some(proposed) = &mut self.proposed else { return };
        if proposed.proposal.partition_epoch != partition_epoch {
            return;
        }
        match outcome {
            ProposalOutcome::Applied => proposed.send_at = None,
            ProposalOutcome::Rejected { partition_epoch: current } => {
                self.propose_not_before = now + PROPOSAL_PAUSE;
                proposed.send_at = (current <= partition_epoch).then_some(now + PROPOSAL_PAUSE);
            }
            ProposalOutcome::Unknown => proposed.send_at = Some(now + PROPOSAL_PAUSE),
        }
    }

    fn shrink(&self, now: Duration) -> Option<Proposal> {
        let late = |spu: &SpuId| *spu != self.term.me && self.is_late(*spu, now);
        if !self.term.in_sync.iter().any(late) {
            return None;
        }
        let mut remaining = self.term.in_sync.clone();
        let (full, slow): (Vec<SpuId>, Vec<SpuId>) =
            self.term.in_sync.iter().filter(|spu| late(spu)).partition(|spu| self.is_full(**spu));
        for spu in &slow {
            remaining.remove(spu);
        }
        for spu in &full {
            // For fullness a member leaves only while enough remain.
            if remaining.len() > self.term.min_in_sync {
                remaining.remove(spu);
            }
        }
        let out: Vec<String> = self.term.in_sync.difference(&remaining).map(ToString::to_string).collect();
        (!out.is_empty()).then(|| self.propose(remaining, format!("behind: spu {}", out.join(", "))))
    }

    /// Who joins fetches now and would not be proposed for removal at once: in a set below its minimum the high watermark
    /// stands still, and one that fetches no more has reached it for ever.
    fn expand(&self, now: Duration) -> Option<Proposal> {
        let joins = |(spu, peer): (&SpuId, &Peer)| {
            let progress = self.followers.get(spu)?;
            let fetch = progress.fetched?;
            let ready = !self.term.in_sync.contains(spu)
                && peer.writable
                && peer.incarnation == Some(fetch.incarnation)
                && !self.is_full(*spu)
                && now.saturating_sub(fetch.at) <= self.lag_max
                && !self.is_late(*spu, now)
                && self.counted_end(fetch.ends) >= self.high_watermark.max(self.epoch_start);
            ready.then_some(*spu)
        };
        let joining: BTreeSet<SpuId> = self.term.peers.iter().filter_map(joins).collect();
        if joining.is_empty() {
            return None;
        }
        let names: Vec<String> = joining.iter().map(ToString::to_string).collect();
        let set = self.term.in_sync.union(&joining).copied().collect();
        Some(self.propose(set, format!("caught up: spu {}", names.join(", "))))
    }

    fn propose(&self, in_sync: BTreeSet<SpuId>, reason: String) -> Proposal {
        Proposal { in_sync, partition_epoch: self.term.partition_epoch, reason }
    }

    /// Whether a follower has not reached the leader's log end for too long.
    fn is_late(&self, spu: SpuId, now: Duration) -> bool {
        self.followers.get(&spu).is_none_or(|progress| {
            let behind = progress.fetched.is_none_or(|fetch| fetch.ends.log_end < self.ends.log_end);
            behind && now.saturating_sub(progress.caught_up_at) > self.lag_max
        })
    }

    fn is_full(&self, spu: SpuId) -> bool {
        let barred = if self.term.in_reserve { DiskLevel::Failed } else { DiskLevel::ReadOnly };
        self.followers.get(&spu).is_some_and(|progress| progress.level >= barred)
    }

    fn counted_end(&self, ends: LogEnds) -> Offset {
        if self.term.flush_ack { ends.durable_end } else { ends.log_end }
    }

    /// Moves the high watermark to what the committed set and a proposed one have, never back. A set below its
    /// minimum commits nothing: those who left it stay eligible as leaders on that ground.
    fn advance(&mut self) -> bool {
        if !self.acknowledges() {
            return false;
        }
        let proposed = self.proposed.iter().flat_map(|p| &p.proposal.in_sync);
        let ends = self.term.in_sync.iter().chain(proposed).map(|spu| {
            if *spu == self.term.me {
                return self.counted_end(self.ends);
            }
            let fetched = self.followers.get(spu).and_then(|progress| progress.fetched);
            fetched.map_or(Offset::ZERO, |fetch| self.counted_end(fetch.ends))
        });
        // A follower may claim more than the leader has only before its first comparison; never count it.
        let bound = ends.min().unwrap_or(Offset::ZERO).min(self.ends.log_end);
        let moved = bound > self.high_watermark;
        if moved {
            self.high_watermark = bound;
        }
        moved
    }

    fn follow_assignment(&mut self, now: Duration) {
        let peers = &self.term.peers;
        self.followers.retain(|spu, _| peers.contains_key(spu));
        for spu in peers.keys() {
            self.followers.entry(*spu).or_insert(Progress {
                fetched: None,
                caught_up_at: now,
                level: DiskLevel::Normal,
                served: 0,
            });
        }
    }
}
