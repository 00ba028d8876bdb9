//! A small disk that fills: how soon room is really there, how much more is deleted than was needed, and whether
//! logs are treated alike.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, PartitionId, SpuId, VolumeId};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::log::{AppendError, LogSettings, OnPressure};
use plimsoll_storage::space::Observation;
use plimsoll_storage::volume::{ReplicaGuard, ReplicaGuards, Volume, VolumeSettings};

use crate::figure::{Bar, tell, timed};
use crate::lab::{BATCH_BYTES, Batches, EPOCH, WALL_MS, partition, wide};
use crate::rig::Rig;

const SEGMENT_BYTES: u64 = 1 << 20;
/// How often the node's worker lets a volume do its upkeep.
const TICK: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn figures() {
    let rig = || Rig::image(512, &["mkfs.ext4", "-qF", "-N", "16384"], "loop");
    if let Err(reason) = rig() {
        return println!("SKIPPED figure-pressure: {reason}");
    }
    let rig = || rig().expect("as just before");
    for (partitions, name) in [(20, "expired_free_s"), (200, "expired_free_200_logs_s")] {
        let took = |_| expired(&rig().path(), partitions);
        let seconds: Vec<f64> = (0..5).map(took).map(|freed| freed.took().as_secs_f64()).collect();
        tell(name, &seconds, Bar::AtMost(1.0), &format!("partitions={partitions} filesystem=ext4"));
    }
    for (partitions, segment_bytes, name) in
        [(20, SEGMENT_BYTES, "over_reclaim"), (100, SEGMENT_BYTES / 4, "over_reclaim_100_logs")]
    {
        let found = over_reclaimed(&rig().path(), partitions, segment_bytes);
        let detail = format!("partitions={partitions} wanted_mib={} filesystem=ext4", found.wanted >> 20);
        tell(name, &[found.share_of_allowed()], Bar::AtMost(1.0), &detail);
    }
    let retained = retained_with_one_hot(&rig().path());
    let (least, most) = (retained.iter().min(), retained.iter().max());
    let detail = format!(
        "partitions={} least_mib={} most_mib={} filesystem=ext4",
        retained.len(),
        least.map_or(0, |bytes| bytes >> 20),
        most.map_or(0, |bytes| bytes >> 20)
    );
    tell("fairness_jain", &[jain(&retained)], Bar::AtLeast(0.95), &detail);
}

/// A volume on a disk of its own, driven as the node's worker drives it, on a clock of its own.
struct Scene {
    volume: Volume,
    disk: SharedDisk,
    logs: Vec<PartitionId>,
    now: Duration,
    batch: BytesMut,
}

impl Scene {
    fn new(dir: &Path, partitions: u32, settings: &LogSettings) -> Self {
        let disk: SharedDisk = Arc::new(RealDisk::open(&dir.join("volume")).expect("the folder opens"));
        let mut volume_settings = VolumeSettings::new(ClusterId([1; 16]), SpuId(1), VolumeId([2; 16]));
        // Retention by itself is not what is looked at.
        volume_settings.retention_interval = HOUR * 1000;
        let now = Duration::from_secs(1000);
        let (volume, _) =
            Volume::open(Arc::clone(&disk), volume_settings, now, WALL_MS).expect("the volume opens");
        let batch = Batches::of_64_kib().anonymous().next();
        let mut scene = Self { volume, disk, logs: Vec::new(), now, batch };
        scene.tick();
        for index in 0..partitions {
            scene.volume.create_partition(partition(index), settings.clone(), now).expect("room for a log");
            scene.logs.push(partition(index));
        }
        scene
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS + u64::try_from(self.now.as_millis()).expect("small") - 1_000_000
    }

