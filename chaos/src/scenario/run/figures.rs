//! Figures that every run has, whatever it plays.

use std::os::unix::fs::MetadataExt as _;
use std::sync::PoisonError;
use std::time::Duration;

use plimsoll_proto::v1::Reason;

use super::super::bars::Bar;
use super::{Run, millis};
use crate::workload::{Log, Refused};

/// What a producer waits before its waiting counts: what was under way is refused in this time, and leaders still move.
const ONSET: Duration = Duration::from_secs(3);
/// And what it meets at the end does not count: disks that come back one after the other wake everybody.
const RECOVERY: Duration = Duration::from_secs(1);
/// Shorter waits tell nothing of a rate.
const WAIT_MIN: Duration = Duration::from_secs(5);
/// Changes of level are counted in spans of this length.
const CHANGES_SPAN: Duration = Duration::from_secs(600);

impl Run {
    /// Notes a bar's figure.
    pub(in crate::scenario) fn bar(&mut self, bar: Bar, value: Option<u64>) {
        self.figure(bar.figure(), value, Some(bar.at_most()));
    }

    pub(super) async fn take_figures(&mut self) {
        self.take_log_lines();
        self.take_refusals();
        self.take_open_files();
        if let Err(error) = self.take_events().await {
            self.outcome.reasons.push(format!("the events of the cluster: {error:#}"));
        }
    }

    fn take_log_lines(&mut self) {
        if !self.episodes.is_empty() {
            let lines = self.episodes.iter().map(|(spu, from, to)| self.log_lines(*spu, *from, *to));
            let most = lines.max();
            self.bar(Bar::LogLines, most);
        }
    }

    fn take_refusals(&mut self) {
        let mut after = std::mem::take(&mut self.probed);
        let (mut refused, mut waited) = (0u64, Duration::ZERO);
        let mut reasons = std::collections::BTreeMap::<_, u64>::new();
        for load in &self.loads {
            load.with_log(|log| {
                after.extend(of_requests_to_full_disks(log));
                for refused in &log.refused {
                    *reasons.entry(plimsoll_proto::status::reason_name(refused.reason)).or_default() += 1;
                }
                let (count, time) = while_waiting(log);
                refused += count;
                waited += time;
            });
        }
        if !reasons.is_empty() {
            self.say(&format!("refused: {reasons:?}"));
        }
        self.outcome.refusals(&mut after);
        match refused.saturating_mul(100).checked_div(waited.as_secs()) {
            Some(rate) => self.bar(Bar::RefusedWhileWaiting, Some(rate)),
            None => self.not_applicable(Bar::RefusedWhileWaiting.figure(), "no producer waited for 5 s"),
        }
    }

    fn take_open_files(&mut self) {
        let (mut deleted, mut deleted_bytes, mut more, mut sockets) = (0u64, 0u64, 0u64, 0u64);
        for (spu, before) in self.open_before.clone() {
            let open = self.open_of(spu);
            deleted += open.deleted;
            deleted_bytes += open.deleted_bytes;
            more = more.max(open.files.saturating_sub(before.files));
            sockets = sockets.max(open.others.saturating_sub(before.others));
        }
        self.bar(Bar::DeletedButOpen, Some(deleted));
        self.bar(Bar::DeletedButOpenBytes, Some(deleted_bytes));
        self.bar(Bar::OpenFiles, Some(more));
        self.bar(Bar::OtherDescriptors, Some(sockets));
        let held = self.recorder.held_recoveries();
        self.figure("held_recoveries", Some(held), None);
    }

    /// What a node has open.
    pub(in crate::scenario) fn open_of(&mut self, spu: u32) -> OpenFiles {
        /// Unit of `st_blocks` (stat(2)).
        const BLOCK_BYTES: u64 = 512;
        let mut open = OpenFiles::default();
        let Some(pid) = self.cluster.spu(spu).pid() else { return open };
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            if !target.is_absolute() || target.starts_with("/dev") {
                open.others += 1;
                continue;
            }
            open.files += 1;
            if target.to_string_lossy().ends_with(" (deleted)") {
                open.deleted += 1;
                // Through the descriptor, whatever stands at its former path.
                let found = std::fs::metadata(entry.path());
                open.deleted_bytes += found.map_or(0, |found| found.blocks() * BLOCK_BYTES);
            }
        }
        open
    }

    async fn take_events(&mut self) -> anyhow::Result<()> {
        let events = self.client.admin().list_events(self.applied_before, 10_000).await?;
        let dead = events.iter().filter(|event| {
            event.kind == "spu_state"
                && event.to.starts_with("offline")
                && !self.silenced.contains(&event.spu_id)
        });
        let dead = u64::try_from(dead.count())?;
        self.bar(Bar::Liveness, Some(dead));
        let mut volumes = std::collections::BTreeMap::<_, Vec<u64>>::new();
        for event in events.iter().filter(|event| event.kind == "volume_state") {
            volumes.entry((event.spu_id, event.volume_id.clone())).or_default().push(event.time_ms);
        }
        let most = volumes.values().map(|times| most_within(times, millis(CHANGES_SPAN))).max();
        let most = most.unwrap_or(0).max(self.logged_changes());
        self.bar(Bar::LevelChanges, Some(most));
        Ok(())
    }

    /// Changes of level that the nodes tell of, of the worst volume.
    fn logged_changes(&self) -> u64 {
        let mut volumes = std::collections::BTreeMap::<(usize, String), Vec<u64>>::new();
        for (node, log) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter().enumerate() {
            for line in log.lines() {
                let Some((volume, changes)) = changes_told(&line.text) else { continue };
                let times = volumes.entry((node, volume.to_owned())).or_default();
                times.extend((0..changes).map(|_| millis(line.seen)));
            }
        }
        volumes.values().map(|times| most_within(times, millis(CHANGES_SPAN))).max().unwrap_or(0)
    }
}

