//! Asking the leading controller, whichever it is.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plimsoll_host::log_budget::{Key, LogBudget};
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::v1::control_client::ControlClient;
use plimsoll_proto::v1::{ErrorDetail, Reason};
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::endpoints::Endpoints;

/// When the one asked first has not answered by then, the next is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(300);

/// Trouble that ends before this is no news: an election among the controllers takes less.
const LASTING: Duration = Duration::from_secs(3);
/// The subject of what concerns no controller in particular.
pub(super) const ALL: &str = "controllers";

/// The controllers and the connections to them. Clones share both.
#[derive(Clone, Debug)]
pub struct Controllers {
    host: Host,
    endpoints: Arc<Mutex<Endpoints>>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
    log: LogBudget,
    /// What does not work, by (subject, kind), and since when.
    troubles: Arc<Mutex<BTreeMap<(String, &'static str), Duration>>>,
}

/// No controller did what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The leader refused; asking again as it is does not help.
    #[error("the controller refuses: {}", .0.message)]
    Refused(Box<ErrorDetail>),
    /// Nobody answered as leader in time; whether something was done is not known.
    #[error("no controller answers as leader: {why}")]
    NoLeader {
        /// What each one said, for people.
        why: String,
    },
}

impl Controllers {
    /// The controllers at these `HOST:PORT` addresses.
    pub fn new(host: Host, addresses: Vec<String>) -> Self {
        Self {
            host,
            endpoints: Arc::new(Mutex::new(Endpoints::new(addresses))),
            channels: Arc::default(),
            log: LogBudget::new(),
            troubles: Arc::default(),
        }
    }

    /// The same controllers over connections of their own, for another thread.
    pub(super) fn with_own_connections(&self) -> Self {
        Self { channels: Arc::default(), ..self.clone() }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Every address worth trying, the leader's first.
    pub(super) fn in_order(&self) -> Vec<String> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).in_order()
    }

    pub(super) fn leads(&self, address: &str) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).leads(address);
    }

    pub(super) fn does_not_lead(&self, address: &str) {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).does_not_lead(address);
    }

    /// The connection to one of them; it comes up when it is used.
    pub(super) fn channel(&self, address: &str) -> Result<Channel, Status> {
        let known = self.in_order();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|kept, _| kept == address || known.contains(kept));
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let options = ChannelOptions {
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(2),
        };
        let channel = self
            .host
            .network
            .channel(address, &options)
            .map_err(|error| Status::invalid_argument(format!("controller {address}: {error}")))?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Asks the leader, following NOT_CONTROLLER_LEADER; while the first does not answer, the others are asked
    /// as well. `ask` may therefore run more than once, at different controllers; only a leader acts on it.
    pub(super) async fn call<R, F, A>(&self, limit: Duration, ask: F) -> Result<R, CallError>
    where
        F: Fn(ControlClient<Channel>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut left: VecDeque<String> = self.in_order().into();
        let mut tried: Vec<String> = Vec::new();
        let mut asked = FuturesUnordered::new();
        let mut said = String::new();
        let ends = self.host.clock.now() + limit;
        loop {
            left.retain(|address| !tried.contains(address));
            if let Some(address) = left.pop_front() {
                tried.push(address.clone());
                asked.push(self.ask_one(address, &ask));
            }
            let hedge = if left.is_empty() { ends } else { self.host.clock.now() + HEDGE_AFTER };
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = self.host.clock.sleep_until(hedge.min(ends)) => None,
            };
            match answer {
                Some((address, Ok(answer))) => {
                    self.leads(&address);
                    return Ok(answer);
                }
                Some((address, Err(status))) => match ErrorDetail::from_status(&status) {
                    Some(detail) if detail.reason() == Reason::NotControllerLeader => {
                        self.does_not_lead(&address);
                        if !detail.controller_address.is_empty() {
                            left.push_front(detail.controller_address.clone());
                        }
                        note(&mut said, &address, "does not lead");
                    }
                    Some(detail) if is_final(detail.reason()) => {
                        return Err(CallError::Refused(Box::new(detail)));
                    }
                    Some(detail) => note(&mut said, &address, &detail.message),
                    None => {
                        self.does_not_lead(&address);
                        note(&mut said, &address, &describe(&status));
                    }
                },
                None => {}
            }
            if (asked.is_empty() && left.is_empty()) || self.host.clock.now() >= ends {
                return Err(CallError::NoLeader { why: said });
            }
        }
    }

    async fn ask_one<R, F, A>(&self, address: String, ask: &F) -> (String, Result<R, Status>)
    where
        F: Fn(ControlClient<Channel>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let answer = match self.channel(&address) {
            Ok(channel) => ask(ControlClient::new(channel)).await.map(Response::into_inner),
            Err(status) => Err(status),
        };
        (address, answer)
    }

    /// Something does not work that passes by itself, as when another controller takes the lead: worth a line
    /// only when it lasts. [`Controllers::works_again`] ends it.
    pub(super) fn trouble(&self, subject: &str, kind: &'static str, why: &str) {
        let now = self.host.clock.now();
        let since = {
            let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            *troubles.entry((subject.to_owned(), kind)).or_insert(now)
        };
        if now.saturating_sub(since) >= LASTING {
            self.complain(subject, kind, why);
        }
    }

    /// Says once, and then rarely, that something does not work.
    pub(super) fn complain(&self, subject: &str, kind: &'static str, why: &str) {
        let key = Key::new("control", subject.to_owned(), kind);
        if let Some(suppressed) = self.log.report(key, self.host.clock.now()) {
            tracing::warn!(subject, suppressed, "{kind}: {why}");
        }
    }

    /// Says once that it works again.
    pub(super) fn works_again(&self, subject: &str, kind: &'static str) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).remove(&(subject.to_owned(), kind));
        if let Some(total) = self.log.recovered(&Key::new("control", subject.to_owned(), kind)) {
            tracing::info!(subject, total, "over: {kind}");
        }
    }
}

