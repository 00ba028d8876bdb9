//! Members of consumer groups that go on while things break: what their group was given, and what it was told is
//! committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{Client, GroupConsumer, GroupRecord};
use plimsoll_host::{Host, Task};

/// How often a member commits.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// What a group was given of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The first offset that it was not given yet.
    pub next: u64,
    /// Records given again, which a group must expect after a change of members.
    pub repeated: u64,
    /// Records that nobody of the group was given before later ones were.
    pub skipped: u64,
    /// The greatest offset that was acknowledged as committed.
    pub committed: u64,
}

impl Delivered {
    fn take(&mut self, offset: u64) {
        if offset < self.next {
            self.repeated += 1;
        } else {
            self.skipped += offset - self.next;
            self.next = offset + 1;
        }
    }
}

/// What happened to a group.
#[derive(Debug, Default)]
pub struct GroupLog {
    /// By partition.
    pub partitions: BTreeMap<u32, Delivered>,
    /// When each commit was acknowledged, in order of time.
    pub commits: Vec<Duration>,
    /// Commits that were not, and why the last.
    pub failed: (u64, Option<String>),
    /// Why members ended before their time.
    pub ended: Vec<String>,
}

impl GroupLog {
    /// Records given, of a topic that nothing was deleted from.
    pub fn given(&self) -> u64 {
        self.partitions.values().map(|delivered| delivered.next).sum()
    }

    /// Commits acknowledged since then.
    pub fn commits_since(&self, from: Duration) -> usize {
        self.commits.len() - self.commits.partition_point(|at| *at < from)
    }
}

/// A group that reads one topic from its beginning.
#[derive(Debug)]
pub struct GroupLoad {
    host: Host,
    client: Client,
    name: String,
    topic: String,
    shared: Arc<Shared>,
    members: Vec<Task>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<GroupLog>,
    /// What a member does with each record.
    pause_ms: AtomicU64,
    stop: AtomicBool,
    open: AtomicU64,
}

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, GroupLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupLoad {
    /// A group without members.
    pub fn new(host: &Host, client: &Client, name: &str, topic: &str) -> Self {
        Self {
            host: host.clone(),
            client: client.clone(),
            name: name.to_owned(),
            topic: topic.to_owned(),
            shared: Arc::default(),
            members: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every member takes so long for a record from now on.
    pub fn set_pause(&self, pause: Duration) {
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.shared.pause_ms.store(ms, Ordering::Relaxed);
    }

    /// One more member.
    ///
    /// # Errors
    /// When it can't become one.
    pub async fn add_member(&mut self) -> anyhow::Result<()> {
        let builder = self.client.group(&self.name).topics([self.topic.clone()]);
        let builder = builder.auto_commit(None).session_timeout(Duration::from_secs(5));
        let consumer = builder.build().await.with_context(|| format!("a member of {}", self.name))?;
        let (host, shared) = (self.host.clone(), Arc::clone(&self.shared));
        shared.open.fetch_add(1, Ordering::AcqRel);
        let task = self.host.tasks.spawn("member", async move {
            shared.read(&host, consumer).await;
            shared.open.fetch_sub(1, Ordering::AcqRel);
        });
        self.members.push(task);
        Ok(())
    }

    /// Looks at what happened so far.
    pub fn with_log<T>(&self, look: impl FnOnce(&GroupLog) -> T) -> T {
        look(&self.shared.log())
    }

    /// All members commit and leave; [`GroupLoad::has_left`] tells when they have.
    pub fn leave(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Whether no member is left.
    pub fn has_left(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) == 0
    }

    /// Partitions whose committed offset is lower than one that was acknowledged.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn lost_commits(&self) -> anyhow::Result<u64> {
        let committed = self.client.group(&self.name).committed().await.context("committed offsets")?;
        let found: BTreeMap<u32, u64> =
            committed.into_iter().map(|(partition, offset)| (partition.index, offset.get())).collect();
        let log = self.shared.log();
        let lost = log
            .partitions
            .iter()
            .filter(|(index, delivered)| delivered.committed > found.get(index).copied().unwrap_or(0));
        Ok(u64::try_from(lost.count())?)
    }
}

impl Shared {
    async fn read(&self, host: &Host, mut consumer: GroupConsumer) {
        const LOOK_UP: Duration = Duration::from_millis(50);
        // What this member was given last of each partition and has not committed.
        let mut given = BTreeMap::<u32, GroupRecord>::new();
        let mut due = host.clock.now() + COMMIT_EVERY;
        while !self.stop.load(Ordering::Acquire) {
            match host.clock.timeout(LOOK_UP, consumer.next()).await {
                Err(_) => {}
                Ok(Some(Ok(record))) => {
                    let (index, offset) = (record.record.partition, record.record.offset.get());
                    self.log().partitions.entry(index).or_default().take(offset);
                    given.insert(index, record);
                    let pause = self.pause_ms.load(Ordering::Relaxed);
                    if pause > 0 {
                        host.clock.sleep(Duration::from_millis(pause)).await;
                    }
                }
                Ok(Some(Err(error))) => return self.log().ended.push(error.to_string()),
                Ok(None) => return self.log().ended.push("the stream of records ended".to_owned()),
            }
            // What went to others meanwhile is theirs to commit.
            given.retain(|index, _| consumer.assigned().iter().any(|partition| partition.index == *index));
            if host.clock.now() >= due {
                self.commit(host, &mut consumer, std::mem::take(&mut given)).await;
                due = host.clock.now() + COMMIT_EVERY;
            }
        }
        self.commit(host, &mut consumer, given).await;
        drop(consumer.close().await);
    }

    async fn commit(&self, host: &Host, consumer: &mut GroupConsumer, given: BTreeMap<u32, GroupRecord>) {
        for (index, record) in given {
            let committed = consumer.commit_record(&record).await;
            let mut log = self.log();
            match committed {
                Ok(()) => {
                    log.commits.push(host.clock.now());
                    let delivered = log.partitions.entry(index).or_default();
                    delivered.committed = delivered.committed.max(record.record.offset.get() + 1);
                }
                Err(error) => log.failed = (log.failed.0 + 1, Some(error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_again_is_told_from_what_is_left_out() {
        let mut delivered = Delivered::default();
        for offset in [0, 1, 2, 1, 2, 3, 6, 7] {
            delivered.take(offset);
        }
        assert_eq!(delivered, Delivered { next: 8, repeated: 2, skipped: 2, committed: 0 });
    }

    #[test]
    fn commits_are_counted_from_a_time_on() {
        let at = Duration::from_millis;
        let log = GroupLog { commits: vec![at(1), at(2), at(3)], ..GroupLog::default() };
        assert_eq!([0, 2, 4].map(|from| log.commits_since(at(from))), [3, 2, 0]);
    }
}
