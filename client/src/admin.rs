//! Administrative calls to the leading controller.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::{MetadataVersion, ProducerEpoch, ProducerId, TopicId};
use plimsoll_proto::v1::admin_client::AdminClient;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tonic::transport::Channel;
use tonic::{Response, Status};
use tracing::Instrument as _;

use crate::client::Client;
use crate::error::{AdminError, ControllerAttempt, ControllerFailure, Hindrances};
use crate::quorum::Leaderless;
use crate::refusal::{Outcome, Refusal};

/// Administrative calls. Each goes to the leading controller, found anew when it changes, and is retried
/// until the call timeout of the client.
///
/// Cancel safety: a dropped call may still take effect.
///
/// ```
/// use plimsoll_client::{Client, Reason, TopicConfig};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/cluster.rs"));
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     with_cluster(3, |cluster| example(cluster.client))
/// # }
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let config = TopicConfig { partitions: 3, replicas: 3, min_in_sync: 2, ..Default::default() };
/// match client.admin().create_topic("delays", config).await {
///     Ok(id) => println!("created as {id}"),
///     Err(error) if error.reason() == Some(Reason::TopicExists) => println!("it is there already"),
///     Err(error) => return Err(error.into()),
/// }
/// # assert_eq!(client.admin().describe_topic("delays").await?.partitions.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
    timeout: Duration,
}

/// One attempt may take this long before the other controllers are asked.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// The same where a controller may wait for nodes to join (at most 10 s) before it answers.
const CREATE_ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// How long a change may take to show up in this client's metadata.
const VISIBLE_MAX: Duration = Duration::from_secs(5);

