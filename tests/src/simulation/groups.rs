//! A consumer group at work during the faults: what was acknowledged of its offsets is never lost and never goes back, and
//! nothing below an offset was left out.

mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_client::{Client, GroupConsumer, GroupError, GroupEvent};
use plimsoll_host::Host;
use plimsoll_proto::v1::Reason;
use tokio::sync::broadcast::Receiver;

use super::observer::{Observer, PARTITIONS, Problem, TOPIC};
use super::servers::controllers;
use super::told::{Phase, Shared};

pub(super) use progress::Progress;

const GROUP: &str = "g";
/// Members, each on a host of its own.
pub(super) const MEMBERS: usize = 2;
/// How long a member waits for an answer: below the length of many faults, so that some commits end as unknown.
const CALL_MAX: Duration = Duration::from_secs(2);
/// Silence after which a member's partitions go to others.
const SESSION: Duration = Duration::from_secs(3);
/// A member stays for this and up to as much again as [`STAYS_MORE`].
const STAYS: Duration = Duration::from_secs(2);
const STAYS_MORE: Duration = Duration::from_secs(6);
/// A member that takes no record for so long makes way for others.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// A member stands still for up to so long, and then commits what it was given before.
const STILL_MAX: Duration = Duration::from_secs(6);
/// Pause before a member commits again.
const COMMIT_EVERY: Duration = Duration::from_millis(300);
/// Pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Pause between two looks at what is committed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Members have left, or a last one has read everything, within this once nothing is in the way.
const END_MAX: Duration = Duration::from_secs(30);

/// A member that comes, reads, commits, stands still at times and goes again, until the producers are done.
pub(super) async fn take_part(host: Host, told: Shared) -> Result<(), Problem> {
    while !told.borrow().topic_exists {
        host.clock.sleep(Duration::from_millis(10)).await;
    }
    let client = connect(&host, &told).await;
    while let (Some(client), false) = (&client, is_over(&told)) {
        let before = told.borrow().group.acknowledged().clone();
        match join(client).await {
            Ok(consumer) => Member { host: &host, told: &told, consumer, before }.stay().await,
            Err(error) => {
                told.borrow_mut().line(host.clock.now(), format!("no member: {error}"));
                host.clock.sleep(AGAIN).await;
            }
        }
    }
    told.borrow_mut().members_left += 1;
    Ok(())
}

fn is_over(told: &Shared) -> bool {
    told.borrow().phase >= Phase::Drain
}

/// `None` when the run was over before the cluster answered.
async fn connect(host: &Host, told: &Shared) -> Option<Client> {
    while !is_over(told) {
        let settings = Client::builder().controllers(controllers()).host(host.clone()).call_timeout(CALL_MAX);
        match settings.build().await {
            Ok(client) => return Some(client),
            Err(_) => host.clock.sleep(AGAIN).await,
        }
    }
    None
}

async fn join(client: &Client) -> Result<GroupConsumer, GroupError> {
    let settings = client.group(GROUP).topics([TOPIC]).auto_commit(None);
    settings.session_timeout(SESSION).idle_max(IDLE_MAX).build().await
}

struct Member<'a> {
    host: &'a Host,
    told: &'a Shared,
    consumer: GroupConsumer,
    /// What was acknowledged before it joined: it begins nowhere below.
    before: BTreeMap<u32, u64>,
}

impl Member<'_> {
    async fn stay(mut self) {
        let (clock, random) = (self.host.clock.clone(), self.host.random.clone());
        let until = clock.now() + STAYS + random.jitter(STAYS_MORE);
        let mut still_at = (random.below(2) == 0).then(|| clock.now() + random.jitter(STAYS));
        let mut commit_at = clock.now() + COMMIT_EVERY;
        let mut events = self.consumer.events();
        let mut delivered = BTreeMap::new();
        while !is_over(self.told) && clock.now() < until {
            let next = clock.timeout(Duration::from_millis(100), self.consumer.next()).await;
            forget_given_up(&mut events, &mut delivered);
            match next {
                Ok(Some(Ok(record))) => {
                    let (partition, offset) = (record.record.partition, record.record.offset.get());
                    self.note_delivered(partition, offset);
                    delivered.insert(partition, offset + 1);
                }
                Ok(Some(Err(error))) => return self.line(format!("a member ended: {error}")),
                Ok(None) => return self.line("a member ended"),
                Err(_) => {}
            }
            if still_at.take_if(|at| clock.now() >= *at).is_some() {
                self.line("a member stands still");
                clock.sleep(random.jitter(STILL_MAX)).await;
                commit_at = clock.now();
            }
            if clock.now() >= commit_at {
                self.commit(&delivered).await;
                commit_at = clock.now() + COMMIT_EVERY;
            }
        }
        let left = self.consumer.close().await;
        self.told.borrow_mut().line(clock.now(), format!("a member leaves: {left:?}"));
    }

    fn note_delivered(&self, partition: u32, offset: u64) {
        let mut told = self.told.borrow_mut();
        if let Some(broken) = told.group.delivered(partition, offset, &self.before) {
            told.broken(self.host.clock.now(), broken);
        }
    }

    async fn commit(&mut self, delivered: &BTreeMap<u32, u64>) {
        let result = self.consumer.commit().await;
        let at = self.host.clock.now();
        let mut told = self.told.borrow_mut();
        match result {
            Ok(()) => {
                told.line(at, format!("committed {delivered:?}"));
                delivered.iter().for_each(|(partition, offset)| told.group.acked(*partition, *offset));
            }
            // Offsets have room of their own on every disk that keeps what was allocated.
            Err(error)
                if !told.copy_on_write
                    && matches!(error.reason(), Some(Reason::DiskFull | Reason::OffsetsFull)) =>
            {
                told.broken(at, format!("a commit met a full disk: {error}"));
            }
            Err(error) => told.line(at, format!("not committed: {error}")),
        }
    }

    fn line(&self, what: impl std::fmt::Display) {
        self.told.borrow_mut().line(self.host.clock.now(), what);
    }
}

