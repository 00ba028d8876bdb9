//! Reading requests: everything from outside is bounded and checked before it is used.

use std::time::Duration;

use plimsoll_proto::ids::{ClusterId, Incarnation, SpuId, TopicId, VolumeId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason};

use super::answer;
use crate::cluster::ClusterState;

/// The one protocol version of this build.
pub(super) const PROTOCOL: u32 = 1;

const TEXT_BYTES_MAX: usize = 256;
const PATH_BYTES_MAX: usize = 4096;
const VOLUMES_MAX: usize = 64;
const REPLICA_REPORTS_MAX: usize = 100_000;
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 1..=64;

/// Checks that the request is for this cluster. An empty id means any.
pub(super) fn cluster(state: &ClusterState, claimed: &[u8]) -> Result<(), ErrorDetail> {
    let Some(ours) = state.cluster_id() else {
        return Err(answer::no_quorum("the cluster is not bootstrapped yet"));
    };
    match ClusterId::from_slice(claimed) {
        _ if claimed.is_empty() => Ok(()),
        Ok(theirs) if theirs == ours => Ok(()),
        Ok(_) | Err(_) => Err(answer::wrong_cluster(ours)),
    }
}

/// Checks that the asker is the registered run of a node that takes part.
pub(super) fn sender(
    state: &ClusterState,
    spu: u32,
    incarnation: u64,
) -> Result<(SpuId, Incarnation), ErrorDetail> {
    let (spu, incarnation) = (SpuId(spu), Incarnation(incarnation));
    let record = state.spu(spu).ok_or_else(|| answer::stale_incarnation(None))?;
    if record.incarnation == incarnation && record.state.is_live() {
        Ok((spu, incarnation))
    } else {
        Err(answer::stale_incarnation(Some(record.incarnation)))
    }
}

pub(super) fn topic_id(bytes: &[u8]) -> Result<TopicId, ErrorDetail> {
    TopicId::from_slice(bytes).map_err(|error| answer::invalid(error.to_string()))
}

pub(super) fn volume_id(bytes: &[u8]) -> Result<VolumeId, ErrorDetail> {
    VolumeId::from_slice(bytes).map_err(|error| answer::invalid(error.to_string()))
}

/// Text for events: cut, not refused.
pub(super) fn reason(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_BYTES_MAX).collect()
}

/// Checks a registration.
pub(super) fn registration(request: &v1::RegisterRequest) -> Result<(), ErrorDetail> {
    let rule = |holds: bool, text: &str| if holds { Ok(()) } else { Err(answer::invalid(text)) };
    rule(request.spu_id != 0, "spu_id 0 is reserved; ids start at 1")?;
    rule(NONCE_BYTES.contains(&request.start_nonce.len()), "start_nonce must be 1 to 64 bytes")?;
    address(&request.address)?;
    rule(request.rack.len() <= TEXT_BYTES_MAX, "rack is longer than 256 bytes")?;
    rule((1..=VOLUMES_MAX).contains(&request.volumes.len()), "a node registers 1 to 64 volumes")?;
    rule(request.replicas.len() <= REPLICA_REPORTS_MAX, "more than 100000 replicas are reported")?;
    volumes(&request.volumes)?;
    for replica in &request.replicas {
        topic_id(&replica.topic_id)?;
    }
    if (request.protocol_min..=request.protocol_max).contains(&PROTOCOL) {
        return Ok(());
    }
    let text = format!(
        "the node speaks protocol {} to {}, this controller {PROTOCOL}",
        request.protocol_min, request.protocol_max
    );
    Err(ErrorDetail::not_written(Reason::UnsupportedProtocol, text))
}

