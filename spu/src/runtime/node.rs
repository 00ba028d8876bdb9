//! Opening a node: every volume on a lane of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use plimsoll_host::Host;
use plimsoll_host::log_budget::LogBudget;
use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_proto::ids::{ClusterId, PartitionId, SpuId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use plimsoll_storage::fs::{DiskError, SharedDisk};
use plimsoll_storage::log::FlushPolicy;
use plimsoll_storage::space::MarkSettings;
use plimsoll_storage::volume::{OpenError, Volume, VolumeSettings};
use tokio::sync::{mpsc, oneshot, watch};

use super::byte_limit::ByteLimit;
use super::handle::NodeHandle;
use super::job::ControlRequest;
use super::levels::LevelLog;
use super::offsets::GroupFloors;
use super::rebuild::Rebuilding;
use super::refusal::Place;
use super::space::sample_space;
use super::work::{Gate, Pulse, Routes, Shared, VolumeDoor, VolumeView};
use super::worker::{Inbox, Worker};
use crate::replica::Lease;

/// Produces queued on one volume at most.
const PRODUCE_QUEUE: usize = 1024;
/// Other work queued on one volume at most.
const WORK_QUEUE: usize = 1024;
/// Requests to the controllers queued at most; what finds no place is asked again.
const CONTROL_QUEUE: usize = 1024;

/// Settings of a node.
#[derive(Clone)]
pub struct NodeSettings {
    /// The cluster that every data directory must belong to.
    pub cluster_id: ClusterId,
    /// This node.
    pub spu_id: SpuId,
    /// The data directories, one volume each.
    pub disks: Vec<SharedDisk>,
    /// Bytes that each volume may use, whatever its filesystem has. Default none.
    pub byte_limit: Option<u64>,
    /// Where the levels of each volume lie, and what it keeps back.
    pub tuning: VolumeTuning,
}

/// What may be set on every volume of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeTuning {
    /// Where the disk levels begin and end.
    pub marks: MarkSettings,
    /// Bytes kept for later write classes. Default max(1 % of capacity, 2 MiB).
    pub reserve_bytes: Option<u64>,
    /// How often retention looks at every log when there is no pressure. Default 5 minutes.
    pub retention_interval: Duration,
}

impl Default for VolumeTuning {
    fn default() -> Self {
        Self {
            marks: MarkSettings::default(),
            reserve_bytes: None,
            retention_interval: Duration::from_secs(5 * 60),
        }
    }
}

/// Why a node can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No data directory was given.
    #[error("a storage node needs at least one data directory")]
    NoVolume,
    /// A volume is another's, or its marks are wrong, or none at all can be opened. `Locked` and
    /// `ForeignIdentity` are exit code 5.
    #[error(transparent)]
    Volume(#[from] OpenError),
}

/// Whether a node must not start although its other volumes open: the configuration is wrong, or the directory
/// is somebody else's. A broken device is neither.
fn forbids_start(error: &OpenError) -> bool {
    match error {
        OpenError::Locked { .. } | OpenError::ForeignIdentity { .. } | OpenError::Marks { .. } => true,
        OpenError::Disk { error, .. } => matches!(error, DiskError::Locked),
        OpenError::BadIdentity { .. } => false,
    }
}

/// What opening found, in the order of the settings.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// The volumes.
    pub volumes: Vec<VolumeOpened>,
    /// Those that can't be opened; the node runs without them, and its registration, which does not name them,
    /// makes them failed ones.
    pub failed: Vec<OpenError>,
}

/// One volume as it was opened.
#[derive(Clone, Debug)]
pub struct VolumeOpened {
    /// Its identity.
    pub id: VolumeId,
    /// Where it is, for people.
    pub path: String,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Its level.
    pub level: DiskLevel,
    /// What is scarce; `None` at Normal.
    pub cause: Option<DiskCause>,
    /// Bytes that it has free.
    pub free_bytes: u64,
    /// Replicas found.
    pub replicas: usize,
    /// What recovery found.
    pub recovery: plimsoll_storage::volume::OpenReport,
}

