//! The lane of the coordinators: it alone holds them, and nothing else runs on its thread.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use plimsoll_host::Host;
use plimsoll_proto::group::{OFFSETS_TOPIC, coordinator_partition};
use plimsoll_proto::ids::{PartitionId, SpuId, TopicId};
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::{self, ErrorDetail, Reason};
use plimsoll_storage::offsets::{Change, GroupOffsets, GroupValue};
use tokio::sync::{mpsc, oneshot};

use super::coordinator::{Command, Coordinator};
use super::expiry::Expiry;
use super::group::{Heartbeat, Ticket, Told};
use crate::runtime::{LedOffsets, NodeHandle};

/// Jobs that wait for the lane at most.
const QUEUE: usize = 4096;
/// Longest pause between two turns.
const TICK: Duration = Duration::from_millis(100);
/// The same where no group is coordinated.
const IDLE: Duration = Duration::from_secs(1);
/// How long a note, or the reading of the log at a takeover, may take before it is tried again.
const STORE_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
/// Groups forgotten at one look; the others wait for the next.
const EXPIRED_AT_ONCE: usize = 100;

type Reply<T> = oneshot::Sender<Result<T, ErrorDetail>>;

/// What is asked of the lane.
pub(super) enum Job {
    Heartbeat {
        group: String,
        beat: Heartbeat,
        received_at: Duration,
        reply: Reply<Told>,
    },
    /// Whether these may be committed, and by owners since when.
    MayCommit {
        group: String,
        member_id: String,
        sequence: u64,
        partitions: BTreeSet<PartitionId>,
        reply: Reply<(LedOffsets, BTreeMap<PartitionId, u64>)>,
    },
    /// Whether the group has no members.
    Idle {
        group: String,
        reply: Reply<LedOffsets>,
    },
    /// Who coordinates the group here.
    Led {
        group: String,
        reply: Reply<LedOffsets>,
    },
    /// All partitions that are coordinated here, with the members of their groups.
    Members {
        reply: oneshot::Sender<Vec<(LedOffsets, BTreeMap<String, usize>)>>,
    },
    Describe {
        group: String,
        reply: Reply<(LedOffsets, Option<Described>)>,
    },
}

pub(super) type Described = (u64, Vec<v1::GroupMember>);
type Kept = BTreeMap<String, GroupOffsets>;

/// Something that took a while.
enum Done {
    TookOver(LedOffsets, Result<Kept, ErrorDetail>),
    Noted(LedOffsets, String, bool, Result<(), ErrorDetail>),
    /// What is kept, and what is too old.
    Looked(LedOffsets, u64, Result<Kept, ErrorDetail>),
    Expired(String, Result<(), ErrorDetail>),
}

struct Led {
    led: LedOffsets,
    /// `None` while its log is read.
    coordinator: Option<Coordinator>,
}

struct Lane {
    host: Host,
    node: NodeHandle,
    led: BTreeMap<PartitionId, Led>,
    seen: Option<(u64, u64)>,
    held: BTreeMap<Ticket, oneshot::Sender<Result<Told, ErrorDetail>>>,
    next_ticket: Ticket,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    expiry: Expiry,
}

/// Starts the lane; it ends when nobody holds a sender any more.
pub(super) fn start(host: &Host, node: &NodeHandle, offsets_retention: Duration) -> mpsc::Sender<Job> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    let lane = Lane {
        host: host.clone(),
        node: node.clone(),
        led: BTreeMap::new(),
        seen: None,
        held: BTreeMap::new(),
        next_ticket: 0,
        under_way: FuturesUnordered::new(),
        expiry: Expiry::new(offsets_retention, host.clock.now()),
    };
    host.tasks.spawn_lane("groups", move || Box::pin(lane.run(queue)));
    jobs
}

