//! The door to a node: cheap to clone, never blocks on a stuck volume.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_host::{Clock, Host};
use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{ClusterId, Incarnation, PartitionId, SpuId, VolumeId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tokio::sync::{mpsc, oneshot, watch};

use super::job::{ControlRequest, FetchJob, Fetched, ListOffsetsJob, ProduceJob, ProduceResult};
use super::refusal;
use super::work::{Gate, Identity, QueuedProduce, Routes, Shared, VolumeDoor, Work, millis};

/// A worker that has not finished a turn for this long is stuck: nothing is queued behind it when its queue
/// is full, and nobody waits for its answers.
pub(super) const STUCK: Duration = Duration::from_secs(2);
/// How long a stop may take before a stuck volume is left behind.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Longest hold of a batch before it is queued for good.
const HOLD_MAX: Duration = Duration::from_millis(1500);

/// What sessions, peers and the control link hold of a node.
#[derive(Clone)]
pub struct NodeHandle {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    shared: Arc<Shared>,
    doors: BTreeMap<VolumeId, VolumeDoor>,
    requests: Mutex<Option<mpsc::Receiver<ControlRequest>>>,
    serving: watch::Sender<bool>,
}

impl NodeHandle {
    pub(super) fn new(
        host: Host,
        shared: Arc<Shared>,
        doors: BTreeMap<VolumeId, VolumeDoor>,
        requests: Mutex<Option<mpsc::Receiver<ControlRequest>>>,
    ) -> Self {
        let serving = watch::Sender::new(takes_produce(&doors));
        let handle = Self { inner: Arc::new(Inner { host, shared, doors, requests, serving }) };
        let inner = handle.inner.clone();
        for door in inner.doors.values() {
            let watched = watch_serving(Arc::downgrade(&inner), door.view.clone());
            inner.host.tasks.spawn("produce serving", watched).detach();
        }
        handle
    }

    pub(super) fn doors(&self) -> &BTreeMap<VolumeId, VolumeDoor> {
        &self.inner.doors
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.inner.host.clock
    }

    /// Queues a batch. Returns when its place in the order of appends is taken, after any delay that the
    /// volume asks for; the answer comes later. Every refusal is an answer.
    pub async fn produce(&self, job: ProduceJob) -> oneshot::Receiver<ProduceResult> {
        let (reply, answer) = oneshot::channel();
        let routes = self.inner.shared.routes.borrow().clone();
        let opened = self.route(&routes, &job.partition).map(|door| (door, self.enter(&routes, door, &job)));
        match opened {
            Ok((door, Ok(()))) => self.queue(door, job, None, reply).await,
            Ok((door, Err(refused))) if self.may_be_repeated(door, &job) => {
                self.queue(door, job, Some(refused), reply).await;
            }
            Ok((door, Err(refused))) => {
                door.pulse.count(&refused);
                // A session that has gone needs no answer, here and below.
                drop(reply.send(ProduceResult::Error(*refused)));
            }
            Err(refused) => drop(reply.send(ProduceResult::Error(*refused))),
        }
        answer
    }

    /// Whether only the volume can tell that the batch is not in the log already, and can be asked. A refusal must not say
    /// NOT_WRITTEN of what is.
    fn may_be_repeated(&self, door: &VolumeDoor, job: &ProduceJob) -> bool {
        let sequenced = BatchHeader::parse(&job.batch).is_ok_and(|header| header.producer.is_some());
        sequenced && door.pulse.age(self.clock().now()) < STUCK
    }

    /// The refusal that needs no queue: so a client without backoff costs a lookup.
    fn enter(&self, routes: &Routes, door: &VolumeDoor, job: &ProduceJob) -> Result<(), Box<ErrorDetail>> {
        let hint = Shared::hint(&routes.image, &job.partition);
        let elsewhere = hint.clone().filter(|leader| leader.spu_id != self.inner.shared.spu.0);
        // The level comes before leadership: who ignores metadata still learns which disk is full.
        if let Gate::Shut { detail, hold_until } = &door.view.borrow().gate {
            let mut detail = detail.clone();
            if let Some(disk) = &mut detail.disk {
                disk.needed_bytes = u64::try_from(job.batch.len()).unwrap_or(u64::MAX);
            }
            if let Some(until) = hold_until {
                let left = until.saturating_sub(self.clock().now()).max(Duration::from_millis(1));
                detail.retry_after_ms = detail.retry_after_ms.max(millis(left));
            }
            detail.leader = elsewhere;
            return Err(detail);
        }
        if elsewhere.is_some() {
            return Err(Box::new(refusal::not_leader(&job.partition, hint, self.inner.shared.spu)));
        }
        Ok(())
    }

    async fn queue(
        &self,
        door: &VolumeDoor,
        job: ProduceJob,
        refused: Option<Box<ErrorDetail>>,
        reply: oneshot::Sender<ProduceResult>,
    ) {
        let now = self.clock().now();
        let slow = refused.is_none() && door.view.borrow().gate == Gate::Slow;
        let (admitted, let_in) = oneshot::channel();
        let queued = QueuedProduce {
            deadline: now + job.timeout,
            asked_at: now,
            admitted: slow.then_some(admitted),
            refused,
            job,
            reply,
        };
        let queued = match door.produce.try_send(queued) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(queued) | mpsc::error::TrySendError::Closed(queued)) => {
                Some(queued)
            }
        };
        if let Some(queued) = queued {
            self.queue_later(door, queued).await;
        }
        if slow {
            // Whatever ends the wait, the batch has its place: go on reading.
            drop(self.clock().timeout(HOLD_MAX, let_in).await);
        }
    }

    /// The queue is full: waits for a place, unless the volume is stuck.
    async fn queue_later(&self, door: &VolumeDoor, mut queued: QueuedProduce) {
        loop {
            let age = door.pulse.age(self.clock().now());
            if age >= STUCK {
                return drop(queued.reply.send(ProduceResult::Error(door.place.stuck(age))));
            }
            match self.clock().timeout(STUCK, door.produce.reserve()).await {
                Ok(Ok(permit)) => return permit.send(queued),
                Ok(Err(_)) => {
                    return drop(queued.reply.send(ProduceResult::Error(refusal::shutting_down())));
                }
                Err(_) => {}
            }
            let now = self.clock().now();
            if queued.deadline <= now {
                let detail =
                    ErrorDetail::not_written(Reason::TimedOut, "no place in the queue of the volume");
                return drop(queued.reply.send(ProduceResult::Error(detail)));
            }
            // It was never queued, so no delay of the volume counts yet.
            queued.asked_at = now;
        }
    }

    /// Reads committed records; waits for the first up to `wait_max`. Cancel safe.
    ///
    /// # Errors
    /// Typed; the session ends the stream with it.
    pub async fn fetch(&self, job: FetchJob) -> Result<Fetched, ErrorDetail> {
        let deadline = self.clock().now() + job.wait_max;
        let door = self.read_door(&job.partition)?;
        let (reply, answer) = oneshot::channel();
        self.ask(door, Work::Fetch { job, deadline, reply }, answer, job.wait_max).await?
    }

    /// The ends of a partition. Cancel safe.
    ///
    /// # Errors
    /// Typed; as for [`NodeHandle::fetch`].
    pub async fn list_offsets(&self, job: ListOffsetsJob) -> Result<v1::ListOffsetsResponse, ErrorDetail> {
        let door = self.read_door(&job.partition)?;
        let (reply, answer) = oneshot::channel();
        self.ask(door, Work::ListOffsets { job, reply }, answer, Duration::ZERO).await?
    }

    pub(super) fn offsets_door(&self, partition: &PartitionId) -> Result<&VolumeDoor, ErrorDetail> {
        self.read_door(partition)
    }

    fn read_door(&self, partition: &PartitionId) -> Result<&VolumeDoor, ErrorDetail> {
        let routes = self.inner.shared.routes.borrow().clone();
        self.route(&routes, partition).map_err(|detail| *detail)
    }

    /// Queues work and waits for its answer, but not for a stuck volume.
    pub(super) async fn ask<T>(
        &self,
        door: &VolumeDoor,
        work: Work,
        answer: oneshot::Receiver<T>,
        wait_max: Duration,
    ) -> Result<T, ErrorDetail> {
        let stuck = || door.place.stuck(door.pulse.age(self.clock().now()));
        let asked = async {
            door.work.send(work).await.map_err(|_| refusal::shutting_down())?;
            answer.await.map_err(|_| refusal::shutting_down())
        };
        self.clock().timeout(wait_max + STUCK, asked).await.unwrap_or_else(|_| Err(stuck()))
    }

    fn route(&self, routes: &Routes, partition: &PartitionId) -> Result<&VolumeDoor, Box<ErrorDetail>> {
        if *self.inner.shared.stopping.borrow() {
            return Err(Box::new(refusal::shutting_down()));
        }
        if let Some(door) = routes.by_partition.get(partition).and_then(|id| self.inner.doors.get(id)) {
            return Ok(door);
        }
        let detail = match routes.image.partition(partition) {
            Some(_) => {
                let hint = Shared::hint(&routes.image, partition);
                refusal::not_leader(partition, hint, self.inner.shared.spu)
            }
            None if routes.image.version.0 == 0 => {
                refusal::not_leader(partition, None, self.inner.shared.spu)
            }
            None => refusal::unknown(partition, routes.image.topics.contains_key(&partition.topic_id)),
        };
        Err(Box::new(detail))
    }

    /// Takes the desired state; the workers make it so. One that is older than the present one is ignored.
    pub fn apply_metadata(&self, image: Arc<MetadataImage>) {
        let me = self.inner.shared.spu;
        self.inner.shared.routes.send_if_modified(|routes| {
            if image.version < routes.image.version {
                return false;
            }
            let by_partition = if image.version.0 == 0 {
                routes.by_partition.clone()
            } else {
                routes_of(&image, me, &self.inner.doors)
            };
            *routes = Arc::new(Routes { image, by_partition });
            true
        });
    }

    /// The latest image given; empty before the first.
    pub fn metadata(&self) -> Arc<MetadataImage> {
        self.inner.shared.image()
    }

    /// This node is registered.
    pub fn set_incarnation(&self, cluster_id: ClusterId, incarnation: Incarnation) {
        self.inner.shared.identity.send_replace(Some(Identity { cluster_id, incarnation }));
        // Who leads is a matter of the incarnation: let the workers look again.
        self.inner.shared.routes.send_modify(|_| {});
    }

    /// A heartbeat sent at `sent_at` (on the host's clock) was answered: the lease runs 9 s from there.
    pub fn heartbeat_answered(&self, sent_at: Duration) {
        self.inner.shared.lease.send_modify(|lease| lease.renew(sent_at));
    }

    /// Corrects the node's idea of the time by what the controller says, milliseconds since 1970.
    pub fn cluster_time(&self, ms: u64) {
        let own = self.clock().wall_ms();
        let ahead = i64::try_from(i128::from(ms) - i128::from(own)).unwrap_or(0);
        self.inner.shared.clock_offset_ms.send_replace(ahead);
    }

    /// Figures of every volume; a copy that never waits for a disk. The age of the data path tells a stuck one.
    pub fn volume_facts(&self) -> Vec<v1::VolumeFacts> {
        let now = self.clock().now();
        let facts = |door: &VolumeDoor| v1::VolumeFacts {
            data_path_age_ms: millis(door.pulse.age(now)),
            refused_total: door.pulse.refused(),
            ..door.view.borrow().facts.clone()
        };
        self.inner.doors.values().map(facts).collect()
    }

    /// Where every replica here stands, for registration. At most half a second old.
    pub fn replica_reports(&self) -> Vec<v1::ReplicaReport> {
        self.inner.doors.values().flat_map(|door| door.view.borrow().replicas.to_vec()).collect()
    }

    /// What the node wants of the controller; `None` when taken before.
    pub fn control_requests(&self) -> Option<mpsc::Receiver<ControlRequest>> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether at least one volume takes produce.
    pub fn produce_serving(&self) -> watch::Receiver<bool> {
        self.inner.serving.subscribe()
    }

    /// The level of the volume that holds a replica of this partition, for answers on streams.
    pub fn level_of(&self, partition: &PartitionId) -> Option<DiskLevel> {
        let routes = self.inner.shared.routes.borrow();
        let door = self.inner.doors.get(routes.by_partition.get(partition)?)?;
        Some(door.view.borrow().level)
    }

    /// This node and its incarnation, 0 before it is registered.
    pub fn identity(&self) -> (SpuId, Incarnation) {
        (self.inner.shared.spu, self.inner.shared.incarnation().unwrap_or_default())
    }

    /// Answers what waits, syncs, writes the clean mark and stops the workers; leaves a volume behind that is
    /// stuck for 5 s. Calls afterwards answer SHUTTING_DOWN.
    pub async fn shut_down(&self) {
        self.inner.shared.stopping.send_replace(true);
        let mut stopping = Vec::new();
        for door in self.inner.doors.values() {
            let (reply, done) = oneshot::channel();
            let work = door.work.clone();
            stopping.push(async move {
                if work.send(Work::Stop { reply }).await.is_ok() {
                    // An error means that the worker has ended already.
                    drop(done.await);
                }
            });
        }
        let all = futures::future::join_all(stopping);
        if self.clock().timeout(STOP_MAX, all).await.is_err() {
            tracing::warn!("a volume did not answer within 5 s and was not closed in order");
        }
    }
}

