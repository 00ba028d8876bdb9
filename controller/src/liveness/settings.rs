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