impl Lane {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let clock = self.host.clock.clone();
        let mut stopping = self.node.stopping();
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                job = queue.recv() => match job {
                    Some(job) => {
                        self.follow_metadata();
                        self.take(job);
                    }
                    None => return,
                },
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => self.done(done),
                () = clock.sleep_until(deadline) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            self.follow_metadata();
            self.tick();
        }
    }

    fn next_deadline(&self) -> Duration {
        let now = self.host.clock.now();
        let due = self.led.values().filter_map(|led| led.coordinator.as_ref()?.next_deadline()).min();
        let tick = if self.led.is_empty() { IDLE } else { TICK };
        due.map_or(now + tick, |due| due.clamp(now, now + tick))
    }

    /// Takes over what this node leads now, and lets go of the rest.
    fn follow_metadata(&mut self) {
        let version = (self.node.metadata().version.0, self.node.identity().1.0);
        if self.seen == Some(version) {
            return;
        }
        self.seen = Some(version);
        let led: BTreeMap<PartitionId, LedOffsets> =
            self.node.led_offsets().into_iter().map(|led| (led.partition, led)).collect();
        let (stay, gone) = std::mem::take(&mut self.led)
            .into_iter()
            .partition(|(partition, kept)| led.get(partition) == Some(&kept.led));
        self.led = stay;
        self.let_go(gone);
        for (partition, led) in led {
            if let Entry::Vacant(vacant) = self.led.entry(partition) {
                vacant.insert(Led { led, coordinator: None });
                self.read_log(led, Duration::ZERO);
            }
        }
    }

    /// Members whose heartbeats are held here are told at once who coordinates their group now: silence would cost them
    /// their session.
    fn let_go(&mut self, gone: BTreeMap<PartitionId, Led>) {
        let image = self.node.metadata();
        let (me, _) = self.node.identity();
        for (partition, Led { coordinator, .. }) in gone {
            for ticket in coordinator.map(Coordinator::let_go).unwrap_or_default() {
                if let Some(reply) = self.held.remove(&ticket) {
                    drop(reply.send(Err(elsewhere(&image, &partition, me))));
                }
            }
        }
    }

    fn read_log(&mut self, led: LedOffsets, pause: Duration) {
        let (node, clock) = (self.node.clone(), self.host.clock.clone());
        self.under_way.push(Box::pin(async move {
            clock.sleep(pause).await;
            Done::TookOver(led, node.read_offsets(led, None, STORE_MAX).await)
        }));
    }

    fn done(&mut self, done: Done) {
        let now = self.host.clock.now();
        let image = self.node.metadata();
        match done {
            Done::TookOver(led, kept) => {
                let Some(here) = self.led.get_mut(&led.partition).filter(|here| here.led == led) else {
                    return;
                };
                match kept {
                    Ok(kept) => {
                        tracing::debug!(partition = %led.partition, groups = kept.len(), "coordinating groups");
                        here.coordinator = Some(Coordinator::new(led.leader_epoch.0, &kept, now));
                    }
                    Err(detail) => {
                        tracing::debug!(partition = %led.partition, why = detail.message, "not coordinating yet");
                        self.read_log(led, RETRY);
                    }
                }
            }
            Done::Noted(led, group, has_members, result) => {
                let here = self.led.get_mut(&led.partition).filter(|here| here.led == led);
                let Some(coordinator) = here.and_then(|here| here.coordinator.as_mut()) else { return };
                let commands = coordinator.noted(&group, has_members, result, now, &image);
                self.obey(led, commands);
            }
            Done::Looked(led, before_ms, kept) => self.forget_dead(led, before_ms, kept),
            Done::Expired(group, Ok(())) => {
                tracing::info!(group, "the offsets of a group that nobody used were forgotten");
            }
            // It is in use again, or the next look finds it.
            Done::Expired(group, Err(detail)) => {
                tracing::debug!(group, why = detail.message, "offsets were not forgotten");
            }
        }
    }

    /// Looks for groups that nobody uses any more, now and then.
    fn look_for_dead(&mut self, now: Duration) {
        let Some(before_ms) = self.expiry.look(now, self.node.cluster_ms()) else { return };
        for led in self.led.values().filter(|here| here.coordinator.is_some()).map(|here| here.led) {
            let node = self.node.clone();
            self.under_way.push(Box::pin(async move {
                Done::Looked(led, before_ms, node.read_offsets(led, None, STORE_MAX).await)
            }));
        }
    }

    fn forget_dead(&mut self, led: LedOffsets, before_ms: u64, kept: Result<Kept, ErrorDetail>) {
        let here = self.led.get(&led.partition).filter(|here| here.led == led);
        let (Some(coordinator), Ok(mut kept)) = (here.and_then(|here| here.coordinator.as_ref()), kept)
        else {
            return;
        };
        for group in coordinator.dead(&kept, before_ms).into_iter().take(EXPIRED_AT_ONCE) {
            let Some(seen) = kept.remove(&group) else { continue };
            let node = self.node.clone();
            self.under_way.push(Box::pin(async move {
                let result = node.expire_offsets(led, group.clone(), seen, STORE_MAX).await;
                Done::Expired(group, result)
            }));
        }
    }

    fn tick(&mut self) {
        let now = self.host.clock.now();
        let image = self.node.metadata();
        self.look_for_dead(now);
        let mut all = Vec::new();
        for here in self.led.values_mut() {
            if let Some(coordinator) = &mut here.coordinator {
                all.push((here.led, coordinator.tick(now, &image)));
            }
        }
        for (led, commands) in all {
            self.obey(led, commands);
        }
        self.held.retain(|_, reply| !reply.is_closed());
    }

    fn obey(&mut self, led: LedOffsets, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Answer(ticket, answer) => {
                    if let Some(reply) = self.held.remove(&ticket) {
                        // A member that has gone needs no answer.
                        drop(reply.send(answer.map_err(|detail| *detail)));
                    }
                }
                Command::Note(group, value) => {
                    let node = self.node.clone();
                    let value = GroupValue { changed_ms: self.host.clock.wall_ms(), ..value };
                    let has_members = value.has_members;
                    let change = Change::Group { group: group.clone(), value: Some(value) };
                    self.under_way.push(Box::pin(async move {
                        let result = node.store_offsets(led, vec![change], STORE_MAX).await;
                        Done::Noted(led, group, has_members, result)
                    }));
                }
            }
        }
    }

    /// The coordinator of a group, or who else has it.
    fn coordinator(&mut self, group: &str) -> Result<(LedOffsets, &mut Coordinator), ErrorDetail> {
        let image = self.node.metadata();
        let partition = partition_of(&image, group)?;
        let (me, _) = self.node.identity();
        match self.led.get_mut(&partition) {
            Some(Led { led, coordinator: Some(coordinator) }) => Ok((*led, coordinator)),
            Some(_) => Err(ErrorDetail::not_written(Reason::NoLeader, "the coordinator is taking over")
                .retry_after(RETRY)),
            None => Err(elsewhere(&image, &partition, me)),
        }
    }

    fn take(&mut self, job: Job) {
        let now = self.host.clock.now();
        match job {
            Job::Heartbeat { group, beat, received_at, reply } => {
                let image = self.node.metadata();
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                match self.coordinator(&group) {
                    Ok((led, coordinator)) => {
                        let commands =
                            coordinator.heartbeat(&group, beat, ticket, received_at.min(now), &image);
                        self.held.insert(ticket, reply);
                        self.obey(led, commands);
                    }
                    // Whoever asked may have gone, here and below.
                    Err(detail) => drop(reply.send(Err(detail))),
                }
            }
            Job::MayCommit { group, member_id, sequence, partitions, reply } => {
                let may = self.coordinator(&group).and_then(|(led, coordinator)| {
                    Ok((led, coordinator.may_commit(&group, &member_id, sequence, &partitions)?))
                });
                drop(reply.send(may));
            }
            Job::Idle { group, reply } => {
                let idle = self
                    .coordinator(&group)
                    .and_then(|(led, coordinator)| coordinator.check_idle(&group).map(|()| led));
                drop(reply.send(idle));
            }
            Job::Led { group, reply } => drop(reply.send(self.coordinator(&group).map(|(led, _)| led))),
            Job::Members { reply } => {
                let members = |here: &Led| {
                    let members = here.coordinator.as_ref()?.members();
                    Some((here.led, members.into_iter().map(|(group, n)| (group.to_owned(), n)).collect()))
                };
                drop(reply.send(self.led.values().filter_map(members).collect()));
            }
            Job::Describe { group, reply } => {
                let described = self
                    .coordinator(&group)
                    .map(|(led, coordinator)| (led, coordinator.describe(&group, now)));
                drop(reply.send(described));
            }
        }
    }
}

