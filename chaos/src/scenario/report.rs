//! What came of scenarios, for people and for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_history::{History, Violation};
use serde::{Deserialize, Serialize};

use super::bars::Bar;
use super::run::{millis, percentile};
use super::timeline::Timeline;

/// Fewer refusals have no 99th percentile.
const REFUSALS_MIN: usize = 100;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Something did not.
    Fail,
    /// This machine lacks what it takes.
    Skip,
}

/// One measured figure and the bar it must not exceed, if there is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// With its unit last.
    pub name: String,
    /// `None` when it was never reached.
    pub value: Option<u64>,
    /// The bar.
    pub at_most: Option<u64>,
}

/// A bar that does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotApplicable {
    /// Of which figure.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// What came of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Of which.
    pub scenario: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Records acknowledged.
    pub acked: u64,
    /// Typed refusals received.
    pub refused: u64,
    /// Acknowledged records that are not there.
    pub lost: u64,
    /// Records that nobody was told were written.
    pub phantom: u64,
    /// Records that are there twice.
    pub duplicates: u64,
    /// Records out of order.
    pub reordered: u64,
    /// Promises broken in other ways.
    pub other_violations: u64,
    /// Further figures.
    pub figures: Vec<Figure>,
    /// Bars that do not apply, and why.
    #[serde(default)]
    pub not_applicable: Vec<NotApplicable>,
    /// Repetitions of a proof.
    #[serde(default)]
    pub cases: u64,
    /// Those of them that did not hold.
    #[serde(default)]
    pub failed_cases: u64,
    /// What was measured in each repetition, by name with its unit last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub samples: BTreeMap<String, Vec<u64>>,
    /// Why it failed or was skipped.
    pub reasons: Vec<String>,
    /// How long it took.
    pub seconds: u64,
    /// What repeats the random parts.
    #[serde(default)]
    pub seed: u64,
    /// For the report; not part of `--json`.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub timeline: Timeline,
}

impl Outcome {
    /// Nothing measured yet.
    pub(super) fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            verdict: Verdict::Pass,
            acked: 0,
            refused: 0,
            lost: 0,
            phantom: 0,
            duplicates: 0,
            reordered: 0,
            other_violations: 0,
            figures: Vec::new(),
            not_applicable: Vec::new(),
            cases: 0,
            failed_cases: 0,
            samples: BTreeMap::new(),
            reasons: Vec::new(),
            seconds: 0,
            seed: 0,
            timeline: Timeline::default(),
        }
    }

    pub(super) fn failed(scenario: &str, reason: String) -> Self {
        Self { verdict: Verdict::Fail, reasons: vec![reason], ..Self::new(scenario) }
    }

    pub(super) fn skipped(scenario: &str, reason: &str) -> Self {
        Self { verdict: Verdict::Skip, reasons: vec![reason.to_owned()], ..Self::new(scenario) }
    }

    /// Counts what the history checker finds, and names the first.
    pub(super) fn check(&mut self, history: &History) {
        const NAMED: usize = 5;
        let violations = plimsoll_history::check(history);
        for violation in &violations {
            let counter = match violation {
                Violation::Lost { .. } => &mut self.lost,
                Violation::Phantom { .. } => &mut self.phantom,
                Violation::Duplicate { .. } => &mut self.duplicates,
                Violation::Reordered { .. } => &mut self.reordered,
                _ => &mut self.other_violations,
            };
            *counter += 1;
        }
        self.reasons.extend(violations.iter().take(NAMED).map(ToString::to_string));
    }

    /// A bar that cannot be held against this run, and why; the first reason counts.
    pub(super) fn not_applicable(&mut self, name: &str, why: &str) {
        if self.not_applicable.iter().all(|found| found.name != name) {
            self.not_applicable.push(NotApplicable { name: name.to_owned(), why: why.to_owned() });
        }
    }

    /// Notes a figure; a bar that is missed fails the run.
    pub(super) fn figure(&mut self, name: &str, value: Option<u64>, at_most: Option<u64>) {
        self.figures.push(Figure { name: name.to_owned(), value, at_most });
    }

    /// Notes how long typed refusals took, which becomes sorted.
    pub(super) fn refusals(&mut self, after: &mut [Duration]) {
        after.sort_unstable();
        match percentile(after, 99) {
            Some(p99) if after.len() >= REFUSALS_MIN => {
                self.figure(Bar::RefusalP99.figure(), Some(millis(p99)), Some(Bar::RefusalP99.at_most()));
            }
            Some(last) => {
                self.figure("slowest_refusal_ms", Some(millis(last)), None);
                self.not_applicable(Bar::RefusalP99.figure(), "fewer than 100 refusals");
            }
            None => self.not_applicable(Bar::RefusalP99.figure(), "nothing was refused"),
        }
    }

    /// Holds every figure against its bar.
    pub(super) fn judge(&mut self) {
        for figure in &self.figures {
            match (figure.value, figure.at_most) {
                (None, _) => self.reasons.push(format!("{} was never reached", figure.name)),
                (Some(value), Some(bar)) if value > bar => {
                    self.reasons.push(format!("{}={value} with a bar of {bar}", figure.name));
                }
                (Some(_), _) => {}
            }
        }
        // A scenario that fails half way has not got to all of its figures.
        if self.reasons.is_empty() {
            for bar in Bar::ALL {
                let name = bar.figure();
                let measured = self.figures.iter().any(|figure| figure.name == name);
                let declared = self.not_applicable.iter().any(|found| found.name == name);
                if !measured && !declared {
                    self.reasons.push(format!("{name} is neither measured nor declared not to apply"));
                }
            }
        }
        for (name, count) in [
            ("lost", self.lost),
            ("phantom", self.phantom),
            ("duplicates", self.duplicates),
            ("reordered", self.reordered),
            ("other broken promises", self.other_violations),
        ] {
            if count > 0 {
                self.reasons.push(format!("{name}={count}"));
            }
        }
        if !self.reasons.is_empty() {
            self.verdict = Verdict::Fail;
        }
    }

    /// The same without what was recorded over time.
    pub fn without_timeline(&self) -> Self {
        Self { timeline: Timeline::default(), ..self.clone() }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        use std::fmt::Write as _;
        let word = match self.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "SKIPPED",
        };
        let mut text = format!(
            "{word} {} acked={} refused={} lost={} phantom={} duplicates={} reordered={}",
            self.scenario, self.acked, self.refused, self.lost, self.phantom, self.duplicates, self.reordered
        );
        for figure in &self.figures {
            let value = figure.value.map_or_else(|| "none".to_owned(), |value| value.to_string());
            let _infallible = write!(text, " {}={value}", figure.name);
        }
        let _infallible = write!(text, " seconds={}", self.seconds);
        text
    }
}

