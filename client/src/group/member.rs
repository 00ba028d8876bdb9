//! The lane that keeps a membership: heartbeats on a thread and on a connection that nothing else can starve.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_host::{Host, Lane};
use plimsoll_proto::ids::{PartitionId, SpuId, TopicId};
use plimsoll_proto::v1::{self, Reason};
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use super::calls::{self, ATTEMPT_MAX};
use crate::client::Client;
use crate::connections::Connections;
use crate::refusal::Refusal;

/// A heartbeat is held by the coordinator at most so long, so that one is under way always.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What the coordinator says, as last heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// What the member may read.
    pub(super) assigned: BTreeSet<PartitionId>,
    /// Counts memberships that were lost: what was owned before belongs to others.
    pub(super) lost: u64,
    /// Whether a coordinator has answered at all.
    pub(super) joined: bool,
    /// A refusal that waiting does not help, such as no room for another group.
    pub(super) refused: Option<Refusal>,
}

/// What the member reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) partitions: BTreeSet<PartitionId>,
    /// The loss that it knows of.
    pub(super) lost: u64,
    /// It is to leave.
    pub(super) leaves: bool,
}

/// The member's side of the lane.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) told: watch::Receiver<Told>,
    pub(super) owned: watch::Sender<Owned>,
    /// Wakes the consumer when something was told.
    pub(super) news: mpsc::Receiver<()>,
    /// When the application last asked for a record, milliseconds of the host's clock.
    pub(super) polled_ms: Arc<AtomicU64>,
    pub(super) lane: Lane,
}

#[derive(Clone, Debug)]
pub(super) struct MemberSettings {
    pub(super) group: String,
    pub(super) member_id: String,
    pub(super) topics: Vec<String>,
    pub(super) session: Duration,
    pub(super) idle_max: Duration,
    pub(super) name: String,
}

struct Keeper {
    client: Client,
    settings: MemberSettings,
    connections: Connections,
    told: watch::Sender<Told>,
    owned: watch::Receiver<Owned>,
    news: mpsc::Sender<()>,
    polled_ms: Arc<AtomicU64>,
    epoch: u64,
    sequence: u64,
    /// Of the heartbeat that was answered last.
    heard_sequence: u64,
    /// When the last answered heartbeat was sent: the session runs from there at the latest.
    answered_at: Duration,
    hint: Option<(SpuId, String)>,
}

