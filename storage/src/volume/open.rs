//! Opening a volume: lock, identity, logs, space. Needs no space when the directory was opened before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::PartitionId;

use super::areas::{Areas, open_if_area};
use super::identity::{IdentityFile, RunState};
use super::{
    Accounts, DamagedRange, OpenError, OpenReport, TailCut, Time, Volume, VolumeIdentity, VolumeSettings,
};
use crate::fs::{DiskError, LockGuard, SharedDisk};
use crate::log::{Env, PartitionLog, ReadBuffers};
use crate::recovery::{PARTITIONS_DIR, open_log};
use crate::segment::ReadHandles;
use crate::space::ledger::default_reserve_bytes;
use crate::space::{OwnUse, PhysicalReserve, RunningReclaim, Sensor, SensorSettings, SpaceLedger};

/// The file whose lock says that a process uses the directory.
pub const LOCK_FILE: &str = "lock";

impl Volume {
    /// Opens a data directory, making it a volume when it is fresh, and recovers all its logs.
    ///
    /// Logs come with default settings and are left alone by retention until [`Volume::configure`].
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed, but for what a fresh directory got.
    pub fn open(
        disk: SharedDisk,
        settings: VolumeSettings,
        now: Duration,
        wall_ms: u64,
    ) -> Result<(Self, OpenReport), OpenError> {
        let directory = disk.label();
        let failed = |error| OpenError::Disk { directory: directory.clone(), error };
        let lock = disk.lock(LOCK_FILE).map_err(|error| match error {
            DiskError::Locked => OpenError::Locked { directory: directory.clone() },
            other => failed(other),
        })?;
        Self::open_locked(disk, lock.into(), settings, (0, 0), now, wall_ms)
    }

    /// Opens a directory that is ours. `counted` is what was committed and written by this process before.
    pub(super) fn open_locked(
        disk: SharedDisk,
        lock: Arc<dyn LockGuard>,
        settings: VolumeSettings,
        counted: (u64, u64),
        now: Duration,
        wall_ms: u64,
    ) -> Result<(Self, OpenReport), OpenError> {
        let directory = disk.label();
        let failed = |error| OpenError::Disk { directory: directory.clone(), error };
        let mut report = OpenReport::default();
        let (identity, before) = own_identity(&disk, &settings, &mut report)?;
        let sample = disk.space().map_err(failed)?;
        let capacity_bytes =
            settings.byte_limit.map_or(sample.total_bytes, |limit| limit.min(sample.total_bytes));
        let mut handles = ReadHandles::new(settings.read_handles_max);
        let mut env = Env {
            disk: disk.as_ref(),
            handles: &mut handles,
            buffers: &mut ReadBuffers::default(),
            spares: None,
            now,
            wall_ms,
            capacity_bytes,
            extra_max: 0,
        };
        let mut areas = Areas::new();
        let mut logs = open_logs(&mut env, &settings, &mut areas, &mut report).map_err(failed)?;
        // The former boot id stays in force until every checkpoint speaks of what this boot found.
        let rewritten = !report.page_cache_lost || rewrite_checkpoints(&mut env, &mut logs);
        let reserve_bytes = settings.reserve_bytes.unwrap_or_else(|| default_reserve_bytes(capacity_bytes));
        let (reserve, _) = PhysicalReserve::open(disk.as_ref(), reserve_bytes).map_err(failed)?;
        let accounts = Accounts {
            used_bytes: logs.values().map(PartitionLog::disk_bytes).sum::<u64>()
                + areas.values().map(|entry| entry.area.disk_bytes()).sum::<u64>(),
            preallocated_bytes: logs.values().map(PartitionLog::preallocated).sum(),
            written_total: counted.1,
        };
        let own = OwnUse {
            used: accounts.used_bytes + reserve.bytes(),
            preallocated_unused: accounts.preallocated_bytes,
            written_total: counted.1,
            active_replicas: u64::try_from(logs.len()).unwrap_or(u64::MAX),
            reserves: disk.reserves(),
        };
        let sample = disk.space().map_err(failed)?;
        let sensing = SensorSettings { marks: settings.marks, byte_limit: settings.byte_limit };
        let sensor = Sensor::open(sensing, sample, own, now)
            .map_err(|invalid| OpenError::Marks { directory: directory.clone(), invalid })?;
        if report.device_failed {
            logs.values_mut().for_each(PartitionLog::distrust);
        }
        let failed = logs.values().any(PartitionLog::is_distrusted)
            || areas.values().any(|entry| entry.area.is_distrusted());
        let (loss_untold, mount) = (report.loss_untold, disk.mount_identity());
        let run = RunState { clean: false, failed, loss_untold, mount, ..before };
        let mut volume = Self {
            ledger: SpaceLedger::new(run.identity.volume_id, reserve_bytes).after(counted.0),
            disk,
            identity,
            run,
            run_noted: false,
            failure_note_at: Duration::ZERO,
            logs: BTreeMap::new(),
            areas,
            deleting: BTreeMap::new(),
            handles,
            buffers: ReadBuffers::default(),
            open_logs: 0,
            sensor,
            reserve,
            accounts,
            committed_at_sample: counted.0,
            meter: Arc::default(),
            running_reclaim: RunningReclaim::default(),
            reclaim_wanted: None,
            reclaim_missing_bytes: 0,
            unclassified: false,
            time: Time { now, wall_ms, ages_trusted: true, retention_at: now },
            uses: 0,
            events: Vec::new(),
            settings,
            lock,
        };
        for (partition, log) in logs {
            volume.insert(partition, log, false);
        }
        volume.refresh_ledger();
        for (_, error) in &report.failed {
            // A device that fails to read is failed from the start; what can be read of it is served.
            volume.note_failure(error, 0);
        }
        if rewritten {
            volume.note_run();
        }
        Ok((volume, report))
    }
}

