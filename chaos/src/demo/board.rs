//! What is watched during a run: disks, levels, log lines, the consumer. And the panel that shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_client::{Client, SpuId, StartAt};
use plimsoll_host::{Host, Task};
use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::v1::{self, VolumeFacts};

use super::NODES;
use super::audit::Audit;
use super::evidence::Evidence;
use super::replay::Replay;
use crate::cluster::Cluster;
use crate::flights::Flight;
use crate::log_tail::LogTail;
use crate::rig::Disk;
use crate::screen::{Colour, Screen, gauge, mib};

/// Shared between the watching tasks and the story.
pub(super) struct Board {
    pub(super) host: Host,
    pub(super) screen: Screen,
    pub(super) client: Client,
    pub(super) replay: Arc<Replay>,
    pub(super) evidence: Arc<Evidence>,
    audit: Mutex<Audit>,
    consumer_failed: Mutex<Option<String>>,
    volumes: Vec<Disk>,
    foreign_bytes: Vec<AtomicU64>,
    facts: Mutex<BTreeMap<u32, VolumeFacts>>,
    logs: Mutex<Vec<LogTail>>,
}

impl Board {
    pub(super) fn new(
        host: Host,
        screen: Screen,
        client: Client,
        replay: Arc<Replay>,
        cluster: &Cluster,
        flights: Arc<Vec<Flight>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            evidence: Evidence::new(Arc::clone(&flights)),
            host,
            screen,
            client,
            replay,
            audit: Mutex::new(Audit::new(flights)),
            consumer_failed: Mutex::new(None),
            volumes: (1..=NODES).map(|id| cluster.disk(id).clone()).collect(),
            foreign_bytes: (1..=NODES).map(|_| AtomicU64::new(0)).collect(),
            facts: Mutex::default(),
            logs: Mutex::new(cluster.spu_logs().iter().map(|path| LogTail::new(path)).collect()),
        })
    }

    /// Starts the watching tasks; they end when dropped.
    pub(super) fn watch(self: &Arc<Self>) -> Vec<Task> {
        let tasks = &self.host.tasks;
        vec![
            tasks.spawn("consumer", Arc::clone(self).consume()),
            tasks.spawn("levels", Arc::clone(self).poll_levels()),
            tasks.spawn("logs", Arc::clone(self).poll_logs()),
            tasks.spawn("panel", Arc::clone(self).draw()),
        ]
    }

    /// Looks at what the consumer has read so far.
    pub(super) fn with_audit<T>(&self, look: impl FnOnce(&Audit) -> T) -> T {
        look(&self.audit.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the consumer ended before its time, if it did.
    pub(super) fn consumer_failed(&self) -> Option<String> {
        self.consumer_failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Last known facts of a node's volume.
    pub(super) fn facts(&self, spu: u32) -> Option<VolumeFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(&spu).cloned()
    }

    /// Level of a node's volume by its last heartbeat.
    pub(super) fn level(&self, spu: u32) -> Option<DiskLevel> {
        self.facts(spu)?.level().known()
    }

    /// What a foreign writer has taken on a node's disk, for the gauge.
    pub(super) fn set_foreign(&self, spu: u32, bytes: u64) {
        if let Some(cell) = self.foreign_bytes.get(usize::try_from(spu).unwrap_or(0).saturating_sub(1)) {
            cell.store(bytes, Ordering::Relaxed);
        }
    }

    /// Log lines of a node in a half-open span of time.
    pub(super) fn log_lines(&self, spu: u32, from: Duration, to: Duration) -> Vec<String> {
        let now = self.host.clock.now();
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tail) = logs.get_mut(usize::try_from(spu).unwrap_or(0).saturating_sub(1)) else {
            return Vec::new();
        };
        tail.poll(now);
        tail.between(from, to).map(|line| line.text.clone()).collect()
    }

    /// Polls `condition` until it holds, at most `limit`; when that was.
    pub(super) async fn until(
        &self,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Option<Duration> {
        let deadline = self.host.clock.now() + limit;
        loop {
            let now = self.host.clock.now();
            if condition() {
                return Some(now);
            }
            if now >= deadline {
                return None;
            }
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    async fn consume(self: Arc<Self>) {
        let consumer = self.client.consumer("flights").start(StartAt::Earliest).build().await;
        let why = match consumer {
            Err(error) => error.to_string(),
            Ok(mut consumer) => loop {
                match consumer.next().await {
                    Some(Ok(record)) => {
                        self.evidence.read(&record);
                        self.audit.lock().unwrap_or_else(PoisonError::into_inner).take(&record)
                    }
                    Some(Err(error)) => break error.to_string(),
                    None => break "the consumer ended".to_owned(),
                }
            },
        };
        *self.consumer_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    async fn poll_levels(self: Arc<Self>) {
        let admin = self.client.admin().timeout(Duration::from_secs(2));
        loop {
            if let Ok(Ok(status)) =
                self.host.clock.timeout(Duration::from_secs(3), admin.cluster_status()).await
            {
                let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
                for spu in &status.spus {
                    if let (Some(info), Some(volume)) = (&spu.info, spu.volumes.first()) {
                        facts.insert(info.spu_id, volume.clone());
                    }
                }
            }
            self.host.clock.sleep(Duration::from_millis(100)).await;
        }
    }

    async fn poll_logs(self: Arc<Self>) {
        loop {
            let now = self.host.clock.now();
            for tail in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                tail.poll(now);
            }
            self.host.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    async fn draw(self: Arc<Self>) {
        let mut before = (self.host.clock.now(), 0);
        loop {
            self.host.clock.sleep(Duration::from_millis(250)).await;
            let now = (self.host.clock.now(), self.replay.acked());
            let rate = rate_per_s(now.1.saturating_sub(before.1), now.0.saturating_sub(before.0));
            before = now;
            let lines = self.panel(rate);
            self.screen.panel(&lines);
        }
    }

    fn panel(&self, rate: u64) -> Vec<String> {
        // What stands beside the gauge takes about so much.
        let cells = self.screen.columns().saturating_sub(68).clamp(10, 40);
        let image = self.client.metadata();
        let mut lines = Vec::new();
        for (id, disk) in (1u32..).zip(&self.volumes) {
            let Ok(space) = disk.space() else { continue };
            let foreign =
                self.foreign_bytes.get(lines.len()).map_or(0, |bytes| bytes.load(Ordering::Relaxed));
            let own = space.capacity_bytes.saturating_sub(space.free_bytes).saturating_sub(foreign);
            let level = self.level(id);
            let colour = match level {
                Some(DiskLevel::Normal) => Colour::Green,
                Some(DiskLevel::Reclaim | DiskLevel::Throttle) => Colour::Yellow,
                Some(DiskLevel::ReadOnly | DiskLevel::Failed) => Colour::Red,
                None => Colour::Dim,
            };
            let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
            let leads = partitions.clone().filter(|partition| partition.leader == id).count();
            let in_sync = partitions.filter(|partition| partition.in_sync.contains(&id)).count();
            let state =
                image.spus.get(&SpuId(id)).and_then(|spu| spu.volumes.first()).map(v1::VolumeInfo::state);
            lines.push(format!(
                "  spu {id} {} {:>9} free {:<9} {:<13} leads {leads} in sync {in_sync}",
                self.screen.paint(colour, &gauge(own, foreign, space.capacity_bytes, cells)),
                mib(space.free_bytes),
                level.map_or_else(|| "?".to_owned(), |level| level.to_string()),
                state.map_or("?", state_name),
            ));
        }
        let read = self.with_audit(|audit| audit.read);
        let controller =
            image.controller_leader.as_ref().map_or_else(|| "none".to_owned(), |(id, _)| id.to_string());
        lines.push(format!(
            "  flights acked {} ({rate}/s), read {read}; controller {controller}  # own x foreign . free",
            self.replay.acked()
        ));
        lines
    }
}

fn rate_per_s(count: u64, span: Duration) -> u64 {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000) / ms
}

/// The committed state of a volume, for people.
pub(super) fn state_name(state: v1::VolumeState) -> &'static str {
    match state {
        v1::VolumeState::Unspecified => "?",
        v1::VolumeState::Writable => "writable",
        v1::VolumeState::WriteOffline => "write-offline",
        v1::VolumeState::Stalled => "stalled",
        v1::VolumeState::Failed => "failed",
    }
}