/// Which volume here holds which replica.
fn routes_of(
    image: &MetadataImage,
    me: SpuId,
    doors: &BTreeMap<VolumeId, VolumeDoor>,
) -> BTreeMap<PartitionId, VolumeId> {
    let mut routes = BTreeMap::new();
    for (topic_id, topic) in &image.topics {
        for info in &topic.partitions {
            let here = info
                .replicas
                .iter()
                .filter(|replica| replica.spu_id == me.0)
                .filter_map(|replica| VolumeId::from_slice(&replica.volume_id).ok())
                .find(|volume| doors.contains_key(volume));
            if let Some(volume) = here {
                routes.insert(PartitionId { topic_id: *topic_id, index: info.index }, volume);
            }
        }
    }
    routes
}

fn takes_produce(doors: &BTreeMap<VolumeId, VolumeDoor>) -> bool {
    doors.values().any(|door| door.view.borrow().level.accepts_produce())
}

/// Keeps `serving` true to the levels, until the volume's worker or the node is gone.
async fn watch_serving(
    node: std::sync::Weak<Inner>,
    mut view: watch::Receiver<Arc<super::work::VolumeView>>,
) {
    let mut level = None;
    loop {
        let seen = view.wait_for(|view| Some(view.level) != level).await.map(|view| view.level);
        let (Ok(now), Some(node)) = (seen, node.upgrade()) else { return };
        level = Some(now);
        let serves = takes_produce(&node.doors);
        node.serving.send_if_modified(|serving| std::mem::replace(serving, serves) != serves);
    }
}
