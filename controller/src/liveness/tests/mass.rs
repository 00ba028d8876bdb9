//! Many silent at once: how many are many, for how long together, and who still counts.

use super::*;

/// When each node was declared offline, in order.
fn offline(world: &World) -> Vec<(u64, u32)> {
    let offline = world.changes.iter().filter(|(_, _, what)| what.starts_with("offline"));
    offline.map(|(at, spu, _)| (*at, *spu)).collect()
}

#[test]
fn more_than_a_third_and_more_than_one_are_many() {
    for (nodes, silent, many) in [
        (1, 1, false),
        (2, 1, false),
        (2, 2, true),
        (3, 1, false),
        (3, 2, true),
        (4, 1, false),
        (4, 2, true),
        (6, 2, false),
        (6, 3, true),
        (9, 3, false),
        (9, 4, true),
    ] {
        let mut world = World::of(Cluster::of(nodes));
        world.run_to(1000);
        (1..=silent).for_each(|spu| world.silence(spu));
        world.run_to(60_000);
        // Nine seconds of silence, and thirty more while many are silent.
        let at = if many { 40_000 } else { 10_000 };
        let wanted: Vec<_> = (1..=silent).map(|spu| (at, spu)).collect();
        assert_eq!(offline(&world), wanted, "{silent} of {nodes}");
    }
}

/// Two of six are offline at 10 s; a third one falls silent so that it would follow `after` them.
fn a_third_one(after: u64) -> Vec<(u64, u32)> {
    let mut world = World::of(Cluster::of(6));
    world.run_to(1000);
    world.silence(1);
    world.silence(2);
    world.run_to(1000 + after);
    world.silence(3);
    world.run_to(200_000);
    offline(&world)
}

#[test]
fn those_declared_within_the_window_still_count() {
    let first = [(10_000, 1), (10_000, 2)];
    let with = |third| [&first[..], &[(third, 3)]].concat();
    // 50 s later they are three of six: the third waits until the first two are forgotten, 60 s after them.
    assert_eq!(a_third_one(50_000), with(70_100));
    // 25 s later there is no such end to its wait before the thirty seconds are over.
    assert_eq!(a_third_one(25_000), with(65_000));
    // 70 s later it is one of four.
    assert_eq!(a_third_one(70_000), with(80_000));
}
