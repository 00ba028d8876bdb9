//! A judge that was away: nothing of what it waits for went on meanwhile.

use super::*;

/// The judge has no turn for that long, and the nodes go on as before.
fn pause(world: &mut World, length: u64) {
    world.now += length;
    world.event(Event::Tick);
}

#[test]
fn a_node_does_not_grow_older_while_the_judge_is_away() {
    let mut world = World::of(Cluster::of(2));
    world.cluster.register_as(3, 1, &[]);
    world.run_to(900);
    world.beating.push((3, 0));
    world.run_to(1000);
    // One heartbeat, then pauses that add up to far more than the age.
    for _ in 0..4 {
        pause(&mut world, 1000);
        world.heartbeat(3, 0);
        assert_eq!(world.what(), []);
    }
    world.run_to(world.now + 2900);
    assert_eq!(world.what(), []);
    world.run_to(world.now + 500);
    assert_eq!(world.what(), [(world.now.next_multiple_of(500) - 500, 3, "online: joined")]);
}

#[test]
fn a_node_that_comes_back_too_often_is_held_through_pauses() {
    let mut world = World::of(Cluster::with_topic());
    for nonce in 10..12 {
        let back = flap(&mut world, nonce);
        world.run_to(back + 3500);
    }
    let back = flap(&mut world, 12);
    world.run_to(back + 1000);
    pause(&mut world, 60_000);
    let state = |world: &World| world.cluster.state.spu_state(SpuId(3));
    // Half a second of its ten has passed.
    world.run_to(world.now + 9000);
    assert_eq!(state(&world), SpuState::Joining, "{:?}", world.changes);
    world.run_to(world.now + 1500);
    assert_eq!(state(&world), SpuState::Online, "{:?}", world.changes);
}

#[test]
fn a_volume_does_not_recover_while_the_judge_is_away() {
    let mut world = World::of(Cluster::with_topic());
    world.beating = vec![(1, 5000), (2, 0), (3, 0)];
    world.run_to(500);
    world.beating = vec![(1, 0), (2, 0), (3, 0)];
    world.run_to(1000);
    assert_eq!(world.what(), [(500, 1, "stalled")]);
    pause(&mut world, 10_000);
    world.run_to(world.now + 1900);
    assert_eq!(world.what().len(), 1, "{:?}", world.changes);
    world.run_to(world.now + 600);
    assert_eq!(world.what().last().map(|(_, _, what)| *what), Some("writable"));
}

#[test]
fn a_node_that_others_reach_is_not_silent_after_a_pause() {
    let mut world = World::of(Cluster::of(3));
    world.run_to(1000);
    world.silence(3);
    world.run_to(12_000 - 3000);
    // Suspect for a while: another node reaches it, so its verdict waits for thirty seconds more.
    while world.now < 20_000 {
        world.probed(3, Sight::Silent, &[Sight::Answered]);
        world.run_to(world.now + 500);
    }
    assert_eq!(world.what(), [(7000, 3, "suspect: no heartbeat")]);
    pause(&mut world, 5000);
    assert_eq!(world.what().len(), 1, "{:?}", world.changes);
}