/// Starts the lane.
pub(super) fn start(client: &Client, settings: MemberSettings) -> Membership {
    let (told, told_seen) = watch::channel(Told::default());
    let (owned, owned_seen) = watch::channel(Owned::default());
    let (news, news_seen) = mpsc::channel(1);
    let host: Host = client.shared.host.clone();
    let polled_ms = Arc::new(AtomicU64::new(millis(host.clock.now())));
    let keeper = Keeper {
        client: client.clone(),
        connections: calls::connections(client),
        answered_at: host.clock.now(),
        settings,
        told,
        owned: owned_seen,
        news,
        polled_ms: Arc::clone(&polled_ms),
        epoch: 0,
        sequence: 0,
        heard_sequence: 0,
        hint: None,
    };
    let (group, member) = (&keeper.settings.group, &keeper.settings.member_id);
    let span = tracing::debug_span!("member", group = %group, member = %member);
    let lane = host.tasks.spawn_lane("group member", move || Box::pin(keeper.run().instrument(span)));
    Membership { told: told_seen, owned, news: news_seen, polled_ms, lane }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

enum Beat {
    Answered(v1::GroupHeartbeatResponse),
    Refused(Refusal),
    /// The member has something new to say.
    CutShort,
    NoAnswer,
}

impl Keeper {
    async fn run(mut self) {
        let host = self.client.shared.host.clone();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500), &host.random);
        loop {
            let owned = self.owned.borrow_and_update().clone();
            let gone = self.owned.has_changed().is_err();
            if owned.leaves || gone {
                return self.leave().await;
            }
            if self.is_idle() {
                // Nobody takes records: others may. It joins again with the next call.
                self.leave_for_now().await;
                host.clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
            let sent_at = host.clock.now();
            let pause = match self.beat(&owned).await {
                Beat::Answered(answer) => {
                    backoff.reset();
                    self.answered_at = sent_at;
                    self.heard_sequence = self.sequence;
                    self.epoch = answer.member_epoch;
                    self.tell(&answer, &owned);
                    None
                }
                Beat::CutShort => None,
                Beat::Refused(refusal) => self.refused(refusal).then(|| backoff.next_pause()),
                Beat::NoAnswer => Some(backoff.next_pause()),
            };
            if self.epoch > 0 && host.clock.now().saturating_sub(self.answered_at) >= self.settings.session {
                self.lose();
            }
            if let Some(pause) = pause {
                calls::pause(&self.client, pause).await;
            }
        }
    }

    fn is_idle(&self) -> bool {
        let now = millis(self.client.shared.host.clock.now());
        now.saturating_sub(self.polled_ms.load(Ordering::Relaxed)) > millis(self.settings.idle_max)
    }

    fn request(&mut self, owned: &Owned, leave: bool) -> v1::GroupHeartbeatRequest {
        self.sequence += 1;
        // What was owned before a loss is not owned any more, whether the member knows or not.
        let current = owned.lost == self.told.borrow().lost;
        let partitions = if current { owned.partitions.clone() } else { BTreeSet::new() };
        v1::GroupHeartbeatRequest {
            group: self.settings.group.clone(),
            member_id: self.settings.member_id.clone(),
            member_epoch: self.epoch,
            sequence: self.sequence,
            heard_sequence: Some(self.heard_sequence),
            leave,
            topics: self.settings.topics.clone(),
            owned: by_topic(&partitions),
            session_timeout_ms: u32::try_from(self.settings.session.as_millis()).unwrap_or(u32::MAX),
            wait_ms_max: u32::try_from(WAIT_MAX.as_millis()).unwrap_or(u32::MAX),
            client: self.settings.name.clone(),
        }
    }

    async fn beat(&mut self, owned: &Owned) -> Beat {
        let address = self.hint.take().or_else(|| calls::coordinator(&self.client, &self.settings.group));
        let Some((_, address)) = address else {
            // The first group of the cluster.
            return match calls::ensure_topic(&self.client).await {
                Ok(()) => Beat::NoAnswer,
                Err(error) => error.refusal().cloned().map_or(Beat::NoAnswer, Beat::Refused),
            };
        };
        let Ok(mut groups) = self.connections.group(&address) else { return Beat::NoAnswer };
        let request = self.request(owned, false);
        let clock = self.client.shared.host.clock.clone();
        let limit = (WAIT_MAX + ATTEMPT_MAX).min(self.session_left());
        let span = tracing::debug_span!("heartbeat", group = %self.settings.group, coordinator = %address);
        let heartbeat = groups.group_heartbeat(request).instrument(span);
        let answer = tokio::select! {
            answer = clock.timeout(limit, heartbeat) => answer,
            // An error means that the consumer is gone: the next turn leaves.
            _ = self.owned.changed() => {
                self.owned.mark_changed();
                return Beat::CutShort;
            }
        };
        match answer {
            Ok(Ok(answer)) => Beat::Answered(answer.into_inner()),
            Ok(Err(status)) => match calls::refusal_of(&status) {
                Some(refusal) => Beat::Refused(refusal),
                None => Beat::NoAnswer,
            },
            Err(_) => Beat::NoAnswer,
        }
    }

    /// How long it is a member for sure without another answer.
    fn session_left(&self) -> Duration {
        let since = if self.epoch > 0 { self.answered_at } else { self.client.shared.host.clock.now() };
        let passed = self.client.shared.host.clock.now().saturating_sub(since);
        self.settings.session.saturating_sub(passed)
    }

    /// Whether to pause before the next heartbeat.
    fn refused(&mut self, refusal: Refusal) -> bool {
        match refusal.reason() {
            Reason::UnknownMember => {
                self.lose();
                false
            }
            // Its answer was given up for a later heartbeat.
            Reason::ExpectationFailed => true,
            reason if calls::passes(reason) => {
                self.hint = refusal.leader().map(|(spu, address)| (spu, address.to_owned()));
                self.hint.is_none()
            }
            _ => {
                self.publish(|told| told.refused = Some(refusal));
                true
            }
        }
    }

    /// What was owned belongs to others, or will: it joins anew.
    fn lose(&mut self) {
        self.epoch = 0;
        self.publish(|told| {
            told.assigned.clear();
            told.lost += 1;
            told.joined = false;
        });
    }

    fn tell(&self, answer: &v1::GroupHeartbeatResponse, owned: &Owned) {
        let mut assigned = BTreeSet::new();
        for topic in &answer.assigned {
            let Ok(topic_id) = TopicId::from_slice(&topic.topic_id) else { continue };
            assigned.extend(topic.partitions.iter().map(|index| PartitionId { topic_id, index: *index }));
        }
        if owned.lost != self.told.borrow().lost {
            tracing::debug!(group = self.settings.group, "joined again");
        }
        self.publish(|told| {
            told.assigned = assigned;
            told.joined = true;
            told.refused = None;
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Told)) {
        let changed = self.told.send_if_modified(|told| {
            let before = told.clone();
            change(told);
            *told != before
        });
        if changed {
            // A full queue holds the same word.
            let _told_already = self.news.try_send(());
        }
    }

    async fn leave_for_now(&mut self) {
        if self.epoch > 0 {
            tracing::warn!(
                group = self.settings.group,
                "left the group: the application took no record for {} s",
                self.settings.idle_max.as_secs()
            );
            self.leave().await;
            self.lose();
        }
    }

    /// Says good-bye, so that nobody waits for the session to end.
    async fn leave(&mut self) {
        let Some((_, address)) = calls::coordinator(&self.client, &self.settings.group) else { return };
        let Ok(mut groups) = self.connections.group(&address) else { return };
        let request = self.request(&Owned::default(), true);
        let clock = self.client.shared.host.clock.clone();
        // Without an answer the session ends by itself.
        drop(clock.timeout(ATTEMPT_MAX, groups.group_heartbeat(request)).await);
    }
}

pub(super) fn by_topic(partitions: &BTreeSet<PartitionId>) -> Vec<v1::TopicPartitions> {
    let mut topics: Vec<v1::TopicPartitions> = Vec::new();
    for partition in partitions {
        let id = partition.topic_id.to_bytes();
        match topics.last_mut().filter(|topic| topic.topic_id == id) {
            Some(topic) => topic.partitions.push(partition.index),
            None => topics.push(v1::TopicPartitions { topic_id: id, partitions: vec![partition.index] }),
        }
    }
    topics
}
