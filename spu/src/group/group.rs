//! One group: its members, who holds which partition, and who shall. Pure.
//!
//! ```text
//!   target    who shall read a partition         follows members, topics and what is held (assign)
//!   holders   who may be reading it              a partition has one holder at most, until that gave it up
//!   assigned  what a member is told              what it holds and shall; it gives up what it holds and shall not
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::ids::{PartitionId, TopicId};
use plimsoll_proto::image::MetadataImage;

use super::assign::{Assignment, Candidate, assign};

/// The least time that passes.
const INSTANT: Duration = Duration::from_nanos(1);

/// A heartbeat as a group takes it.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat {
    pub(super) member_id: String,
    pub(super) member_epoch: u64,
    pub(super) sequence: u64,
    /// The latest of its heartbeats whose answer has reached it, if it says so.
    pub(super) heard_sequence: Option<u64>,
    pub(super) leave: bool,
    pub(super) topics: BTreeSet<String>,
    pub(super) owned: BTreeSet<PartitionId>,
    pub(super) session: Duration,
    pub(super) wait_max: Duration,
    pub(super) client: String,
}

/// Names a held heartbeat to whoever answers it.
pub(super) type Ticket = u64;

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) member_epoch: u64,
    pub(super) assigned: BTreeSet<PartitionId>,
    pub(super) incomplete: bool,
    pub(super) unknown_topics: Vec<String>,
}

/// Why a heartbeat is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no member (any more).
    UnknownMember,
    /// A later heartbeat of the member has come.
    Superseded,
}

/// The answer to a heartbeat.
pub(super) type Answer = (Ticket, Result<Told, Refused>);

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) client: String,
    pub(super) topics: BTreeSet<String>,
    pub(super) session: Duration,
    pub(super) heard_at: Duration,
    sequence: u64,
    waiting: Option<(Ticket, Duration)>,
    /// What it was told last, and by the answer to which heartbeat.
    told: Option<BTreeSet<PartitionId>>,
    told_sequence: u64,
}

#[derive(Clone, Debug)]
struct Holder {
    member: String,
    /// Epoch of the group when it got the partition.
    since: u64,
    /// The latest of its commits of the partition that has come.
    committing: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) epoch: u64,
    pub(super) members: BTreeMap<String, Member>,
    holders: BTreeMap<PartitionId, Holder>,
    target: Assignment,
    /// What members want, by which the target was made.
    wanted: BTreeMap<String, BTreeSet<PartitionId>>,
    /// Members of a former coordinator may still come; until then nothing is given away.
    pub(super) wait_until: Option<Duration>,
    /// It is written down that it has members: only then partitions are given.
    pub(super) noted: bool,
}

impl Group {
    pub(super) fn new(epoch: u64, wait_until: Option<Duration>, noted: bool) -> Self {
        Self { epoch, wait_until, noted, ..Self::default() }
    }

    /// Takes a heartbeat; its answer comes with [`Group::answers`].
    pub(super) fn heartbeat(
        &mut self,
        beat: Heartbeat,
        ticket: Ticket,
        now: Duration,
        image: &MetadataImage,
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        let id = beat.member_id.clone();
        match self.members.get_mut(&id) {
            Some(member) if beat.sequence < member.sequence => {
                return vec![(ticket, Err(Refused::Superseded))];
            }
            Some(member) => {
                if let Some((former, _)) = member.waiting.take() {
                    answers.push((former, Err(Refused::Superseded)));
                }
                let missed = beat.heard_sequence.is_some_and(|heard| heard < member.told_sequence);
                // It has begun anew and holds nothing; or the answer was under way when it gave up waiting for it.
                if beat.member_epoch == 0 || missed {
                    member.told = None;
                }
                member.heard_at = member.heard_at.max(now);
                member.sequence = beat.sequence;
                member.session = beat.session;
                member.topics = beat.topics;
                self.release(&id, &beat.owned);
            }
            None if beat.leave => {}
            None => {
                if beat.member_epoch > 0 && self.wait_until.is_none() {
                    return vec![(ticket, Err(Refused::UnknownMember))];
                }
                if beat.member_epoch > 0 {
                    self.adopt(&id, &beat);
                }
                let member = Member {
                    client: beat.client,
                    topics: beat.topics,
                    session: beat.session,
                    heard_at: now,
                    sequence: beat.sequence,
                    waiting: None,
                    told: None,
                    told_sequence: 0,
                };
                self.members.insert(id.clone(), member);
            }
        }
        if beat.leave {
            self.remove(&id);
            let told = Told {
                member_epoch: 0,
                assigned: BTreeSet::new(),
                incomplete: false,
                unknown_topics: Vec::new(),
            };
            answers.push((ticket, Ok(told)));
        } else if let Some(member) = self.members.get_mut(&id) {
            member.waiting = Some((ticket, now + beat.wait_max));
        }
        answers.extend(self.answers(now, image));
        answers
    }

    /// A member of a former coordinator brings along what it holds; of two that claim the same the later owner has it.
    fn adopt(&mut self, id: &str, beat: &Heartbeat) {
        for partition in &beat.owned {
            let later = self.holders.get(partition).is_none_or(|holder| holder.since < beat.member_epoch);
            if later {
                self.holders.insert(
                    *partition,
                    Holder { member: id.to_owned(), since: beat.member_epoch, committing: 0 },
                );
            }
        }
    }

    /// What a member does not own and shall not get, it does not hold any more.
    fn release(&mut self, id: &str, owned: &BTreeSet<PartitionId>) {
        let target = self.target.get(id);
        self.holders.retain(|partition, holder| {
            holder.member != id
                || owned.contains(partition)
                || target.is_some_and(|target| target.contains(partition))
        });
    }