/// Opens nodes.
#[derive(Debug)]
pub struct Node;

/// What a lane tells when its volume is open.
type Opened = (VolumeDoor, VolumeOpened, Vec<PartitionId>);

impl Node {
    /// Opens every volume and starts its worker. No space is needed. A volume whose device is broken is left out
    /// as long as another one opens.
    ///
    /// # Errors
    /// [`NodeError`]; nothing runs then.
    pub async fn open(host: Host, settings: NodeSettings) -> Result<(NodeHandle, OpenReport), NodeError> {
        if settings.disks.is_empty() {
            return Err(NodeError::NoVolume);
        }
        let image = Arc::new(MetadataImage::empty());
        let shared = Arc::new(Shared {
            spu: settings.spu_id,
            cluster_id: settings.cluster_id,
            routes: watch::Sender::new(Arc::new(Routes { image, by_partition: BTreeMap::new() })),
            identity: watch::Sender::new(None),
            lease: watch::Sender::new(Lease::new()),
            clock_offset_ms: watch::Sender::new(0),
            group_floors: watch::Sender::new(GroupFloors::default()),
            following: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        });
        let (control, requests) = mpsc::channel(CONTROL_QUEUE);
        let log_budget = LogBudget::new();
        let mut opening = Vec::new();
        for (number, disk) in settings.disks.iter().enumerate() {
            let (tell, told) = oneshot::channel();
            let plan = Plan {
                host: host.clone(),
                shared: shared.clone(),
                settings: VolumeSettings {
                    byte_limit: settings.byte_limit,
                    marks: settings.tuning.marks,
                    reserve_bytes: settings.tuning.reserve_bytes,
                    retention_interval: settings.tuning.retention_interval,
                    ..VolumeSettings::new(settings.cluster_id, settings.spu_id, VolumeId(host.random.id16()))
                        .one_of(settings.disks.len())
                },
                disk: disk.clone(),
                control: control.clone(),
                log_budget: log_budget.clone(),
            };
            host.tasks.spawn_lane(&format!("volume-{number}"), move || Box::pin(plan.run(tell)));
            opening.push(told);
        }

        let mut report = OpenReport::default();
        let mut doors = BTreeMap::new();
        let mut found = BTreeMap::new();
        let mut forbidden = None;
        for told in opening {
            match told.await {
                Ok(Ok((door, opened, partitions))) => {
                    found.extend(partitions.into_iter().map(|partition| (partition, opened.id)));
                    report.volumes.push(opened);
                    doors.insert(door.id, door);
                }
                Ok(Err(error)) if forbids_start(&error) => forbidden = Some(error),
                Ok(Err(error)) => report.failed.push(error),
                // The lane has ended without a word, which only a panic does.
                Err(_) => report.failed.push(lane_died()),
            }
        }
        let failure = forbidden.or_else(|| report.failed.first().filter(|_| doors.is_empty()).cloned());
        shared.routes.send_modify(|routes| {
            *routes = Arc::new(Routes { image: routes.image.clone(), by_partition: found });
        });
        let handle = NodeHandle::new(host, shared, doors, Mutex::new(Some(requests)));
        if let Some(error) = failure {
            handle.shut_down().await;
            return Err(error.into());
        }
        Ok((handle, report))
    }
}

fn lane_died() -> OpenError {
    OpenError::Disk {
        directory: "a data directory".to_owned(),
        error: DiskError::Unknown { errno: 0, operation: "open" },
    }
}

/// What a lane needs to open its volume and work on it.
struct Plan {
    host: Host,
    shared: Arc<Shared>,
    settings: VolumeSettings,
    disk: SharedDisk,
    control: mpsc::Sender<ControlRequest>,
    log_budget: LogBudget,
}

