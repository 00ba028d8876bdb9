//! A running storage node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::config::ByteSize;
use plimsoll_host::{Host, ServerOptions, Task};
use plimsoll_proto::ids::{ClusterId, SpuId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use plimsoll_storage::fs::SharedDisk;
use tokio::sync::watch;
use tonic::service::Routes;

use super::error::StartError;
use super::identity;
use super::settings::SpuSettings;
use crate::control::{ControlLink, ControlSettings, Controllers, discover_cluster};
use crate::group::GroupService;
use crate::peer::PeerService;
use crate::runtime::{Node, NodeHandle, NodeSettings, OpenReport};
use crate::session::{SpuService, VolumesService, report_health};

/// Largest message taken. Above the largest batch of a topic by far, so that a batch over its topic's limit is
/// refused by itself and does not end the stream.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// How long streams may take to end before the server is stopped.
const STREAMS_END_MAX: Duration = Duration::from_secs(1);

/// A running storage node. [`Spu::stop`] stops it in order; dropping it leaves its disks as a crash would.
pub struct Spu {
    host: Host,
    node: NodeHandle,
    link: ControlLink,
    address: SocketAddr,
    cluster_id: ClusterId,
    hand_over_max: Duration,
    stopping: watch::Sender<bool>,
    server: Task,
    _health: Task,
}

impl Spu {
    /// Starts a node: takes its port, opens its volumes, serves, and links itself to the controllers.
    ///
    /// No controller is needed but for the very first start, when the data directories don't know their cluster
    /// yet: then it waits for one, and says so on the log. Cancel safe until the volumes are opened.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then, and nothing was changed.
    pub async fn start(
        host: Host,
        settings: SpuSettings,
        disks: Vec<SharedDisk>,
    ) -> Result<Self, StartError> {
        settings.validate()?;
        let spu_id = SpuId(settings.id);
        let known = identity::known_cluster(&host, spu_id, &disks).await?;
        let listener = match host.network.bind(&settings.listen).await {
            Ok(listener) => listener,
            Err(error) => return Err(identity::in_use(&host, &disks).await.unwrap_or_else(|| error.into())),
        };
        let address = listener.local_addr().map_err(|error| StartError::Configuration(error.to_string()))?;
        let advertise = settings.advertise.clone().unwrap_or_else(|| address.to_string());
        let controllers = Controllers::new(host.clone(), settings.controller_addresses()?);
        let cluster_id = match known {
            Some(cluster_id) => cluster_id,
            None => discover_cluster(&controllers).await,
        };

        let node_settings = NodeSettings {
            cluster_id,
            spu_id,
            disks,
            byte_limit: settings.byte_limit.map(|limit| limit.0),
            tuning: settings.tuning(),
        };
        let (node, report) = Node::open(host.clone(), node_settings).await?;
        tracing::info!("{}", start_line(spu_id, cluster_id, address, &advertise, &report));
        tell_recovery(&report);

        let (stopping, stop_seen) = watch::channel(false);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = report_health(reporter, node.produce_serving(), stop_seen.clone());
        let health = host.tasks.spawn("health", health);
        let service = SpuService::new(host.clone(), node.clone(), settings.sessions(), stop_seen.clone());
        let routes = Routes::new(health_service)
            .add_service(v1::spu_server::SpuServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(v1::volumes_server::VolumesServer::new(VolumesService::new(node.clone())))
            .add_service(
                v1::peer_server::PeerServer::new(PeerService::new(host.clone(), node.clone()))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            );
        let groups = GroupService::new(host.clone(), node.clone(), settings.offsets_retention.0);
        let routes = routes.add_service(
            v1::group_server::GroupServer::new(groups).max_decoding_message_size(MESSAGE_BYTES_MAX),
        );
        let server = host.tasks.spawn("server", serve(with_reflection(routes)?, listener, stop_seen));
        let link = ControlLink::start(
            controllers,
            &node,
            ControlSettings {
                cluster_id,
                spu_id,
                advertise,
                rack: settings.rack.clone(),
                join_token: settings.join_token.clone(),
                heartbeat: settings.heartbeat(),
            },
        );
        Ok(Self {
            host,
            node,
            link,
            address,
            cluster_id,
            hand_over_max: settings.hand_over_max.0,
            stopping,
            server,
            _health: health,
        })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that it belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The node inside, for tests and for a process that holds more than a node.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// The metadata as this node sees it.
    pub fn images(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.link.images()
    }

    /// Waits until the controllers accepted this run of the node. Cancel safe.
    pub async fn registered(&self) {
        self.link.registered().await;
    }

    /// Waits until the node must stop because its configuration is wrong, which only controllers can tell.
    /// Cancel safe.
    pub async fn failed(&self) -> StartError {
        self.link.failed().await.into()
    }

    /// Stops in order: hands over what it leads, answers what waits, syncs, writes the clean mark. Works on a
    /// full disk.
    pub async fn stop(mut self) {
        self.link.hand_over(self.hand_over_max).await;
        self.stopping.send_replace(true);
        // Streams end by themselves as soon as what they wait for is answered; the node answers the rest.
        let clock = self.host.clock.clone();
        let streams_ended = clock.timeout(STREAMS_END_MAX, self.server.finished()).await.is_ok();
        self.node.shut_down().await;
        if !streams_ended {
            let _ = clock.timeout(STREAMS_END_MAX, self.server.finished()).await;
        }
        self.link.stop().await;
        tracing::info!("stopped");
    }
}

async fn serve(routes: Routes, listener: plimsoll_host::Listener, mut stopping: watch::Receiver<bool>) {
    let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let served = plimsoll_host::server(&ServerOptions::default())
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener.into_incoming(), stopped)
        .await;
    if let Err(error) = served {
        tracing::error!("the server stopped: {error}");
    }
}

/// Adds reflection in both versions that clients ask for.
fn with_reflection(routes: Routes) -> Result<Routes, StartError> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let unreadable = |error: tonic_reflection::server::Error| {
        StartError::Configuration(format!("the built-in service descriptors can't be read: {error}"))
    };
    Ok(routes
        .add_service(builder().build_v1().map_err(unreadable)?)
        .add_service(builder().build_v1alpha().map_err(unreadable)?))
}

fn start_line(
    spu_id: SpuId,
    cluster_id: ClusterId,
    address: SocketAddr,
    advertise: &str,
    report: &OpenReport,
) -> String {
    let volumes: Vec<String> = report
        .volumes
        .iter()
        .map(|volume| {
            let level = match volume.cause {
                Some(cause) => format!("{} by {cause}: {} bytes free", volume.level, volume.free_bytes),
                None => volume.level.to_string(),
            };
            let capacity = ByteSize(volume.capacity_bytes);
            format!("{} ({capacity}, {level}, {} replicas)", volume.path, volume.replicas)
        })
        .collect();
    format!(
        "spu {spu_id} of cluster {} listens at {address}, reached at {advertise}; volumes: {}",
        cluster_id.short(),
        volumes.join(", ")
    )
}

/// What could not be opened, and what recovery cut or found damaged, one line for each volume that has something to say.
fn tell_recovery(report: &OpenReport) {
    for error in &report.failed {
        tracing::error!("volume failed, the node runs without it: {error}");
    }
    for volume in &report.volumes {
        let found = &volume.recovery;
        let quiet = found.cut.is_empty() && found.damaged.is_empty() && found.failed.is_empty();
        if !quiet || found.page_cache_lost || found.unknown_entries > 0 {
            tracing::warn!(
                volume = volume.path,
                torn_tails_cut = found.cut.len(),
                ranges_damaged = found.damaged.len(),
                partitions_not_opened = found.failed.len(),
                unknown_entries = found.unknown_entries,
                page_cache_lost = found.page_cache_lost,
                device_failed = found.device_failed,
                "recovery found"
            );
        }
    }
}