/// Sums over scenarios.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    lost: u64,
    phantom: u64,
    duplicates: u64,
    reordered: u64,
}

impl Totals {
    /// Of these.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut totals = Self::default();
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Pass => totals.passed += 1,
                Verdict::Fail => totals.failed += 1,
                Verdict::Skip => totals.skipped += 1,
            }
            totals.lost += outcome.lost;
            totals.phantom += outcome.phantom;
            totals.duplicates += outcome.duplicates;
            totals.reordered += outcome.reordered;
        }
        totals
    }

    /// Whether something ran and nothing failed.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// The last line.
    pub fn line(&self) -> String {
        format!(
            "CHAOS scenarios={} passed={} failed={} skipped={} lost={} phantom={} duplicates={} reordered={}",
            self.passed + self.failed + self.skipped,
            self.passed,
            self.failed,
            self.skipped,
            self.lost,
            self.phantom,
            self.duplicates,
            self.reordered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_declared() -> Outcome {
        let mut outcome = Outcome::new("x");
        outcome.not_applicable = Bar::ALL
            .into_iter()
            .map(|bar| NotApplicable { name: bar.figure().to_owned(), why: "a test".to_owned() })
            .collect();
        outcome
    }

    #[test]
    fn a_bar_that_nobody_speaks_of_fails() {
        let mut outcome = all_declared();
        outcome.judge();
        assert_eq!(outcome.verdict, Verdict::Pass);
        outcome.not_applicable.pop();
        outcome.judge();
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert!(outcome.reasons[0].contains("neither measured nor declared"), "{:?}", outcome.reasons);
    }

    #[test]
    fn a_bar_that_is_missed_or_never_reached_fails() {
        for (value, at_most, verdict) in [
            (Some(3), Some(3), Verdict::Pass),
            (Some(4), Some(3), Verdict::Fail),
            (None, Some(3), Verdict::Fail),
            (None, None, Verdict::Fail),
            (Some(4), None, Verdict::Pass),
        ] {
            let mut outcome = all_declared();
            outcome.figures.push(Figure { name: "detect_ms".to_owned(), value, at_most });
            outcome.judge();
            assert_eq!(outcome.verdict, verdict, "{value:?} {at_most:?}");
        }
        let mut outcome = Outcome { lost: 1, ..Outcome::new("x") };
        outcome.judge();
        assert_eq!(outcome.verdict, Verdict::Fail);
        let totals = Totals::of(&[outcome, Outcome::new("y"), Outcome::skipped("z", "no mounts")]);
        assert_eq!(
            totals.line(),
            "CHAOS scenarios=3 passed=1 failed=1 skipped=1 lost=1 phantom=0 duplicates=0 reordered=0"
        );
        assert!(!totals.good() && !Totals::default().good());
    }
}