/// What a member was told to give up is no longer its own to commit.
fn forget_given_up(events: &mut Receiver<GroupEvent>, delivered: &mut BTreeMap<u32, u64>) {
    while let Ok(event) = events.try_recv() {
        if let GroupEvent::Revoked(partitions) | GroupEvent::Lost(partitions) = event {
            delivered.retain(|index, _| partitions.iter().all(|partition| partition.index != *index));
        }
    }
}

/// Looks throughout at what is committed. Never ends.
pub(super) async fn watch(observer: &Observer) {
    if !observer.told.borrow().grouped {
        return std::future::pending().await;
    }
    loop {
        observer.host.clock.sleep(LOOK_EVERY).await;
        if observer.told.borrow().phase < Phase::Drain {
            drop(look(observer).await);
        }
    }
}

/// Nothing is older than what was acknowledged before the question.
async fn look(observer: &Observer) -> Result<BTreeMap<u32, u64>, GroupError> {
    let before = observer.told.borrow().group.acknowledged().clone();
    let found = observer.client.group(GROUP).committed().await?;
    let found = found.into_iter().map(|(partition, offset)| (partition.index, offset.get())).collect();
    for broken in progress::missing(&before, &found) {
        observer.told.borrow_mut().broken(observer.host.clock.now(), broken);
    }
    Ok(found)
}

/// When everything was answered: a last member reads to the end and commits it, and nothing was left out.
pub(super) async fn judge(observer: &Observer) -> Result<(), Problem> {
    if !observer.told.borrow().grouped {
        return Ok(());
    }
    let clock = &observer.host.clock;
    let until = clock.now() + END_MAX;
    while observer.told.borrow().members_left < MEMBERS {
        if clock.now() > until {
            return Err("members of the group do not leave although nothing is in the way".into());
        }
        clock.sleep(AGAIN).await;
    }
    let found = look(observer).await.map_err(|error| format!("offsets after the faults: {error}"))?;
    if let Some(broken) = observer.told.borrow().group.left_out(&found).into_iter().next() {
        return Err(broken.into());
    }
    let last = async {
        read_to_the_end(observer).await.map_err(|error| format!("a member after the faults: {error}"))
    };
    match clock.timeout(END_MAX, last).await {
        Ok(read) => read?,
        Err(_) => return Err("a member does not reach the end after the faults".into()),
    }
    let found = look(observer).await.map_err(|error| format!("offsets in the end: {error}"))?;
    let ends = observer.told.borrow().ends.clone();
    let all = ends.iter().all(|(partition, end)| found.get(partition).copied().unwrap_or(0) == end.get());
    if !all {
        return Err(format!("{found:?} is committed in the end, not {ends:?}").into());
    }
    observer.line(format!("the group has read up to {found:?}"));
    Ok(())
}

async fn read_to_the_end(observer: &Observer) -> Result<(), Problem> {
    let before = observer.told.borrow().group.acknowledged().clone();
    let ends = observer.told.borrow().ends.clone();
    let mut missing: BTreeSet<u32> = (0..PARTITIONS).collect();
    let consumer = join(&observer.client).await?;
    let mut member = Member { host: &observer.host, told: &observer.told, consumer, before };
    let mut delivered = BTreeMap::new();
    loop {
        let lag = member.consumer.lag().await?;
        for (partition, lag) in lag {
            if lag == 0 {
                missing.remove(&partition.index);
            }
        }
        if missing.is_empty() {
            break;
        }
        while let Ok(next) = observer.host.clock.timeout(AGAIN, member.consumer.next()).await {
            let record = next.ok_or("it ended")??;
            let (partition, offset) = (record.record.partition, record.record.offset.get());
            member.note_delivered(partition, offset);
            delivered.insert(partition, offset + 1);
        }
    }
    member.commit(&delivered).await;
    observer.line(format!("a last member read up to {delivered:?} of {ends:?}"));
    member.consumer.close().await?;
    Ok(())
}
