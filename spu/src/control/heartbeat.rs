//! Heartbeats, on a thread and on connections that nothing else can starve.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::Incarnation;
use plimsoll_proto::v1::control_client::ControlClient;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::controllers::{ALL, Controllers, describe};
use super::link::ControlSettings;
use crate::runtime::NodeHandle;

/// Heartbeats on their way that were not answered yet.
const UNANSWERED_MAX: usize = 16;
const KIND: &str = "heartbeats are not answered";
const SILENT: &str = "it does not answer in time";

/// When heartbeats are sent and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTimings {
    /// Pause between two. Default 500 ms.
    pub interval: Duration,
    /// A controller that answers none for this long is left for the next. Default 2 s.
    pub answer_wait_max: Duration,
}

/// What all sessions of the lane share.
pub(super) struct Lane {
    pub(super) controllers: Controllers,
    pub(super) node: NodeHandle,
    pub(super) settings: ControlSettings,
    pub(super) registered: watch::Receiver<Option<Incarnation>>,
    pub(super) stale: mpsc::Sender<Incarnation>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Why a session with one controller ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Another one leads; its address, when known.
    NotLeader(String),
    /// The connection or the controller is gone or silent.
    Lost(String),
    /// This incarnation is stale.
    Stale,
    /// The node has another incarnation by now.
    Registered,
    /// The node stops.
    Stopping,
}

impl Lane {
    pub(super) async fn run(mut self) {
        let host = self.controllers.host().clone();
        let pause_max = self.settings.heartbeat.interval;
        let mut backoff = Backoff::new(pause_max / 10, pause_max, &host.random);
        let mut next: usize = 0;
        loop {
            let Some(incarnation) = self.incarnation().await else { return };
            let addresses = self.controllers.in_order();
            let Some(address) = addresses.get(next % addresses.len().max(1)).cloned() else { return };
            let mut answered = false;
            match self.session(&address, incarnation, &mut answered).await {
                End::NotLeader(leader) => {
                    self.controllers.does_not_lead(&address);
                    self.controllers.leads(&leader);
                    next = if leader.is_empty() { next + 1 } else { 0 };
                }
                End::Lost(why) => {
                    self.controllers.does_not_lead(&address);
                    self.controllers.trouble(ALL, KIND, &format!("{address}: {why}"));
                    next = if answered { 0 } else { next + 1 };
                }
                End::Stale => {
                    // A full queue holds the same word already.
                    let _ = self.stale.try_send(incarnation);
                    self.wait_for_another(incarnation).await;
                }
                End::Registered => {}
                End::Stopping => return,
            }
            if answered {
                backoff.reset();
            }
            host.clock.sleep(backoff.next_pause()).await;
        }
    }

    /// The incarnation of the node, as soon as it has one; `None` when the node stops first.
    async fn incarnation(&mut self) -> Option<Incarnation> {
        tokio::select! {
            incarnation = self.registered.wait_for(Option::is_some) => *incarnation.ok()?,
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        }
    }

