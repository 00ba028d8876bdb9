use super::*;
use plimsoll_proto::ids::TopicId;

const HOUR: Duration = Duration::from_secs(3600);

fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

/// A log of `ages.len()` segments of 10 offsets and 100 bytes; ages in hours, oldest first, last one active.
fn replica(index: u32, ages: &[u32]) -> ReplicaFacts {
    let segment = |(n, age): (usize, &u32)| SegmentFacts {
        base_offset: offset(10 * n as u64),
        end_offset: offset(10 * n as u64 + 10),
        bytes: 100,
        last_append_age: HOUR * *age,
        sealed: n + 1 < ages.len(),
    };
    ReplicaFacts {
        partition: PartitionId { topic_id: TopicId([1; 16]), index },
        leads: true,
        log_start: Offset::ZERO,
        high_watermark: offset(10 * ages.len() as u64),
        replicated_to: None,
        group_floor: None,
        ages_trusted: true,
        retention_age_max: None,
        retention_bytes_max: None,
        pressure: Pressure::Refuse,
        segments: ages.iter().enumerate().map(segment).collect(),
    }
}

fn trim(hours: u32) -> Pressure {
    Pressure::Trim { min_retention: HOUR * hours, past_active_groups: false }
}

fn reasons(plan: &ReclaimPlan) -> Vec<(u64, ReclaimReason)> {
    plan.deletions().map(|d| (d.base_offset.get(), d.reason)).collect()
}

#[test]
fn age_and_size_need_no_pressure() {
    let mut facts = replica(0, &[9, 8, 7, 6, 5]);
    facts.retention_age_max = Some(HOUR * 8);
    facts.retention_bytes_max = Some(300);
    let plan = plan(&[facts], Want::default());
    assert_eq!(reasons(&plan), [(0, ReclaimReason::Age), (10, ReclaimReason::Size)]);
    assert_eq!((plan.bytes, plan.inodes, plan.missing_bytes), (200, 6, 0));
}

#[test]
fn size_is_exact_to_the_byte() {
    for (limit, deleted) in [(399, 1), (400, 1), (401, 0)] {
        let mut facts = replica(0, &[5, 4, 3, 2, 1]);
        facts.retention_bytes_max = Some(limit);
        assert_eq!(plan(&[facts], Want::default()).deletions().count(), deleted, "{limit}");
    }
}

#[test]
fn nothing_goes_at_or_past_the_bound() {
    for (high_watermark, replicated_to, deleted) in
        [(10, None, 1), (9, None, 0), (30, Some(20), 2), (30, Some(19), 1)]
    {
        let mut facts = replica(0, &[9, 9, 9]);
        facts.retention_age_max = Some(HOUR);
        facts.high_watermark = offset(high_watermark);
        facts.replicated_to = replicated_to.map(offset);
        let plan = plan(&[facts], Want { bytes: 1000, inodes: 0 });
        assert_eq!(plan.deletions().count(), deleted, "{high_watermark} {replicated_to:?}");
    }
}

#[test]
fn a_follower_drops_what_its_leader_has_dropped() {
    let mut facts = replica(0, &[1, 1, 1]);
    facts.leads = false;
    facts.log_start = offset(19);
    assert_eq!(reasons(&plan(&[facts], Want::default())), [(0, ReclaimReason::LeaderLogStart)]);
}

#[test]
fn an_expired_active_segment_is_rolled_first_and_an_empty_one_is_left() {
    let mut facts = replica(0, &[9, 9]);
    facts.retention_age_max = Some(HOUR);
    let partition = facts.partition;
    let plan_of = |facts: &ReplicaFacts| plan(std::slice::from_ref(facts), Want::default());
    let made = plan_of(&facts);
    assert_eq!(made.steps.get(1), Some(&Step::Roll { partition }));
    assert_eq!((made.deletions().count(), made.inodes), (2, 3));
    facts.segments[1].end_offset = facts.segments[1].base_offset;
    assert_eq!(plan_of(&facts).steps.len(), 1);
}

#[test]
fn untrusted_ages_delete_nothing_by_age() {
    let mut facts = replica(0, &[9, 9, 9]);
    facts.retention_age_max = Some(HOUR);
    facts.pressure = trim(0);
    facts.ages_trusted = false;
    assert_eq!(plan(&[facts], Want { bytes: 100, inodes: 0 }).steps, []);
}

