//! The groups of one partition of the internal topic, in one epoch of its leader. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::ids::PartitionId;
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use plimsoll_storage::offsets::{GroupOffsets, GroupValue};

use super::expiry;
use super::group::{Answer, Group, Heartbeat, Refused, Ticket, Told};

/// A gap between two turns beyond which the coordinator itself was paused: members are not blamed for it.
const OWN_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Groups with members at most.
const GROUPS_MAX: usize = 10_000;
/// Pause before a note that was refused is tried again.
const NOTE_AGAIN: Duration = Duration::from_millis(100);
/// When a member that a new coordinator waits for may ask again.
const COMES_BACK_WITHIN: Duration = Duration::from_millis(100);
/// Members of a group at most.
const MEMBERS_MAX: usize = 1000;

/// What the owner of a coordinator is to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// Answer a held heartbeat.
    Answer(Ticket, Result<Told, Box<ErrorDetail>>),
    /// Write down whether a group has members, and tell [`Coordinator::noted`] what came of it.
    Note(String, GroupValue),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    /// Groups begin with this epoch: above all that were given, here and by former coordinators.
    first_epoch: u64,
    groups: BTreeMap<String, Group>,
    /// Groups whose note is under way, with the session timeout that it names.
    noting: BTreeMap<String, Duration>,
    /// Session timeouts as written down.
    noted: BTreeMap<String, Duration>,
    /// Groups whose note was refused, and when it is tried again.
    again_at: BTreeMap<String, Duration>,
    turned_at: Option<Duration>,
}

impl Coordinator {
    /// Takes over with what its log says: groups that had members are waited for.
    pub(super) fn new(leader_epoch: u32, kept: &BTreeMap<String, GroupOffsets>, now: Duration) -> Self {
        let first_epoch = u64::from(leader_epoch) << 32;
        let mut this = Self { first_epoch, turned_at: Some(now), ..Self::default() };
        for (name, kept) in kept {
            if let Some(value) = kept.group.filter(|value| value.has_members) {
                let session = Duration::from_millis(u64::from(value.session_ms));
                this.groups.insert(name.clone(), Group::new(first_epoch, Some(now + session), true));
                this.noted.insert(name.clone(), session);
            }
        }
        this
    }

