//! When a member commits by itself, and what its application says when partitions are about to go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use plimsoll_proto::ids::{Offset, PartitionId};

use super::calls::Offsets;

/// When a member commits by itself.
#[derive(Debug)]
pub(super) struct CommitPolicy {
    pub(super) interval: Option<Duration>,
    pub(super) on_revoke: Option<OnRevoke>,
}

/// Of each partition the offset that is read next.
pub(super) type Positions = BTreeMap<PartitionId, Offset>;

/// The application's answer to partitions that go.
#[derive(Clone)]
pub(super) struct OnRevoke(Arc<dyn Fn(Positions) -> BoxFuture<'static, Positions> + Send + Sync>);

impl OnRevoke {
    pub(super) fn new<F, A>(listener: F) -> Self
    where
        F: Fn(Positions) -> A + Send + Sync + 'static,
        A: Future<Output = Positions> + Send + 'static,
    {
        Self(Arc::new(move |going| listener(going).boxed()))
    }

    /// Asks how far these are dealt with; the answer is what to commit of them.
    pub(super) fn ask(&self, delivered: Offsets) -> BoxFuture<'static, Offsets> {
        let positions = delivered
            .iter()
            .filter_map(|(partition, (offset, _))| Some((*partition, Offset::new(*offset).ok()?)))
            .collect();
        self.0(positions).map(move |dealt_with| within(&delivered, &dealt_with)).boxed()
    }
}

impl fmt::Debug for OnRevoke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRevoke")
    }
}

/// What was said, as far as it was delivered: nothing of other partitions, and nothing beyond.
fn within(delivered: &Offsets, said: &Positions) -> Offsets {
    let bounded = |(partition, (end, epoch)): (&PartitionId, &(u64, u32))| {
        let offset = said.get(partition)?.get().min(*end);
        // The epoch that is known is that of the last record delivered.
        Some((*partition, (offset, if offset == *end { *epoch } else { 0 })))
    };
    delivered.iter().filter_map(bounded).collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::TopicId;

    use super::*;

    #[test]
    fn nothing_is_committed_that_was_not_delivered() {
        let partition = |index| PartitionId { topic_id: TopicId([7; 16]), index };
        let at = |offset| Offset::new(offset).expect("small");
        let delivered: Offsets =
            [(partition(0), (10, 3)), (partition(1), (20, 4)), (partition(2), (30, 5))].into();
        let said: Positions =
            [(partition(0), at(10)), (partition(1), at(99)), (partition(2), at(12)), (partition(9), at(1))]
                .into();
        let expected: Offsets =
            [(partition(0), (10, 3)), (partition(1), (20, 4)), (partition(2), (12, 0))].into();
        assert_eq!(within(&delivered, &said), expected);
        assert_eq!(within(&delivered, &Positions::new()), Offsets::new());
    }
}