/// Reads whose directory it is and checks that it is ours; a fresh one becomes ours.
fn own_identity(
    disk: &SharedDisk,
    settings: &VolumeSettings,
    report: &mut OpenReport,
) -> Result<(IdentityFile, RunState), OpenError> {
    let failed = |error| OpenError::Disk { directory: disk.label(), error };
    let (mut file, found) = IdentityFile::open(disk.as_ref())?;
    let mount = disk.mount_identity();
    let Some(state) = found else {
        let identity = VolumeIdentity {
            cluster_id: settings.cluster_id,
            spu_id: settings.spu_id,
            volume_id: settings.new_volume_id,
        };
        let state = RunState { identity, clean: true, failed: false, loss_untold: false, mount };
        disk.create_dir(PARTITIONS_DIR).map_err(failed)?;
        file.write(disk.as_ref(), &state).map_err(failed)?;
        disk.sync_dir("").map_err(failed)?;
        report.created = true;
        report.clean = true;
        return Ok((file, state));
    };
    let identity = state.identity;
    if identity.cluster_id != settings.cluster_id || identity.spu_id != settings.spu_id {
        return Err(OpenError::ForeignIdentity {
            directory: disk.label(),
            found_cluster: identity.cluster_id,
            found_spu: identity.spu_id,
            volume: identity.volume_id,
        });
    }
    report.clean = state.clean;
    report.device_failed = state.failed;
    // After a failed sync the cache may show what the device never got, and lose it at any time.
    report.page_cache_lost = state.failed || (!state.clean && state.mount != mount);
    report.loss_untold = report.page_cache_lost || state.loss_untold;
    Ok((file, state))
}

fn open_logs(
    env: &mut Env<'_>,
    settings: &VolumeSettings,
    areas: &mut Areas,
    report: &mut OpenReport,
) -> Result<BTreeMap<PartitionId, PartitionLog>, DiskError> {
    let mut logs = BTreeMap::new();
    for entry in env.disk.list(PARTITIONS_DIR)? {
        let Some(partition) = entry.name.parse::<PartitionId>().ok().filter(|_| entry.is_dir) else {
            report.unknown_entries += 1;
            continue;
        };
        if open_if_area(env.disk, partition, areas, report).is_some() {
            continue;
        }
        match open_log(env, partition, settings.producers_max, report.page_cache_lost) {
            Ok(None) => {}
            Ok(Some(opened)) => {
                report.unknown_entries += opened.unknown_entries;
                let log_end = opened.log.log_end();
                if opened.cut_bytes > 0 {
                    report.cut.push(TailCut { partition, log_end, bytes: opened.cut_bytes });
                }
                let ranges = opened.damaged.into_iter();
                report.damaged.extend(ranges.map(|(from, to)| DamagedRange { partition, from, to }));
                logs.insert(partition, opened.log);
            }
            Err(error) => report.failed.push((partition, error)),
        }
    }
    Ok(logs)
}

fn rewrite_checkpoints(env: &mut Env<'_>, logs: &mut BTreeMap<PartitionId, PartitionLog>) -> bool {
    logs.values_mut().map(|log| log.checkpoint(env)).all(|result| result.is_ok())
}