/// Checks the volumes of a registration or heartbeat.
pub(super) fn volumes(volumes: &[v1::VolumeFacts]) -> Result<(), ErrorDetail> {
    if volumes.len() > VOLUMES_MAX {
        return Err(answer::invalid("more than 64 volumes"));
    }
    for volume in volumes {
        volume_id(&volume.volume_id)?;
        if volume.path.len() > PATH_BYTES_MAX || volume.failure.len() > PATH_BYTES_MAX {
            return Err(answer::invalid("a path or failure is longer than 4096 bytes"));
        }
        if volume.stopped_replicas.len() > v1::VolumeFacts::STOPPED_REPLICAS_MAX {
            return Err(answer::invalid("more than 64 stopped replicas of a volume are named"));
        }
        for stopped in &volume.stopped_replicas {
            topic_id(&stopped.topic_id)?;
        }
    }
    Ok(())
}

/// Checks `host:port`.
pub(super) fn address(address: &str) -> Result<(), ErrorDetail> {
    let well_formed = address.rsplit_once(':').is_some_and(|(host, port)| {
        let port = port.parse::<u16>().is_ok_and(|port| port != 0);
        port && !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    });
    if well_formed && address.len() <= TEXT_BYTES_MAX {
        Ok(())
    } else {
        Err(answer::invalid("address is not HOST:PORT; pass --advertise HOST:PORT"))
    }
}

/// How long ago the volume's worker last finished a turn.
pub(super) fn data_paths(volumes: &[v1::VolumeFacts]) -> Vec<(VolumeId, Duration)> {
    volumes
        .iter()
        .filter_map(|v| {
            Some((VolumeId::from_slice(&v.volume_id).ok()?, Duration::from_millis(v.data_path_age_ms)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:9000", "node-1.example:1", "[::1]:80"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            ":1",
            "host:0",
            "host:70000",
            "a b:1",
            "http://x/:1",
            &format!("{}:1", "h".repeat(300)),
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn facts_of_volumes_are_bounded() {
        let facts = |stopped: usize, id: &'static [u8]| v1::VolumeFacts {
            volume_id: vec![1; 16].into(),
            stopped_replicas: vec![v1::StoppedReplica { topic_id: id.into(), ..Default::default() }; stopped],
            ..Default::default()
        };
        let most = v1::VolumeFacts::STOPPED_REPLICAS_MAX;
        assert_eq!(volumes(&[facts(most, &[2; 16])]), Ok(()));
        assert!(volumes(&[facts(most + 1, &[2; 16])]).is_err(), "more than are ever named");
        assert!(volumes(&[facts(1, &[2; 15])]).is_err(), "not a topic");
        assert!(volumes(&vec![facts(0, &[]); VOLUMES_MAX + 1]).is_err(), "more volumes than a node has");
    }

    #[test]
    fn registrations_are_checked() {
        let good = v1::RegisterRequest {
            spu_id: 1,
            start_nonce: vec![1; 16].into(),
            address: "h:1".to_owned(),
            volumes: vec![v1::VolumeFacts { volume_id: vec![1; 16].into(), ..Default::default() }],
            protocol_min: 1,
            protocol_max: 3,
            ..Default::default()
        };
        assert_eq!(registration(&good), Ok(()));
        let bad: [(&str, v1::RegisterRequest); 7] = [
            ("id", v1::RegisterRequest { spu_id: 0, ..good.clone() }),
            ("nonce", v1::RegisterRequest { start_nonce: vec![].into(), ..good.clone() }),
            ("address", v1::RegisterRequest { address: "x".to_owned(), ..good.clone() }),
            ("no volume", v1::RegisterRequest { volumes: vec![], ..good.clone() }),
            ("volume id", v1::RegisterRequest { volumes: vec![v1::VolumeFacts::default()], ..good.clone() }),
            ("protocol", v1::RegisterRequest { protocol_min: 2, ..good.clone() }),
            ("replica", v1::RegisterRequest { replicas: vec![v1::ReplicaReport::default()], ..good.clone() }),
        ];
        for (what, request) in bad {
            assert!(registration(&request).is_err(), "{what}");
        }
    }
}
