//! The client: where everything starts.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::{ClusterId, PartitionId, SpuId, TopicId};
use plimsoll_proto::image::MetadataImage;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::connections::Connections;
use crate::consumer::ConsumerBuilder;
use crate::error::{ConnectError, ControllerAttempt, ControllerFailure};
use crate::metadata::{self, Attempts};
use crate::node::Node;
use crate::producer::{ProducerBuilder, Turns};
use crate::raw::RawProducer;

/// A connection to a cluster: its metadata, kept up to date, and a channel to each node in use. Cheap to
/// clone; everything made of it shares both. Connections close when the last clone is dropped.
///
/// ```
/// use std::time::Duration;
/// use plimsoll_client::Client;
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/cluster.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     with_cluster(1, |cluster| example(cluster.controllers))
/// # }
/// # async fn example(controllers: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
/// // Such as ["10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"].
/// let client = Client::builder().controllers(controllers).build().await?;
/// let led = client.wait_metadata(Duration::from_secs(5), |image| {
///     image.topic_by_name("flights").is_some_and(|topic| topic.partitions.iter().all(|p| p.leader != 0))
/// });
/// assert!(led.await, "every partition has a leader");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) connections: Connections,
    pub(crate) controllers: Vec<String>,
    pub(crate) images: watch::Receiver<Arc<MetadataImage>>,
    pub(crate) call_timeout: Duration,
    pub(crate) no_quorum_timeout: Duration,
    pub(crate) turns: Turns,
    _watching: Task,
}

/// Settings of a [`Client`].
///
/// ```
/// use std::time::Duration;
/// use plimsoll_client::{Client, ConnectError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let settings = Client::builder().controllers(["127.0.0.1:1"]).connect_timeout(Duration::from_millis(200));
/// // Nothing listens there.
/// assert!(matches!(settings.build().await, Err(ConnectError::NoController { .. })));
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is dialled before build()"]
pub struct ClientBuilder {
    host: Option<Host>,
    controllers: Vec<String>,
    cluster_id: Option<ClusterId>,
    connect_timeout: Duration,
    refused_timeout: Duration,
    call_timeout: Duration,
    no_quorum_timeout: Duration,
}

impl Client {
    /// Starts with no controllers and these defaults: connect timeout 10 s, also where nothing listens, call
    /// timeout 30 s.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            host: None,
            controllers: Vec::new(),
            cluster_id: None,
            connect_timeout: Duration::from_secs(10),
            refused_timeout: Duration::MAX,
            call_timeout: Duration::from_secs(30),
            no_quorum_timeout: Duration::MAX,
        }
    }

    /// Settings of a producer for one topic.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic.into())
    }

    /// Settings of a consumer of one topic.
    pub fn consumer(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topic.into())
    }

    /// Administrative calls.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// One storage node, asked directly.
    pub fn node(&self, spu: SpuId) -> Node {
        Node::new(self.clone(), spu)
    }

    /// A client without batching, idempotence, retries and backoff, for one partition at one node: what a
    /// careless client does. For drills and measurements.
    ///
    /// `address` is the `host:port` of the node; `topic_id` and `partition` must be known to it.
    /// `leader_epoch` is sent as it is.
    pub fn raw_produce(
        &self,
        address: impl Into<String>,
        partition: PartitionId,
        leader_epoch: u32,
    ) -> RawProducer {
        RawProducer::new(self.clone(), address.into(), partition, leader_epoch)
    }

    /// The metadata as known now.
    pub fn metadata(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.shared.images.borrow())
    }

    /// The metadata now and whenever they change.
    pub fn watch_metadata(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.shared.images.clone()
    }

    /// The cluster that this client talks to.
    pub fn cluster_id(&self) -> ClusterId {
        self.metadata().cluster_id
    }

    /// Where a storage node is reached, if it is known.
    pub fn spu_address(&self, spu: SpuId) -> Option<String> {
        self.metadata().address(spu).map(str::to_owned)
    }

    /// The id of a topic in the metadata as known now.
    pub fn topic_id(&self, topic: &str) -> Option<TopicId> {
        TopicId::from_slice(&self.metadata().topic_by_name(topic)?.topic_id).ok()
    }

    /// Waits until the metadata satisfy `condition`, at most `limit`; whether they did. Cancel safe.
    pub async fn wait_metadata(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&MetadataImage) -> bool,
    ) -> bool {
        let mut images = self.shared.images.clone();
        let waiting = images.wait_for(|image| condition(image));
        let satisfied = self.shared.host.clock.timeout(limit, waiting).await;
        matches!(satisfied, Ok(Ok(_)))
    }
}

impl ClientBuilder {
    /// Addresses of controllers as `HOST:PORT`, or `ID@HOST:PORT` as servers are configured. All are tried
    /// at once.
    pub fn controllers<I>(mut self, controllers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.controllers.extend(controllers.into_iter().map(|address| {
            let address: String = address.into();
            address.rsplit_once('@').map_or(address.clone(), |(_, host_port)| host_port.to_owned())
        }));
        self
    }

