//! A controller that grants every wish and remembers it: one node, one topic led by it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _};
use plimsoll_host::{Host, ServerOptions, Task};
use plimsoll_proto::ids::{ClusterId, PartitionId, TopicId};
use plimsoll_proto::v1::control_server::{Control, ControlServer};
use plimsoll_proto::v1::metadata_server::{Metadata, MetadataServer};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const CLUSTER: ClusterId = ClusterId([9; 16]);
pub(crate) const TOPIC: TopicId = TopicId([4; 16]);
pub(crate) const PARTITION: PartitionId = PartitionId { topic_id: TOPIC, index: 0 };

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the controller was asked, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Register { nonce: bytes::Bytes, address: String },
    ChangeVolume { wanted: v1::VolumeState },
    HandOver,
}

#[derive(Clone)]
pub(crate) struct FakeController {
    state: Arc<Mutex<State>>,
    updates: watch::Sender<Option<v1::MetadataUpdate>>,
}

struct State {
    version: u64,
    leads: bool,
    volumes: Vec<v1::VolumeInfo>,
    address: String,
    asked: Vec<Asked>,
    stale: Vec<u64>,
    incarnation: u64,
}

impl FakeController {
    /// Starts it; the address and the running server.
    pub(crate) async fn start(host: &Host) -> (Self, String, Task) {
        let state = State {
            version: 1,
            leads: true,
            volumes: Vec::new(),
            address: String::new(),
            asked: Vec::new(),
            stale: Vec::new(),
            incarnation: 0,
        };
        let fake = Self { state: Arc::new(Mutex::new(state)), updates: watch::channel(None).0 };
        fake.publish();
        let listener = host.network.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = plimsoll_host::server(&ServerOptions::default())
            .add_service(ControlServer::new(fake.clone()))
            .add_service(MetadataServer::new(fake.clone()))
            .serve_with_incoming(listener.into_incoming());
        let task = host.tasks.spawn("fake controller", async move { drop(server.await) });
        (fake, address, task)
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().expect("no panic inside").asked.clone()
    }

    /// From now on the present incarnation is stale.
    pub(crate) fn declare_stale(&self) {
        let mut state = self.state.lock().expect("no panic inside");
        let incarnation = state.incarnation;
        state.stale.push(incarnation);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = {
            let mut state = self.state.lock().expect("no panic inside");
            state.version += 1;
            change(&mut state)
        };
        self.publish();
        result
    }

    fn publish(&self) {
        let state = self.state.lock().expect("no panic inside");
        let registered = state.incarnation > 0;
        let volume = state.volumes.first().map(|volume| volume.volume_id.clone()).unwrap_or_default();
        let spu = v1::SpuInfo {
            spu_id: 1,
            incarnation: state.incarnation,
            state: v1::SpuState::Online.into(),
            address: state.address.clone(),
            rack: String::new(),
            volumes: state.volumes.clone(),
            ..Default::default()
        };
        let partition = v1::PartitionInfo {
            index: 0,
            replicas: vec![v1::ReplicaAssignment { spu_id: 1, volume_id: volume }],
            in_sync: vec![1],
            leader: u32::from(state.leads),
            leader_epoch: u32::try_from(state.incarnation).expect("few"),
            partition_epoch: u32::try_from(state.incarnation).expect("few"),
            leader_incarnation: state.incarnation,
            ..Default::default()
        };
        let topic = v1::TopicInfo {
            topic_id: TOPIC.to_bytes(),
            name: "t".to_owned(),
            config: Some(v1::TopicConfig {
                partitions: 1,
                replicas: 1,
                min_in_sync: 1,
                flush: v1::FlushPolicy::Os.into(),
                on_pressure: v1::OnPressure::Refuse.into(),
                ..v1::TopicConfig::default()
            }),
            partitions: vec![partition],
            ..Default::default()
        };
        self.updates.send_replace(Some(v1::MetadataUpdate {
            cluster_id: CLUSTER.to_bytes(),
            version: state.version,
            full: true,
            spus: if registered { vec![spu] } else { Vec::new() },
            topics: if registered { vec![topic] } else { Vec::new() },
            ..v1::MetadataUpdate::default()
        }));
    }

    fn check(&self, cluster_id: &[u8], incarnation: u64) -> Result<(), ErrorDetail> {
        if cluster_id != CLUSTER.0.as_slice() {
            return Err(ErrorDetail::not_written(Reason::WrongCluster, "this is another cluster"));
        }
        if self.state.lock().expect("no panic inside").stale.contains(&incarnation) {
            return Err(ErrorDetail::not_written(Reason::StaleIncarnation, "stale"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Control for FakeController {
    type HeartbeatStream = Boxed<v1::HeartbeatResponse>;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, 0)?;
        let incarnation = self.change(|state| {
            state.incarnation += 1;
            state.address.clone_from(&request.address);
            state.volumes = request
                .volumes
                .iter()
                .map(|facts| v1::VolumeInfo {
                    volume_id: facts.volume_id.clone(),
                    path: facts.path.clone(),
                    state: v1::VolumeState::Writable.into(),
                    ..v1::VolumeInfo::default()
                })
                .collect();
            state.asked.push(Asked::Register { nonce: request.start_nonce, address: request.address });
            state.incarnation
        });
        Ok(Response::new(v1::RegisterResponse { cluster_id: CLUSTER.to_bytes(), incarnation, protocol: 1 }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let fake = self.clone();
        let answers = request.into_inner().map(move |beat| {
            let beat = beat?;
            let error = fake.check(&beat.cluster_id, beat.incarnation).err();
            Ok(v1::HeartbeatResponse { sequence: beat.sequence, error, ..v1::HeartbeatResponse::default() })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn change_in_sync(
        &self,
        _: Request<v1::ChangeInSyncRequest>,
    ) -> Result<Response<v1::ChangeInSyncResponse>, Status> {
        Ok(Response::new(v1::ChangeInSyncResponse::default()))
    }

    async fn change_volume(
        &self,
        request: Request<v1::ChangeVolumeRequest>,
    ) -> Result<Response<v1::ChangeVolumeResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, request.incarnation)?;
        let version = self.change(|state| {
            let wanted = request.wanted();
            for volume in &mut state.volumes {
                volume.state = wanted.into();
            }
            state.asked.push(Asked::ChangeVolume { wanted });
            state.version
        });
        Ok(Response::new(v1::ChangeVolumeResponse { applied: true, current: request.wanted, version }))
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::HandOverResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, request.incarnation)?;
        self.change(|state| state.asked.push(Asked::HandOver));
        // The only replica keeps its leadership.
        Ok(Response::new(v1::HandOverResponse { moved: 0, kept: 1 }))
    }
}

#[tonic::async_trait]
impl Metadata for FakeController {
    type WatchStream = Boxed<v1::MetadataUpdate>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let updates = tokio_stream::wrappers::WatchStream::new(self.updates.subscribe());
        Ok(Response::new(updates.filter_map(|update| async move { update.map(Ok) }).boxed()))
    }
}