    pub(super) fn heartbeat(
        &mut self,
        name: &str,
        beat: Heartbeat,
        ticket: Ticket,
        now: Duration,
        image: &MetadataImage,
    ) -> Vec<Command> {
        let known = self.groups.get(name);
        let crowded = known.map_or(self.groups.len() >= GROUPS_MAX, |group| {
            group.members.len() >= MEMBERS_MAX && !group.members.contains_key(&beat.member_id)
        });
        if crowded {
            let detail = ErrorDetail::not_written(Reason::MemoryPressure, "too many groups or members");
            return vec![Command::Answer(ticket, Err(Box::new(detail.retry_after(Duration::from_secs(1)))))];
        }
        let first_epoch = self.first_epoch;
        let group =
            self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(first_epoch, None, false));
        let answers = group.heartbeat(beat, ticket, now, image);
        let mut commands = in_words(answers);
        commands.extend(self.note(name, now));
        commands
    }

    /// Writes a group down that got its first member, lost its last, or has one with a longer session timeout.
    fn note(&mut self, name: &str, now: Duration) -> Option<Command> {
        let group = self.groups.get(name)?;
        if self.noting.contains_key(name) {
            return None;
        }
        let session = group.session_max();
        let noted = self.noted.get(name).copied();
        let waits = group.wait_until.is_some_and(|until| until > now);
        let value = |has_members| GroupValue {
            has_members,
            changed_ms: 0,
            session_ms: u32::try_from(session.as_millis()).unwrap_or(u32::MAX),
        };
        if group.members.is_empty() {
            if waits {
                return None;
            }
            if noted.is_none() {
                // Who joins later is a later owner than any member before.
                self.first_epoch = self.first_epoch.max(group.epoch + 1);
                self.groups.remove(name);
                self.again_at.remove(name);
                return None;
            }
        } else if noted.is_some_and(|noted| noted >= session) {
            return None;
        }
        let has_members = !group.members.is_empty();
        if self.again_at.get(name).is_some_and(|at| *at > now) {
            return None;
        }
        self.again_at.remove(name);
        self.noting.insert(name.to_owned(), session);
        Some(Command::Note(name.to_owned(), value(has_members)))
    }

    /// What came of [`Command::Note`].
    pub(super) fn noted(
        &mut self,
        name: &str,
        has_members: bool,
        result: Result<(), ErrorDetail>,
        now: Duration,
        image: &MetadataImage,
    ) -> Vec<Command> {
        let Some(session) = self.noting.remove(name) else { return Vec::new() };
        let mut commands = Vec::new();
        match (result, has_members) {
            (Ok(()), true) => {
                self.noted.insert(name.to_owned(), session);
                if let Some(group) = self.groups.get_mut(name) {
                    group.noted = true;
                    commands.extend(in_words(group.answers(now, image)));
                }
            }
            (Ok(()), false) => {
                self.noted.remove(name);
                if let Some(group) = self.groups.get_mut(name) {
                    group.noted = false;
                }
            }
            (Err(detail), _) => {
                self.again_at.insert(name.to_owned(), now.saturating_add(NOTE_AGAIN));
                // Who waits to join is told why; it tries again.
                if let Some(group) = self.groups.get_mut(name).filter(|group| !group.noted) {
                    commands.extend(
                        group
                            .refuse_waiting()
                            .into_iter()
                            .map(|ticket| Command::Answer(ticket, Err(Box::new(detail.clone())))),
                    );
                }
                return commands;
            }
        }
        commands.extend(self.note(name, now));
        commands
    }

    /// Another node takes over: the heartbeats that are held.
    pub(super) fn let_go(self) -> Vec<Ticket> {
        self.groups.into_values().flat_map(|mut group| group.refuse_waiting()).collect()
    }

    /// Time passes: sessions end, held heartbeats are answered.
    pub(super) fn tick(&mut self, now: Duration, image: &MetadataImage) -> Vec<Command> {
        let gap = self.turned_at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.turned_at = Some(now);
        let mut commands = Vec::new();
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            if let Some(group) = self.groups.get_mut(&name) {
                if gap > OWN_PAUSE_MIN {
                    group.credit(gap);
                }
                group.expire(now);
                commands.extend(in_words(group.answers(now, image)));
            }
            commands.extend(self.note(&name, now));
        }
        commands
    }

    /// Whether these offsets may be committed, and by an owner since which epoch each. `sequence` counts the member's
    /// commits; 0 is one that is not counted.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER, with a time to try again as long as members of a former coordinator may come, of which this may
    /// be one; NOT_PARTITION_OWNER; GROUP_ACTIVE for somebody who is no member while there are any;
    /// EXPECTATION_FAILED when a later commit has come.
    pub(super) fn may_commit(
        &mut self,
        name: &str,
        member_id: &str,
        sequence: u64,
        partitions: &BTreeSet<PartitionId>,
    ) -> Result<BTreeMap<PartitionId, u64>, ErrorDetail> {
        if member_id.is_empty() {
            self.check_idle(name)?;
            // Later than every owner of this coordinator's time and before: members join with later epochs still.
            let since = self.groups.get(name).map_or(self.first_epoch, |group| group.epoch);
            return Ok(partitions.iter().map(|partition| (*partition, since)).collect());
        }
        let group = self.groups.get_mut(name);
        let expects = group.as_ref().is_some_and(|group| group.wait_until.is_some());
        let unknown = || {
            let message = format!("{member_id} is not a member of group {name}; join again");
            let detail = ErrorDetail::not_written(Reason::UnknownMember, message);
            if expects { detail.retry_after(COMES_BACK_WITHIN) } else { detail }
        };
        let group = group.filter(|group| group.members.contains_key(member_id)).ok_or_else(unknown)?;
        let since = |partition: &PartitionId| {
            let owner = || {
                let message = format!("{partition} does not belong to {member_id} of group {name}");
                ErrorDetail::not_written(Reason::NotPartitionOwner, message)
            };
            Ok((*partition, group.held_since(member_id, partition).ok_or_else(owner)?))
        };
        let since = partitions.iter().map(since).collect::<Result<_, ErrorDetail>>()?;
        if sequence > 0 && !group.take_commit(partitions, sequence) {
            let message = format!("a later commit of {member_id} of group {name} has come");
            return Err(ErrorDetail::not_written(Reason::ExpectationFailed, message));
        }
        Ok(since)
    }

    /// Whether a group has no members, and none may still come from a former coordinator.
    ///
    /// # Errors
    /// GROUP_ACTIVE.
    pub(super) fn check_idle(&self, name: &str) -> Result<(), ErrorDetail> {
        let Some(group) = self.groups.get(name) else { return Ok(()) };
        if group.members.is_empty() && group.wait_until.is_none() {
            return Ok(());
        }
        let message = match group.members.len() {
            0 => format!("group {name} had members a moment ago, which may come back"),
            members => format!("group {name} has {members} members; stop them first"),
        };
        Err(ErrorDetail::not_written(Reason::GroupActive, message).retry_after(Duration::from_secs(10)))
    }

    /// Groups that nobody is a member of, or may still come back to, and to which nothing happened since `before_ms`.
    pub(super) fn dead(&self, kept: &BTreeMap<String, GroupOffsets>, before_ms: u64) -> Vec<String> {
        let unused = |name: &String| !self.groups.contains_key(name) && !self.noting.contains_key(name);
        let dead = kept.iter().filter(|(name, kept)| unused(name) && expiry::is_dead(kept, before_ms));
        dead.map(|(name, _)| name.clone()).collect()
    }

    /// Members of each group that has any.
    pub(super) fn members(&self) -> BTreeMap<&str, usize> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group.members.len())).collect()
    }

    /// A group with its members.
    pub(super) fn describe(&self, name: &str, now: Duration) -> Option<(u64, Vec<v1::GroupMember>)> {
        let group = self.groups.get(name)?;
        let member = |(id, member): (&String, &super::group::Member)| v1::GroupMember {
            member_id: id.clone(),
            client: member.client.clone(),
            topics: member.topics.iter().cloned().collect(),
            assigned: super::request::by_topic(&group.assigned(id)),
            rebalancing: group.is_rebalancing(id),
            heartbeat_age_ms: u64::try_from(now.saturating_sub(member.heard_at).as_millis())
                .unwrap_or(u64::MAX),
        };
        Some((group.epoch, group.members.iter().map(member).collect()))
    }

    /// When something is due without an event.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.groups.values().filter_map(Group::next_deadline).min()
    }
}

