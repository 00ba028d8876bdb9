//! The line that sums the proof.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::scenario::report::{Outcome, Verdict};

/// Bars of medians; those of single values are held where they are measured.
const MEDIANS: [(&str, u64); 1] = [("full_to_writable_leader_ms", 500)];

/// Sums over all clusters of the proof.
#[derive(Debug, Default)]
pub struct Proof {
    cases: u64,
    failed: u64,
    lost: u64,
    duplicates: u64,
    acked: u64,
    samples: BTreeMap<String, Vec<u64>>,
    /// Parts that could not be played, and why.
    skipped: BTreeMap<String, String>,
    /// Bars that were missed by all of them together.
    missed: Vec<String>,
}

impl Proof {
    /// Of these.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut proof = Self::default();
        for outcome in outcomes {
            if outcome.verdict == Verdict::Skip {
                let why = outcome.reasons.first().cloned().unwrap_or_default();
                proof.skipped.insert(outcome.scenario.clone(), why);
                continue;
            }
            // What was read back in the end belongs to no case alone.
            let failed = outcome.failed_cases.max(u64::from(outcome.verdict == Verdict::Fail));
            proof.cases += outcome.cases.max(1);
            proof.failed += failed;
            proof.lost += outcome.lost;
            proof.duplicates += outcome.duplicates;
            proof.acked += outcome.acked;
            for (name, values) in &outcome.samples {
                proof.samples.entry(name.clone()).or_default().extend(values);
            }
        }
        for values in proof.samples.values_mut() {
            values.sort_unstable();
        }
        for (name, bar) in MEDIANS {
            if let Some(median) = proof.samples.get(name).and_then(|values| median(values))
                && median > bar
            {
                proof.missed.push(format!("the median of {name} is {median}, the bar is {bar}"));
            }
        }
        proof
    }

    /// Whether everything that was played held.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.missed.is_empty() && (self.cases > 0 || !self.skipped.is_empty())
    }

    /// Lines as `scripts/prove` sums them, the figures in the last one.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for (part, why) in &self.skipped {
            let _infallible = writeln!(text, "SKIPPED liveness-{part}: {why}");
        }
        for missed in &self.missed {
            let _infallible = writeln!(text, "{missed}");
        }
        let missed = u64::try_from(self.missed.len()).unwrap_or(u64::MAX);
        let _infallible = write!(
            text,
            "CASES liveness liveness cases={} failed={} lost={} duplicates={} acked={}",
            self.cases,
            self.failed.saturating_add(missed),
            self.lost,
            self.duplicates,
            self.acked
        );
        for (name, values) in &self.samples {
            let (Some(median), Some(worst)) = (median(values), values.last()) else { continue };
            let _infallible = write!(text, " {name}={median}/{worst}");
        }
        text
    }
}

/// Of sorted values.
fn median(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(values: &[u64]) -> Outcome {
        let mut outcome = Outcome { cases: 2, acked: 5, ..Outcome::new("x") };
        outcome.samples.insert(MEDIANS[0].0.to_owned(), values.to_vec());
        outcome
    }

    #[test]
    fn cases_and_samples_of_all_clusters_are_summed() {
        let proof = Proof::of(&[outcome(&[100, 900]), outcome(&[300]), Outcome::skipped("y", "no root")]);
        assert!(proof.good());
        let expected = "SKIPPED liveness-y: no root\nCASES liveness liveness cases=4 failed=0 lost=0 duplicates=0 \
                        acked=10 full_to_writable_leader_ms=300/900";
        assert_eq!(proof.lines(), expected);
    }

    #[test]
    fn a_failed_run_a_failed_case_and_a_missed_median_count() {
        let missed = Proof::of(&[outcome(&[100, 501, 502])]);
        assert!(!missed.good());
        assert!(missed.lines().contains("failed=1"), "{}", missed.lines());
        let failed = Outcome::failed("x", "no binary".to_owned());
        assert!(Proof::of(&[failed]).lines().contains("cases=1 failed=1"));
        let failed = Outcome { failed_cases: 2, verdict: Verdict::Fail, ..outcome(&[1]) };
        assert!(Proof::of(&[failed]).lines().contains("cases=2 failed=2"));
        assert!(!Proof::default().good());
    }
}