    fn remove(&mut self, id: &str) {
        self.members.remove(id);
        self.holders.retain(|_, holder| holder.member != id);
    }

    /// Gives up the heartbeats that are held.
    pub(super) fn refuse_waiting(&mut self) -> Vec<Ticket> {
        let waiting = self.members.values_mut().filter_map(|member| member.waiting.take());
        waiting.map(|(ticket, _)| ticket).collect()
    }

    /// Removes who has been silent for its session timeout.
    pub(super) fn expire(&mut self, now: Duration) {
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| now.saturating_sub(member.heard_at) > member.session)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &silent {
            self.remove(id);
        }
    }

    /// The coordinator itself was paused: nobody is blamed for that time.
    pub(super) fn credit(&mut self, pause: Duration) {
        for member in self.members.values_mut() {
            member.heard_at += pause;
        }
        self.wait_until = self.wait_until.map(|until| until + pause);
    }

    /// Brings target and holders up to date, and answers who has something to learn or has waited long enough.
    pub(super) fn answers(&mut self, now: Duration, image: &MetadataImage) -> Vec<Answer> {
        if self.wait_until.is_some_and(|until| until <= now) {
            self.wait_until = None;
        }
        self.retarget(image);
        if self.wait_until.is_none() && self.noted {
            self.grant();
        }
        let mut answers = Vec::new();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let assigned = self.assigned(&id);
            let incomplete = self.target.get(&id).is_some_and(|target| target.len() > assigned.len());
            let epoch = self.epoch;
            let Some(member) = self.members.get_mut(&id) else { continue };
            let Some((ticket, deadline)) = member.waiting else { continue };
            // A new member waits for its first partitions rather than being told of none.
            let first = member.told.is_none() && incomplete && assigned.is_empty();
            let news = member.told.as_ref() != Some(&assigned) && !first;
            if news || deadline <= now {
                member.waiting = None;
                member.told = Some(assigned.clone());
                member.told_sequence = member.sequence;
                let unknown_topics = member
                    .topics
                    .iter()
                    .filter(|name| image.topic_by_name(name).is_none())
                    .cloned()
                    .collect();
                answers
                    .push((ticket, Ok(Told { member_epoch: epoch, assigned, incomplete, unknown_topics })));
            }
        }
        answers
    }

    fn retarget(&mut self, image: &MetadataImage) {
        let wanted: BTreeMap<String, BTreeSet<PartitionId>> = self
            .members
            .iter()
            .map(|(id, member)| (id.clone(), partitions_of(&member.topics, image)))
            .collect();
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        self.epoch += 1;
        let mut candidates: BTreeMap<String, Candidate> = self
            .wanted
            .iter()
            .map(|(id, wanted)| (id.clone(), Candidate { wanted: wanted.clone(), owned: BTreeSet::new() }))
            .collect();
        for (partition, holder) in &self.holders {
            if let Some(candidate) = candidates.get_mut(&holder.member) {
                candidate.owned.insert(*partition);
            }
        }
        self.target = assign(&candidates);
    }

    /// Gives what nobody holds to who shall have it.
    fn grant(&mut self) {
        for (id, partitions) in &self.target {
            for partition in partitions {
                self.holders.entry(*partition).or_insert_with(|| Holder {
                    member: id.clone(),
                    since: self.epoch,
                    committing: 0,
                });
            }
        }
    }

    /// What a member is to read now.
    pub(super) fn assigned(&self, id: &str) -> BTreeSet<PartitionId> {
        let Some(target) = self.target.get(id) else { return BTreeSet::new() };
        let held =
            |partition: &&PartitionId| self.holders.get(*partition).is_some_and(|holder| holder.member == id);
        target.iter().filter(held).copied().collect()
    }

    /// Whether a member has to give something up, or waits for something.
    pub(super) fn is_rebalancing(&self, id: &str) -> bool {
        let held = self.holders.iter().filter(|(_, holder)| holder.member == id).count();
        let target = self.target.get(id).map_or(0, BTreeSet::len);
        let assigned = self.assigned(id).len();
        held != assigned || target != assigned
    }

    /// Since which epoch a member holds a partition, if it does.
    pub(super) fn held_since(&self, id: &str, partition: &PartitionId) -> Option<u64> {
        self.holders.get(partition).filter(|holder| holder.member == id).map(|holder| holder.since)
    }

    /// Takes a commit of its holder in, by its number; `false` when a later one of any of these partitions has come.
    pub(super) fn take_commit(&mut self, partitions: &BTreeSet<PartitionId>, sequence: u64) -> bool {
        let later =
            |partition| self.holders.get(partition).is_some_and(|holder| holder.committing > sequence);
        if partitions.iter().any(later) {
            return false;
        }
        for partition in partitions {
            if let Some(holder) = self.holders.get_mut(partition) {
                holder.committing = sequence;
            }
        }
        true
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let waits = self.members.values().filter_map(|member| member.waiting.map(|(_, deadline)| deadline));
        // A session ends behind its last instant: one that is looked at in that instant would be due at once again.
        let sessions = self.members.values().map(|member| member.heard_at + member.session + INSTANT);
        waits.chain(sessions).chain(self.wait_until).min()
    }

    /// The longest session timeout of its members.
    pub(super) fn session_max(&self) -> Duration {
        self.members.values().map(|member| member.session).max().unwrap_or_default()
    }
}

fn partitions_of(topics: &BTreeSet<String>, image: &MetadataImage) -> BTreeSet<PartitionId> {
    let mut partitions = BTreeSet::new();
    for topic in topics.iter().filter_map(|name| image.topic_by_name(name)) {
        let Ok(topic_id) = TopicId::from_slice(&topic.topic_id) else { continue };
        partitions.extend(topic.partitions.iter().map(|info| PartitionId { topic_id, index: info.index }));
    }
    partitions
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
