//! The parts of the link together.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::config::Secret;
use plimsoll_host::{Lane, Task};
use plimsoll_proto::ids::{ClusterId, Incarnation, SpuId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1;
use tokio::sync::{mpsc, watch};

use super::controllers::Controllers;
use super::heartbeat::{self, HeartbeatTimings};
use super::requests::Asker;
use super::{metadata, registration};
use crate::runtime::NodeHandle;

/// Who the node is to the controllers.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// The cluster of the data directories.
    pub cluster_id: ClusterId,
    /// This node.
    pub spu_id: SpuId,
    /// Where clients and peers reach it, `HOST:PORT`.
    pub advertise: String,
    /// Failure domain; may be empty.
    pub rack: String,
    /// What the cluster asks of nodes that register.
    pub join_token: Option<Secret>,
    /// When heartbeats are sent.
    pub heartbeat: HeartbeatTimings,
}

/// Why the node must stop: its configuration, not its state, is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The controllers are of another cluster than the data directories. Exit code 5.
    #[error("the data directories belong to cluster {ours}, the controllers say: {message}")]
    OtherCluster {
        /// Cluster of the data directories.
        ours: ClusterId,
        /// What the controllers said.
        message: String,
    },
    /// The join token is not the cluster's. Exit code 7.
    #[error("the controllers refuse this node: {message} (join_token)")]
    WrongJoinToken {
        /// What the controllers said.
        message: String,
    },
    /// The controllers don't speak this node's protocol. Exit code 7.
    #[error("the controllers refuse this version: {message}")]
    UnsupportedProtocol {
        /// What the controllers said.
        message: String,
    },
}

/// The running link. Dropping it stops everything but the heartbeat lane, which [`ControlLink::stop`] stops.
pub struct ControlLink {
    controllers: Controllers,
    settings: ControlSettings,
    images: watch::Receiver<Arc<MetadataImage>>,
    registered: watch::Receiver<Option<Incarnation>>,
    fatal: watch::Receiver<Option<Fatal>>,
    stopping: watch::Sender<bool>,
    lane: Lane,
    _tasks: Vec<Task>,
}

impl ControlLink {
    /// Starts the link for `node`; returns at once, whether or not a controller answers.
    pub fn start(controllers: Controllers, node: &NodeHandle, settings: ControlSettings) -> Self {
        let tasks = controllers.host().tasks.clone();
        let (registered_to, registered) = watch::channel(None);
        let (images_to, images) = watch::channel(Arc::new(MetadataImage::empty()));
        let (fatal_to, fatal) = watch::channel(None);
        let (stopping, stopping_seen) = watch::channel(false);
        let (stale, stale_told) = mpsc::channel(4);

        let mut running = vec![
            tasks.spawn(
                "registration",
                registration::run(
                    controllers.clone(),
                    node.clone(),
                    settings.clone(),
                    registered_to,
                    stale_told,
                    fatal_to,
                ),
            ),
            tasks.spawn(
                "metadata watch",
                metadata::run(controllers.clone(), node.clone(), settings.clone(), images_to),
            ),
        ];
        if let Some(requests) = node.control_requests() {
            let asker = Asker {
                controllers: controllers.clone(),
                node: node.clone(),
                settings: settings.clone(),
                stale: stale.clone(),
            };
            running.push(tasks.spawn("control requests", asker.run(requests)));
        }
        let lane = heartbeat::Lane {
            controllers: controllers.with_own_connections(),
            node: node.clone(),
            settings: settings.clone(),
            registered: registered.clone(),
            stale,
            stopping: stopping_seen,
        };
        let lane = tasks.spawn_lane("heartbeat", move || Box::pin(lane.run()));
        Self { controllers, settings, images, registered, fatal, stopping, lane, _tasks: running }
    }

    /// Waits until the node must stop because of its configuration. Cancel safe.
    pub async fn failed(&self) -> Fatal {
        let mut fatal = self.fatal.clone();
        match fatal.wait_for(Option::is_some).await.ok().and_then(|fatal| fatal.clone()) {
            Some(fatal) => fatal,
            None => std::future::pending().await,
        }
    }

    /// Waits until the node is registered. Cancel safe.
    pub async fn registered(&self) -> Incarnation {
        let mut registered = self.registered.clone();
        match registered.wait_for(Option::is_some).await.ok().and_then(|incarnation| *incarnation) {
            Some(incarnation) => incarnation,
            None => std::future::pending().await,
        }
    }

    /// The metadata as this node sees it.
    pub fn images(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.images.clone()
    }

    /// Hands over what this node leads, and waits until the image shows it; at most `limit` in all. A node that
    /// was never registered has nothing to hand over.
    pub async fn hand_over(&self, limit: Duration) {
        let Some(incarnation) = *self.registered.borrow() else { return };
        let clock = &self.controllers.host().clock;
        if clock.timeout(limit, self.moved(incarnation, limit)).await.is_err() {
            tracing::warn!("leaderships were not all handed over within {} ms", limit.as_millis());
        }
    }

    async fn moved(&self, incarnation: Incarnation, limit: Duration) {
        let request = v1::HandOverRequest {
            cluster_id: self.settings.cluster_id.to_bytes(),
            spu_id: self.settings.spu_id.0,
            incarnation: incarnation.0,
        };
        let called = self
            .controllers
            .call(limit, |mut client| {
                let request = request.clone();
                async move { client.hand_over(request).await }
            })
            .await;
        match called {
            Ok(answer) => {
                let kept = usize::try_from(answer.kept).unwrap_or(usize::MAX);
                tracing::info!(moved = answer.moved, kept = answer.kept, "leaderships handed over");
                let mut images = self.images.clone();
                let spu = self.settings.spu_id;
                // An error means that the watch is gone; then there is nothing to wait for.
                drop(images.wait_for(|image| led_by(image, spu) <= kept).await);
            }
            Err(error) => tracing::warn!("leaderships were not handed over: {error}"),
        }
    }

    /// Stops heartbeats and everything else; from here on the controllers see silence.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.lane.finished().await;
    }
}

fn led_by(image: &MetadataImage, spu: SpuId) -> usize {
    image.topics.values().flat_map(|topic| &topic.partitions).filter(|p| p.leader == spu.0).count()
}
