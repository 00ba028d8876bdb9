use super::*;

fn target(spu: u32, rack: &str, free: u64) -> Target {
    Target {
        spu: SpuId(spu),
        volume: VolumeId([u8::try_from(spu).unwrap(); 16]),
        rack: rack.to_owned(),
        weight: free,
        replicas: 0,
        leaders: 0,
    }
}

fn spus(placement: &v1::PartitionPlacement) -> Vec<u32> {
    placement.replicas.iter().map(|r| r.spu_id).collect()
}

#[test]
fn replicas_and_leaders_spread_evenly_over_equal_nodes() {
    let targets = (1..=3).map(|id| target(id, "", 1 << 30)).collect();
    let placed = place(6, 3, targets, vec![]).unwrap();
    for id in 1..=3 {
        assert_eq!(placed.iter().filter(|p| spus(p)[0] == id).count(), 2, "leaders of {id}");
    }
    assert!(placed.iter().all(|p| BTreeSet::from_iter(spus(p)).len() == 3));
}

#[test]
fn leaders_spread_whatever_is_free() {
    // Free bytes of three nodes; the last as after a short burst of writes on two of them.
    for free in [[1000, 1000, 1000], [1000, 1010, 990], [1, 1000, 1000], [250, 1000, 250]] {
        let targets = (1..).zip(free).map(|(id, free)| target(id, "", free)).collect();
        let placed = place(6, 3, targets, vec![]).unwrap();
        for id in 1..=3 {
            assert_eq!(placed.iter().filter(|p| spus(p)[0] == id).count(), 2, "leaders of {id}: {free:?}");
        }
    }
}

#[test]
fn a_node_with_more_replicas_leads_more() {
    let targets = vec![target(1, "", 1000), target(2, "", 1000), target(3, "", 4000)];
    let placed = place(12, 2, targets, vec![]).unwrap();
    let led: Vec<usize> = (1..=3).map(|id| placed.iter().filter(|p| spus(p)[0] == id).count()).collect();
    assert_eq!(led, [3, 3, 6]);
}

#[test]
fn leaders_of_former_topics_count() {
    let busy = Target { replicas: 6, leaders: 6, ..target(1, "", 1000) };
    let others = [2, 3].map(|id| Target { replicas: 6, leaders: 0, ..target(id, "", 1000) });
    let placed = place(4, 3, [vec![busy], others.to_vec()].concat(), vec![]).unwrap();
    assert!(placed.iter().all(|p| spus(p)[0] != 1));
}

#[test]
fn racks_are_kept_apart_while_there_are_any() {
    let targets = vec![target(1, "a", 900), target(2, "a", 900), target(3, "b", 100), target(4, "b", 100)];
    for placement in place(8, 2, targets, vec![]).unwrap() {
        let ids = spus(&placement);
        assert_ne!(ids[0] <= 2, ids[1] <= 2, "{ids:?}");
    }
}

#[test]
fn more_room_takes_more_replicas() {
    let targets = vec![target(1, "", 1000), target(2, "", 3000)];
    let placed = place(8, 1, targets, vec![]).unwrap();
    assert_eq!(placed.iter().filter(|p| spus(p)[0] == 2).count(), 6);
}

#[test]
fn two_volumes_of_a_node_never_hold_the_same_partition() {
    let mut second = target(1, "", 1 << 30);
    second.volume = VolumeId([9; 16]);
    let targets = vec![target(1, "", 1 << 30), second];
    let refused = place(1, 2, targets.clone(), vec![]).unwrap_err();
    assert_eq!((refused.wanted, refused.available), (2, 1));
    let placed = place(4, 1, targets, vec![]).unwrap();
    let volumes: BTreeSet<_> = placed.iter().map(|p| p.replicas[0].volume_id.clone()).collect();
    assert_eq!(volumes.len(), 2);
}

#[test]
fn only_normal_volumes_of_online_nodes_are_targets() {
    let facts = |level: v1::DiskLevel, unknown| v1::VolumeFacts {
        level: level.into(),
        free_bytes: 1,
        unknown,
        ..Default::default()
    };
    let normal = facts(v1::DiskLevel::Normal, false);
    let cases = [
        (SpuState::Online, "writable", Some(normal.clone()), true),
        (SpuState::Joining, "writable", Some(normal.clone()), false),
        (SpuState::Suspect, "writable", Some(normal.clone()), false),
        (SpuState::Draining, "writable", Some(normal.clone()), false),
        (SpuState::Offline, "writable", Some(normal.clone()), false),
        (SpuState::Online, "write_offline", Some(normal.clone()), false),
        (SpuState::Online, "stalled", Some(normal), false),
        (SpuState::Online, "writable", None, false),
        (SpuState::Online, "writable", Some(facts(v1::DiskLevel::Normal, true)), false),
        (SpuState::Online, "writable", Some(facts(v1::DiskLevel::Reclaim, false)), false),
        (SpuState::Online, "writable", Some(facts(v1::DiskLevel::Throttle, false)), false),
        (SpuState::Online, "writable", Some(facts(v1::DiskLevel::Unspecified, false)), false),
    ];
    for (node, volume, facts, is_target) in cases {
        for duty in [Duty::Cordoned, Duty::Draining, Duty::Offline] {
            assert!(why_not(node, duty, volume, facts.as_ref()).is_some(), "{duty}");
        }
        assert_eq!(
            why_not(node, Duty::Serving, volume, facts.as_ref()).is_none(),
            is_target,
            "{node} {volume} {facts:?}"
        );
    }
}

fn filling(free_bytes: u64, time_to_full_ms: u64) -> v1::VolumeFacts {
    v1::VolumeFacts { level: v1::DiskLevel::Normal.into(), free_bytes, time_to_full_ms, ..Default::default() }
}

#[test]
fn a_volume_that_is_full_within_the_hour_counts_for_a_quarter() {
    for (free, time_to_full_ms, counts) in [
        (1000, 0, 1000),
        (1000, 1, 250),
        (1000, 3_599_999, 250),
        (1000, 3_600_000, 1000),
        (3, 1, 1),
        (0, 0, 1),
    ] {
        assert_eq!(weight(&filling(free, time_to_full_ms)), counts, "{free} free, {time_to_full_ms} ms");
    }
}

#[test]
fn a_volume_that_fills_takes_fewer_replicas() {
    let state = crate::cluster::testing::Cluster::of(2).state;
    let volume = crate::cluster::testing::volume;
    let facts = Facts::from([
        ((SpuId(1), volume(1)), filling(1 << 30, 600_000)),
        ((SpuId(2), volume(2)), filling(1 << 30, 0)),
    ]);
    let (targets, excluded) = targets(&state, &facts);
    let placed = place(10, 1, targets, excluded).unwrap();
    let on = |id| placed.iter().filter(|p| spus(p)[0] == id).count();
    assert_eq!((on(1), on(2)), (2, 8));
}
