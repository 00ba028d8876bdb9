//! How often nodes came back lately, and how long the next return is held.
//!
//! ```text
//! returns within 10 min     1  2   3     4     5     6      7 ...
//! hold of the last one      -  -   10 s  20 s  40 s  80 s   ... 300 s
//! ```
//! A node comes back when it registers after a run that did not end in order. What was seen is read from the events of
//! applied entries, so that another leading controller knows it too, as far back as events are kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1;

use super::settings::LivenessSettings;
use crate::cluster::ClusterState;

/// Returns remembered of one node: the hold grows no more beyond so many.
const RETURNS_MAX: usize = 16;

/// Returns of all nodes within the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    /// Events of entries up to this index were read.
    seen: u64,
    /// Times at which returns are forgotten, in order.
    forget_at: BTreeMap<SpuId, VecDeque<Duration>>,
    /// Nodes that were told to go, or said that they would.
    in_order: BTreeSet<SpuId>,
}

impl Flaps {
    /// Reads what is new in `state`. `wall_ms` is the time of day at `now`, where events may be old; without it they
    /// are of now.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        wall_ms: Option<u64>,
        state: &ClusterState,
        settings: &LivenessSettings,
    ) {
        let version = state.version().0;
        if version <= self.seen {
            return;
        }
        for event in state.events_after(self.seen) {
            let age = wall_ms.map_or(0, |wall_ms| wall_ms.saturating_sub(event.time_ms));
            if let Some(left) = settings.flap_window.checked_sub(Duration::from_millis(age)) {
                self.take(event, now.saturating_add(left));
            }
        }
        self.seen = version;
    }

    fn take(&mut self, event: &v1::ClusterEvent, forget_at: Duration) {
        let spu = SpuId(event.spu_id);
        match event.kind.as_str() {
            "spu_state" if event.to == "draining" => drop(self.in_order.insert(spu)),
            "spu_state" if event.from == "draining" && event.to != "offline" => {
                self.in_order.remove(&spu);
            }
            "spu_duty" if event.to == "offline" => drop(self.in_order.insert(spu)),
            "spu_registered" => {
                let in_order = self.in_order.remove(&spu);
                if !event.from.is_empty() && !in_order {
                    let returns = self.forget_at.entry(spu).or_default();
                    returns.push_back(forget_at);
                    if returns.len() > RETURNS_MAX {
                        returns.pop_front();
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns of the node that count at `now`.
    pub(super) fn returns(&self, spu: SpuId, now: Duration) -> u32 {
        let returns = self.forget_at.get(&spu).map_or(0, |r| r.iter().filter(|at| **at > now).count());
        u32::try_from(returns).unwrap_or(u32::MAX)
    }

    /// How long the node must be heard before it counts as back.
    pub(super) fn hold(&self, spu: SpuId, now: Duration, settings: &LivenessSettings) -> Duration {
        let beyond = self.returns(spu, now).saturating_sub(settings.flap_free);
        match beyond.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                settings.flap_hold.saturating_mul(1 << doublings.min(16)).min(settings.flap_hold_max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{SpuDuty, SpuState};

    use super::*;
    use crate::cluster::testing::Cluster;

    const SPU: SpuId = SpuId(3);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The node is lost and back, at `now`.
    fn flap(cluster: &mut Cluster, flaps: &mut Flaps, now: Duration, nonce: u8) -> Duration {
        let settings = LivenessSettings::default();
        cluster.done(cluster.spu_state(3, SpuState::Online, SpuState::Offline));
        flaps.follow(now, None, &cluster.state, &settings);
        cluster.register_as(3, nonce, &[]);
        flaps.follow(now, None, &cluster.state, &settings);
        cluster.done(cluster.spu_state(3, SpuState::Joining, SpuState::Online));
        flaps.hold(SPU, now, &settings)
    }

    #[test]
    fn the_hold_grows_with_the_returns_of_ten_minutes_and_is_forgotten_after_them() {
        let settings = LivenessSettings::default();
        let (mut cluster, mut flaps) = (Cluster::of(3), Flaps::default());
        for (nonce, hold) in (2u8..).zip([0, 0, 10, 20, 40, 80, 160, 300, 300, 300]) {
            let now = secs(u64::from(nonce) * 10);
            assert_eq!(flap(&mut cluster, &mut flaps, now, nonce), secs(hold), "return {}", nonce - 1);
            assert_eq!(flaps.hold(SpuId(1), now, &settings), Duration::ZERO, "the others are not held");
        }
        // Of ten returns, from 20 s to 110 s, one after the other is forgotten 600 s later.
        for (at, returns, hold) in [(619, 10, 300), (620, 9, 300), (660, 5, 40), (690, 2, 0), (710, 0, 0)] {
            assert_eq!(flaps.returns(SPU, secs(at)), returns, "{at}");
            assert_eq!(flaps.hold(SPU, secs(at), &settings), secs(hold), "{at}");
        }
        assert_eq!(flap(&mut cluster, &mut flaps, secs(800), 99), Duration::ZERO, "as if it were new");
    }

    #[test]
    fn a_node_that_goes_in_order_does_not_flap() {
        let settings = LivenessSettings::default();
        let (mut cluster, mut flaps) = (Cluster::of(3), Flaps::default());
        for nonce in 2..9 {
            cluster.done(cluster.spu_state(3, SpuState::Online, SpuState::Draining));
            cluster.done(cluster.spu_state(3, SpuState::Draining, SpuState::Offline));
            cluster.register_as(3, nonce, &[]);
            cluster.done(cluster.spu_state(3, SpuState::Joining, SpuState::Online));
            cluster.done(cluster.duty(3, SpuDuty::Serving, SpuDuty::Offline));
            cluster.done(cluster.duty(3, SpuDuty::Offline, SpuDuty::Serving));
            cluster.register_as(3, nonce + 100, &[]);
            cluster.done(cluster.spu_state(3, SpuState::Joining, SpuState::Online));
        }
        flaps.follow(secs(1), None, &cluster.state, &settings);
        assert_eq!(flaps.returns(SPU, secs(1)), 0);
        // A drain that was called off is no leave.
        cluster.done(cluster.duty(3, SpuDuty::Serving, SpuDuty::Draining));
        cluster.done(cluster.duty(3, SpuDuty::Draining, SpuDuty::Serving));
        flaps.follow(secs(2), None, &cluster.state, &settings);
        flap(&mut cluster, &mut flaps, secs(3), 200);
        assert_eq!(flaps.returns(SPU, secs(3)), 1);
    }

    #[test]
    fn another_controller_knows_from_the_events() {
        let settings = LivenessSettings::default();
        let (mut cluster, mut flaps) = (Cluster::of(3), Flaps::default());
        for nonce in 2..7 {
            flap(&mut cluster, &mut flaps, secs(5), nonce);
        }
        // Entries of these tests are a second apart.
        let wall_ms = cluster.index * 1000;
        for (later_ms, returns) in [(0, 5), (590_000, 3), (700_000, 0)] {
            let mut other = Flaps::default();
            other.follow(secs(1), Some(wall_ms + later_ms), &cluster.state, &settings);
            assert_eq!(other.returns(SPU, secs(1)), returns, "{later_ms}");
        }
    }
}