/// Which volume a log line tells changes of level of, and how many: levels crossed within a second share a line.
fn changes_told(line: &str) -> Option<(&str, u64)> {
    const MANY: u64 = 10_000;
    let value = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
    let changes = value("changes=")?.parse::<u64>().ok()?;
    line.contains("disk level changed").then_some((value("volume=")?, changes.min(MANY)))
}

/// What a process has open.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::scenario) struct OpenFiles {
    /// Regular files and directories.
    files: u64,
    /// Of these, deleted ones, and the bytes of the disk that they hold.
    deleted: u64,
    deleted_bytes: u64,
    /// Sockets and the like.
    others: u64,
}

/// Refusals of what one producer asked while it waited, and how long that was, over all partitions. What was on its way
/// before, and is answered late, is no asking. The refusal that begins a count is not part of it, as the first fence post.
fn while_waiting(log: &Log) -> (u64, Duration) {
    let mut partitions: Vec<u32> = log.refused.iter().map(|refused| refused.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let (mut count, mut time) = (0, Duration::ZERO);
    for partition in partitions {
        let of_partition = || log.refused.iter().filter(|refused| refused.partition == partition);
        let refused: Vec<Duration> = of_partition().map(|found| found.at).collect();
        let asked: Vec<Duration> = of_partition().map(|found| found.at.saturating_sub(found.after)).collect();
        let acked: Vec<Duration> =
            log.acks.iter().filter(|ack| ack.partition == partition).map(|ack| ack.at).collect();
        let mut from = 0;
        while let Some(first) = refused.get(from) {
            let next = acked.get(acked.partition_point(|at| at <= first)).copied();
            let to = next.map_or(refused.len(), |at| refused.partition_point(|refused| *refused < at));
            let steady = first.saturating_add(ONSET);
            let end = next.or(refused.last().copied()).unwrap_or(steady).saturating_sub(RECOVERY);
            if end >= steady.saturating_add(WAIT_MIN) {
                let asked = asked.get(from..to).unwrap_or_default();
                let within = asked.iter().filter(|at| **at >= steady && **at < end);
                count += u64::try_from(within.count()).unwrap_or(u64::MAX).saturating_sub(1);
                time += end.saturating_sub(steady);
            }
            from = to.max(from + 1);
        }
    }
    (count, time)
}

/// How long the refusals took whose requests were sent after the node had begun to refuse. What was under way when
/// its disk became full may have been held back by Throttle, up to a second.
pub(in crate::scenario) fn of_requests_to_full_disks(log: &Log) -> impl Iterator<Item = Duration> {
    let mut first = std::collections::BTreeMap::new();
    let for_space = |refused: &&Refused| matches!(refused.reason, Reason::DiskFull | Reason::NotEnoughInSync);
    log.refused.iter().filter(for_space).filter_map(move |refused| {
        let began = *first.entry(refused.spu).or_insert(refused.at);
        (refused.at.saturating_sub(refused.after) >= began).then_some(refused.after)
    })
}

/// The most of `times` that lie within a span.
fn most_within(times: &[u64], span: u64) -> u64 {
    let within = |start: &u64| times.iter().filter(|at| **at >= *start && **at - *start < span).count();
    u64::try_from(times.iter().map(within).max().unwrap_or(0)).unwrap_or(u64::MAX)
}

/// A percentile of sorted values.
pub(in crate::scenario) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Ack;

    fn log(refused_ms: &[u64], acked_ms: &[u64]) -> Log {
        let at = Duration::from_millis;
        Log {
            acks: acked_ms.iter().map(|ms| Ack { at: at(*ms), partition: 0, spu: 1 }).collect(),
            refused: refused_ms
                .iter()
                .map(|ms| Refused {
                    at: at(*ms),
                    partition: 0,
                    spu: 1,
                    reason: Reason::DiskFull,
                    after: at(1),
                })
                .collect(),
            ..Log::default()
        }
    }

    #[test]
    fn only_long_waits_count_and_only_after_their_onset() {
        for (refused, acked, expected) in [
            (vec![], vec![100], (0, 0)),
            (vec![1_000, 1_100, 2_000], vec![900, 4_000], (0, 0)),
            (vec![1_000, 1_100, 6_000, 11_000], vec![12_500], (1, 7_500)),
            (vec![1_000, 6_000, 11_000, 30_000], vec![12_500, 31_000], (1, 7_500)),
        ] {
            let (count, time) = while_waiting(&log(&refused, &acked));
            assert_eq!((count, millis(time)), expected, "{refused:?} {acked:?}");
        }
    }

    #[test]
    fn what_was_under_way_before_the_wait_is_no_asking() {
        let mut log = log(&[1_000, 6_000, 11_000, 11_000, 11_000], &[12_500]);
        for late in &mut log.refused[3..] {
            late.after = Duration::from_secs(10);
        }
        let (count, time) = while_waiting(&log);
        assert_eq!((count, millis(time)), (1, 7_500));
    }

    #[test]
    fn changes_of_level_are_read_from_the_log() {
        for (line, expected) in [
            (
                "W 12:00 plimsoll_spu: disk level changed volume=/d/1 from=normal to=read-only changes=3",
                Some(("/d/1", 3)),
            ),
            ("disk still refuses volume=/d/1 changes=0", None),
            ("disk level changed volume=/d/1", None),
        ] {
            assert_eq!(changes_told(line), expected, "{line}");
        }
    }

    #[test]
    fn percentiles_and_spans() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&values[..1], 99), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 99), None);
        assert_eq!(most_within(&[0, 5, 9, 10, 11], 10), 4);
    }
}