#[test]
fn pressure_takes_only_what_the_topic_allows() {
    let want = Want { bytes: 1000, inodes: 0 };
    let base = ReplicaFacts { pressure: trim(5), ..replica(0, &[9, 8, 5, 4, 3]) };
    let count = |facts: ReplicaFacts| plan(&[facts], want).deletions().count();
    assert_eq!(count(base.clone()), 3, "exactly min_retention may go");
    assert_eq!(count(ReplicaFacts { pressure: Pressure::Refuse, ..base.clone() }), 0);
    assert_eq!(count(ReplicaFacts { leads: false, ..base.clone() }), 0);
    assert_eq!(count(ReplicaFacts { group_floor: Some(offset(20)), ..base.clone() }), 2);
    assert_eq!(count(ReplicaFacts { group_floor: Some(offset(19)), ..base.clone() }), 1);
    let pressure = Pressure::Trim { min_retention: HOUR * 5, past_active_groups: true };
    assert_eq!(count(ReplicaFacts { pressure, group_floor: Some(offset(0)), ..base.clone() }), 3);
    assert_eq!(plan(&[base], want).missing_bytes, 700);
}

#[test]
fn past_groups_lifts_the_floor_of_groups_and_nothing_else() {
    let want = Want { bytes: 1000, inodes: 0 };
    let past = |hours: u32| Pressure::Trim { min_retention: HOUR * hours, past_active_groups: true };
    // A group that has read nothing, and one that has read it all.
    for floor in [0, 50] {
        let group_floor = Some(offset(floor));
        let base = ReplicaFacts { pressure: past(5), group_floor, ..replica(0, &[9, 8, 5, 4, 3]) };
        let deleted = |facts: &ReplicaFacts| reasons(&plan(std::slice::from_ref(facts), want));
        let three = [0, 10, 20].map(|at| (at, ReclaimReason::Pressure));
        assert_eq!(deleted(&base), three, "oldest first, down to min_retention");
        assert_eq!(deleted(&ReplicaFacts { high_watermark: offset(19), ..base.clone() }), three[..1]);
        assert_eq!(deleted(&ReplicaFacts { replicated_to: Some(offset(20)), ..base.clone() }), three[..2]);
        assert_eq!(deleted(&ReplicaFacts { leads: false, ..base.clone() }), []);
        assert_eq!(deleted(&ReplicaFacts { ages_trusted: false, ..base.clone() }), []);
        assert_eq!(plan(&[base], Want::default()).steps, [], "not without pressure");
    }
    // Beside a topic that waits for its groups: that one keeps what they have not read, whatever is missing.
    let group_floor = Some(offset(10));
    let waits = ReplicaFacts { pressure: trim(0), group_floor, ..replica(0, &[9, 8, 7, 6]) };
    let passes = ReplicaFacts { pressure: past(0), group_floor, ..replica(1, &[9, 8, 7, 6]) };
    let made = plan(&[waits, passes], want);
    let of = |index| made.deletions().filter(|deletion| deletion.partition.index == index).count();
    assert_eq!((of(0), of(1), made.missing_bytes), (1, 4, 500));
}

#[test]
fn pressure_stops_as_soon_as_enough_is_freed() {
    for (bytes, deleted) in [(0, 0), (1, 1), (100, 1), (101, 2), (200, 2)] {
        let facts = ReplicaFacts { pressure: trim(0), ..replica(0, &[9, 8, 7, 6, 5]) };
        let made = plan(&[facts], Want { bytes, inodes: 0 });
        assert_eq!(made.deletions().count(), deleted, "{bytes}");
        assert!(made.bytes < bytes + 100);
    }
    let facts = ReplicaFacts { pressure: trim(0), ..replica(0, &[9, 8, 7, 6, 5]) };
    assert_eq!(plan(&[facts], Want { bytes: 0, inodes: 4 }).deletions().count(), 2);
}

#[test]
fn one_hot_log_among_twenty_pays_first_and_logs_end_up_alike() {
    let mut replicas: Vec<_> =
        (0..20).map(|n| ReplicaFacts { pressure: trim(0), ..replica(n, &[5; 20]) }).collect();
    replicas[7] = ReplicaFacts { pressure: trim(0), ..replica(7, &[1; 200]) };
    let made = plan(&replicas, Want { bytes: 30_000, inodes: 0 });
    assert!((30_000..30_100).contains(&made.bytes));
    let left: Vec<f64> = replicas
        .iter()
        .map(|r| (r.segments.len() - made.deletions().filter(|d| d.partition == r.partition).count()) as f64)
        .collect();
    let (sum, squares) = (left.iter().sum::<f64>(), left.iter().map(|x| x * x).sum::<f64>());
    let jain = sum * sum / (20.0 * squares);
    assert!(jain >= 0.95, "{jain} {left:?}");
}

#[test]
fn the_plan_is_the_same_in_any_order_of_replicas() {
    let mut replicas: Vec<_> =
        (0..5).map(|n| ReplicaFacts { pressure: trim(0), ..replica(n, &[9, 8, 7, 6]) }).collect();
    let made = plan(&replicas, Want { bytes: 700, inodes: 0 });
    replicas.reverse();
    assert_eq!(plan(&replicas, Want { bytes: 700, inodes: 0 }), made);
}
