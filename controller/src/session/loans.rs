//! Marks that operators lowered (`disk borrow`): what nodes tell of them is written down, for who asks later.
//!
//! Pure. The node lowers its mark and puts it back by itself; what is noted here changes nothing for it.

use std::time::Duration;

use plimsoll_proto::ids::{SpuId, VolumeId};
use plimsoll_proto::v1;

use super::facts::Heard;
use crate::cluster::ClusterState;

/// The next difference between what a node said since `since` and what is noted of it.
pub(super) fn next_note(
    state: &ClusterState,
    heard: impl Fn(SpuId) -> Option<Heard>,
    since: Duration,
) -> Option<v1::NoteLoan> {
    state.spus().iter().find_map(|(id, spu)| {
        let heard = heard(*id).filter(|heard| heard.incarnation == spu.incarnation && heard.at >= since)?;
        heard.volumes.iter().find_map(|facts| {
            let volume_id = VolumeId::from_slice(&facts.volume_id).ok()?;
            let noted = spu.volumes.get(&volume_id)?.borrowed_bytes;
            (noted != facts.borrowed_bytes).then(|| v1::NoteLoan {
                spu_id: id.0,
                volume_id: volume_id.to_bytes(),
                incarnation: spu.incarnation.0,
                expected_bytes: noted,
                borrowed_bytes: facts.borrowed_bytes,
                reason: if facts.borrowed_bytes > 0 {
                    format!("by an operator, for {} s more", facts.borrow_ms.div_ceil(1000))
                } else {
                    "its time is over, or it was put back".to_owned()
                },
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::ids::Incarnation;
    use plimsoll_proto::v1::entry::Change;

    use super::*;
    use crate::cluster::testing::{Cluster, volume};

    #[test]
    fn what_a_node_says_of_its_mark_is_noted_once_and_so_is_its_end() {
        let mut cluster = Cluster::of(2);
        let now = Duration::from_secs(100);
        let said = |cluster: &Cluster, bytes, at, incarnation_off| {
            let incarnation = Incarnation(cluster.incarnation(2) + incarnation_off);
            let facts = v1::VolumeFacts {
                volume_id: volume(2).to_bytes(),
                borrowed_bytes: bytes,
                borrow_ms: 1500,
                ..Default::default()
            };
            let heard =
                move |id: SpuId| (id.0 == 2).then(|| Heard { incarnation, at, volumes: vec![facts.clone()] });
            next_note(&cluster.state, heard, now)
        };
        assert_eq!(said(&cluster, 0, now, 0), None);
        assert_eq!(said(&cluster, 7, Duration::ZERO, 0), None, "old news");
        assert_eq!(said(&cluster, 7, now, 1), None, "of another run");
        let note = said(&cluster, 7, now, 0).expect("a difference");
        let applied = cluster.apply(Change::NoteLoan(note.clone()));
        let told = |events: &[v1::ClusterEvent]| {
            events
                .iter()
                .map(|e| format!("{} {} -> {}: {}", e.kind, e.from, e.to, e.reason))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&applied.events),
            ["mark_lowered as configured -> lowered by 7 bytes: by an operator, for 2 s more"]
        );
        assert_eq!(said(&cluster, 7, now, 0), None, "it is noted");
        cluster.refused(Change::NoteLoan(note));
        let over = said(&cluster, 0, now, 0).expect("a difference");
        let applied = cluster.apply(Change::NoteLoan(over));
        assert_eq!(
            told(&applied.events),
            ["mark_restored lowered by 7 bytes -> as configured: its time is over, or it was put back"]
        );
    }
}
