//! Metadata to nodes and clients: everything once, then what changed, and a bookmark at least every second.
//!
//! A watcher remembers the state it last sent. Nodes and topics of the state are shared between versions, so
//! the difference to the present one is found by comparing pointers; a slow watcher gets one larger difference
//! instead of a queue that grows.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, metadata_server::Metadata};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::request;
use super::shared::Shared;
use crate::cluster::ClusterState;
use crate::raft_runtime::View;

/// Service `plimsoll.v1.Metadata`; every controller serves it.
#[derive(Clone, Debug)]
pub struct MetadataService {
    shared: Shared,
}

impl MetadataService {
    /// The service over what the controller shares.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Metadata for MetadataService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::MetadataUpdate, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        request::cluster(&self.shared.raft.view().state, &request.get_ref().cluster_id)?;
        let watcher = Watcher::new(self.shared.clone());
        let updates = futures::stream::unfold(watcher, |mut watcher| async {
            let update = watcher.next().await?;
            Some((Ok(update), watcher))
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

type Leader = Option<(ControllerId, String)>;

struct Watcher {
    shared: Shared,
    views: watch::Receiver<Arc<View>>,
    sent: Option<(Arc<ClusterState>, Leader)>,
    bookmark_at: Duration,
    digest_at: Duration,
}

impl Watcher {
    fn new(shared: Shared) -> Self {
        let views = shared.raft.watch();
        Self { shared, views, sent: None, bookmark_at: Duration::ZERO, digest_at: Duration::ZERO }
    }

    /// The next update; `None` when the controller stops. Cancel safe.
    async fn next(&mut self) -> Option<v1::MetadataUpdate> {
        loop {
            let view = Arc::clone(&self.views.borrow_and_update());
            let now = self.shared.host.clock.now();
            if let Some(update) = self.update(&view, now) {
                return Some(update);
            }
            tokio::select! {
                biased;
                () = self.shared.stopped() => return None,
                changed = self.views.changed() => changed.ok()?,
                () = self.shared.host.clock.sleep_until(self.bookmark_at) => {}
            }
        }
    }

    fn update(&mut self, view: &View, now: Duration) -> Option<v1::MetadataUpdate> {
        let leader = view.leader_address();
        let mut update = match &self.sent {
            None => full(&view.state),
            Some((sent, _)) if sent.version() > view.state.version() => full(&view.state),
            Some((sent, sent_leader)) => {
                let delta = delta(sent, &view.state);
                let nothing =
                    delta.spus.is_empty() && delta.topics.is_empty() && delta.removed_topic_ids.is_empty();
                if nothing && *sent_leader == leader && now < self.bookmark_at {
                    return None;
                }
                delta
            }
        };
        if update.full || now >= self.digest_at {
            update.digest = digest(&view.state);
            self.digest_at = now.saturating_add(self.shared.settings.digest_interval);
        }
        if let Some((id, address)) = &leader {
            update.controller_leader = id.0;
            update.controller_leader_address.clone_from(address);
        }
        self.bookmark_at = now.saturating_add(self.shared.settings.bookmark_interval);
        self.sent = Some((Arc::clone(&view.state), leader));
        Some(update)
    }
}

/// Everything.
fn full(state: &ClusterState) -> v1::MetadataUpdate {
    v1::MetadataUpdate {
        cluster_id: state.cluster_id().map(|id| id.to_bytes()).unwrap_or_default(),
        version: state.version().0,
        full: true,
        spus: state.spus().iter().map(|(id, spu)| spu.to_info(*id)).collect(),
        topics: state.topics().iter().map(|(id, topic)| topic.to_info(*id)).collect(),
        deleted_topic_ids: state.deleted_topics().map(|id| id.to_bytes()).collect(),
        ..Default::default()
    }
}

/// What leads from one state to a later one; empty content is a bookmark.
fn delta(from: &ClusterState, to: &ClusterState) -> v1::MetadataUpdate {
    v1::MetadataUpdate {
        cluster_id: to.cluster_id().map(|id| id.to_bytes()).unwrap_or_default(),
        version: to.version().0,
        previous_version: from.version().0,
        spus: changed(from.spus(), to.spus()).map(|(id, spu)| spu.to_info(*id)).collect(),
        topics: changed(from.topics(), to.topics()).map(|(id, topic)| topic.to_info(*id)).collect(),
        removed_topic_ids: from
            .topics()
            .keys()
            .filter(|id| !to.topics().contains_key(id))
            .map(|id| id.to_bytes())
            .collect(),
        ..Default::default()
    }
}

fn changed<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, Arc<V>>,
    to: &'a BTreeMap<K, Arc<V>>,
) -> impl Iterator<Item = (&'a K, &'a Arc<V>)> {
    to.iter().filter(|(key, new)| from.get(key).is_none_or(|old| !Arc::ptr_eq(old, new) && old != *new))
}

fn digest(state: &ClusterState) -> u64 {
    let mut image = MetadataImage::empty();
    image.spus = state.spus().iter().map(|(id, spu)| (*id, spu.to_info(*id))).collect();
    image.topics = state.topics().iter().map(|(id, topic)| (*id, topic.to_info(*id))).collect();
    image.digest()
}
