//! What travels between the handle, the peers and a volume's worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, Incarnation, Offset, PartitionId, SpuId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use plimsoll_storage::space::Verdict;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::job::{FetchJob, Fetched, ListOffsetsJob, ProduceJob, ProduceResult};
use super::offsets::{GroupFloors, ReadOffsets, StoreOffsets};
use super::refusal::Place;
use crate::replica::Lease;

/// A produce on its way, with who waits for the answer.
#[derive(Debug)]
pub(super) struct QueuedProduce {
    pub(super) job: ProduceJob,
    /// When its wait for the in-sync set ends.
    pub(super) deadline: Duration,
    /// When it was asked.
    pub(super) asked_at: Duration,
    /// Told when the volume no longer holds it back; set while the volume slows producers down.
    pub(super) admitted: Option<oneshot::Sender<()>>,
    /// Refused at the door with this; it is queued only to be looked for among what is in the log already.
    pub(super) refused: Option<Box<v1::ErrorDetail>>,
    pub(super) reply: oneshot::Sender<ProduceResult>,
}

/// Everything else that a worker is asked.
#[derive(Debug)]
pub(super) enum Work {
    Fetch {
        job: FetchJob,
        deadline: Duration,
        reply: oneshot::Sender<Result<Fetched, v1::ErrorDetail>>,
    },
    ListOffsets {
        job: ListOffsetsJob,
        reply: oneshot::Sender<Result<v1::ListOffsetsResponse, v1::ErrorDetail>>,
    },
    /// A follower fetches from replicas led here.
    Replicate(ReplicateWork),
    /// Where the replicas here stand that follow `leader`.
    Positions {
        leader: SpuId,
        reply: oneshot::Sender<Vec<v1::ReplicaPosition>>,
    },
    /// Where one replica stands; `None` when it is not here.
    Standing {
        partition: PartitionId,
        reply: oneshot::Sender<Option<v1::StandingResponse>>,
    },
    /// `leader` answered.
    Replicated {
        leader: SpuId,
        asked: Vec<v1::ReplicaPosition>,
        answers: Vec<v1::ReplicaBatches>,
        reply: oneshot::Sender<()>,
    },
    /// What an operator orders.
    Order(super::orders::Order),
    /// A registration that named the replicas without their page cache was accepted.
    LossTold,
    /// Changes of an offsets area led here; acknowledged as a produce with acks=all.
    StoreOffsets(StoreOffsets),
    /// What an offsets area led here holds, and a token that is acknowledged when all of it is committed.
    ReadOffsets(ReadOffsets),
    /// Sync, write the clean mark, end.
    Stop {
        reply: oneshot::Sender<()>,
    },
}

#[derive(Debug)]
pub(super) struct ReplicateWork {
    pub(super) spu: SpuId,
    pub(super) incarnation: Incarnation,
    pub(super) positions: Vec<(PartitionId, v1::ReplicaPosition)>,
    pub(super) bytes_max: usize,
    /// Told when a log here grows, if nothing could be answered now.
    pub(super) grown: Arc<Notify>,
    pub(super) reply: oneshot::Sender<ReplicateAnswer>,
}

#[derive(Debug, Default)]
pub(super) struct ReplicateAnswer {
    pub(super) partitions: Vec<v1::ReplicaBatches>,
    /// Worth sending now rather than waiting for more.
    pub(super) ready: bool,
}

/// What every part of the node shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spu: SpuId,
    pub(super) cluster_id: ClusterId,
    pub(super) routes: watch::Sender<Arc<Routes>>,
    pub(super) identity: watch::Sender<Option<Identity>>,
    pub(super) lease: watch::Sender<Lease>,
    /// Milliseconds that cluster time is ahead of the own wall clock.
    pub(super) clock_offset_ms: watch::Sender<i64>,
    /// What active groups have not read yet.
    pub(super) group_floors: watch::Sender<GroupFloors>,
    /// Counts changes of who follows whom.
    pub(super) following: watch::Sender<u64>,
    pub(super) stopping: watch::Sender<bool>,
}

/// Which registration this node runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster_id: ClusterId,
    pub(super) incarnation: Incarnation,
}

/// The metadata and which volume here holds which replica.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) image: Arc<MetadataImage>,
    pub(super) by_partition: BTreeMap<PartitionId, VolumeId>,
}

impl Shared {
    pub(super) fn image(&self) -> Arc<MetadataImage> {
        self.routes.borrow().image.clone()
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.identity.borrow().map(|identity| identity.incarnation)
    }

    /// Who leads a partition according to `image`, unless nobody does.
    pub(super) fn hint(image: &MetadataImage, partition: &PartitionId) -> Option<v1::LeaderHint> {
        let info = image.partition(partition).filter(|info| info.leader != 0)?;
        Some(v1::LeaderHint {
            spu_id: info.leader,
            address: image.address(SpuId(info.leader)).unwrap_or_default().to_owned(),
            leader_epoch: info.leader_epoch,
        })
    }
}

/// The queues of a worker and what it publishes.
#[derive(Clone, Debug)]
pub(super) struct VolumeDoor {
    pub(super) id: VolumeId,
    pub(super) place: Place,
    pub(super) produce: mpsc::Sender<QueuedProduce>,
    pub(super) work: mpsc::Sender<Work>,
    pub(super) view: watch::Receiver<Arc<VolumeView>>,
    pub(super) pulse: Pulse,
}

/// Figures that move without the worker's help.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse {
    /// When the worker last finished a turn, milliseconds of the host's clock.
    turned_ms: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn beat(&self, now: Duration) {
        self.turned_ms.store(millis(now), Ordering::Relaxed);
    }

    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.turned_ms.load(Ordering::Relaxed)))
    }

    /// Counts a refusal, if it is by the disk.
    pub(super) fn count(&self, refused: &v1::ErrorDetail) {
        if matches!(refused.reason(), v1::Reason::DiskFull | v1::Reason::VolumeFailed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What a worker shows of its volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeView {
    pub(super) facts: v1::VolumeFacts,
    pub(super) level: DiskLevel,
    pub(super) gate: Gate,
    pub(super) replicas: Arc<Vec<v1::ReplicaReport>>,
}

impl VolumeView {
    /// Whether producers already meet what `level` and `verdict` ask for.
    pub(super) fn shows(&self, level: DiskLevel, verdict: &Verdict) -> bool {
        let gate = match verdict {
            Verdict::Accept => matches!(self.gate, Gate::Open),
            Verdict::Delay { .. } => matches!(self.gate, Gate::Slow),
            Verdict::Refuse { .. } => matches!(self.gate, Gate::Shut { .. }),
        };
        gate && self.level == level
    }
}

/// What producers meet before they are queued.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Gate {
    Open,
    /// The worker holds batches for a while; wait until it lets go before reading on.
    Slow,
    /// Refuse with this, completed for the request.
    Shut {
        detail: Box<v1::ErrorDetail>,
        hold_until: Option<Duration>,
    },
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An offset from the wire; beyond the last possible one counts as the last.
pub(super) fn offset(value: u64) -> Offset {
    Offset::new(value).unwrap_or(Offset::MAX)
}

/// The partition that a message names.
pub(super) fn partition_of(topic_id: &[u8], index: u32) -> Option<PartitionId> {
    let topic_id = plimsoll_proto::ids::TopicId::from_slice(topic_id).ok()?;
    Some(PartitionId { topic_id, index })
}
