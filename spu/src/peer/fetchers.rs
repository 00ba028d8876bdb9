//! Keeps one fetcher for each leader that a volume here follows.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_host::log_budget::LogBudget;
use plimsoll_host::{Host, Task};

use super::fetcher::Fetcher;
use crate::runtime::{Following, NodeHandle};

/// Starts and ends fetchers as the metadata changes, until the node stops.
pub(super) async fn keep_fetchers(host: Host, node: NodeHandle) {
    let mut changes = node.following_changes();
    let mut stopping = node.stopping();
    let mut running: BTreeMap<Following, Task> = BTreeMap::new();
    let log_budget = LogBudget::new();
    loop {
        changes.mark_unchanged();
        let wanted: BTreeSet<Following> = node.following().into_iter().collect();
        // A fetcher that is no longer wanted ends as its task is dropped.
        running.retain(|following, _| wanted.contains(following));
        for following in wanted {
            running.entry(following.clone()).or_insert_with(|| {
                let fetcher = Fetcher::new(host.clone(), node.clone(), following, log_budget.clone());
                host.tasks.spawn("fetcher", fetcher.run())
            });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}
