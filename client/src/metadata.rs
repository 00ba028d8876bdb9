//! The copy of the cluster's metadata, kept up to date by a watch on one controller.
//!
//! All controllers are asked at once; of those that answer within a moment, the one that knows a leader and
//! the newest version is kept. A watch that breaks, falls silent or loses the leader for long is replaced in
//! the same way. Published metadata never go back to an older version.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plimsoll_host::retry::Backoff;
use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::ClusterId;
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{MetadataUpdate, WatchRequest};
use tokio::sync::watch;
use tonic::Streaming;

use crate::connections::Connections;
use crate::error::{ControllerAttempt, ControllerFailure};

/// Bookmarks come every second; this long without any message means that the controller is gone.
const SILENCE_MAX: Duration = Duration::from_millis(3_500);
/// A controller that knows no leader for so long may be cut off; another may know more.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);
/// How long an attempt may take until its first message.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(4);
/// How long slower controllers may still win over the first that answered.
const RACE_REST: Duration = Duration::from_millis(50);

pub(crate) struct Source {
    pub(crate) host: Host,
    pub(crate) connections: Connections,
    pub(crate) controllers: Vec<String>,
    pub(crate) cluster_id: Option<ClusterId>,
}

pub(crate) struct Watch {
    pub(crate) images: watch::Receiver<Arc<MetadataImage>>,
    /// Why each controller was of no use when last asked.
    pub(crate) attempts: watch::Receiver<Attempts>,
    pub(crate) task: Task,
}

/// What came of asking each controller, by address.
pub(crate) type Attempts = BTreeMap<String, ControllerFailure>;

struct Follower {
    source: Source,
    images: watch::Sender<Arc<MetadataImage>>,
    attempts: watch::Sender<Attempts>,
}

/// A watch that has delivered its first image.
struct Session {
    address: String,
    image: MetadataImage,
    stream: Streaming<MetadataUpdate>,
}

impl Session {
    fn rank(&self) -> (bool, u64) {
        (self.image.controller_leader.is_some(), self.image.version.0)
    }
}

impl Source {
    pub(crate) fn start(self) -> Watch {
        let (images, images_out) = watch::channel(Arc::new(MetadataImage::empty()));
        let (attempts, attempts_out) = watch::channel(BTreeMap::new());
        let tasks = self.host.tasks.clone();
        let follower = Follower { source: self, images, attempts };
        Watch { images: images_out, attempts: attempts_out, task: tasks.spawn("metadata", follower.run()) }
    }

    /// Controllers as configured, and the leader that the metadata name.
    fn candidates(&self, image: &MetadataImage) -> Vec<String> {
        let mut addresses = self.controllers.clone();
        if let Some((_, leader)) = &image.controller_leader
            && !leader.is_empty()
            && !addresses.contains(leader)
        {
            addresses.push(leader.clone());
        }
        addresses
    }

    async fn subscribe(&self, address: String) -> Result<Session, ControllerAttempt> {
        let cluster_id = self.cluster_id.map(ClusterId::to_bytes).unwrap_or_default();
        let first = async {
            let mut client = self.connections.metadata(&address).map_err(lost)?;
            let failed = |status| ControllerFailure::of_status(&status);
            let mut stream = client.watch(WatchRequest { cluster_id }).await.map_err(failed)?.into_inner();
            let update = stream.message().await.map_err(failed)?;
            let update = update.ok_or_else(|| lost("it closed the watch at once"))?;
            let mut image = MetadataImage::empty();
            image.apply(update).map_err(|gap| ControllerFailure::Malformed { why: gap.to_string() })?;
            if self.cluster_id.is_some_and(|expected| expected != image.cluster_id) {
                return Err(ControllerFailure::OtherCluster { cluster_id: image.cluster_id });
            }
            Ok((image, stream))
        };
        match self.host.clock.timeout(FIRST_MESSAGE_MAX, first).await {
            Ok(Ok((image, stream))) => Ok(Session { address, image, stream }),
            Ok(Err(failure)) => Err(ControllerAttempt { address, failure }),
            Err(_) => Err(ControllerAttempt { address, failure: ControllerFailure::Unanswered }),
        }
    }
}

