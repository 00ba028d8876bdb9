//! Act 3: the foreign file is gone.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;

use super::act_one_full::FullDisk;
use super::volumes::{all_in_sync, leaderships};
use super::{Episode, Story, millis};

const WRITABLE_LIMIT: Duration = Duration::from_secs(15);
const IN_SYNC_LIMIT: Duration = Duration::from_secs(20);
const LEADERS_LIMIT: Duration = Duration::from_secs(30);

impl Story {
    /// Act 3.
    pub(super) async fn act_recovery(&mut self, full: FullDisk) -> anyhow::Result<()> {
        self.board.screen.heading("Act 3: the foreign file is removed; nobody touches the cluster");
        let FullDisk { spu, filler, led, from } = full;
        let baseline = self.log_ends(spu).await?;
        let held: u64 = baseline.values().sum();
        self.say(&format!("its replicas hold {held} of {} acknowledged flights", self.board.replay.acked()));
        filler.remove()?;
        let removed = self.now();
        self.board.set_foreign(spu, 0);

        match self.first_batch_again(spu, removed, &baseline, WRITABLE_LIMIT).await? {
            Some(at) => {
                let took = at.saturating_sub(removed);
                self.figures.recover_ms = Some(millis(took));
                self.say(&format!(
                    "the volume takes batches again {} ms after the unlink, same process",
                    took.as_millis()
                ));
            }
            None => self
                .figures
                .failures
                .push(format!("spu {spu} took no batch within {} s of the unlink", WRITABLE_LIMIT.as_secs())),
        }
        let client = &self.board.client;
        if client.wait_metadata(IN_SYNC_LIMIT, |image| all_in_sync(image, spu)).await {
            let took = self.now().saturating_sub(removed);
            self.figures.in_sync_ms = Some(millis(took));
            self.say(&format!(
                "caught up: its replicas are in every in-sync set {} ms after the unlink",
                took.as_millis()
            ));
        }
        if client.wait_metadata(LEADERS_LIMIT, |image| leaderships(image, spu) >= led).await {
            let took = self.now().saturating_sub(removed);
            self.figures.leaders_back_ms = Some(millis(took));
            self.say(&format!("it leads {led} partitions again {} ms after the unlink", took.as_millis()));
        }
        self.end_episode(spu, from).await;
        self.cluster.check_alive()
    }

    /// Waits for Normal and closes the episode of a disk that began at `from`.
    pub(super) async fn end_episode(&mut self, spu: u32, from: Duration) {
        const LIMIT: Duration = Duration::from_secs(15);
        let board = &self.board;
        let normal = board.until(LIMIT, || board.level(spu) == Some(DiskLevel::Normal)).await;
        if normal.is_none() {
            let level = board.level(spu);
            self.figures.failures.push(format!("the disk of spu {spu} is at {level:?}, not back to normal"));
        }
        // The line about it may come a moment later than the heartbeat.
        self.host.clock.sleep(Duration::from_millis(300)).await;
        let to = self.now();
        self.episodes.push(Episode { spu, from, to });
    }
}
