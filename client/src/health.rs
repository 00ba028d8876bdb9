//! How the cluster and its disks are, told as it changes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use plimsoll_host::Task;
use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1::{ClusterStatusResponse, DiskCause, DiskLevel, SpuState, VolumeFacts, VolumeState};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tracing::Instrument as _;

use crate::client::Client;

/// Pause between two questions. Nodes report every 500 ms; together that stays below a second.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// How a cluster is. Free space is that of the moment in which something else changed.
///
/// ```
/// use plimsoll_client::{ClusterHealth, DiskLevel, SpuId, VolumeHealth, VolumeState};
///
/// let full = VolumeHealth {
///     spu: SpuId(3),
///     path: "/data".to_owned(),
///     level: DiskLevel::ReadOnly,
///     state: VolumeState::WriteOffline,
///     online: true,
///     ..VolumeHealth::default()
/// };
/// let health = ClusterHealth { reachable: true, volumes: vec![full], ..ClusterHealth::default() };
/// assert_eq!(health.full_volumes().count(), 1);
/// assert!(!health.takes_writes());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterHealth {
    /// A leading controller answers. Otherwise the rest is what was known last.
    pub reachable: bool,
    /// The leading controller, 0 without one.
    pub leader: u64,
    /// Every volume of every node.
    pub volumes: Vec<VolumeHealth>,
    /// Partitions of all topics.
    pub partitions: u32,
    /// Those that nobody can write to or read from.
    pub partitions_without_leader: u32,
    /// Those with fewer copies in sync than the topic has replicas.
    pub partitions_under_replicated: u32,
    /// Those that refuse `acks=all`.
    pub partitions_below_min_in_sync: u32,
}

/// How one volume is: one data directory of one node. See [`ClusterHealth`].
///
/// ```
/// assert!(!plimsoll_client::VolumeHealth::default().takes_writes());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeHealth {
    /// The node.
    pub spu: SpuId,
    /// The data directory there.
    pub path: String,
    /// The node is online.
    pub online: bool,
    /// How close to full it is, as the node says.
    pub level: DiskLevel,
    /// Which resource is short, when one is.
    pub cause: DiskCause,
    /// Whether the cluster writes to it.
    pub state: VolumeState,
    /// The node can't tell how much is free at the moment.
    pub unknown: bool,
    /// What may still be taken.
    pub free_bytes: u64,
    /// What there is in all.
    pub capacity_bytes: u64,
    /// When it will be full at the rate of the moment, if it fills.
    pub time_to_full: Option<Duration>,
}

impl Default for VolumeHealth {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            spu: SpuId(0),
            path: String::new(),
            online: false,
            level: DiskLevel::Unspecified,
            cause: DiskCause::Unspecified,
            state: VolumeState::Unspecified,
            unknown: true,
            free_bytes: 0,
            capacity_bytes: 0,
            time_to_full: None,
        }
    }
}

impl ClusterHealth {
    /// Volumes that refuse records because they are full. Failed ones are not full.
    pub fn full_volumes(&self) -> impl Iterator<Item = &VolumeHealth> {
        self.volumes.iter().filter(|volume| volume.level == DiskLevel::ReadOnly)
    }

    /// Whether any volume takes records.
    pub fn takes_writes(&self) -> bool {
        self.volumes.iter().any(VolumeHealth::takes_writes)
    }

    fn unreachable(&self) -> Self {
        Self { reachable: false, leader: 0, ..self.clone() }
    }

    /// Without what changes all the time.
    fn outline(&self) -> Self {
        let still = |volume: &VolumeHealth| VolumeHealth {
            free_bytes: 0,
            capacity_bytes: 0,
            time_to_full: None,
            ..volume.clone()
        };
        Self { volumes: self.volumes.iter().map(still).collect(), ..self.clone() }
    }
}

impl VolumeHealth {
    /// Whether it takes records, as far as is known.
    pub fn takes_writes(&self) -> bool {
        let room = matches!(self.level, DiskLevel::Normal | DiskLevel::Reclaim | DiskLevel::Throttle);
        self.online && self.state == VolumeState::Writable && room
    }

    fn new(spu: SpuId, online: bool, state: VolumeState, facts: &VolumeFacts) -> Self {
        Self {
            spu,
            path: facts.path.clone(),
            online,
            level: facts.level(),
            cause: facts.cause(),
            state,
            unknown: facts.unknown,
            free_bytes: facts.free_bytes,
            capacity_bytes: facts.capacity_bytes,
            time_to_full: (facts.time_to_full_ms > 0).then(|| Duration::from_millis(facts.time_to_full_ms)),
        }
    }
}