impl Plan {
    async fn run(self, tell: oneshot::Sender<Result<Opened, OpenError>>) {
        let now = self.host.clock.now();
        let wall_ms = self.host.clock.wall_ms();
        let mut limit = ByteLimit::new(self.settings.byte_limit);
        let settings = VolumeSettings { byte_limit: limit.read(self.disk.as_ref()), ..self.settings.clone() };
        let opened = Volume::open(self.disk.clone(), settings, now, wall_ms);
        match opened {
            Ok((volume, recovery)) => {
                let (worker, opened) = self.assemble(volume, recovery, limit, now);
                if tell.send(Ok(opened)).is_ok() {
                    worker.run().await;
                }
            }
            // Nobody listens when the start was given up; there is nothing to close either.
            Err(error) => drop(tell.send(Err(error))),
        }
    }

    fn assemble(
        self,
        volume: Volume,
        recovery: plimsoll_storage::volume::OpenReport,
        limit: ByteLimit,
        now: Duration,
    ) -> (Worker, Opened) {
        let facts = volume.facts();
        let place = Place { spu: self.shared.spu, volume: volume.id(), path: self.disk.label() };
        let partitions = volume.partitions();
        let opened = VolumeOpened {
            id: place.volume,
            path: place.path.clone(),
            capacity_bytes: facts.capacity_bytes,
            level: facts.level,
            cause: facts.cause,
            free_bytes: facts.free_bytes,
            replicas: partitions.len(),
            recovery,
        };
        let (produce, produce_queue) = mpsc::channel(PRODUCE_QUEUE);
        let (work, work_queue) = mpsc::channel(WORK_QUEUE);
        let view = VolumeView {
            facts: v1::VolumeFacts::default(),
            level: facts.level,
            gate: Gate::Open,
            replicas: Arc::default(),
        };
        let (view, view_seen) = watch::channel(Arc::new(view));
        let pulse = Pulse::default();
        pulse.beat(now);
        let (samples, samples_seen) = watch::channel(None);
        let (sample_pause, pause_seen) = watch::channel(volume.next_sample_in());
        let (host, sampler, disk) = (self.host.clone(), volume.sampler(), self.disk.clone());
        self.host.tasks.spawn_lane("space", move || {
            Box::pin(sample_space(host, sampler, disk, limit, samples, pause_seen))
        });

        let door = VolumeDoor {
            id: place.volume,
            place: place.clone(),
            produce,
            work,
            view: view_seen,
            pulse: pulse.clone(),
        };
        // Which of them flush on acknowledgement is known only with the metadata; see `Worker::reconcile`.
        let mut cache_lost: BTreeSet<PartitionId> =
            if opened.recovery.loss_untold { partitions.iter().copied().collect() } else { BTreeSet::new() };
        // An offsets area that lost what it should have is as one that lost its page cache.
        let damaged = opened.recovery.damaged.iter().map(|range| range.partition);
        cache_lost.extend(damaged.filter(|partition| volume.is_offsets_area(partition)));
        let mut worker = Worker {
            levels: LevelLog::new(facts.level, now),
            inbox: Inbox {
                produce: produce_queue,
                work: work_queue,
                routes: self.shared.routes.subscribe(),
                samples: samples_seen,
                cluster_time: self.shared.clock_offset_ms.subscribe(),
            },
            host: self.host,
            shared: self.shared,
            place,
            volume,
            replicas: BTreeMap::new(),
            cache_lost,
            held: VecDeque::new(),
            held_bytes: 0,
            dirty: BTreeSet::new(),
            proposals: FuturesUnordered::new(),
            control: self.control,
            view,
            pulse,
            asked: None,
            answers: 0,
            waiters: 0,
            waited_on: BTreeSet::new(),
            replica_stops: 0,
            failed: false,
            missing: false,
            retried_at: now,
            rebuilding: Rebuilding::default(),
            sampled_at: now,
            sample_pause,
            log_budget: self.log_budget,
            ticked_at: None,
            shown_at: None,
            reported_at: None,
        };
        worker.adopt(&partitions);
        worker.publish(now);
        (worker, (door, opened, partitions))
    }
}

impl Worker {
    /// Takes the replicas that were found, without a role: they serve reads of any replica at once.
    pub(super) fn adopt(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            let settings =
                plimsoll_storage::log::LogSettings { flush: FlushPolicy::Os, ..Default::default() };
            self.replicas.insert(*partition, super::replica::Replica::new(settings));
        }
    }
}