enum Answer<T> {
    Done(T),
    Final(Refusal),
    /// `sent` unless it is sure that the request never left.
    Again {
        failure: ControllerFailure,
        sent: bool,
    },
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        let timeout = client.shared.call_timeout;
        Self { client, timeout }
    }

    /// Sets the deadline of each call, retries included.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Lowers the deadline of each call to `limit`, if it is longer.
    #[must_use]
    pub fn timeout_at_most(mut self, limit: Duration) -> Self {
        self.timeout = self.timeout.min(limit);
        self
    }

    /// Creates a topic. It is in this client's metadata when the call returns, unless those lag by more than
    /// 5 s. Zeros in `config` take the controllers' defaults.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, `INVALID_TOPIC`, `INVALID_ARGUMENT`: correct the request. `NO_PLACEMENT`: not enough
    /// storage nodes with room are online. `CONTROLLER_DISK`, `NO_QUORUM`: later.
    pub async fn create_topic(
        &self,
        name: impl Into<String>,
        config: v1::TopicConfig,
    ) -> Result<TopicId, AdminError> {
        let request = v1::CreateTopicRequest { name: name.into(), config: Some(config) };
        let mut unknown = false;
        let sent = request.clone();
        let created = self
            .call_for(CREATE_ATTEMPT_MAX, &mut unknown, move |mut admin| {
                let request = sent.clone();
                async move { admin.create_topic(request).await }
            })
            .await;
        match created {
            Ok(created) => {
                self.visible(created.version).await;
                topic_id(&created.topic_id)
            }
            // An earlier attempt without an answer may have created it.
            Err(AdminError::Refused(refusal)) if unknown && refusal.reason() == Reason::TopicExists => {
                let topic = self.describe_topic(&request.name).await?;
                let same = topic.config.as_ref().is_some_and(|found| {
                    let asked = request.config.as_ref();
                    asked.is_some_and(|a| {
                        (a.partitions == 0 || a.partitions == found.partitions)
                            && (a.replicas == 0 || a.replicas == found.replicas)
                    })
                });
                if same { topic_id(&topic.topic_id) } else { Err(AdminError::Refused(refusal)) }
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a topic with everything in it. It is gone from this client's metadata when the call returns,
    /// unless those lag by more than 5 s; storage nodes free the space as they learn of it.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC` when there is none. `NO_QUORUM`: later.
    pub async fn delete_topic(&self, name: impl Into<String>) -> Result<(), AdminError> {
        let name = name.into();
        let mut unknown = false;
        let deleted = self
            .call(&mut unknown, move |mut admin| {
                let request = v1::DeleteTopicRequest { name: name.clone() };
                async move { admin.delete_topic(request).await }
            })
            .await;
        match deleted {
            Ok(deleted) => {
                self.visible(deleted.version).await;
                Ok(())
            }
            // An earlier attempt without an answer has deleted it.
            Err(AdminError::Refused(refusal)) if unknown && refusal.reason() == Reason::UnknownTopic => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// All topics.
    ///
    /// # Errors
    /// [`AdminError`]; nothing was changed.
    pub async fn list_topics(&self) -> Result<Vec<v1::TopicInfo>, AdminError> {
        let answer = self
            .call(&mut false, |mut admin| async move { admin.list_topics(v1::ListTopicsRequest {}).await })
            .await?;
        Ok(answer.topics)
    }

    /// One topic with its partitions.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC` when there is none.
    pub async fn describe_topic(&self, name: impl Into<String>) -> Result<v1::TopicInfo, AdminError> {
        let name = name.into();
        let answer = self
            .call(&mut false, move |mut admin| {
                let request = v1::DescribeTopicRequest { name: name.clone() };
                async move { admin.describe_topic(request).await }
            })
            .await?;
        answer.topic.ok_or_else(|| AdminError::Malformed("the answer has no topic".to_owned()))
    }

    /// Controllers, storage nodes with the facts of their volumes, and how partitions are.
    ///
    /// # Errors
    /// [`AdminError`]; nothing was changed.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatusResponse, AdminError> {
        self.call(&mut false, |mut admin| async move {
            admin.cluster_status(v1::ClusterStatusRequest::default()).await
        })
        .await
    }

    /// Events of entries after the Raft index `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`AdminError`]; nothing was changed.
    pub async fn list_events(&self, after: u64, limit: u32) -> Result<Vec<v1::ClusterEvent>, AdminError> {
        let answer = self
            .call(&mut false, move |mut admin| async move {
                admin.list_events(v1::ListEventsRequest { after_index: after, limit }).await
            })
            .await?;
        Ok(answer.events)
    }

    /// How many events of each kind there were, and the alerts there are now: one for each node or volume that is out
    /// of service. Every controller tells the same, whoever leads.
    ///
    /// # Errors
    /// [`AdminError`]; nothing was changed.
    pub async fn metrics(&self) -> Result<v1::MetricsResponse, AdminError> {
        let asking =
            |mut admin: AdminClient<Channel>| async move { admin.metrics(v1::MetricsRequest {}).await };
        self.call(&mut false, asking).await
    }

    /// A producer id that nobody else has.
    pub(crate) async fn init_producer(&self) -> Result<(ProducerId, ProducerEpoch), AdminError> {
        let answer =
            self.call(&mut false, |mut admin| async move {
                admin.init_producer(v1::InitProducerRequest {}).await
            })
            .await?;
        let epoch = i16::try_from(answer.producer_epoch).ok().filter(|epoch| *epoch >= 0);
        match epoch {
            Some(epoch) if answer.producer_id >= 0 => {
                Ok((ProducerId(answer.producer_id), ProducerEpoch(epoch)))
            }
            _ => Err(AdminError::Malformed("the producer id or epoch is out of range".to_owned())),
        }
    }

    pub(crate) async fn visible(&self, version: u64) {
        // Not being visible in time is no failure of the call.
        let _seen =
            self.client.wait_metadata(VISIBLE_MAX, |image| image.version >= MetadataVersion(version)).await;
    }

    /// Asks every controller at once, whether it leads or not, and takes the answer with the greatest `key`.
    pub(crate) async fn newest<T, F, A>(&self, ask: F, key: impl Fn(&T) -> u64) -> Result<T, AdminError>
    where
        F: Fn(AdminClient<Channel>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let limit = self.timeout.min(ATTEMPT_MAX);
        let asked =
            self.client.shared.controllers.iter().map(|address| self.ask(address.clone(), limit, &ask));
        let mut attempts = Vec::new();
        let mut best: Option<T> = None;
        for (address, answer) in futures::future::join_all(asked).await {
            match answer {
                Answer::Done(done) if best.as_ref().is_none_or(|best| key(best) < key(&done)) => {
                    best = Some(done)
                }
                Answer::Done(_) => {}
                Answer::Final(refusal) => return Err(AdminError::Refused(refusal)),
                Answer::Again { failure, .. } => attempts.push(ControllerAttempt { address, failure }),
            }
        }
        best.ok_or(AdminError::NoController { outcome: Outcome::NotWritten, attempts })
    }

    pub(crate) async fn call<T, F, A>(&self, unknown: &mut bool, ask: F) -> Result<T, AdminError>
    where
        F: Fn(AdminClient<Channel>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_for(ATTEMPT_MAX, unknown, ask).await
    }

    /// Asks the leader as it is known; when that is of no use, every controller at once. Only a leader acts,
    /// so asking several is safe. Sets `unknown` when an attempt without an answer may have had an effect.
    async fn call_for<T, F, A>(
        &self,
        attempt_max: Duration,
        unknown: &mut bool,
        ask: F,
    ) -> Result<T, AdminError>
    where
        F: Fn(AdminClient<Channel>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.client.shared;
        let clock = &shared.host.clock;
        let began = clock.now();
        let deadline = began.saturating_add(self.timeout);
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(1), &shared.host.random);
        let mut hindrances = Hindrances::default();
        let mut leaderless = Leaderless::new(shared.no_quorum_timeout);
        let mut hint = shared.images.borrow().controller_leader.clone().map(|(_, address)| address);
        loop {
            let targets = match hint.take().filter(|address| !address.is_empty()) {
                Some(leader) => vec![leader],
                None => shared.controllers.clone(),
            };
            let asked_at = clock.now();
            let limit = deadline.saturating_sub(asked_at).min(attempt_max);
            let (mut attempts, mut said) = (Vec::new(), Vec::new());
            let mut asked: FuturesUnordered<_> =
                targets.into_iter().map(|address| self.ask(address, limit, &ask)).collect();
            let alone = asked.len() == 1;
            while let Some((address, answer)) = asked.next().await {
                match answer {
                    Answer::Done(done) => return Ok(done),
                    Answer::Final(refusal) => return Err(AdminError::Refused(refusal)),
                    Answer::Again { failure, sent } => {
                        let refusal = failure.refusal();
                        *unknown |= refusal.map_or(sent, |r| r.outcome() == Outcome::Unknown);
                        hint = hint.or_else(|| leader_of(refusal, &address));
                        said.extend(refusal.cloned());
                        attempts.push(ControllerAttempt { address, failure });
                    }
                }
            }
            hindrances.add(attempts, limit < attempt_max);
            let gives_up = leaderless.answered(&said, asked_at, clock.now());
            if let Some(none_leads) = said.pop().filter(|_| gives_up && !*unknown) {
                return Err(AdminError::Refused(none_leads));
            }
            if gives_up || clock.now() >= deadline {
                let outcome = if *unknown { Outcome::Unknown } else { Outcome::NotWritten };
                return Err(hindrances.give_up(clock.now().saturating_sub(began), outcome));
            }
            // After the leader alone was of no use, the others are asked at once.
            if hint.is_none() && !alone || hindrances.controllers() > shared.controllers.len() {
                let pause = backoff.next_pause().min(deadline.saturating_sub(clock.now()));
                clock.sleep(pause).await;
            } else if alone {
                clock.sleep(backoff.next_pause().min(Duration::from_millis(100))).await;
            }
        }
    }

    async fn ask<T, F, A>(&self, address: String, limit: Duration, ask: &F) -> (String, Answer<T>)
    where
        F: Fn(AdminClient<Channel>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let again = |failure, sent| Answer::Again { failure, sent };
        let admin = match self.client.shared.connections.admin(&address) {
            Ok(admin) => admin,
            Err(invalid) => {
                let failure = ControllerFailure::ConnectionLost { why: invalid.to_string() };
                return (address, again(failure, false));
            }
        };
        let span = tracing::debug_span!("admin", controller = %address);
        let asking = ask(admin).instrument(span);
        let answer = match self.client.shared.host.clock.timeout(limit, asking).await {
            Err(_) => again(ControllerFailure::Unanswered, true),
            Ok(Ok(response)) => Answer::Done(response.into_inner()),
            Ok(Err(status)) => match ControllerFailure::of_status(&status) {
                ControllerFailure::Refused(refusal) if !passes(&refusal) => Answer::Final(refusal),
                ControllerFailure::ConnectionLost { .. } if status.code() == tonic::Code::Unimplemented => {
                    let why = format!("the controller at {address} is older and does not know this call");
                    let detail = ErrorDetail::not_written(Reason::UnsupportedProtocol, why);
                    Answer::Final(Refusal::new(detail))
                }
                failure => {
                    let sent = failure != ControllerFailure::NotListening;
                    again(failure, sent)
                }
            },
        };
        (address, answer)
    }
}

/// Whether another controller, or the same a little later, may do what this one refused.
fn passes(refusal: &Refusal) -> bool {
    match refusal.reason() {
        Reason::NotControllerLeader | Reason::NoQuorum | Reason::ShuttingDown | Reason::NoLeader => true,
        // A read that no majority confirmed in time: its leader may have lost it.
        Reason::TimedOut => refusal.outcome() == Outcome::NotWritten,
        _ => false,
    }
}

/// Where a refusal sends to, unless back to where it came from.
fn leader_of(refusal: Option<&Refusal>, from: &str) -> Option<String> {
    let address = refusal?.detail().controller_address.clone();
    (!address.is_empty() && address != from).then_some(address)
}

fn topic_id(bytes: &[u8]) -> Result<TopicId, AdminError> {
    TopicId::from_slice(bytes).map_err(|invalid| AdminError::Malformed(invalid.to_string()))
}