impl From<ClusterStatusResponse> for ClusterHealth {
    fn from(status: ClusterStatusResponse) -> Self {
        let mut volumes = Vec::new();
        for spu in &status.spus {
            let Some(info) = &spu.info else { continue };
            let online = info.state() == SpuState::Online;
            for known in &info.volumes {
                let facts = spu.volumes.iter().find(|facts| facts.volume_id == known.volume_id);
                let unheard = VolumeFacts { path: known.path.clone(), unknown: true, ..Default::default() };
                let facts = facts.unwrap_or(&unheard);
                volumes.push(VolumeHealth::new(SpuId(info.spu_id), online, known.state(), facts));
            }
        }
        Self {
            reachable: true,
            leader: status.leader,
            volumes,
            partitions: status.partitions,
            partitions_without_leader: status.partitions_without_leader,
            partitions_under_replicated: status.partitions_under_replicated,
            partitions_below_min_in_sync: status.partitions_below_min_in_sync,
        }
    }
}

/// A stream of [`ClusterHealth`]: how it is, then whenever a level, a state or a count has changed. Who is slow gets the
/// newest only. Never ends. Made by [`Client::watch_health`].
///
/// ```no_run
/// use futures::StreamExt;
/// use plimsoll_client::Client;
///
/// # async fn example(client: Client) {
/// let mut changes = client.watch_health();
/// while let Some(health) = changes.next().await {
///     for volume in health.full_volumes() {
///         eprintln!("{} of spu {} is full: {} bytes free", volume.path, volume.spu, volume.free_bytes);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct HealthWatch {
    changes: WatchStream<Option<Arc<ClusterHealth>>>,
    _asking: Task,
}

impl Stream for HealthWatch {
    type Item = ClusterHealth;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ClusterHealth>> {
        loop {
            match ready!(self.changes.poll_next_unpin(context)) {
                Some(Some(health)) => return Poll::Ready(Some(ClusterHealth::clone(&health))),
                // Nothing is known yet.
                Some(None) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Client {
    /// How the cluster and its disks are, now and whenever that changes: a full disk shows within a second of its node
    /// noticing it. Asks the controllers three times a second as long as the stream lives; one of them is enough for an
    /// application.
    pub fn watch_health(&self) -> HealthWatch {
        let (sender, changes) = watch::channel(None);
        let asking = ask(self.clone(), sender).instrument(tracing::debug_span!("health"));
        let asking = self.shared.host.tasks.spawn("health", asking);
        HealthWatch { changes: WatchStream::from_changes(changes), _asking: asking }
    }
}

async fn ask(client: Client, sender: watch::Sender<Option<Arc<ClusterHealth>>>) {
    let admin = client.admin().timeout(ANSWER_MAX);
    let mut images = client.watch_metadata();
    let mut known = ClusterHealth::default();
    while !sender.is_closed() {
        images.mark_unchanged();
        known = match admin.cluster_status().await {
            Ok(status) => status.into(),
            Err(_) => known.unreachable(),
        };
        sender.send_if_modified(|told| {
            let news = told.as_ref().is_none_or(|told| told.outline() != known.outline());
            if news {
                *told = Some(Arc::new(known.clone()));
            }
            news
        });
        // A change of the metadata, a volume that went offline above all, is looked at without waiting.
        drop(client.shared.host.clock.timeout(PAUSE, images.changed()).await);
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{SpuInfo, SpuStatus, VolumeInfo};

    use super::*;

    fn status(level: DiskLevel, free_bytes: u64) -> ClusterStatusResponse {
        let volume_id = bytes::Bytes::from_static(&[7; 16]);
        let facts = VolumeFacts {
            volume_id: volume_id.clone(),
            path: "/data".to_owned(),
            level: level.into(),
            free_bytes,
            ..Default::default()
        };
        let info = VolumeInfo { volume_id, state: VolumeState::Writable.into(), ..Default::default() };
        let spu =
            SpuInfo { spu_id: 2, state: SpuState::Online.into(), volumes: vec![info], ..Default::default() };
        let spu = SpuStatus { info: Some(spu), volumes: vec![facts], ..Default::default() };
        ClusterStatusResponse { leader: 1, spus: vec![spu], ..Default::default() }
    }

    #[test]
    fn a_level_is_news_and_a_byte_less_is_not() {
        let roomy = ClusterHealth::from(status(DiskLevel::Normal, 100));
        assert!(roomy.takes_writes());
        assert_eq!(roomy.outline(), ClusterHealth::from(status(DiskLevel::Normal, 99)).outline());
        let full = ClusterHealth::from(status(DiskLevel::ReadOnly, 99));
        assert_ne!(roomy.outline(), full.outline());
        assert_eq!(
            full.full_volumes().map(|v| (v.spu, v.path.as_str())).collect::<Vec<_>>(),
            [(SpuId(2), "/data")]
        );
        assert!(!full.takes_writes());
    }

    #[test]
    fn without_a_controller_the_last_answer_stays() {
        let known = ClusterHealth::from(status(DiskLevel::Throttle, 5));
        let lost = known.unreachable();
        assert!(!lost.reachable && lost.leader == 0);
        assert_eq!(lost.volumes, known.volumes);
    }

    #[test]
    fn a_volume_that_nobody_heard_of_is_unknown() {
        let mut status = status(DiskLevel::Normal, 5);
        status.spus[0].volumes.clear();
        let health = ClusterHealth::from(status);
        assert!(health.volumes[0].unknown && !health.takes_writes());
    }
}
