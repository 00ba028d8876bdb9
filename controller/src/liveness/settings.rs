//! The judge's timings and how they relate.

use std::time::Duration;

/// Timings of the judge. [`LivenessSettings::default`] is what operators get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivenessSettings {
    /// Silence after which a node is suspect. Default 6 s.
    pub suspect_after: Duration,
    /// How long a suspect may be asked before it is offline. Default 3 s.
    pub confirm: Duration,
    /// How much longer a verdict by silence waits while many are silent, or while somebody still reaches the
    /// node. Default 30 s.
    pub mass_hold: Duration,
    /// Within which time nodes count as silent together. Default 60 s.
    pub mass_window: Duration,
    /// Least time between two probe rounds of a node. Default 500 ms.
    pub probe_interval: Duration,
    /// Heartbeats a joining node must have sent for so long. Default 3 s.
    pub join_age: Duration,
    /// A data path without a finished turn for so long is stalled. Default 5 s.
    pub volume_stalled_after: Duration,
    /// All data paths of a node for so long: the node is offline. Default 20 s.
    pub node_stalled_after: Duration,
    /// A stalled volume must move again for so long; doubles with each stall. Default 2 s.
    pub stall_hold: Duration,
    /// Largest such time. Default 300 s.
    pub stall_hold_max: Duration,
    /// Within which time returns of a node count: registrations after a run that did not end in order. Default 600 s.
    pub flap_window: Duration,
    /// So many returns within the window are not held. Default 2.
    pub flap_free: u32,
    /// The next one must be heard for so long before the node is online; doubles with each. Default 10 s.
    pub flap_hold: Duration,
    /// Largest such time. Default 300 s.
    pub flap_hold_max: Duration,
    /// A judge that was not asked for longer was paused itself and credits the gap. Default 1 s.
    pub pause_after: Duration,
    /// A proposal is repeated after so long without effect. Default 1 s.
    pub repeat_after: Duration,
}

impl Default for LivenessSettings {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(6),
            confirm: Duration::from_secs(3),
            mass_hold: Duration::from_secs(30),
            mass_window: Duration::from_secs(60),
            probe_interval: Duration::from_millis(500),
            join_age: Duration::from_secs(3),
            volume_stalled_after: Duration::from_secs(5),
            node_stalled_after: Duration::from_secs(20),
            stall_hold: Duration::from_secs(2),
            stall_hold_max: Duration::from_secs(300),
            flap_window: Duration::from_secs(600),
            flap_free: 2,
            flap_hold: Duration::from_secs(10),
            flap_hold_max: Duration::from_secs(300),
            pause_after: Duration::from_secs(1),
            repeat_after: Duration::from_secs(1),
        }
    }
}

impl LivenessSettings {
    /// Silence after which a node is offline when nothing holds the verdict.
    pub fn offline_after(&self) -> Duration {
        self.suspect_after.saturating_add(self.confirm)
    }

    /// Checks what must agree.
    ///
    /// # Errors
    /// A sentence for people that names both settings.
    pub fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, text: &str| if holds { Ok(()) } else { Err(text.to_owned()) };
        rule(self.probe_interval < self.confirm, "liveness probe_interval must be below confirm")?;
        // Or those that fell silent together would be forgotten before the last of them is judged.
        rule(
            self.mass_window >= self.offline_after(),
            "liveness mass_window must be at least suspect_after and confirm together",
        )?;
        rule(self.pause_after < self.suspect_after, "liveness pause_after must be below suspect_after")?;
        rule(self.join_age < self.suspect_after, "liveness join_age must be below suspect_after")?;
        rule(
            self.volume_stalled_after < self.node_stalled_after,
            "liveness volume_stalled_after must be below node_stalled_after",
        )?;
        rule(self.join_age <= self.flap_hold, "liveness join_age must not exceed flap_hold")?;
        rule(self.flap_hold <= self.flap_hold_max, "liveness flap_hold must not exceed flap_hold_max")?;
        rule(self.flap_hold_max <= self.flap_window, "liveness flap_hold_max must not exceed flap_window")?;
        rule(self.stall_hold <= self.stall_hold_max, "liveness stall_hold must not exceed stall_hold_max")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rule at its limit: what just holds, what no longer does, and which settings are named.
    #[test]
    fn every_rule_holds_up_to_its_limit_and_names_its_settings() {
        type Set = fn(&mut LivenessSettings, Duration);
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let rules: [(Set, Duration, Duration, [&str; 2]); 10] = [
            (|of, to| of.probe_interval = to, ms(2999), s(3), ["probe_interval", "confirm"]),
            (|of, to| of.mass_window = to, s(9), ms(8999), ["mass_window", "suspect_after"]),
            (|of, to| of.mass_window = to, s(9), ms(8999), ["mass_window", "confirm"]),
            (|of, to| of.pause_after = to, ms(5999), s(6), ["pause_after", "suspect_after"]),
            (|of, to| of.join_age = to, ms(5999), s(6), ["join_age", "suspect_after"]),
            (
                |of, to| of.volume_stalled_after = to,
                ms(19_999),
                s(20),
                ["volume_stalled_after", "node_stalled_after"],
            ),
            (|of, to| of.flap_hold = to, s(3), ms(2999), ["join_age", "flap_hold"]),
            (|of, to| of.flap_hold = to, s(300), s(301), ["flap_hold", "flap_hold_max"]),
            (|of, to| of.flap_hold_max = to, s(600), s(601), ["flap_hold_max", "flap_window"]),
            (|of, to| of.stall_hold = to, s(300), s(301), ["stall_hold", "stall_hold_max"]),
        ];
        assert_eq!(LivenessSettings::default().check(), Ok(()));
        for (set, holds, breaks, named) in rules {
            let with = |value| {
                let mut settings = LivenessSettings::default();
                set(&mut settings, value);
                settings.check()
            };
            assert_eq!(with(holds), Ok(()), "{named:?}");
            let why = with(breaks).expect_err(named[0]);
            assert!(named.iter().all(|name| why.contains(name)), "{named:?}: {why}");
        }
    }
}
