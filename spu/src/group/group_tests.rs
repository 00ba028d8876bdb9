//! Members that come, go, fall silent, answer late and lose answers: no partition has two owners.

use super::*;
use plimsoll_proto::v1;
use proptest::prelude::*;

const SESSION: Duration = Duration::from_secs(10);

fn image(partitions: u32) -> MetadataImage {
    let mut image = MetadataImage::empty();
    let partitions = (0..partitions).map(|index| v1::PartitionInfo { index, ..Default::default() }).collect();
    let topic = v1::TopicInfo {
        topic_id: vec![1; 16].into(),
        name: "t".to_owned(),
        partitions,
        ..Default::default()
    };
    image.topics.insert(TopicId([1; 16]), topic);
    image
}

/// A client as the SDK is one: one heartbeat at a time, owns what it was told, gives up when it is told to.
#[derive(Clone, Debug, Default)]
struct Client {
    epoch: u64,
    sequence: u64,
    heard_sequence: u64,
    owned: BTreeSet<PartitionId>,
    assigned: BTreeSet<PartitionId>,
    ticket: Ticket,
    sent_at: Duration,
    /// When the last heartbeat that was answered was sent: from then on it is a member for a session timeout.
    heard_at: Duration,
}

impl Client {
    fn beat(&mut self, id: usize, leave: bool) -> Heartbeat {
        self.sequence += 1;
        Heartbeat {
            member_id: format!("m{id}"),
            member_epoch: self.epoch,
            sequence: self.sequence,
            heard_sequence: Some(self.heard_sequence),
            leave,
            topics: ["t".to_owned()].into(),
            owned: self.owned.clone(),
            session: SESSION,
            wait_max: Duration::from_secs(1),
            client: String::new(),
        }
    }
}

struct World {
    group: Group,
    clients: Vec<Client>,
    now: Duration,
    next: Ticket,
    image: MetadataImage,
    leader_epoch: u64,
}

impl World {
    fn new(members: usize, partitions: u32) -> Self {
        Self {
            group: Group::new(1 << 32, None, true),
            clients: vec![Client::default(); members],
            now: Duration::ZERO,
            next: 0,
            image: image(partitions),
            leader_epoch: 1,
        }
    }

    fn send(&mut self, id: usize, leave: bool, lose_answer: bool) {
        let beat = self.clients[id].beat(id, leave);
        self.next += 1;
        self.clients[id].ticket = self.next;
        self.clients[id].sent_at = self.now;
        let answers = self.group.heartbeat(beat, self.next, self.now, &self.image);
        self.take(answers, lose_answer);
    }