/// What a status without our detail means to people.
pub(super) fn describe(status: &Status) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut deepest = None;
    while let Some(error) = cause {
        deepest = Some(error.to_string());
        cause = error.source();
    }
    deepest.unwrap_or_else(|| status.message().to_owned())
}

/// Whether an answer is the leader's last word. The others may pass, or may be another controller's.
fn is_final(reason: Reason) -> bool {
    match reason {
        Reason::NotControllerLeader
        | Reason::NoQuorum
        | Reason::ShuttingDown
        | Reason::TimedOut
        | Reason::MemoryPressure
        | Reason::Unspecified => false,
        Reason::DiskFull
        | Reason::Throttled
        | Reason::VolumeFailed
        | Reason::NotLeader
        | Reason::StaleLeaderEpoch
        | Reason::NoLeader
        | Reason::NotEnoughInSync
        | Reason::OffsetTrimmed
        | Reason::OffsetNotAvailable
        | Reason::OutOfOrderSequence
        | Reason::ProducerFenced
        | Reason::UnknownProducer
        | Reason::RecordTooLarge
        | Reason::CorruptBatch
        | Reason::InvalidArgument
        | Reason::InvalidTopic
        | Reason::UnknownTopic
        | Reason::UnknownPartition
        | Reason::TopicExists
        | Reason::StaleIncarnation
        | Reason::ControllerDisk
        | Reason::WrongCluster
        | Reason::NoPlacement
        | Reason::UnsupportedProtocol
        | Reason::WrongJoinToken
        | Reason::OutOfService
        | Reason::OffsetsFull
        | Reason::UnknownMember
        | Reason::NotPartitionOwner
        | Reason::GroupActive
        | Reason::UnknownGroup
        | Reason::ExpectationFailed => true,
    }
}

fn note(said: &mut String, address: &str, what: &str) {
    if !said.is_empty() {
        said.push_str("; ");
    }
    said.push_str(address);
    said.push_str(": ");
    said.push_str(what);
}
