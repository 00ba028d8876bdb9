//! What scenarios wait for.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_client::{Client, SpuId, VolumeState};

use super::{Run, TOPIC, millis};
use crate::filler::Fill;
use crate::plain::{self, Answer, PlainProducer, Target};

impl Run {
    /// Milliseconds from `from` until every partition of `led` is acknowledged by somebody other than `spu`.
    pub(in crate::scenario) async fn moved_ms(
        &self,
        led: &[u32],
        spu: u32,
        from: Duration,
        limit: Duration,
    ) -> Option<u64> {
        let moved = |run: &Self| {
            let at = |index: &u32| run.first_ack(from, |ack| ack.partition == *index && ack.spu != spu);
            led.iter().map(at).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
        };
        self.until(limit, |run| moved(run).is_some()).await;
        moved(self).map(|at| millis(at.saturating_sub(from)))
    }

    /// As [`Run::moved_ms`], from the first refusal after a fill began.
    pub(in crate::scenario) async fn reroute_ms(&self, led: &[u32], spu: u32, fill: &Fill) -> Option<u64> {
        let began = fill.began()?;
        let refused = self.first_refusal(began).map_or(began, |refused| refused.at);
        self.moved_ms(led, spu, refused, Duration::from_secs(15)).await
    }

    /// Whether a node is in every in-sync set of the judged topic.
    pub(in crate::scenario) fn in_sync(&self, spu: u32) -> bool {
        let image = self.client.metadata();
        image
            .topic_by_name(TOPIC)
            .is_some_and(|topic| topic.partitions.iter().all(|partition| partition.in_sync.contains(&spu)))
    }

    /// Milliseconds from `from` until that is so, at most a minute.
    pub(in crate::scenario) async fn in_sync_ms(&self, spu: u32, from: Duration) -> Option<u64> {
        self.lifted(from);
        let at = self.until(Duration::from_secs(60), |run| run.in_sync(spu)).await?;
        Some(millis(at.saturating_sub(from)))
    }

    /// The state of a node's first volume, by the last committed entry.
    pub(in crate::scenario) fn volume_state(&self, spu: u32) -> VolumeState {
        let image = self.client.metadata();
        let volume = image.spus.get(&SpuId(spu)).and_then(|info| info.volumes.first());
        volume.map_or(VolumeState::Unspecified, plimsoll_proto::v1::VolumeInfo::state)
    }

    /// Records acknowledged within the next `seconds`.
    pub(in crate::scenario) async fn acked_in(&self, seconds: f64) -> u64 {
        let before = self.acked();
        self.pause(seconds).await;
        self.acked() - before
    }

    /// Fails the run unless records go on being acknowledged.
    pub(in crate::scenario) async fn expect_flow(&mut self, when: &str) {
        let acked = self.acked_in(2.0).await;
        self.expect(acked > 0, || format!("nothing is acknowledged {when}"));
    }

    /// Asks the leader of a partition for refusals, one after the other, and takes their times.
    pub(in crate::scenario) async fn probe_refusals(
        &mut self,
        partition: u32,
        count: u32,
    ) -> anyhow::Result<()> {
        let image = self.client.metadata();
        let topic = image.topic_by_name(TOPIC).context("the topic")?;
        let found =
            topic.partitions.iter().find(|found| found.index == partition).context("the partition")?;
        let target = Target {
            address: self.client.spu_address(SpuId(found.leader)).context("a leader's address")?,
            topic_id: topic.topic_id.clone(),
            partition,
            leader_epoch: found.leader_epoch,
        };
        let batch = plain::batch_of(b"{\"refused\":true}", self.host.clock.wall_ms())?;
        let mut producer = PlainProducer::open(&self.host, target).await?;
        for _ in 0..count {
            let asked = self.now();
            let answer = producer.produce(&batch).await;
            self.probed.push(self.now().saturating_sub(asked));
            let refused = matches!(&answer, Answer::Refused(_));
            self.expect(refused, || format!("a full disk answers {answer:?}"));
            self.pause(0.01).await;
        }
        Ok(())
    }

    /// A client of its own, with connections of its own.
    pub(in crate::scenario) async fn another_client(&self) -> anyhow::Result<Client> {
        self.cluster.another_client(&self.host).await
    }

    /// Waits until a node has ended, at most `limit`; whether it did. It can be started again then.
    pub(in crate::scenario) async fn ended_within(
        &mut self,
        spu: u32,
        limit: Duration,
    ) -> anyhow::Result<bool> {
        let deadline = self.now() + limit;
        loop {
            if self.cluster.spu(spu).ended()?.is_some() {
                return Ok(true);
            }
            if self.now() > deadline {
                return Ok(false);
            }
            self.pause(0.05).await;
        }
    }
}
