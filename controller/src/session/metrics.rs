//! Counters and alerts, for people and for what watches over the cluster.

use plimsoll_proto::v1::{self, ErrorDetail};

use super::shared::Shared;

/// As applied here, once a majority confirmed that it is not old.
pub(super) async fn metrics(shared: &Shared) -> Result<v1::MetricsResponse, ErrorDetail> {
    let view = shared.read().await?;
    let state = &view.state;
    let counts = state.counts();
    Ok(v1::MetricsResponse {
        version: state.version().0,
        events: state.event_counts(),
        no_ops_total: state.no_ops(),
        alerts: state.alerts(),
        partitions: counts.partitions,
        partitions_without_leader: counts.without_leader,
        partitions_under_replicated: counts.under_replicated,
        partitions_below_min_in_sync: counts.below_min_in_sync,
    })
}
