//! Before the story, and act 1: two topics, one of them filled beforehand, then flights flow.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use plimsoll_client::{OnPressure, Record, TopicConfig};

use super::Story;
use super::{DISK_BYTES, NODES};
use crate::screen::mib;

/// Of each partition of `scratch`: what retention by size keeps.
const SCRATCH_KEPT_BYTES: u64 = 24 << 20;
/// Of each partition of `scratch`: what is written; the oldest part is expired.
const SCRATCH_WRITTEN_BYTES: u64 = 30 << 20;
const SCRATCH_SEGMENT_BYTES: u64 = 2 << 20;
/// Of each record of `scratch`.
pub(super) const SCRATCH_RECORD_BYTES: u64 = 32 << 10;
const PARTITIONS: u32 = 3;
const NORMAL_LASTS: Duration = Duration::from_secs(6);

impl Story {
    /// Creates both topics and fills `scratch`.
    pub(super) async fn prepare(&mut self) -> anyhow::Result<()> {
        self.say(&format!(
            "3 controllers and 3 SPUs run as processes of their own, each SPU on its own {} disk of {}",
            self.cluster.disk_kind().describe(),
            mib(DISK_BYTES)
        ));
        for id in 1..=NODES {
            let line = self.cluster.spu(id).last_lines(1);
            self.board.screen.detail(&line.chars().take(180).collect::<String>());
        }
        let admin = self.board.client.admin();
        let replicated =
            TopicConfig { partitions: PARTITIONS, replicas: NODES, min_in_sync: 2, ..TopicConfig::default() };
        let flights = TopicConfig { on_pressure: OnPressure::Refuse.into(), ..replicated };
        let topic_id = admin.create_topic("flights", flights).await.context("create topic flights")?;
        self.board.evidence.about(topic_id);
        let scratch = TopicConfig {
            retention_bytes: SCRATCH_KEPT_BYTES,
            segment_bytes: SCRATCH_SEGMENT_BYTES,
            on_pressure: OnPressure::Refuse.into(),
            ..replicated
        };
        admin.create_topic("scratch", scratch).await.context("create topic scratch")?;
        self.fill_scratch().await
    }

    async fn fill_scratch(&self) -> anyhow::Result<()> {
        let producer =
            self.board.client.producer("scratch").build().await.context("a producer of scratch")?;
        let payload =
            Bytes::from(vec![b'.'; usize::try_from(SCRATCH_RECORD_BYTES).context("a record's size")?]);
        let records = SCRATCH_WRITTEN_BYTES / SCRATCH_RECORD_BYTES;
        let mut deliveries = FuturesUnordered::new();
        for _ in 0..records {
            for partition in 0..PARTITIONS {
                deliveries.push(producer.send(Record::new(payload.clone()).partition(partition)).await?);
                while deliveries.len() > 256 {
                    deliveries.next().await.transpose()?;
                }
            }
        }
        while let Some(delivered) = deliveries.next().await {
            delivered?;
        }
        producer.close().await;
        let partitions = u64::from(PARTITIONS);
        self.say(&format!(
            "topics: flights (3 partitions, 3 replicas, min_in_sync 2, on_pressure refuse); scratch, filled with {}, of which retention keeps {}",
            mib(SCRATCH_WRITTEN_BYTES * partitions),
            mib(SCRATCH_KEPT_BYTES * partitions)
        ));
        Ok(())
    }

    /// Act 1.
    pub(super) async fn act_normal(&mut self) -> anyhow::Result<()> {
        self.board
            .screen
            .heading("Act 1: normal. Flights flow with idempotence and acks=all; a consumer checks each one");
        let started = self.now();
        let board = &self.board;
        let flowing = board.until(Duration::from_secs(20), || {
            board.replay.acked() > 1_000 && board.with_audit(|a| a.read) > 1_000
        });
        if flowing.await.is_none() {
            bail!(
                "no flights flow: sent {} acked {} read {}",
                board.replay.sent(),
                board.replay.acked(),
                board.with_audit(|audit| audit.read)
            );
        }
        self.host.clock.sleep_until(started + NORMAL_LASTS).await;
        self.cluster.check_alive()?;
        self.say(&format!(
            "{} flights acknowledged, {} read and checked by the consumer",
            self.board.replay.acked(),
            self.board.with_audit(|audit| audit.read)
        ));
        Ok(())
    }
}
