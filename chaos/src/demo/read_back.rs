//! The end: the rest of the flights, then every flight from every replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use plimsoll_client::{Offset, SpuId, StartAt};
use plimsoll_history::Payload;

use super::NODES;
use super::Story;
use super::audit::Audit;
use super::volumes::led_by;
use crate::flights::Flight;
use crate::plain;

const REST_PER_S: u64 = 60_000;
const REST_LIMIT: Duration = Duration::from_secs(40);
const REPLICAS_LIMIT: Duration = Duration::from_secs(20);
const READ_LIMIT: Duration = Duration::from_secs(40);

impl Story {
    /// Sends what is left, waits for the consumer, reads every replica and compares.
    pub(super) async fn read_back(&mut self, flights: &Arc<Vec<Flight>>) -> anyhow::Result<()> {
        self.board
            .screen
            .heading("End: the rest of the flights, then every flight is read back from every replica");
        let board = Arc::clone(&self.board);
        board.replay.pace(REST_PER_S, u64::MAX);
        if board.until(REST_LIMIT, || board.replay.finished()).await.is_none() {
            bail!(
                "{} of {} flights are acknowledged after {} s",
                board.replay.acked(),
                flights.len(),
                REST_LIMIT.as_secs()
            );
        }
        let acked = board.replay.acked_flights();
        let expected = usize::try_from(board.replay.acked()).context("a count")?;
        board.until(REST_LIMIT, || board.with_audit(|audit| audit.read) >= expected).await;
        self.wait_replicas().await?;

        let mut audits =
            vec![("the consumer".to_owned(), board.with_audit(|audit| Verdict::of(audit, &acked)))];
        let story = &*self;
        let readers = (1..=NODES).map(|id| story.read_replica(id, flights));
        for (id, audit) in (1u32..).zip(futures::future::join_all(readers).await) {
            let audit = audit.with_context(|| format!("replica of spu {id}"))?;
            audits.push((format!("the replica of spu {id}"), Verdict::of(&audit, &acked)));
        }
        self.judge_readers(&audits);
        let violations = board.evidence.violations();
        self.say(&format!("the history checker: {} broken promises", violations.len()));
        self.figures.failures.extend(violations.into_iter().take(5).map(|what| format!("history: {what}")));
        Ok(())
    }

    /// Waits until every replica knows that everything is committed.
    async fn wait_replicas(&self) -> anyhow::Result<()> {
        let topic_id = self.topic_id("flights")?;
        let deadline = self.now() + REPLICAS_LIMIT;
        for id in 1..=NODES {
            let address = self.address(id)?;
            for partition in 0..3 {
                let wanted = self.board.with_audit(|audit| audit.next_offset(partition));
                loop {
                    let ends = plain::ends(&self.host, &address, &topic_id, partition).await?;
                    if ends.high_watermark >= wanted {
                        break;
                    }
                    if self.now() > deadline {
                        bail!("spu {id} has partition {partition} up to {} of {wanted}", ends.high_watermark);
                    }
                    self.host.clock.sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(())
    }

    async fn read_replica(&self, spu: u32, flights: &Arc<Vec<Flight>>) -> anyhow::Result<Audit> {
        let reading = async {
            let consumer = self.board.client.consumer("flights").replica(SpuId(spu));
            let mut consumer = consumer.start(StartAt::Earliest).until_end().build().await?;
            let mut audit = Audit::new(Arc::clone(flights));
            let mut held: BTreeMap<u32, Vec<(Offset, Payload)>> = BTreeMap::new();
            while let Some(record) = consumer.next().await {
                let record = record?;
                audit.take(&record);
                held.entry(record.partition)
                    .or_default()
                    .push((record.offset, self.board.evidence.payload(&record)));
            }
            self.hold(spu, &audit, held)?;
            anyhow::Ok(audit)
        };
        self.host.clock.timeout(READ_LIMIT, reading).await.context("not read to its end in time")?
    }

    /// Hands what a replica holds to the history checker.
    fn hold(
        &self,
        spu: u32,
        audit: &Audit,
        held: BTreeMap<u32, Vec<(Offset, Payload)>>,
    ) -> anyhow::Result<()> {
        let image = self.board.client.metadata();
        for (partition, records) in held {
            let leader = led_by(&image, "flights", spu).contains(&partition);
            let end = Offset::new(audit.next_offset(partition)).context("an offset")?;
            self.board.evidence.held(spu, partition, leader, end, records);
        }
        Ok(())
    }

    fn judge_readers(&mut self, readers: &[(String, Verdict)]) {
        let mut complete = usize::MAX;
        for (name, reader) in readers {
            self.say(&format!(
                "{name}: {} flights, {} lost, {} twice, {} out of order",
                reader.read, reader.lost, reader.duplicates, reader.reordered
            ));
            complete = complete.min(reader.read);
            self.figures.lost = self.figures.lost.max(reader.lost);
            self.figures.duplicates = self.figures.duplicates.max(reader.duplicates);
            self.figures.reordered = self.figures.reordered.max(reader.reordered);
            if reader.phantoms > 0 {
                self.figures.failures.push(format!(
                    "{name} has {} records that nobody was told were written",
                    reader.phantoms
                ));
            }
            if let Some(wrong) = &reader.first_wrong {
                self.figures.failures.push(format!("{name}: {wrong}"));
            }
        }
        self.figures.read = u64::try_from(complete).unwrap_or(0);
    }
}

/// What came of one reader.
struct Verdict {
    read: usize,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    phantoms: u64,
    first_wrong: Option<String>,
}

impl Verdict {
    fn of(audit: &Audit, acked: &[bool]) -> Self {
        let lost = acked.iter().enumerate().filter(|(number, acked)| **acked && !audit.has(*number)).count();
        Self {
            read: audit.read,
            lost: u64::try_from(lost).unwrap_or(u64::MAX),
            duplicates: audit.duplicates,
            reordered: audit.reordered,
            phantoms: audit.phantoms,
            first_wrong: audit.first_wrong.clone(),
        }
    }
}
