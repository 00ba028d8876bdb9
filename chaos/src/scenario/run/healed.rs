//! After the last fault: how long until everything acknowledges and every set is full again, and how many lines it was
//! worth. The history checker judges both.
//!
//! Faults are over when the play says that the last one is lifted, or else when it ends.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_history::{Event, LIVE_WITHIN, Regained};
use plimsoll_proto::ids::{PartitionId, TopicId};

use super::super::bars::{Bar, Without};
use super::{Run, TOPIC, millis};

/// Records a second that are sent to see what is acknowledged, whatever else is produced by then.
const PROBES_PER_S: u32 = 20;
const PROBE_BYTES: usize = 64;
/// Beyond the bound, so that what comes too late is told with its time.
const WAIT_MORE: Duration = Duration::from_secs(5);
/// The longest that is waited for something that is held back.
const HOLD_MAX: Duration = Duration::from_secs(90);

/// When everything is whole after a play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scenario) enum Whole {
    /// Within the bound of the history checker.
    InTime,
    /// Within it, counted from the end of the holds that nodes tell of; and why there are any.
    AfterHolds(&'static str),
    /// The play leaves something broken; what.
    Never(&'static str),
}

/// What the partitions of a topic do not have again yet.
struct ComingBack {
    topic_id: TopicId,
    missing: BTreeSet<(u32, Regained)>,
}

impl ComingBack {
    fn of(topic_id: TopicId, partitions: u32) -> Self {
        let both = |index| [(index, Regained::Acknowledges), (index, Regained::FullSet)];
        Self { topic_id, missing: (0..partitions).flat_map(both).collect() }
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic_id: self.topic_id, index }
    }

    fn healed(&self, at: Duration) -> Vec<Event> {
        let all: BTreeSet<u32> = self.missing.iter().map(|(index, _)| *index).collect();
        all.into_iter().map(|index| Event::Healed { partition: self.partition(index), at }).collect()
    }

    fn held_back(&self, until: Duration) -> Vec<Event> {
        let sets = self.missing.iter().filter(|(_, what)| *what == Regained::FullSet);
        sets.map(|(index, from)| Event::HeldBack { partition: self.partition(*index), from: *from, until })
            .collect()
    }

    /// Takes what is there again, and since when.
    fn look(&mut self, back: impl Fn(u32, Regained) -> Option<Duration>) -> Vec<Event> {
        let mut again = Vec::new();
        for (index, what) in std::mem::take(&mut self.missing) {
            match back(index, what) {
                Some(at) => again.push(Event::Regained { partition: self.partition(index), what, at }),
                None => drop(self.missing.insert((index, what))),
            }
        }
        again
    }
}

fn time(event: &Event) -> Option<Duration> {
    if let Event::Regained { at, .. } = event { Some(*at) } else { None }
}

/// So many lines of a node.
pub(super) fn logged(spu: u32, lines: u64, budget: u64) -> Event {
    Event::Logged { who: format!("spu {spu}"), lines, budget }
}

impl Run {
    /// Every fault is over. Takes in what comes back, and when.
    pub(super) async fn come_back(&mut self, whole: Whole) -> anyhow::Result<()> {
        const FIGURE: &str = "whole_after_ms";
        let held = match whole {
            Whole::Never(why) => {
                self.not_applicable(FIGURE, why);
                return Ok(());
            }
            Whole::AfterHolds(_) => true,
            Whole::InTime => false,
        };
        let image = self.client.metadata();
        let topic = image.topic_by_name(TOPIC).context("the judged topic is gone")?;
        let topic_id = self.client.topic_id(TOPIC).context("the judged topic is gone")?;
        let mut coming = ComingBack::of(topic_id, u32::try_from(topic.partitions.len())?);
        let ended = self.now();
        let healed = self.lifted.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(ended);
        self.take_in(coming.healed(healed));
        self.load(TOPIC, PROBES_PER_S, PROBE_BYTES).await?;
        let (mut until, mut last) = (ended, healed);
        while !coming.missing.is_empty() && self.now() <= until + LIVE_WITHIN + WAIT_MORE {
            if held && let Some(hold) = self.held_until().await {
                until = until.max(hold.min(ended + HOLD_MAX));
                self.take_in(coming.held_back(hold));
            }
            let full = self.recorder.full_since().map(|since| since.max(healed));
            let again = coming.look(|index, what| match what {
                Regained::Acknowledges => self.first_ack(healed, |ack| ack.partition == index),
                Regained::FullSet => full,
            });
            last = again.iter().filter_map(time).fold(last, Duration::max);
            self.take_in(again);
            self.pause(0.05).await;
        }
        if coming.missing.is_empty() {
            self.figure(FIGURE, Some(millis(last.saturating_sub(healed))), None);
        }
        Ok(())
    }