/// The partition of the internal topic that a group belongs to.
fn partition_of(image: &MetadataImage, group: &str) -> Result<PartitionId, ErrorDetail> {
    let none =
        || ErrorDetail::not_written(Reason::UnknownTopic, format!("there is no topic {OFFSETS_TOPIC} (yet)"));
    let topic = image.topic_by_name(OFFSETS_TOPIC).ok_or_else(none)?;
    let topic_id = TopicId::from_slice(&topic.topic_id).map_err(|_| none())?;
    let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    Ok(PartitionId { topic_id, index: coordinator_partition(group, partitions) })
}

fn elsewhere(image: &MetadataImage, partition: &PartitionId, me: SpuId) -> ErrorDetail {
    let leader = image.partition(partition).filter(|info| info.leader != 0 && info.leader != me.0);
    match leader {
        Some(info) => {
            let hint = v1::LeaderHint {
                spu_id: info.leader,
                address: image.address(SpuId(info.leader)).unwrap_or_default().to_owned(),
                leader_epoch: info.leader_epoch,
            };
            ErrorDetail::not_written(Reason::NotLeader, format!("SPU {} coordinates the group", info.leader))
                .led_by(Some(hint))
        }
        None => ErrorDetail::not_written(Reason::NoLeader, "nobody coordinates the group now"),
    }
    .retry_after(RETRY)
}
