//! Producer ids, taken from the state in blocks and handed out one by one.

use std::ops::Range;

use plimsoll_proto::v1::{self, ErrorDetail, entry::Change};
use tokio::sync::Mutex;

use super::answer;
use super::shared::Shared;
use crate::cluster::Effect;

/// Ids of one entry. What is left of a block when the controller stops is never used.
const BLOCK: u32 = 1000;

/// Ids that are committed to this controller and not handed out yet.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    /// Held across the proposal of the next block, so that callers share it.
    left: Mutex<Range<u64>>,
}

impl ProducerIds {
    pub(super) async fn take(&self, shared: &Shared) -> Result<i64, ErrorDetail> {
        let mut left = self.left.lock().await;
        if left.is_empty() {
            let change = Change::AllocateProducerIds(v1::AllocateProducerIds { count: BLOCK });
            *left = match shared.change(change).await? {
                (_, Effect::ProducerIds { first, count }) => first..first.saturating_add(u64::from(count)),
                (_, Effect::Done | Effect::Registered { .. } | Effect::HandedOver { .. }) => 0..0,
            };
        }
        let id = left.next().and_then(|id| i64::try_from(id).ok());
        id.ok_or_else(|| answer::no_quorum("no producer id was allocated"))
    }
}
