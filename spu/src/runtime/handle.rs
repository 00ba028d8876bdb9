//! The door to a node: cheap to clone, never blocks on a stuck volume.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::{ClusterId, Incarnation};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use super::job::{ControlRequest, FetchJob, Fetched, ListOffsetsJob, ProduceJob, ProduceResult};

/// What sessions, peers and the control link hold of a node.
#[derive(Clone)]
pub struct NodeHandle {}

#[allow(unused_variables, clippy::unused_async, reason = "skeleton; the bodies follow within the hour")]
impl NodeHandle {
    /// Queues a batch. Returns when its place in the order of appends is taken, after any delay that the
    /// volume asks for; the answer comes later. Every refusal is an answer.
    pub async fn produce(&self, job: ProduceJob) -> oneshot::Receiver<ProduceResult> {
        panic!()
    }

    /// Reads committed records; waits for the first up to `wait_max`. Cancel safe.
    ///
    /// # Errors
    /// Typed; the session ends the stream with it.
    pub async fn fetch(&self, job: FetchJob) -> Result<Fetched, v1::ErrorDetail> {
        panic!()
    }

    /// The ends of a partition.
    ///
    /// # Errors
    /// Typed; as for [`NodeHandle::fetch`].
    pub async fn list_offsets(&self, job: ListOffsetsJob) -> Result<v1::ListOffsetsResponse, v1::ErrorDetail> {
        panic!()
    }

    /// Answers a follower's fetch, waiting up to its `wait_ms_max` for data. Cancel safe.
    pub async fn replicate(&self, request: v1::ReplicateRequest) -> v1::ReplicateResponse {
        panic!()
    }

    /// Takes the desired state; the workers make it so.
    pub fn apply_metadata(&self, image: Arc<MetadataImage>) {
        panic!()
    }

    /// The latest image given; empty before the first.
    pub fn metadata(&self) -> Arc<MetadataImage> {
        panic!()
    }

    /// This node is registered.
    pub fn set_incarnation(&self, cluster_id: ClusterId, incarnation: Incarnation) {
        panic!()
    }

    /// A heartbeat sent at `sent_at` (on the host's clock) was answered: the lease runs 9 s from there.
    pub fn heartbeat_answered(&self, sent_at: Duration) {
        panic!()
    }

    /// Corrects the node's idea of the time by what the controller says, milliseconds since 1970.
    pub fn cluster_time(&self, ms: u64) {
        panic!()
    }

    /// Figures of every volume; a copy that never waits for a disk. The age of the data path tells a stuck one.
    pub fn volume_facts(&self) -> Vec<v1::VolumeFacts> {
        panic!()
    }

    /// Where every replica here stands, for registration.
    pub fn replica_reports(&self) -> Vec<v1::ReplicaReport> {
        panic!()
    }

    /// What the node wants of the controller; `None` when taken before.
    pub fn control_requests(&self) -> Option<mpsc::Receiver<ControlRequest>> {
        panic!()
    }

    /// Whether at least one volume takes produce.
    pub fn produce_serving(&self) -> watch::Receiver<bool> {
        panic!()
    }

    /// The level of the volume that holds a replica of this partition, for answers on streams.
    pub fn level_of(&self, partition: &plimsoll_proto::ids::PartitionId) -> Option<plimsoll_proto::disk::DiskLevel> {
        panic!()
    }

    /// This node and its incarnation, 0 before it is registered.
    pub fn identity(&self) -> (plimsoll_proto::ids::SpuId, Incarnation) {
        panic!()
    }

    /// Answers what waits, syncs, writes the clean mark and stops the workers. Calls afterwards answer
    /// SHUTTING_DOWN.
    pub async fn shut_down(&self) {
        panic!()
    }
}