    /// The last fault so far is lifted.
    pub(in crate::scenario) fn lifted(&self, at: Duration) {
        let mut lifted = self.lifted.lock().unwrap_or_else(PoisonError::into_inner);
        *lifted = (*lifted).max(Some(at));
    }

    /// Another fault begins.
    pub(super) fn broken_again(&self) {
        *self.lifted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take_in(&self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.evidence.record(event));
    }

    /// Until when a volume was held back, or a node that has joined by now.
    async fn held_until(&self) -> Option<Duration> {
        const HELD_NODE: &str = "joined after a hold";
        let asked = self.client.admin().timeout(Duration::from_secs(3)).list_events(0, 10_000).await;
        let (now, wall_ms) = (self.now(), self.host.clock.wall_ms());
        let joined = asked.unwrap_or_default().into_iter().filter(|event| event.reason == HELD_NODE);
        let at = joined
            .map(|event| now.saturating_sub(Duration::from_millis(wall_ms.saturating_sub(event.time_ms))));
        at.max().max(self.recorder.held_until())
    }

    /// Each episode of a disk is worth so many lines of its node, unless the scenario says why not.
    pub(super) fn log_budgets(&self, without: Without) {
        if without.iter().any(|(bar, _)| *bar == Bar::LogLines) {
            return;
        }
        for (spu, from, to) in &self.episodes {
            let lines = self.log_lines(*spu, *from, *to);
            self.evidence.record(logged(*spu, lines, Bar::LogLines.at_most()));
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_history::History;

    use super::super::super::report::Outcome;
    use super::*;

    const HEALED: Duration = Duration::from_secs(30);

    fn told(events: Vec<Event>) -> (u64, Vec<String>) {
        let history: History = events.into_iter().collect();
        let mut outcome = Outcome::new("x");
        outcome.check(&history);
        (outcome.other_violations, outcome.reasons)
    }

    /// Two partitions; the set of the second is full so late.
    fn back(full_after: Option<Duration>, held_until: Option<Duration>) -> (u64, Vec<String>) {
        let mut coming = ComingBack::of(TopicId([7; 16]), 2);
        let mut events = coming.healed(HEALED);
        events.extend(held_until.into_iter().flat_map(|until| coming.held_back(until)));
        let first = |index, what| (index == 0 || what == Regained::Acknowledges).then_some(HEALED);
        events.extend(coming.look(first));
        assert_eq!(coming.missing.iter().collect::<Vec<_>>(), [&(1, Regained::FullSet)]);
        assert!(coming.look(|_, _| None).is_empty(), "nothing comes back twice");
        events.extend(coming.look(|_, _| full_after.map(|after| HEALED + after)));
        told(events)
    }

    #[test]
    fn a_set_that_is_full_too_late_or_never_fails_the_run() {
        const LATE: Duration = Duration::from_millis(1);
        assert_eq!(back(Some(LIVE_WITHIN), None), (0, Vec::new()));
        for (full_after, word) in [(Some(LIVE_WITHIN + LATE), "10"), (None, "never")] {
            let (broken, reasons) = back(full_after, None);
            assert_eq!((broken, reasons.len()), (1, 1), "{reasons:?}");
            assert!(reasons[0].contains(word), "{reasons:?}");
        }
        // A hold counts until its end, and no further.
        let held_until = HEALED + Duration::from_secs(40);
        assert_eq!(back(Some(Duration::from_secs(40) + LIVE_WITHIN), Some(held_until)).0, 0);
        assert_eq!(back(Some(Duration::from_secs(40) + LIVE_WITHIN + LATE), Some(held_until)).0, 1);
    }

    #[test]
    fn lines_beyond_the_budget_fail_the_run() {
        let budget = Bar::LogLines.at_most();
        assert_eq!(told(vec![logged(2, budget, budget)]), (0, Vec::new()));
        let (broken, reasons) = told(vec![logged(2, budget + 1, budget)]);
        assert!(broken == 1 && reasons[0].contains("spu 2"), "{reasons:?}");
    }
}
