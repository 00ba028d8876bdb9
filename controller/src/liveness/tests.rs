use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, SpuId};
use plimsoll_proto::v1::{self, entry::Change};

use super::*;
use crate::cluster::testing::{Cluster, volume};

mod mass;
mod pauses;

/// A cluster, its judge, and a clock in milliseconds. Proposals are applied at once.
struct World {
    cluster: Cluster,
    judge: Judge,
    now: u64,
    probes: Vec<(u64, u32)>,
    changes: Vec<(u64, u32, String)>,
    /// Nodes that send heartbeats, with the age of their data path.
    beating: Vec<(u32, u64)>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    fn of(cluster: Cluster) -> Self {
        let judge = Judge::new(LivenessSettings::default(), ms(0), cluster.index * 1000, &cluster.state);
        let beating = cluster.state.spus().keys().map(|spu| (spu.0, 0)).collect();
        Self { cluster, judge, now: 0, probes: vec![], changes: vec![], beating }
    }

    fn event(&mut self, event: Event) {
        for command in self.judge.on(ms(self.now), event, &self.cluster.state) {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: Command) {
        let change = match command {
            Command::Probe { spu, .. } => return self.probes.push((self.now, spu.0)),
            Command::Held { spu, returns, .. } => {
                return self.changes.push((self.now, spu.0, format!("held: {returns} returns")));
            }
            Command::SetSpuState { spu, incarnation, expected, wanted, reason } => {
                self.changes.push((self.now, spu.0, format!("{wanted}: {reason}")));
                Change::SetSpuState(v1::SetSpuState {
                    spu_id: spu.0,
                    incarnation: incarnation.0,
                    expected: expected.to_wire().into(),
                    wanted: wanted.to_wire().into(),
                    reason: reason.to_owned(),
                })
            }
            Command::SetVolumeState { spu, incarnation, volume, expected, wanted } => {
                self.changes.push((self.now, spu.0, wanted.name().to_owned()));
                Change::SetVolumeState(v1::SetVolumeState {
                    spu_id: spu.0,
                    volume_id: volume.to_bytes(),
                    incarnation: incarnation.0,
                    expected: expected.to_wire().into(),
                    wanted: wanted.to_wire().into(),
                    reason: String::new(),
                })
            }
        };
        self.cluster.done(change);
    }

    fn run_to(&mut self, end: u64) {
        while self.now < end {
            self.now += 100;
            if self.now.is_multiple_of(500) {
                for (spu, age) in self.beating.clone() {
                    self.heartbeat(spu, age);
                }
            }
            self.event(Event::Tick);
        }
    }

    fn heartbeat(&mut self, spu: u32, age: u64) {
        let incarnation = Incarnation(self.cluster.incarnation(spu));
        let data_paths = vec![(volume(spu), ms(age))];
        self.event(Event::Heartbeat { spu: SpuId(spu), incarnation, data_paths });
    }

    fn close(&mut self, spu: u32) {
        let incarnation = Incarnation(self.cluster.incarnation(spu));
        self.silence(spu);
        self.event(Event::StreamClosed { spu: SpuId(spu), incarnation });
    }

    fn silence(&mut self, spu: u32) {
        self.beating.retain(|(beating, _)| *beating != spu);
    }

    fn probed(&mut self, spu: u32, direct: Sight, through: &[Sight]) {
        let incarnation = Incarnation(self.cluster.incarnation(spu));
        let (started, through) = (ms(self.now), through.to_vec());
        self.event(Event::Probed { spu: SpuId(spu), incarnation, started, direct, through });
    }

    fn what(&self) -> Vec<(u64, u32, &str)> {
        self.changes.iter().map(|(at, spu, what)| (*at, *spu, what.as_str())).collect()
    }
}

#[test]
fn a_silent_node_is_suspect_then_offline() {
    let mut world = World::of(Cluster::of(3));
    world.run_to(2000);
    world.silence(3);
    world.run_to(20_000);
    assert_eq!(world.what(), [(8000, 3, "suspect: no heartbeat"), (11_000, 3, "offline: silent")]);
    assert!(world.probes.iter().all(|(_, spu)| *spu == 3));
    assert_eq!(world.probes.first().map(|(at, _)| *at), Some(8000));
    assert!(world.probes.len() >= 6, "asked again and again before the verdict");
}

#[test]
fn a_pause_below_the_limit_is_nothing() {
    let mut world = World::of(Cluster::of(3));
    for round in 1..20u64 {
        world.run_to(round * 10_000);
        world.silence(2);
        world.run_to(round * 10_000 + 4700);
        world.beating.push((2, 0));
    }
    assert_eq!(world.what(), []);
}

#[test]
fn a_suspect_that_is_heard_again_is_online() {
    let mut world = World::of(Cluster::of(3));
    world.silence(3);
    world.run_to(7000);
    world.beating.push((3, 0));
    world.run_to(30_000);
    assert_eq!(world.what(), [(6000, 3, "suspect: no heartbeat"), (7500, 3, "online: heard again")]);
}

#[test]
fn refused_from_two_vantage_points_is_offline_at_once() {
    use Sight::{Answered, Refused, Silent};
    for (direct, through, offline) in [
        (Refused, vec![Refused, Refused], true),
        (Refused, vec![Silent, Refused], true),
        (Refused, vec![Silent], false),
        (Refused, vec![], false),
        (Silent, vec![Refused, Refused], false),
        (Refused, vec![Refused, Answered], false),
    ] {
        let mut world = World::of(Cluster::of(3));
        world.run_to(2000);
        world.close(3);
        assert_eq!(world.probes, [(2000, 3)], "asked at once");
        assert_eq!(world.what(), [], "an end of a connection is no verdict");
        world.now += 10;
        world.probed(3, direct, &through);
        assert_eq!(!world.changes.is_empty(), offline, "{direct:?} {through:?}");
    }
}

#[test]
fn an_answered_probe_defers_the_verdict_by_silence() {
    let mut world = World::of(Cluster::of(3));
    world.silence(3);
    while world.now < 60_000 && world.changes.len() < 2 {
        world.run_to(world.now + 500);
        world.probed(3, Sight::Silent, &[Sight::Answered]);
    }
    assert_eq!(
        world.what(),
        [(6000, 3, "suspect: no heartbeat"), (39_000, 3, "offline: answers, but sends no heartbeats")]
    );
}

#[test]
fn many_silent_at_once_are_given_time() {
    let mut world = World::of(Cluster::of(3));
    world.silence(2);
    world.run_to(500);
    world.silence(3);
    world.run_to(38_000);
    assert!(world.changes.iter().all(|(_, _, what)| what.starts_with("suspect")), "{:?}", world.changes);
    world.run_to(41_000);
    let offline: Vec<_> = world.changes.iter().filter(|(_, _, what)| what == "offline: silent").collect();
    assert_eq!(offline.len(), 2);
}

#[test]
fn the_judge_credits_its_own_pauses() {
    let mut world = World::of(Cluster::of(3));
    world.run_to(2000);
    world.now += 60_000;
    for spu in 1..=3 {
        let incarnation = Incarnation(world.cluster.incarnation(spu));
        world.event(Event::StreamClosed { spu: SpuId(spu), incarnation });
    }
    world.event(Event::Tick);
    assert_eq!(world.what(), []);
    world.run_to(world.now + 30_000);
    assert_eq!(world.what(), []);
}

#[test]
fn late_news_of_an_old_run_touch_nothing() {
    let mut world = World::of(Cluster::of(3));
    world.run_to(1000);
    let old = Incarnation(world.cluster.incarnation(3));
    world.cluster.register_as(3, 2, &[]);
    world.event(Event::StreamClosed { spu: SpuId(3), incarnation: old });
    let (started, through) = (ms(world.now), vec![Sight::Refused]);
    world.event(Event::Probed { spu: SpuId(3), incarnation: old, started, direct: Sight::Refused, through });
    assert_eq!(world.what(), []);
    assert_eq!(world.probes, []);
}

#[test]
fn a_probe_that_began_before_the_last_heartbeat_says_nothing() {
    let mut world = World::of(Cluster::of(3));
    world.run_to(1000);
    world.close(3);
    let (started, incarnation) = (ms(world.now), Incarnation(world.cluster.incarnation(3)));
    world.now += 100;
    world.heartbeat(3, 0);
    let through = vec![Sight::Refused];
    world.event(Event::Probed { spu: SpuId(3), incarnation, started, direct: Sight::Refused, through });
    assert_eq!(world.what(), []);
}

#[test]
fn a_joining_node_is_online_after_three_seconds_of_heartbeats() {
    let mut world = World::of(Cluster::of(2));
    world.cluster.register_as(3, 1, &[]);
    world.run_to(2000);
    world.beating.push((3, 0));
    world.run_to(10_000);
    assert_eq!(world.what(), [(5500, 3, "online: joined")]);
}

/// The node refuses connections, is offline, registers again and beats.
fn flap(world: &mut World, nonce: u8) -> u64 {
    world.close(3);
    world.now += 10;
    world.probed(3, Sight::Refused, &[Sight::Refused]);
    world.cluster.register_as(3, nonce, &[]);
    world.beating.push((3, 0));
    world.now = world.now.next_multiple_of(500);
    world.now
}

#[test]
fn a_node_that_comes_back_too_often_is_held_for_longer_each_time() {
    let mut world = World::of(Cluster::with_topic());
    for (nonce, hold) in (10u8..).zip([3, 3, 10, 20, 40]) {
        world.changes.clear();
        let back = flap(&mut world, nonce);
        // Its first heartbeat is the next one.
        let online = back + 500 + hold * 1000;
        world.run_to(online - 100);
        let state = world.cluster.state.spu_state(SpuId(3));
        assert_eq!(state, SpuState::Joining, "return {}: {:?}", nonce - 9, world.changes);
        world.run_to(online);
        assert_eq!(world.cluster.state.spu_state(SpuId(3)), SpuState::Online, "{:?}", world.changes);
        let held = world.changes.iter().filter(|(_, _, what)| what.starts_with("held")).count();
        assert_eq!(held, usize::from(hold > 3), "told once: {:?}", world.changes);
    }
    // After ten quiet minutes it is like any other.
    world.run_to(world.now + 601_000);
    world.changes.clear();
    let back = flap(&mut world, 99);
    world.run_to(back + 3500);
    assert_eq!(world.what().last(), Some(&(back + 3500, 3, "online: joined")));
}

#[test]
fn silence_is_no_way_around_the_hold() {
    let mut world = World::of(Cluster::with_topic());
    for nonce in 10..13 {
        let back = flap(&mut world, nonce);
        world.run_to(back + 3500);
    }
    assert_eq!(world.cluster.state.spu_state(SpuId(3)), SpuState::Joining);
    world.silence(3);
    world.run_to(world.now + 7000);
    assert_eq!(world.cluster.state.spu_state(SpuId(3)), SpuState::Suspect);
    world.beating.push((3, 0));
    let again = world.now.next_multiple_of(500);
    world.run_to(again + 9900);
    assert_eq!(world.cluster.state.spu_state(SpuId(3)), SpuState::Suspect);
    world.run_to(again + 10_500);
    assert_eq!(world.cluster.state.spu_state(SpuId(3)), SpuState::Online);
}

#[test]
fn a_short_lived_node_causes_no_election_and_gets_no_replica() {
    let mut world = World::of(Cluster::with_topic());
    let before = world.cluster.p().clone();
    for nonce in 1..20 {
        world.cluster.register_as(4, nonce, &[]);
        world.beating.push((4, 0));
        for _ in 0..5 {
            world.run_to(world.now + 500);
            let (targets, _) = crate::placement::targets(&world.cluster.state, &facts_of_all(&world.cluster));
            assert!(targets.iter().all(|target| target.spu != SpuId(4)), "younger than 3 s");
            assert_eq!(targets.len(), 3);
        }
        world.close(4);
        world.now += 10;
        world.probed(4, Sight::Refused, &[Sight::Refused]);
        world.now = world.now.next_multiple_of(500);
        assert_eq!(world.cluster.state.spu_state(SpuId(4)), SpuState::Offline);
    }
    assert_eq!(*world.cluster.p(), before, "no leader, no set and no epoch changed");
    let led = |event: &v1::ClusterEvent| event.kind == "leader_changed" && event.from != "none";
    assert!(!world.cluster.state.events_after(0).any(led));
}

fn facts_of_all(cluster: &Cluster) -> crate::placement::Facts {
    let volumes =
        cluster.state.spus().iter().flat_map(|(id, spu)| spu.volumes.keys().map(|volume| (*id, *volume)));
    let normal = v1::VolumeFacts {
        level: v1::DiskLevel::Normal.into(),
        free_bytes: 1 << 30,
        ..v1::VolumeFacts::default()
    };
    volumes.map(|place| (place, normal.clone())).collect()
}

#[test]
fn a_member_that_started_again_and_dies_at_once_causes_no_election() {
    let mut world = World::of(Cluster::with_topic());
    let (leader, epoch) = (world.cluster.p().leader, world.cluster.p().leader_epoch);
    for nonce in 10..20 {
        world.cluster.register_as(3, nonce, &[]);
        world.beating.retain(|(spu, _)| *spu != 3);
        world.beating.push((3, 0));
        world.run_to(world.now + 1000);
        world.close(3);
        world.now += 10;
        world.probed(3, Sight::Refused, &[Sight::Refused]);
        world.now = world.now.next_multiple_of(500);
        assert_eq!((world.cluster.p().leader, world.cluster.p().leader_epoch), (leader, epoch));
    }
}

#[test]
fn a_new_leader_gives_everybody_a_fresh_deadline() {
    let cluster = Cluster::of(3);
    let mut judge = Judge::new(LivenessSettings::default(), ms(500_000), 0, &cluster.state);
    assert_eq!(judge.on(ms(500_100), Event::Tick, &cluster.state), vec![]);
}

#[test]
fn a_stuck_volume_is_stalled_and_comes_back() {
    let mut world = World::of(Cluster::with_topic());
    world.run_to(1000);
    world.beating = vec![(1, 4900), (2, 0), (3, 0)];
    world.run_to(2000);
    assert_eq!(world.what(), []);
    world.beating = vec![(1, 5000), (2, 0), (3, 0)];
    world.run_to(2500);
    assert_eq!(world.what(), [(2500, 1, "stalled")]);
    assert_eq!((world.cluster.leader(), world.cluster.set()), (2, vec![2, 3]));
    world.beating = vec![(1, 0), (2, 0), (3, 0)];
    world.run_to(10_000);
    assert_eq!(world.what()[1..], [(5000, 1, "writable")]);
}

#[test]
fn a_node_whose_volumes_are_all_stuck_is_offline() {
    let mut world = World::of(Cluster::of(3));
    world.beating = vec![(1, 19_999), (2, 0), (3, 0)];
    world.run_to(1000);
    world.beating = vec![(1, 20_000), (2, 0), (3, 0)];
    world.run_to(2000);
    assert_eq!(world.what(), [(500, 1, "stalled"), (1500, 1, "offline: disk_stall")]);
}

#[test]
fn a_node_that_registers_with_stuck_volumes_joins_once_they_move() {
    let mut world = World::of(Cluster::of(3));
    world.beating = vec![(1, 19_999), (2, 0), (3, 0)];
    world.run_to(1000);
    world.beating = vec![(1, 20_000), (2, 0), (3, 0)];
    world.run_to(2000);
    assert_eq!(world.what(), [(500, 1, "stalled"), (1500, 1, "offline: disk_stall")]);
    world.cluster.register_as(1, 2, &[]);
    world.run_to(40_000);
    assert_eq!(world.what().len(), 2, "{:?}", world.changes);
    world.beating = vec![(1, 0), (2, 0), (3, 0)];
    world.run_to(50_000);
    assert_eq!(world.what()[2..], [(40_500, 1, "online: joined"), (42_500, 1, "writable")]);
}

#[test]
fn a_joining_node_with_stuck_volumes_is_told_of_and_leads_nothing() {
    // It has started again while it led, so it leads in its new run, until its disks are found stuck.
    let mut world = World::of(Cluster::with_topic());
    assert_eq!(world.cluster.leader(), 1);
    world.cluster.register_as(1, 2, &[]);
    assert_eq!(world.cluster.leader(), 1);
    world.beating = vec![(1, 20_000), (2, 0), (3, 0)];
    world.run_to(1000);
    assert_eq!(world.what(), [(500, 1, "stalled")]);
    assert_eq!((world.cluster.leader(), world.cluster.set()), (2, vec![2, 3]));
    let alerts = world.cluster.state.alerts();
    assert_eq!(alerts.iter().map(|alert| alert.code.as_str()).collect::<Vec<_>>(), ["VOLUME_STALLED"]);
    world.run_to(120_000);
    assert_eq!(world.what().len(), 1, "one fault is told once: {:?}", world.changes);
    assert_eq!(world.cluster.state.alerts(), alerts);
}

#[test]
fn a_node_whose_only_volume_failed_is_not_offline() {
    let mut cluster = Cluster::of(3);
    cluster.done(cluster.volume_state(1, v1::VolumeState::Writable, v1::VolumeState::Failed));
    let mut world = World::of(cluster);
    world.beating = vec![(1, 99_000), (2, 0), (3, 0)];
    world.run_to(5000);
    assert_eq!(world.what(), [], "it still serves reads");
}

#[test]
fn a_stopping_node_is_not_made_suspect_but_ends() {
    let mut world = World::of(Cluster::of(3));
    world.cluster.done(world.cluster.spu_state(3, v1::SpuState::Online, v1::SpuState::Draining));
    world.silence(3);
    world.run_to(20_000);
    assert_eq!(world.what(), [(9000, 3, "offline: silent")]);
}