fn in_words(answers: Vec<Answer>) -> Vec<Command> {
    let command = |(ticket, answer): Answer| {
        let answer = answer.map_err(|refused| {
            Box::new(match refused {
                Refused::UnknownMember => {
                    ErrorDetail::not_written(Reason::UnknownMember, "not a member of the group; join again")
                }
                Refused::Superseded => {
                    ErrorDetail::not_written(Reason::ExpectationFailed, "a later heartbeat has come")
                }
            })
        });
        Command::Answer(ticket, answer)
    };
    answers.into_iter().map(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(member: &str, sequence: u64, leave: bool) -> Heartbeat {
        Heartbeat {
            member_id: member.to_owned(),
            member_epoch: 0,
            sequence,
            heard_sequence: None,
            leave,
            topics: BTreeSet::new(),
            owned: BTreeSet::new(),
            session: Duration::from_secs(5),
            wait_max: Duration::from_secs(1),
            client: String::new(),
        }
    }

    #[test]
    fn a_group_is_noted_when_it_begins_and_when_it_ends() {
        let image = MetadataImage::empty();
        let s = Duration::from_secs;
        let mut coordinator = Coordinator::new(1, &BTreeMap::new(), s(0));
        let notes = |commands: &[Command]| {
            commands
                .iter()
                .filter_map(|c| if let Command::Note(_, v) = c { Some(v.has_members) } else { None })
                .collect::<Vec<_>>()
        };
        assert_eq!(notes(&coordinator.heartbeat("g", beat("a", 1, false), 1, s(0), &image)), [true]);
        assert_eq!(notes(&coordinator.heartbeat("g", beat("b", 1, false), 2, s(0), &image)), [false; 0]);
        assert!(
            coordinator
                .noted("g", true, Ok(()), s(0), &image)
                .iter()
                .all(|c| matches!(c, Command::Answer(..)))
        );
        assert!(coordinator.check_idle("g").is_err());
        let none = BTreeSet::new();
        assert!(coordinator.may_commit("g", "a", 0, &none).is_ok());
        assert_eq!(
            coordinator.may_commit("g", "z", 0, &none).expect_err("unknown").reason(),
            Reason::UnknownMember
        );
        let foreign = [PartitionId { topic_id: plimsoll_proto::ids::TopicId([1; 16]), index: 0 }].into();
        let refused = coordinator.may_commit("g", "a", 0, &foreign).expect_err("not its own");
        assert_eq!(refused.reason(), Reason::NotPartitionOwner);
        assert_eq!(
            coordinator.may_commit("g", "", 0, &foreign).expect_err("active").reason(),
            Reason::GroupActive
        );
        let before = coordinator.describe("g", s(1)).map(|(epoch, _)| epoch);
        coordinator.heartbeat("g", beat("a", 2, true), 3, s(1), &image);
        // The other one falls silent; the coordinator's own pause does not count.
        assert_eq!(notes(&coordinator.tick(s(60), &image)), [false; 0]);
        for second in 60..66 {
            for half in [0, 400, 800] {
                let commands = coordinator.tick(s(second) + Duration::from_millis(half), &image);
                if notes(&commands) == [false] {
                    assert!(second >= 64, "{second}");
                    coordinator.noted("g", false, Ok(()), s(66), &image);
                    assert!(coordinator.may_commit("g", "", 0, &foreign).is_ok());
                    assert!(coordinator.members().is_empty());
                    let mut again = |sequence, at| {
                        let commands = coordinator.heartbeat("g", beat("c", sequence, false), 9, at, &image);
                        assert_eq!(notes(&commands), [true]);
                        coordinator.describe("g", at).map(|(epoch, _)| epoch)
                    };
                    assert!(again(1, s(70)) > before, "epochs never go back");
                    return;
                }
            }
        }
        panic!("the session has not ended");
    }

    #[test]
    fn a_note_that_was_refused_is_tried_again_after_a_pause() {
        let image = MetadataImage::empty();
        let ms = Duration::from_millis;
        let mut coordinator = Coordinator::new(1, &BTreeMap::new(), ms(0));
        let is_note = |command: &Command| matches!(command, Command::Note(..));
        coordinator.heartbeat("g", beat("a", 1, false), 1, ms(0), &image);
        let refused = ErrorDetail::not_written(Reason::NotEnoughInSync, "one of three");
        let told = coordinator.noted("g", true, Err(refused), ms(1), &image);
        assert!(!told.iter().any(is_note));
        assert!(!coordinator.tick(ms(1), &image).iter().any(is_note), "a lane that asks at once again spins");
        assert!(!coordinator.heartbeat("g", beat("a", 2, false), 2, ms(2), &image).iter().any(is_note));
        assert!(coordinator.tick(ms(1) + NOTE_AGAIN, &image).iter().any(is_note));
    }

    #[test]
    fn heartbeats_are_handed_over_with_the_group() {
        let image = MetadataImage::empty();
        let mut coordinator = Coordinator::new(1, &BTreeMap::new(), Duration::ZERO);
        for (member, sequence, ticket) in [("a", 1, 1), ("b", 1, 2), ("a", 2, 3), ("b", 2, 4)] {
            let next = Heartbeat { member_epoch: u64::from(sequence > 1), ..beat(member, sequence, false) };
            coordinator.heartbeat("g", next, ticket, Duration::ZERO, &image);
        }
        assert_eq!(coordinator.let_go(), [3, 4], "the first ones had news to hear");
    }

    #[test]
    fn who_may_come_back_to_a_new_coordinator_is_told_to_try_again() {
        let image = MetadataImage::empty();
        let s = Duration::from_secs;
        let had = GroupOffsets {
            group: Some(GroupValue { has_members: true, changed_ms: 50, session_ms: 5000 }),
            offsets: BTreeMap::new(),
        };
        let mut coordinator = Coordinator::new(3, &[("g".to_owned(), had)].into(), s(0));
        let partition = PartitionId { topic_id: plimsoll_proto::ids::TopicId([1; 16]), index: 0 };
        let mine = [partition].into();
        let early = coordinator.may_commit("g", "a", 1, &mine).expect_err("not heard of yet");
        assert_eq!((early.reason(), early.retry_after_ms > 0), (Reason::UnknownMember, true));
        let back = Heartbeat { member_epoch: 2, owned: mine.clone(), ..beat("a", 7, false) };
        coordinator.heartbeat("g", back, 1, s(1), &image);
        assert_eq!(coordinator.may_commit("g", "a", 1, &mine), Ok([(partition, 2)].into()));
        // Nobody else comes any more.
        (2..40).for_each(|half| drop(coordinator.tick(Duration::from_millis(500) * half, &image)));
        let late = coordinator.may_commit("g", "b", 1, &mine).expect_err("unknown");
        assert_eq!((late.reason(), late.retry_after_ms), (Reason::UnknownMember, 0));
    }

    #[test]
    fn a_dead_group_is_one_that_nobody_uses() {
        let image = MetadataImage::empty();
        let s = Duration::from_secs;
        let old = GroupOffsets {
            group: Some(GroupValue { has_members: false, changed_ms: 50, session_ms: 5000 }),
            offsets: BTreeMap::new(),
        };
        let kept: BTreeMap<String, GroupOffsets> =
            ["a", "b"].map(|name| (name.to_owned(), old.clone())).into();
        let mut coordinator = Coordinator::new(1, &kept, s(0));
        assert_eq!(coordinator.dead(&kept, 100), ["a", "b"]);
        assert_eq!(coordinator.dead(&kept, 50), [""; 0], "not old enough");
        // Somebody joins: also before that is written down.
        coordinator.heartbeat("b", beat("m", 1, false), 1, s(0), &image);
        assert_eq!(coordinator.dead(&kept, 100), ["a"]);
        // One that a former coordinator knew members of is waited for.
        let mut had = kept.clone();
        had.insert(
            "c".to_owned(),
            GroupOffsets {
                group: Some(GroupValue { has_members: true, changed_ms: 1, session_ms: 5000 }),
                ..old
            },
        );
        assert_eq!(Coordinator::new(2, &had, s(0)).dead(&had, 100), ["a", "b"]);
    }
}