    /// Appends to a log, and says whether there was room.
    fn append(&mut self, log: PartitionId) -> bool {
        let wall_ms = self.wall_ms();
        match self.volume.append_as_leader(&log, self.batch.clone(), EPOCH, self.now, wall_ms) {
            Ok(appended) => {
                self.volume.set_high_watermark(&log, appended.end_offset);
                true
            }
            Err(AppendError::OutOfSpace { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }

    fn sample(&mut self) -> DiskLevel {
        let sample = self.disk.space().expect("a filesystem");
        self.volume.observe(Observation::Sample(sample), self.now);
        self.volume.level().level
    }

    fn tick(&mut self) {
        let wall_ms = self.wall_ms();
        let guard = |volume: &Volume, log: &PartitionId| ReplicaGuard {
            leads: true,
            replicated_to: volume.log(log).map(|view| view.log_end),
            group_floor: None,
        };
        let guards: ReplicaGuards = self.logs.iter().map(|log| (*log, guard(&self.volume, log))).collect();
        self.volume.tick(self.now, wall_ms, &guards);
    }

    fn available(&self) -> u64 {
        self.disk.space().expect("a filesystem").available_bytes
    }

    /// Fills all logs alike until the mark of Reclaim is crossed, which the volume has not seen yet.
    fn fill(&mut self) {
        let mark = self.volume.marks().bytes(DiskLevel::Reclaim).enter;
        loop {
            for log in self.logs.clone() {
                assert!(self.append(log), "there is room above the mark");
                if self.available() + self.volume.facts().preallocated_bytes < mark {
                    return;
                }
            }
        }
    }

    /// Time passes, and everybody knows.
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

/// How long it took from entering the level until `statvfs` showed what was expired.
pub(crate) struct Freed {
    /// Turns of the upkeep.
    pub(crate) turns: u32,
    /// The time that they took.
    busy: Duration,
}

impl Freed {
    /// With the worker's pause before each turn in full.
    fn took(&self) -> Duration {
        TICK * self.turns + self.busy
    }
}

pub(crate) fn expired(dir: &Path, partitions: u32) -> Freed {
    let settings = LogSettings {
        segment_bytes_max: SEGMENT_BYTES,
        retention_age_max: Some(HOUR),
        ..LogSettings::default()
    };
    let mut scene = Scene::new(dir, partitions, &settings);
    scene.fill();
    scene.pass(HOUR * 2);
    scene.tick();
    let before = scene.available();
    let used: u64 = scene.logs.iter().filter_map(|log| scene.volume.log(log)).map(|log| log.bytes).sum();
    assert!(scene.sample() >= DiskLevel::Reclaim, "the mark is crossed");
    let mut freed = Freed { turns: 0, busy: Duration::ZERO };
    while scene.available() < before + used {
        assert!(freed.turns < 1000, "it never ends");
        freed.turns += 1;
        scene.pass(TICK);
        freed.busy += timed(|| scene.tick()).0;
    }
    freed
}

/// What pressure deleted of unexpired records, against what was short.
pub(crate) struct OverReclaimed {
    pub(crate) wanted: u64,
    pub(crate) freed: u64,
    segment_bytes: u64,
}

impl OverReclaimed {
    /// What was deleted beyond need, as a share of one segment and 5 %.
    pub(crate) fn share_of_allowed(&self) -> f64 {
        let over = self.freed.saturating_sub(self.wanted) as f64;
        over / (self.segment_bytes as f64 + self.wanted as f64 * 0.05)
    }
}

pub(crate) fn over_reclaimed(dir: &Path, partitions: u32, segment_bytes: u64) -> OverReclaimed {
    let settings = LogSettings { segment_bytes_max: segment_bytes, ..trimmed() };
    let mut scene = Scene::new(dir, partitions, &settings);
    scene.fill();
    scene.pass(HOUR * 2);
    scene.tick();
    assert!(scene.sample() >= DiskLevel::Reclaim, "the mark is crossed");
    let free = scene.volume.facts().free_bytes;
    let wanted = scene.volume.marks().bytes(DiskLevel::Reclaim).exit - free;
    for _ in 0..200 {
        scene.pass(TICK);
        scene.tick();
        scene.sample();
    }
    assert!(scene.volume.level().level == DiskLevel::Normal, "room was made: {:?}", scene.volume.level());
    OverReclaimed { wanted, freed: scene.volume.facts().free_bytes - free, segment_bytes }
}

/// Bytes that 20 logs keep after one of them was written 20 times as fast as each of the others, for long enough
/// that all have written more than their share.
pub(crate) fn retained_with_one_hot(dir: &Path) -> Vec<u64> {
    let mut scene = Scene::new(dir, 20, &trimmed());
    let logs = scene.logs.clone();
    let share = scene.volume.facts().capacity_bytes / 20;
    let rounds = share * 2 / wide(BATCH_BYTES);
    for round in 0..rounds {
        for (i, log) in logs.iter().enumerate() {
            for _ in 0..if i == 0 { 20 } else { 1 } {
                let appended = (0..400).any(|_| {
                    let appended = scene.append(*log);
                    if !appended {
                        upkeep(&mut scene);
                    }
                    appended
                });
                assert!(appended, "room comes back: {:?}", scene.volume.level());
            }
        }
        if round.is_multiple_of(2) {
            upkeep(&mut scene);
        }
    }
    logs.iter().filter_map(|log| scene.volume.log(log)).map(|view| view.bytes).collect()
}

fn upkeep(scene: &mut Scene) {
    scene.pass(TICK);
    scene.sample();
    scene.tick();
}

/// Logs that give way under pressure, whatever their age.
fn trimmed() -> LogSettings {
    LogSettings {
        segment_bytes_max: SEGMENT_BYTES,
        on_pressure: OnPressure::Trim,
        min_retention: Duration::ZERO,
        ..LogSettings::default()
    }
}

/// Jain's index: 1 when all have the same, 1 / n when one has all.
pub(crate) fn jain(values: &[u64]) -> f64 {
    let sum: f64 = values.iter().map(|value| *value as f64).sum();
    let squares: f64 = values.iter().map(|value| (*value as f64).powi(2)).sum();
    sum * sum / (values.len() as f64 * squares)
}
