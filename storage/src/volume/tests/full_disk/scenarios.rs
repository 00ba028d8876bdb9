//! What is done while the disk fails.

use plimsoll_proto::batch::iter_batches;
use plimsoll_proto::ids::LeaderEpoch;

use super::*;
use crate::log::LogSettings;

#[test]
fn produce_and_roll() {
    let cases = prove("produce", nothing, |volume, promises| {
        for i in 0..70 {
            let _ = promises.produce(volume, &partition(0), 1000, ms(3000 + i));
        }
    });
    assert!(cases > 500, "{cases}");
}

#[test]
fn retention() {
    prove("retention", nothing, |volume, promises| {
        let settings = LogSettings { retention_bytes_max: Some(0), ..small_segments() };
        volume.configure(&partition(1), settings);
        volume.set_high_watermark(&partition(1), offset(70));
        for step in 0..3 {
            let _ = promises.produce(volume, &partition(0), 1000, ms(20_000));
            let _ = volume.sync(&partition(0));
            volume.tick(ms(20_000 * (step + 1)), WALL_MS + 20_000 * (step + 1), &ReplicaGuards::new());
        }
    });
}

#[test]
fn trim_and_restart() {
    prove("trim", nothing, |volume, _| {
        let _ = volume.trim_head(&partition(0), offset(66));
        let _ = volume.trim_head(&partition(0), offset(70));
        let _ = volume.trim_head(&partition(1), offset(500));
    });
}

#[test]
fn truncate() {
    prove("truncate", nothing, |volume, promises| {
        for to in [68, 30] {
            // A cut that failed may have been made in part: what lay behind it promises nothing.
            match volume.truncate_tail(&partition(0), offset(to)) {
                Ok(()) => promises.cut(&partition(0), to),
                Err(_) => promises.forget(&partition(0), to),
            }
        }
        let _ = promises.produce(volume, &partition(0), 1000, ms(3000));
    });
}

#[test]
fn create_and_delete() {
    prove("delete", nothing, |volume, promises| {
        // A deletion that was asked for promises nothing of the partition any more.
        promises.acked.remove(&partition(1));
        let _ = volume.delete_partition(&partition(1));
        if volume.create_partition(partition(2), small_segments(), ms(3000)).is_ok() {
            let _ = promises.produce(volume, &partition(2), 1000, ms(3000));
        }
    });
}

/// An index outgrows its first block, the only one that it was given when it was made.
#[test]
fn index_growth() {
    let prepare: Prepare = |volume, promises| {
        let settings = LogSettings { segment_bytes_max: 8 << 20, ..small_segments() };
        volume.create_partition(partition(2), settings, ms(2)).unwrap();
        for _ in 0..249 {
            promises.produce(volume, &partition(2), 4200, ms(2)).unwrap();
        }
        volume.tick(ms(20_000), WALL_MS + 20_000, &ReplicaGuards::new());
    };
    prove("index", prepare, |volume, promises| {
        for _ in 0..6 {
            let _ = promises.produce(volume, &partition(2), 4200, ms(20_001));
        }
        volume.tick(ms(40_000), WALL_MS + 40_000, &ReplicaGuards::new());
    });
}

/// The state of the producers outgrows the slots that need no space.
#[test]
fn producer_snapshot() {
    let prepare: Prepare = |volume, promises| {
        for id in 0..160 {
            idempotent(volume, promises, id).unwrap();
        }
    };
    prove("producers", prepare, |volume, promises| {
        for id in 160..163 {
            let _ = idempotent(volume, promises, id);
        }
        volume.tick(ms(40_000), WALL_MS + 40_000, &ReplicaGuards::new());
    });
}

fn idempotent(volume: &mut Volume, promises: &mut Promises, id: i64) -> Result<(), AppendError> {
    let value = promises.value(20);
    let batch = batch(&[&value], Some((id, 0, 0)));
    let result = volume.append_as_leader(&partition(0), batch, LeaderEpoch(1), ms(20_001), WALL_MS);
    match &result {
        Ok(appended) => {
            promises.acked.entry(partition(0)).or_default().insert(appended.base_offset.get(), value);
        }
        Err(AppendError::VolumeFailed { written: true, .. }) => {}
        Err(_) => {
            promises.refused.insert(value);
        }
    }
    result.map(|_| ())
}

/// A follower appends what it fetched, several batches at a time, and rolls.
#[test]
fn replicate() {
    let prepare: Prepare = |volume, _| {
        volume.create_partition(partition(2), small_segments(), ms(2)).unwrap();
    };
    prove("replicate", prepare, |volume, promises| {
        // The leader's log has the same contents as partition 0.
        let mut from = offset(0);
        while from < offset(70) {
            let Ok(fetched) = volume.read(&partition(0), from, offset(70), 8 * 1024) else { break };
            let last = iter_batches(&fetched).last().unwrap().unwrap().0;
            if volume.append_as_follower(&partition(2), fetched, ms(3000), WALL_MS).is_err() {
                break;
            }
            let acked: Vec<_> = promises.acked[&partition(0)]
                .range(from.get()..last.end_offset().get())
                .map(|(at, value)| (*at, value.clone()))
                .collect();
            promises.acked.entry(partition(2)).or_default().extend(acked);
            from = last.end_offset();
        }
        let _ = volume.sync(&partition(2));
    });
}

/// Sync and checkpoint, with nothing to delete.
#[test]
fn checkpoint() {
    prove("checkpoint", nothing, |volume, promises| {
        for step in 1..4 {
            let _ = promises.produce(volume, &partition(0), 1000, ms(20_000 * step));
            let _ = volume.sync(&partition(0));
            volume.tick(ms(20_000 * step), WALL_MS + 20_000 * step, &ReplicaGuards::new());
        }
    });
}
