//! Alerts: which nodes and volumes are out of service, as the applied state has it.
//!
//! Nothing is kept for them but since when a node or volume is in its state. So there is one alert for one fault, it has
//! the same id on every controller and after every start, and it ends with the entry that ends the fault. What follows from
//! the fault (leaders that moved, sets that shrank) raises none of its own.

use plimsoll_proto::ids::{SpuId, VolumeId};
use plimsoll_proto::v1;

use super::node::{Duty, Spu, SpuState, Volume, VolumeState};
use super::state::ClusterState;

impl ClusterState {
    /// Every alert there is, in order of nodes and volumes.
    pub fn alerts(&self) -> Vec<v1::Alert> {
        let of_node = |(id, spu): (&SpuId, &std::sync::Arc<Spu>)| {
            let volumes = spu.volumes.iter().filter_map(|(volume, record)| of_volume(*id, *volume, record));
            of_spu(*id, spu).into_iter().chain(volumes).collect::<Vec<_>>()
        };
        self.spus().iter().flat_map(of_node).collect()
    }
}

/// One that its operator took out of service is no fault.
fn of_spu(id: SpuId, spu: &Spu) -> Option<v1::Alert> {
    if spu.state != SpuState::Offline || spu.duty == Duty::Offline {
        return None;
    }
    Some(v1::Alert {
        id: format!("SPU_OFFLINE/{id}/{}", spu.since_index),
        code: "SPU_OFFLINE".to_owned(),
        subject: format!("spu {id}"),
        spu_id: id.0,
        index: spu.since_index,
        since_ms: spu.since_ms,
        ..v1::Alert::default()
    })
}

fn of_volume(spu: SpuId, id: VolumeId, volume: &Volume) -> Option<v1::Alert> {
    let code = match volume.state {
        VolumeState::Writable => return None,
        VolumeState::WriteOffline { .. } => "DISK_FULL",
        VolumeState::Stalled { .. } => "VOLUME_STALLED",
        VolumeState::Failed { .. } => "VOLUME_FAILED",
    };
    Some(v1::Alert {
        id: format!("{code}/{spu}/{id}/{}", volume.since_index),
        code: code.to_owned(),
        subject: format!("spu {spu} {}", volume.path),
        spu_id: spu.0,
        volume_id: id.to_bytes(),
        index: volume.since_index,
        since_ms: volume.since_ms,
        reason: volume.state.reason().to_owned(),
    })
}