fn lost(why: impl std::fmt::Display) -> ControllerFailure {
    ControllerFailure::ConnectionLost { why: why.to_string() }
}

impl Follower {
    async fn run(self) {
        let random = self.source.host.random.clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), &random);
        while !self.images.is_closed() {
            match self.race().await {
                Some(session) => {
                    backoff.reset();
                    let address = session.address.clone();
                    let end = self.follow(session).await;
                    tracing::debug!(controller = %address, %end, "metadata watch ended");
                    self.attempts.send_modify(|attempts| drop(attempts.insert(address, end)));
                    // A controller that ends every watch at once must not be asked in a tight loop.
                    self.source.host.clock.sleep(random.jitter(Duration::from_millis(50))).await;
                }
                None => self.source.host.clock.sleep(backoff.next_pause()).await,
            }
        }
    }

    /// Asks every controller at once and takes the best of those that answer about as fast as the first.
    async fn race(&self) -> Option<Session> {
        let candidates = self.source.candidates(&self.images.borrow());
        let mut attempts: FuturesUnordered<_> =
            candidates.into_iter().map(|address| self.source.subscribe(address)).collect();
        let mut best: Option<Session> = None;
        let mut until = None;
        loop {
            let next = match until {
                None => attempts.next().await,
                Some(deadline) => {
                    let rest = self.source.host.clock.now();
                    let left = Duration::saturating_sub(deadline, rest);
                    match self.source.host.clock.timeout(left, attempts.next()).await {
                        Ok(next) => next,
                        Err(_) => return best,
                    }
                }
            };
            match next {
                None => return best,
                Some(Err(ControllerAttempt { address, failure })) => {
                    self.attempts.send_modify(|attempts| drop(attempts.insert(address, failure)));
                }
                Some(Ok(session)) => {
                    until.get_or_insert(self.source.host.clock.now() + RACE_REST);
                    if best.as_ref().is_none_or(|best| best.rank() < session.rank()) {
                        best = Some(session);
                    }
                }
            }
        }
    }

    /// Applies updates until the watch is of no more use; why it ended.
    async fn follow(&self, session: Session) -> ControllerFailure {
        let Session { mut image, mut stream, .. } = session;
        let clock = &self.source.host.clock;
        self.publish(&image);
        let mut led_at = clock.now();
        loop {
            if image.controller_leader.is_some() {
                led_at = clock.now();
            } else if self.source.controllers.len() > 1 && clock.now().saturating_sub(led_at) > LEADERLESS_MAX
            {
                return ControllerFailure::NoLeader;
            }
            if self.images.is_closed() {
                return lost("the client is gone");
            }
            let update = match clock.timeout(SILENCE_MAX, stream.message()).await {
                Err(_) => return ControllerFailure::Unanswered,
                Ok(Err(status)) => return ControllerFailure::of_status(&status),
                Ok(Ok(None)) => return lost("it closed the watch"),
                Ok(Ok(Some(update))) => update,
            };
            if let Err(gap) = image.apply(update) {
                return ControllerFailure::Malformed { why: gap.to_string() };
            }
            self.publish(&image);
        }
    }

    fn publish(&self, image: &MetadataImage) {
        self.images.send_if_modified(|published| {
            let known = published.version.0 > 0;
            if known && (image.cluster_id != published.cluster_id || image.version < published.version) {
                return false;
            }
            if **published == *image {
                return false;
            }
            *published = Arc::new(image.clone());
            true
        });
    }
}

/// Whether a connection was refused: the machine is there, nothing listens.
pub(crate) fn is_refused(status: &tonic::Status) -> bool {
    let mut below = status.source();
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        below = error.source();
    }
    false
}

/// What a status says, with what lies below it.
pub(crate) fn why(status: &tonic::Status) -> String {
    if is_refused(status) {
        return "nothing listens there".to_owned();
    }
    let mut text =
        if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let mut source = status.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