    /// Accepts this cluster only.
    pub fn cluster_id(mut self, cluster_id: ClusterId) -> Self {
        self.cluster_id = Some(cluster_id);
        self
    }

    /// How long [`ClientBuilder::build`] waits for a controller. Default 10 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long [`ClientBuilder::build`] waits while nothing listens at any of the addresses; at most the connect
    /// timeout, which is the default.
    pub fn refused_timeout(mut self, limit: Duration) -> Self {
        self.refused_timeout = limit;
        self
    }

    /// Deadline of each administrative call, retries included. Default 30 s.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// How long administrative calls go on while every controller that answers says that none leads (`NO_QUORUM`); at
    /// most the call timeout, which is the default. An election takes a second or two.
    pub fn no_quorum_timeout(mut self, limit: Duration) -> Self {
        self.no_quorum_timeout = limit;
        self
    }

    /// The seams to time, tasks, randomness and network; those of the operating system by default.
    pub fn host(mut self, host: Host) -> Self {
        self.host = Some(host);
        self
    }

    /// Connects and waits for the first metadata. Must be called inside a tokio runtime, which then runs the
    /// background work.
    ///
    /// # Errors
    /// [`ConnectError::Settings`] without controllers or with an address that is not `HOST:PORT`;
    /// [`ConnectError::NoController`] when none answered in time: start one, or correct the addresses.
    pub async fn build(self) -> Result<Client, ConnectError> {
        if self.controllers.is_empty() {
            return Err(ConnectError::Settings(
                "no controller is given: name at least one HOST:PORT".to_owned(),
            ));
        }
        if let Some(wrong) = self.controllers.iter().find(|address| !is_host_port(address)) {
            return Err(ConnectError::Settings(format!("controller address {wrong:?} is not HOST:PORT")));
        }
        let host = self.host.unwrap_or_else(Host::real);
        let connections = Connections::new(host.network.clone());
        let watch = metadata::Source {
            host: host.clone(),
            connections: connections.clone(),
            controllers: self.controllers.clone(),
            cluster_id: self.cluster_id,
        }
        .start();
        let mut images = watch.images;
        let mut attempts = watch.attempts;
        let began = host.clock.now();
        let hopeless = async {
            host.clock.sleep(self.refused_timeout.min(self.connect_timeout)).await;
            let refused = |attempts: &Attempts, address| {
                attempts.get(address) == Some(&ControllerFailure::NotListening)
            };
            let all =
                attempts.wait_for(|attempts| self.controllers.iter().all(|a| refused(attempts, a))).await;
            drop(all);
        };
        let known = tokio::select! {
            first = images.wait_for(|image| image.cluster_id != ClusterId([0; 16])) => first.is_ok(),
            () = hopeless => false,
            () = host.clock.sleep(self.connect_timeout) => false,
        };
        if !known {
            let told = attempts.borrow().clone();
            let attempts = self.controllers.into_iter().map(|address| {
                let failure = told.get(&address).cloned().unwrap_or(ControllerFailure::Unanswered);
                ControllerAttempt { address, failure }
            });
            let attempts = attempts.collect();
            let waited = host.clock.now().saturating_sub(began);
            return Err(ConnectError::NoController { waited, attempts });
        }
        Ok(Client {
            shared: Arc::new(Shared {
                host,
                connections,
                controllers: self.controllers,
                images,
                call_timeout: self.call_timeout,
                no_quorum_timeout: self.no_quorum_timeout,
                turns: Turns::default(),
                _watching: watch.task,
            }),
        })
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:7001", "[::1]:7001", "controller-1:65535"] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in ["", "host", ":7001", "host:", "host:0", "host:70000", "host:port"] {
            assert!(!is_host_port(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_client_without_controllers_is_a_matter_of_settings() {
        assert!(matches!(Client::builder().build().await, Err(ConnectError::Settings(_))));
        let wrong = Client::builder().controllers(["nowhere"]).build().await;
        assert!(matches!(wrong, Err(ConnectError::Settings(_))));
    }

    #[tokio::test]
    async fn where_nothing_listens_is_told_for_each_controller() {
        let built = Client::builder()
            .controllers(["127.0.0.1:1", "2@127.0.0.1:2"])
            .refused_timeout(Duration::from_millis(300))
            .build()
            .await;
        let Err(ConnectError::NoController { attempts, waited }) = built else { panic!("{built:?}") };
        assert!(waited < Duration::from_secs(9), "{waited:?}");
        let nobody = |address: &str| ControllerAttempt {
            address: address.to_owned(),
            failure: ControllerFailure::NotListening,
        };
        assert_eq!(attempts, [nobody("127.0.0.1:1"), nobody("127.0.0.1:2")]);
        let text = ConnectError::NoController { waited: Duration::from_millis(300), attempts }.to_string();
        let told = "127.0.0.1:1: nothing listens there; 127.0.0.1:2: nothing listens there";
        assert_eq!(text, format!("no controller answered within 300 ms: {told}"));
    }
}
