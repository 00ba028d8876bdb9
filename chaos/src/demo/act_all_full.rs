//! Act 4: all three disks are full, and a topic nobody needs is deleted.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::NODES;
use super::refusal_probe::{RefusalProbe, in_full};
use super::{Story, millis};
use crate::filler::Filler;

const REFUSED_LIMIT: Duration = Duration::from_secs(15);
const RECOVER_LIMIT: Duration = Duration::from_secs(15);
const FULL_LASTS: Duration = Duration::from_secs(3);

impl Story {
    /// Act 4.
    pub(super) async fn act_all_full(&mut self) -> anyhow::Result<()> {
        self.board.screen.heading("Act 4: all three disks are full");
        let from = self.now();
        let index_before = self.applied_index().await?;
        let mut probes = Vec::new();
        for id in 1..=NODES {
            let target = self.probe_target(id);
            probes.push((id, target.map(|target| RefusalProbe::start(&self.host, target))));
        }
        let fillers = self.fill_all().await?;
        self.all_refused(&mut probes, from, &fillers).await?;
        self.host.clock.sleep(FULL_LASTS).await;
        self.still_works().await?;
        for id in 1..=NODES {
            let entries = self.write_offline_entries(id, index_before).await?;
            if entries != 1 {
                self.figures.failures.push(format!(
                    "{entries} write-offline entries for the fill of spu {id} in act 4, not 1"
                ));
            }
        }
        for (_, probe) in probes.drain(..) {
            let told = probe.map(|probe| probe.told()).unwrap_or_default();
            self.count_refusals(&told);
        }
        self.delete_scratch(from).await?;
        for (id, filler) in (1u32..).zip(fillers) {
            filler.filler.remove()?;
            self.board.set_foreign(id, 0);
        }
        for id in 1..=NODES {
            self.end_episode(id, from).await;
        }
        self.cluster.check_alive()
    }

    async fn fill_all(&mut self) -> anyhow::Result<Vec<Filled>> {
        let mut fillers = Vec::new();
        for id in 1..=NODES {
            let mark = self.read_only_mark(id, &self.space(id)?);
            fillers.push((id, mark, Filler::create(self.cluster.disk(id))?));
        }
        let story = &*self;
        let fills = futures::future::join_all(
            fillers.iter_mut().map(|(id, mark, filler)| story.fill(*id, filler, *mark)),
        );
        let fills = fills.await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut filled = Vec::new();
        for ((id, mark, filler), fill) in fillers.into_iter().zip(fills) {
            self.note_full(id, &fill, mark);
            filled.push(Filled { filler, began: fill.began().context("a disk never became full")? });
        }
        Ok(filled)
    }

    /// Every producer, the replaying one and a plain one at each node, gets the typed error with a time to wait.
    async fn all_refused(
        &mut self,
        probes: &mut [(u32, Option<RefusalProbe>)],
        from: Duration,
        fillers: &[Filled],
    ) -> anyhow::Result<()> {
        let board = &self.board;
        let plain =
            || probes.iter().all(|(_, probe)| probe.as_ref().is_none_or(|probe| probe.first().is_some()));
        let replay = || board.replay.with_log(|log| log.first_disk_full(from).cloned());
        board.until(REFUSED_LIMIT, || plain() && replay().is_some()).await;
        let Some(refused) = replay() else {
            bail!("the replaying producer got no DISK_FULL with all disks full")
        };
        for ((id, probe), filled) in probes.iter().zip(fillers) {
            let Some(probe) = probe else { continue };
            let Some(first) = probe.first() else {
                bail!(
                    "spu {id} refused nothing within {} s of its fill: {:?}",
                    REFUSED_LIMIT.as_secs(),
                    probe.told()
                );
            };
            let detect = millis(first.at.saturating_sub(filled.began));
            self.figures.detect_ms = self.figures.detect_ms.max(Some(detect));
            if first.detail.retry_after_ms == 0 {
                self.figures.failures.push(format!("the refusal of spu {id} in act 4 has no retry_after"));
            }
        }
        self.say("every producer gets the typed error and how long to wait. The replaying one got:");
        self.board.screen.detail(&in_full(refused.refusal.detail()));
        if refused.refusal.retry_after().is_none() {
            self.figures.failures.push("the refusal of the replaying producer has no retry_after".to_owned());
        }
        Ok(())
    }

    /// Reads, list and describe work with every disk full.
    async fn still_works(&mut self) -> anyhow::Result<()> {
        let board = &self.board;
        let caught_up = board.until(Duration::from_secs(5), || {
            u64::try_from(board.with_audit(|audit| audit.read)).unwrap_or(0) >= board.replay.acked()
        });
        if caught_up.await.is_none() {
            self.figures
                .failures
                .push("the consumer did not read all acknowledged flights with all disks full".to_owned());
        }
        for arguments in [&["topic", "list"][..], &["topic", "describe", "flights"]] {
            let printed = self.cluster.command_line(arguments).await?;
            self.say(&format!("plimsoll {}", arguments.join(" ")));
            self.board.screen.detail(&printed.lines().take(6).collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }

    async fn delete_scratch(&mut self, from: Duration) -> anyhow::Result<()> {
        let mut baselines = Vec::new();
        for id in 1..=NODES {
            baselines.push(self.log_ends(id).await?);
        }
        self.cluster.command_line(&["topic", "delete", "scratch"]).await?;
        let deleted = self.now();
        self.say("plimsoll topic delete scratch");
        let story = &*self;
        let waits = (1u32..)
            .zip(&baselines)
            .map(|(id, baseline)| story.first_batch_again(id, deleted, baseline, RECOVER_LIMIT));
        let again = futures::future::join_all(waits).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        self.act_four.push((from, self.now()));
        let Some(last) = again.into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
        else {
            self.figures.recover_ms = None;
            bail!("not every volume took a batch within {} s of the deletion", RECOVER_LIMIT.as_secs());
        };
        let took = last.saturating_sub(deleted);
        self.figures.recover_ms = self.figures.recover_ms.map(|ms| ms.max(millis(took)));
        self.say(&format!(
            "all three volumes take batches again {} ms later, by themselves",
            took.as_millis()
        ));
        Ok(())
    }
}

struct Filled {
    filler: Filler,
    began: Duration,
}