    fn take(&mut self, answers: Vec<Answer>, lose: bool) {
        for (ticket, answer) in answers {
            let Some(client) = self.clients.iter_mut().find(|client| client.ticket == ticket) else {
                continue;
            };
            if lose {
                continue;
            }
            match answer {
                Ok(told) => {
                    client.epoch = told.member_epoch;
                    client.heard_sequence = client.sequence;
                    client.heard_at = client.sent_at;
                    client.owned.extend(told.assigned.iter().copied());
                    client.assigned = told.assigned;
                }
                Err(Refused::UnknownMember) => {
                    *client = Client { sequence: client.sequence, ..Client::default() };
                }
                Err(Refused::Superseded) => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        // Who has heard nothing for its session timeout reads no further, before the coordinator gives it away.
        for client in &mut self.clients {
            if self.now.saturating_sub(client.heard_at) >= SESSION {
                *client = Client { sequence: client.sequence, ..Client::default() };
            }
        }
        self.group.expire(self.now);
        let answers = self.group.answers(self.now, &self.image);
        self.take(answers, false);
    }

    fn check(&self) {
        let mut owners = BTreeSet::new();
        for client in &self.clients {
            for partition in &client.owned {
                assert!(owners.insert(*partition), "{partition} has two owners");
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            for id in 0..self.clients.len() {
                let client = &mut self.clients[id];
                client.owned = client.owned.intersection(&client.assigned).copied().collect();
                self.send(id, false, false);
            }
            self.pass(Duration::from_secs(1));
            self.check();
        }
    }
}

#[test]
fn partitions_are_spread_and_move_only_after_they_were_given_up() {
    let mut world = World::new(3, 9);
    world.send(0, false, false);
    world.pass(Duration::from_millis(10));
    assert_eq!(world.clients[0].owned.len(), 9);
    world.send(1, false, false);
    world.check();
    assert!(world.clients[1].owned.is_empty(), "nothing is free yet");
    world.settle();
    let counts: Vec<usize> = world.clients.iter().map(|client| client.owned.len()).collect();
    assert_eq!(counts, [3, 3, 3]);
    world.send(2, true, false);
    world.clients.truncate(2);
    world.settle();
    assert_eq!(world.clients.iter().map(|client| client.owned.len()).sum::<usize>(), 9);
}

#[test]
fn a_new_coordinator_takes_members_with_what_they_own_and_waits_for_the_others() {
    let mut world = World::new(2, 4);
    world.settle();
    let before: Vec<_> = world.clients.iter().map(|client| client.owned.clone()).collect();
    world.group = Group::new(2 << 32, Some(world.now + SESSION), true);
    world.send(0, false, false);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.clients[0].owned, before[0], "the other one may still be there");
    world.send(0, false, false);
    world.send(1, false, false);
    world.settle();
    for (client, before) in world.clients.iter().zip(before) {
        assert_eq!(client.owned, before, "nothing moved");
    }
    assert!(world.group.epoch > 2 << 32);
}

#[test]
fn an_answer_that_was_lost_is_told_again_at_once() {
    let mut world = World::new(2, 4);
    world.settle();
    for id in [0, 1] {
        world.send(id, false, false);
    }
    // The answers are under way when the members give up waiting for them, to say something else.
    world.image = image(8);
    let lost = world.group.answers(world.now, &world.image);
    assert_eq!(lost.len(), 2);
    world.take(lost, true);
    for id in [0, 1] {
        world.send(id, false, false);
        assert_eq!(world.clients[id].owned.len(), 4, "told without waiting");
    }
    // Who has heard it waits for news.
    world.send(0, false, false);
    assert!(world.group.answers(world.now, &world.image).is_empty());
}

#[test]
fn a_commit_that_comes_late_is_behind_the_later_one_of_its_partitions_only() {
    let mut world = World::new(1, 4);
    world.settle();
    let partitions: Vec<PartitionId> = world.clients[0].owned.iter().copied().collect();
    let of = |at: &[usize]| at.iter().map(|at| partitions[*at]).collect::<BTreeSet<_>>();
    for (at, sequence, taken) in [
        (&[0, 1][..], 1, true),
        (&[0], 3, true),
        // Tried again, and one of another partition that was sent before.
        (&[0], 3, true),
        (&[1], 2, true),
        // Given up by the member, and still on its way.
        (&[0], 2, false),
        (&[0, 1], 2, false),
        (&[0, 1], 4, true),
    ] {
        assert_eq!(world.group.take_commit(&of(at), sequence), taken, "{at:?} {sequence}");
    }
}

#[test]
fn what_is_due_now_is_done_now() {
    // A lane that is told of a deadline which it cannot meet spins, and where time is simulated it stands still.
    let mut world = World::new(2, 2);
    world.send(0, false, false);
    world.pass(Duration::from_secs(3));
    world.send(1, false, false);
    while let Some(due) = world.group.next_deadline() {
        assert!(due > world.now, "{due:?} at {:?}", world.now);
        world.pass(due - world.now);
    }
    assert!(world.group.members.is_empty(), "nobody has been heard since");
}

#[test]
fn nothing_is_given_before_it_is_noted() {
    let mut world = World::new(1, 4);
    world.group.noted = false;
    world.send(0, false, false);
    world.pass(Duration::from_millis(500));
    assert!(world.clients[0].owned.is_empty());
    world.group.noted = true;
    world.pass(Duration::ZERO);
    assert_eq!(world.clients[0].owned.len(), 4);
}

proptest! {
    #[test]
    fn no_partition_has_two_owners(
        steps in proptest::collection::vec((0..9u8, 0..5usize, 0..4u64), 1..200),
        partitions in 1..12u32,
    ) {
        let mut world = World::new(5, partitions);
        for (what, id, seconds) in steps {
            match what {
                0..=2 => world.send(id, false, false),
                3 => world.send(id, false, true),
                4 => {
                    let client = &mut world.clients[id];
                    client.owned = client.owned.intersection(&client.assigned).copied().collect();
                    world.send(id, false, false);
                }
                5 => {
                    world.send(id, true, false);
                    let sequence = world.clients[id].sequence;
                    world.clients[id] = Client { sequence, ..Client::default() };
                }
                6 => world.pass(Duration::from_secs(seconds)),
                7 => {
                    // Another coordinator, which knows only that there were members.
                    world.leader_epoch += 1;
                    world.group = Group::new(world.leader_epoch << 32, Some(world.now + SESSION), true);
                    for client in &mut world.clients {
                        client.ticket = 0;
                    }
                }
                _ => world.image = image(1 + (partitions + u32::try_from(seconds).expect("small")) % 12),
            }
            world.check();
        }
        world.pass(SESSION);
        world.settle();
        let wanted = world.image.topics[&TopicId([1; 16])].partitions.len();
        let owned: usize = world.clients.iter().map(|client| client.owned.len()).sum();
        prop_assert_eq!(owned, wanted);
    }
}