    async fn wait_for_another(&mut self, incarnation: Incarnation) {
        tokio::select! {
            _ = self.registered.wait_for(|now| *now != Some(incarnation)) => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn session(&self, address: &str, incarnation: Incarnation, answered: &mut bool) -> End {
        let clock = &self.controllers.host().clock;
        let timings = self.settings.heartbeat;
        let channel = match self.controllers.channel(address) {
            Ok(channel) => channel,
            Err(status) => return End::Lost(describe(&status)),
        };
        let (out, beats) = mpsc::channel(UNANSWERED_MAX);
        let mut session = Session {
            lane: self,
            address,
            incarnation,
            out,
            sent: Sent::default(),
            next_beat: clock.now(),
            silent_at: clock.now() + timings.answer_wait_max,
            answered,
        };
        session.beat();
        let mut client = ControlClient::new(channel);
        let opening = client.heartbeat(ReceiverStream::new(beats));
        match clock.timeout(timings.answer_wait_max, opening).await {
            Ok(Ok(answers)) => session.run(answers.into_inner()).await,
            Ok(Err(status)) => end_of(&status),
            Err(_) => End::Lost(SILENT.to_owned()),
        }
    }
}

/// Heartbeats to one controller over one stream.
struct Session<'a> {
    lane: &'a Lane,
    address: &'a str,
    incarnation: Incarnation,
    out: mpsc::Sender<v1::HeartbeatRequest>,
    sent: Sent,
    next_beat: Duration,
    silent_at: Duration,
    answered: &'a mut bool,
}

impl Session<'_> {
    async fn run(mut self, mut answers: Streaming<v1::HeartbeatResponse>) -> End {
        let clock = self.lane.controllers.host().clock.clone();
        let mut registered = self.lane.registered.clone();
        let mut stopping = self.lane.stopping.clone();
        let incarnation = self.incarnation;
        loop {
            let end = tokio::select! {
                answer = answers.message() => self.take(answer),
                () = clock.sleep_until(self.next_beat) => self.beat(),
                () = clock.sleep_until(self.silent_at) => Some(End::Lost(SILENT.to_owned())),
                _ = registered.wait_for(|now| *now != Some(incarnation)) => Some(End::Registered),
                _ = stopping.wait_for(|stopping| *stopping) => Some(End::Stopping),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn beat(&mut self) -> Option<End> {
        let now = self.lane.controllers.host().clock.now();
        // After a pause of the whole process one beat is due, not one for each interval missed.
        self.next_beat = (self.next_beat + self.lane.settings.heartbeat.interval).max(now);
        let request = v1::HeartbeatRequest {
            cluster_id: self.lane.settings.cluster_id.to_bytes(),
            spu_id: self.lane.settings.spu_id.0,
            incarnation: self.incarnation.0,
            sequence: self.sent.next(now),
            volumes: self.lane.node.volume_facts(),
        };
        // A full queue means that the connection is stuck; the silence decides.
        drop(self.out.try_send(request));
        None
    }

    fn take(&mut self, answer: Result<Option<v1::HeartbeatResponse>, tonic::Status>) -> Option<End> {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Some(End::Lost("it ended the stream".to_owned())),
            Err(status) => return Some(end_of(&status)),
        };
        if let Some(detail) = &answer.error {
            return Some(end_of_detail(detail));
        }
        let Lane { controllers, node, settings, .. } = self.lane;
        self.silent_at = controllers.host().clock.now() + settings.heartbeat.answer_wait_max;
        if !*self.answered {
            *self.answered = true;
            controllers.leads(self.address);
            controllers.works_again(ALL, KIND);
        }
        if let Some(sent_at) = self.sent.answered(answer.sequence) {
            node.heartbeat_answered(sent_at);
        }
        if answer.cluster_time_ms > 0 {
            node.cluster_time(answer.cluster_time_ms);
        }
        None
    }
}

fn end_of(status: &tonic::Status) -> End {
    match ErrorDetail::from_status(status) {
        Some(detail) => end_of_detail(&detail),
        None => End::Lost(describe(status)),
    }
}

fn end_of_detail(detail: &ErrorDetail) -> End {
    match detail.reason() {
        Reason::NotControllerLeader => End::NotLeader(detail.controller_address.clone()),
        Reason::StaleIncarnation => End::Stale,
        _ => End::Lost(detail.message.clone()),
    }
}

/// When each unanswered heartbeat was sent: the lease runs from there, not from the answer.
#[derive(Debug, Default)]
struct Sent {
    last: u64,
    at: BTreeMap<u64, Duration>,
}

impl Sent {
    /// The next sequence, counting from 1.
    fn next(&mut self, now: Duration) -> u64 {
        self.last += 1;
        self.at.insert(self.last, now);
        if self.at.len() > UNANSWERED_MAX {
            self.at.pop_first();
        }
        self.last
    }

    /// When the answered one was sent; older ones count as answered with it. `None` for one that was never
    /// sent, or was answered before.
    fn answered(&mut self, sequence: u64) -> Option<Duration> {
        let sent_at = self.at.remove(&sequence)?;
        self.at.retain(|other, _| *other > sequence);
        Some(sent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_runs_from_the_sending_of_what_was_answered() {
        let at = Duration::from_millis;
        let mut sent = Sent::default();
        for ms in [0, 500, 1000] {
            sent.next(at(ms));
        }
        assert_eq!(sent.answered(2), Some(at(500)));
        for late in [1, 2, 99, 0] {
            assert_eq!(sent.answered(late), None, "{late}");
        }
        assert_eq!(sent.answered(3), Some(at(1000)));
        for ms in 0..100 {
            sent.next(at(ms));
        }
        assert_eq!(sent.at.len(), UNANSWERED_MAX);
    }

    #[test]
    fn refusals_end_a_session_each_in_its_way() {
        let detail = |reason| ErrorDetail::not_written(reason, "m");
        let mut elsewhere = detail(Reason::NotControllerLeader);
        elsewhere.controller_address = "b:1".into();
        for (detail, end) in [
            (elsewhere, End::NotLeader("b:1".into())),
            (detail(Reason::StaleIncarnation), End::Stale),
            (detail(Reason::NoQuorum), End::Lost("m".into())),
        ] {
            assert_eq!(end_of(&detail.to_status()), end);
        }
    }
}
