//! The figures of a run and the verdict on them.

use serde::Serialize;

use crate::flights::FLIGHTS;

/// What was measured. A figure that was never reached is absent, which fails the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Distinct flights acknowledged.
    pub acked: u64,
    /// Distinct flights read back, by the consumer during the run and from every replica at its end.
    pub read: u64,
    /// Acknowledged flights that some reader did not find.
    pub lost: u64,
    /// Flights that some reader found more than once.
    pub duplicates: u64,
    /// Flights that some reader found out of order.
    pub reordered: u64,
    /// Typed refusals received, by all clients.
    pub refused: u64,
    /// Typed refusals of the client without backoff alone.
    pub refused_hammer: u64,
    /// Times that batches of the producer went on to another leader.
    pub rerouted: u64,
    /// Longest gap between two acknowledgements of the replaying producer outside of act 4.
    pub longest_stall_ms: Option<u64>,
    /// The mark crossed or ENOSPC to the first typed refusal; the slowest disk.
    pub detect_ms: Option<u64>,
    /// That refusal to the first acknowledgement for the last moved partition from its new leader.
    pub reroute_ms: Option<u64>,
    /// Unlink or delete returned to the first batch acknowledged on that volume; the slower of acts 3 and 4.
    pub recover_ms: Option<u64>,
    /// Unlink returned to the replicas of the volume being in every in-sync set again.
    pub in_sync_ms: Option<u64>,
    /// Unlink returned to the node leading as many partitions as before.
    pub leaders_back_ms: Option<u64>,
    /// Log lines of the worst storage node and episode.
    pub log_lines: u64,
    /// What the disks were: `tmpfs` or `simulated`.
    pub disks: &'static str,
    /// The whole run.
    pub seconds: u64,
    /// Acts that were played to their end, of 4.
    pub acts: u32,
    /// What contradicts PASS; empty with PASS.
    pub failures: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Something did not.
    Fail,
}

impl Figures {
    /// Adds what contradicts PASS to the failures that were noted on the way.
    pub fn judge(&mut self) -> Verdict {
        let all = u64::try_from(FLIGHTS).unwrap_or(u64::MAX);
        let mut failures = std::mem::take(&mut self.failures);
        let mut need = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        need(self.acts == 4, format!("only {} of 4 acts came to their end", self.acts));
        need(self.acked == all, format!("acked={} instead of {all}", self.acked));
        need(self.read == all, format!("read={} instead of {all}", self.read));
        need(self.lost == 0, format!("lost={}", self.lost));
        need(self.duplicates == 0, format!("duplicates={}", self.duplicates));
        need(self.reordered == 0, format!("reordered={}", self.reordered));
        need(
            self.refused_hammer >= 50_000,
            format!("the client without backoff was refused {} times, not 50000", self.refused_hammer),
        );
        for (name, figure, limit) in [
            ("detect_ms", self.detect_ms, 1_000),
            ("reroute_ms", self.reroute_ms, 2_000),
            ("recover_ms", self.recover_ms, 2_000),
        ] {
            need(
                figure.is_some_and(|ms| ms <= limit),
                format!("{name}={} with a limit of {limit}", shown(figure)),
            );
        }
        for (name, figure) in [
            ("longest_stall_ms", self.longest_stall_ms),
            ("in_sync_ms", self.in_sync_ms),
            ("leaders_back_ms", self.leaders_back_ms),
        ] {
            need(figure.is_some(), format!("{name} was never reached"));
        }
        need(self.log_lines <= 10, format!("log_lines={} with a limit of 10", self.log_lines));
        self.failures = failures;
        if self.failures.is_empty() { Verdict::Pass } else { Verdict::Fail }
    }

    /// The last line of a run.
    pub fn line(&self, verdict: Verdict) -> String {
        format!(
            "RESULT acked={} read={} lost={} duplicates={} reordered={} refused={} rerouted={} longest_stall_ms={} \
             detect_ms={} reroute_ms={} recover_ms={} in_sync_ms={} leaders_back_ms={} log_lines={}{} {}",
            self.acked,
            self.read,
            self.lost,
            self.duplicates,
            self.reordered,
            self.refused,
            self.rerouted,
            shown(self.longest_stall_ms),
            shown(self.detect_ms),
            shown(self.reroute_ms),
            shown(self.recover_ms),
            shown(self.in_sync_ms),
            shown(self.leaders_back_ms),
            self.log_lines,
            if self.disks == "simulated" { " simulated" } else { "" },
            word(verdict),
        )
    }

    /// The same as one JSON object.
    pub fn json(&self, verdict: Verdict) -> String {
        let mut object = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = object.as_object_mut() {
            object.insert("result".to_owned(), word(verdict).into());
        }
        object.to_string()
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
    }
}

/// A figure that was never reached is `none`.
fn shown(figure: Option<u64>) -> String {
    figure.map_or_else(|| "none".to_owned(), |ms| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            acked: 336_776,
            read: 336_776,
            refused: 60_000,
            refused_hammer: 55_000,
            rerouted: 1,
            longest_stall_ms: Some(900),
            detect_ms: Some(1_000),
            reroute_ms: Some(2_000),
            recover_ms: Some(2_000),
            in_sync_ms: Some(5_000),
            leaders_back_ms: Some(9_000),
            log_lines: 10,
            disks: "tmpfs",
            acts: 4,
            ..Figures::default()
        }
    }

    #[test]
    fn each_rule_of_pass_can_fail_a_run() {
        assert_eq!(good().judge(), Verdict::Pass);
        type Spoil = fn(&mut Figures);
        let spoils: [Spoil; 15] = [
            |f| f.acked -= 1,
            |f| f.read -= 1,
            |f| f.lost = 1,
            |f| f.duplicates = 1,
            |f| f.reordered = 1,
            |f| f.refused_hammer = 49_999,
            |f| f.detect_ms = Some(1_001),
            |f| f.reroute_ms = Some(2_001),
            |f| f.recover_ms = None,
            |f| f.recover_ms = Some(2_001),
            |f| f.in_sync_ms = None,
            |f| f.leaders_back_ms = None,
            |f| f.log_lines = 11,
            |f| f.acts = 3,
            |f| f.failures.push("two write-offline entries".to_owned()),
        ];
        for (i, spoil) in spoils.into_iter().enumerate() {
            let mut figures = good();
            spoil(&mut figures);
            assert_eq!(figures.judge(), Verdict::Fail, "rule {i}");
            assert_eq!(figures.failures.len(), 1, "rule {i}: {:?}", figures.failures);
        }
    }

    #[test]
    fn the_last_line_is_as_documented() {
        let mut figures = good();
        let verdict = figures.judge();
        assert_eq!(
            figures.line(verdict),
            "RESULT acked=336776 read=336776 lost=0 duplicates=0 reordered=0 refused=60000 rerouted=1 \
             longest_stall_ms=900 detect_ms=1000 reroute_ms=2000 recover_ms=2000 in_sync_ms=5000 \
             leaders_back_ms=9000 log_lines=10 PASS"
        );
        let json: serde_json::Value = serde_json::from_str(&figures.json(verdict)).expect("JSON");
        assert_eq!(json["result"], "PASS");
        assert_eq!(json["acked"], 336_776);
    }
}
