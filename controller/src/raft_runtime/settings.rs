//! What a controller is told about itself and its peers before its Raft lane starts.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_host::config::Secret;
use plimsoll_proto::ids::ControllerId;

/// Settings of the Raft runtime. [`RaftSettings::new`] fills in the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftSettings {
    /// This controller; never 0, and a key of `peers`.
    pub id: ControllerId,
    /// Every voter of a new cluster, this one included, with the address (`host:port`) that its peers dial: the same
    /// map on every controller. Once controllers have joined or left, who belongs to the cluster is what was agreed
    /// on, and this says only where those are that it names.
    pub peers: BTreeMap<ControllerId, String>,
    /// Length of one tick. Default 50 ms.
    pub tick: Duration,
    /// Ticks without a leader before an election; the timeout is drawn from `[n, 2n)`. Default 12 (0.6 to 1.2 s).
    pub election_tick: usize,
    /// Ticks between heartbeats of the leader. Default 2 (100 ms).
    pub heartbeat_tick: usize,
    /// Most bytes of entries in one message. Default 1 MiB.
    pub message_bytes_max: u64,
    /// Largest encoded entry that may be proposed, and a bound for what a peer may send. Default 8 MiB.
    pub entry_bytes_max: u64,
    /// Most bytes proposed and not yet committed; beyond it proposals are refused. Default 16 MiB.
    pub uncommitted_bytes_max: u64,
    /// Entries applied since the last snapshot that make the journal compact. Default 8192.
    pub compact_entries: u64,
    /// Share of a journal file, in percent, that makes the journal compact. Default 50.
    pub compact_fill_percent: u64,
    /// Entries kept behind a snapshot so that a follower a little behind needs no snapshot. Default 1024.
    pub keep_entries: u64,
    /// Most bytes of entries kept behind a snapshot. Default 1 MiB.
    pub keep_bytes: u64,
    /// How long a proposal or a stuck lane waits before the disk is tried again. Default 1 s.
    pub disk_retry: Duration,
    /// Free bytes of the disk below which no topics are created or altered; left at twice as much. Default 16 MiB.
    pub disk_full_bytes: u64,
    /// What controllers tell each other to be believed. Default none.
    pub peer_token: Option<Secret>,
    /// Longest time between two handings of applied state to the metadata store. Default 2 s.
    pub metadata_interval: Duration,
}

impl RaftSettings {
    /// Settings with every default.
    pub fn new(id: ControllerId, peers: BTreeMap<ControllerId, String>) -> Self {
        Self {
            id,
            peers,
            tick: Duration::from_millis(50),
            election_tick: 12,
            heartbeat_tick: 2,
            message_bytes_max: 1024 * 1024,
            entry_bytes_max: 8 * 1024 * 1024,
            uncommitted_bytes_max: 16 * 1024 * 1024,
            compact_entries: 8192,
            compact_fill_percent: 50,
            keep_entries: 1024,
            keep_bytes: 1024 * 1024,
            disk_retry: Duration::from_secs(1),
            disk_full_bytes: 16 * 1024 * 1024,
            peer_token: None,
            metadata_interval: Duration::from_secs(2),
        }
    }

    /// The longest that a controller waits for its leader before it asks for votes.
    pub fn election_timeout_max(&self) -> Duration {
        let ticks = u32::try_from(self.election_tick).unwrap_or(u32::MAX).saturating_mul(2);
        self.tick.saturating_mul(ticks)
    }

    /// Checks what must agree.
    ///
    /// # Errors
    /// A sentence for people that names the settings that don't.
    pub fn check(&self) -> Result<(), String> {
        if self.id.0 == 0 {
            return Err("controller id 0 is reserved; use --id 1 or higher".to_owned());
        }
        if self.peers.contains_key(&ControllerId(0)) {
            return Err("the list of controllers has an id 0, which is reserved".to_owned());
        }
        if !self.peers.contains_key(&self.id) {
            return Err(format!(
                "controller {} is not in the list of controllers; name it there as {}@HOST:PORT",
                self.id, self.id
            ));
        }
        if self.tick.is_zero() || self.heartbeat_tick == 0 || self.election_tick < 2 * self.heartbeat_tick {
            return Err(format!(
                "election_tick ({}) must be at least twice heartbeat_tick ({}), and neither it nor tick 0",
                self.election_tick, self.heartbeat_tick
            ));
        }
        if !(1..=90).contains(&self.compact_fill_percent) || self.compact_entries == 0 {
            return Err("compact_fill_percent must be 1 to 90 and compact_entries at least 1".to_owned());
        }
        if self.peer_token.as_ref().is_some_and(|token| token.0.is_empty()) {
            return Err("peer_token must not be empty; leave it out for none".to_owned());
        }
        if self.entry_bytes_max > 8 * 1024 * 1024 {
            return Err("entry_bytes_max must be at most 8 MiB".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_agree_are_named() {
        let peers = BTreeMap::from([(ControllerId(1), "a:1".to_owned())]);
        let good = RaftSettings::new(ControllerId(1), peers);
        assert_eq!(good.check(), Ok(()));
        type Set = fn(&mut RaftSettings);
        let rules: [(Set, &[&str]); 11] = [
            (|of| of.id = ControllerId(0), &["--id"]),
            (|of| of.id = ControllerId(2), &["2@HOST:PORT"]),
            (|of| drop(of.peers.insert(ControllerId(0), "b:1".to_owned())), &["id 0"]),
            (|of| of.election_tick = 3, &["election_tick", "heartbeat_tick"]),
            (|of| of.heartbeat_tick = 0, &["election_tick", "heartbeat_tick"]),
            (|of| of.tick = Duration::ZERO, &["tick"]),
            (|of| of.compact_fill_percent = 0, &["compact_fill_percent"]),
            (|of| of.compact_fill_percent = 91, &["compact_fill_percent"]),
            (|of| of.compact_entries = 0, &["compact_entries"]),
            (|of| of.peer_token = Some(Secret(String::new())), &["peer_token"]),
            (|of| of.entry_bytes_max += 1, &["entry_bytes_max"]),
        ];
        for (set, named) in rules {
            let mut odd = good.clone();
            set(&mut odd);
            let why = odd.check().expect_err(named[0]);
            assert!(named.iter().all(|name| why.contains(name)), "{named:?}: {why}");
        }
    }
}
