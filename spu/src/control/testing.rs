//! What tests of the link to the controllers share.

use std::time::Duration;

use plimsoll_proto::ids::SpuId;

use super::heartbeat::HeartbeatTimings;
use super::link::ControlSettings;
use crate::runtime::testing::CLUSTER;

/// Of node 1 of a test cluster.
pub(super) fn settings() -> ControlSettings {
    ControlSettings {
        cluster_id: CLUSTER,
        spu_id: SpuId(1),
        advertise: "node-1:1".to_owned(),
        rack: String::new(),
        join_token: None,
        heartbeat: HeartbeatTimings {
            interval: Duration::from_millis(500),
            answer_wait_max: Duration::from_secs(2),
        },
    }
}
