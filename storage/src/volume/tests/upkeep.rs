//! What a log does as time goes by: rolling by age, syncs at their interval, preallocation that follows the rate.

use std::time::Duration;

use plimsoll_proto::ids::{LeaderEpoch, PartitionId, TopicId};

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings};
use crate::log::{FlushPolicy, LogSettings};
use crate::volume::{ReplicaGuards, Volume};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn fresh(bytes: u64, settings: LogSettings) -> (MemoryDisk, Volume) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(bytes));
    let (mut volume, _) = open(shared(&disk), S);
    volume.create_partition(partition(0), settings, S).unwrap();
    (disk, volume)
}

fn append(volume: &mut Volume, bytes: usize, now: Duration, wall_ms: u64) {
    let value = vec![b'v'; bytes];
    volume.append_as_leader(&partition(0), batch(&[&value], None), LeaderEpoch(1), now, wall_ms).unwrap();
}

#[test]
fn a_segment_rolls_when_it_is_older_than_its_age_and_not_a_millisecond_before() {
    let hour = 3_600_000;
    for (age_ms, segments) in [(hour - 1, 1), (hour, 1), (hour + 1, 2)] {
        let settings = LogSettings { segment_age_max: Duration::from_millis(hour), ..LogSettings::default() };
        let (_disk, mut volume) = fresh(64 << 20, settings);
        append(&mut volume, 100, S, WALL_MS);
        append(&mut volume, 100, 2 * S, WALL_MS + 1);
        append(&mut volume, 100, 3 * S, WALL_MS + age_ms);
        assert_eq!(volume.log(&partition(0)).unwrap().segments, segments, "at {age_ms} ms");
        assert_eq!(read_all(&mut volume, &partition(0), None).len(), 3);
    }
}

#[test]
fn a_log_is_synced_at_its_interval_and_not_a_millisecond_before() {
    for (flush, durable) in
        [(FlushPolicy::Interval(S), 1), (FlushPolicy::Interval(S + MS), 0), (FlushPolicy::Os, 0)]
    {
        let (_disk, mut volume) = fresh(64 << 20, LogSettings { flush, ..LogSettings::default() });
        append(&mut volume, 100, 2 * S, WALL_MS);
        volume.tick(3 * S - MS, WALL_MS, &ReplicaGuards::new());
        assert_eq!(volume.log(&partition(0)).unwrap().durable_end, offset(0), "{flush:?}");
        volume.tick(3 * S, WALL_MS, &ReplicaGuards::new());
        assert_eq!(volume.log(&partition(0)).unwrap().durable_end, offset(durable), "{flush:?}");
    }
}

#[test]
fn preallocation_follows_the_rate_stays_below_an_eighth_of_what_is_free_and_goes_when_idle() {
    let (_disk, mut volume) = fresh(256 << 20, LogSettings::default());
    append(&mut volume, 100, S, WALL_MS);
    let slow = volume.log(&partition(0)).unwrap().preallocated_bytes;
    // Some 60 KiB each millisecond.
    let mut most = 0;
    for step in 0..60 {
        append(&mut volume, 60_000, 2 * S + step * MS, WALL_MS);
        let ahead = volume.facts().preallocated_bytes;
        assert!(ahead <= volume.facts().free_bytes / 8, "{ahead}");
        most = most.max(ahead);
    }
    assert!(slow <= 128 << 10 && most >= 512 << 10, "{slow} when slow, {most} when fast");
    volume.tick(30 * S, WALL_MS, &ReplicaGuards::new());
    assert!(volume.facts().preallocated_bytes > 0);
    volume.tick(33 * S, WALL_MS, &ReplicaGuards::new());
    assert_eq!(volume.facts().preallocated_bytes, 0, "an idle replica holds none");
    append(&mut volume, 100, 34 * S, WALL_MS);
    assert_eq!(read_all(&mut volume, &partition(0), None).len(), 62);
}

#[test]
fn a_recreated_topic_is_another_one() {
    let (disk, mut volume) = fresh(64 << 20, LogSettings::default());
    append(&mut volume, 100, S, WALL_MS);
    let again = PartitionId { topic_id: TopicId([8; 16]), index: 0 };
    volume.create_partition(again, LogSettings::default(), S).unwrap();
    assert_eq!(volume.log(&again).unwrap().log_end, offset(0));
    volume.delete_partition(&partition(0)).unwrap();
    drop(volume);
    let (mut volume, _) = open(shared(&disk), S);
    assert_eq!(volume.partitions(), [again]);
    assert_eq!(read_all(&mut volume, &again, None), []);
}
