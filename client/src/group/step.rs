//! What a member does at the network while its group changes; it goes on where it was when its caller stops waiting.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plimsoll_proto::ids::PartitionId;
use tracing::Instrument as _;

use super::calls::{self, Committer, Offsets};
use super::error::GroupError;
use crate::client::Client;

/// Something under way.
pub(super) type Step = BoxFuture<'static, StepDone>;

/// What came of it.
pub(super) enum StepDone {
    /// The offsets of what is given up are committed, or not.
    GaveUp { partitions: BTreeSet<PartitionId>, committed: Result<(), GroupError> },
    /// Where to start what is new.
    Found { partitions: Vec<PartitionId>, offsets: Result<BTreeMap<PartitionId, u64>, GroupError> },
}

/// Commits what is dealt with of partitions that go, as soon as `offsets` tells, behind the commit `before`.
pub(super) fn give_up(
    client: Client,
    group: String,
    by: Committer,
    partitions: BTreeSet<PartitionId>,
    offsets: BoxFuture<'static, Offsets>,
    before: Option<BoxFuture<'static, Result<(), GroupError>>>,
) -> Step {
    let span = tracing::debug_span!("rebalance", group = %group, given_up = partitions.len());
    let step = async move {
        if let Some(before) = before {
            // An older commit must not come after this one.
            let _superseded = before.await;
        }
        let offsets = offsets.await;
        let committed =
            if offsets.is_empty() { Ok(()) } else { calls::commit(client, group, by, offsets).await };
        StepDone::GaveUp { partitions, committed }
    };
    step.instrument(span).boxed()
}

pub(super) fn find(client: Client, group: String, partitions: Vec<PartitionId>) -> Step {
    let span = tracing::debug_span!("rebalance", group = %group, assigned = partitions.len());
    let step = async move {
        let offsets = calls::fetch(&client, &group, &partitions).await;
        StepDone::Found { partitions, offsets }
    };
    step.instrument(span).boxed()
}
