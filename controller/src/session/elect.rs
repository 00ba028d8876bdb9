//! An election by command: ask every replica where it stands, say what would be lost, propose one entry.

use bytes::Bytes;
use plimsoll_host::ChannelOptions;
use plimsoll_proto::ids::{PartitionId, SpuId};
use plimsoll_proto::v1::{self, ErrorDetail, Reason, entry::Change, peer_client::PeerClient};

use super::shared::Shared;
use super::{answer, topics};
use crate::cluster::Partition;
use crate::election::{Candidates, at_risk, candidates, is_clean};
use crate::raft_runtime::View;

/// Elects, or says why not. Without `unclean` nothing is elected that may lack committed records: the answer then
/// says what is at risk.
pub(super) async fn elect(
    shared: &Shared,
    request: v1::ElectLeaderRequest,
) -> Result<v1::ElectLeaderResponse, ErrorDetail> {
    let name = topics::name(&request.topic)?;
    let view = shared.leading()?;
    let (topic_id, _) = view.state.topic_by_name(name.as_str()).ok_or_else(|| topics::unknown(&name))?;
    let id = PartitionId { topic_id, index: request.partition };
    let unknown = || {
        let text = format!("there is no partition {name}/{}", request.partition);
        ErrorDetail::not_written(Reason::UnknownPartition, text)
    };
    let partition = view.state.partition(id).ok_or_else(unknown)?;
    let standings = standings(shared, &view, id, partition).await;
    let found = candidates(&view.state, partition, &standings);
    let leader_before = partition.leader_spu().map_or(0, |spu| spu.0);
    let mut response = v1::ElectLeaderResponse {
        leader: leader_before,
        leader_before,
        leader_epoch: partition.leader_epoch.0,
        high_watermark: found.high_watermark,
        version: view.state.version().0,
        ..Default::default()
    };
    let lives = partition.leader_spu().is_some_and(|leader| view.state.spu_state(leader).is_live());
    let chosen = choose(&view, partition, &found, request.spu_id)?;
    let Candidates { candidates, .. } = found;
    response.candidates = candidates;
    response.unclean = !is_clean(&chosen);
    let wanted = request.spu_id != 0 || !lives;
    if !wanted || response.leader == chosen.spu_id && lives && !response.unclean {
        // Somebody leads, and nobody else was asked for.
        response.unclean = false;
        return Ok(response);
    }
    response.leader = chosen.spu_id;
    if request.dry_run || (response.unclean && !request.unclean) {
        return Ok(response);
    }
    let reason = if response.unclean {
        format!("by command; offsets at risk: {}", at_risk(&chosen))
    } else {
        "by command".to_owned()
    };
    let change = v1::ForceLeader {
        topic_id: topic_id.to_bytes(),
        partition: id.index,
        partition_epoch: partition.partition_epoch.0,
        leader: chosen.spu_id,
        leader_incarnation: view.state.incarnation(SpuId(chosen.spu_id)).map_or(0, |run| run.0),
        reason,
    };
    let (version, _) = shared.change(Change::ForceLeader(change)).await?;
    let state = shared.raft.view().state.clone();
    response.elected = true;
    response.version = version;
    response.leader_epoch = state.partition(id).map_or(0, |partition| partition.leader_epoch.0);
    Ok(response)
}

fn choose(
    view: &View,
    partition: &Partition,
    found: &Candidates,
    asked: u32,
) -> Result<v1::ElectionCandidate, ErrorDetail> {
    let lives = |candidate: &&v1::ElectionCandidate| {
        candidate.answered && view.state.spu_state(SpuId(candidate.spu_id)).is_live()
    };
    if asked != 0 && !partition.is_on(SpuId(asked)) {
        return Err(answer::invalid(format!("SPU {asked} has no replica of this partition")));
    }
    let mut fit = found.candidates.iter().filter(|c| asked == 0 || c.spu_id == asked).filter(lives);
    fit.next().cloned().ok_or_else(|| {
        let who = if asked == 0 { "no replica".to_owned() } else { format!("SPU {asked}") };
        let text = format!("{who} answers and is registered; start the node that holds it");
        ErrorDetail::not_written(Reason::NoLeader, text)
    })
}

/// Where the replicas stand that answer in time, each asked on its own.
async fn standings(
    shared: &Shared,
    view: &View,
    id: PartitionId,
    partition: &Partition,
) -> Vec<v1::StandingResponse> {
    let request = v1::StandingRequest {
        cluster_id: view.state.cluster_id().map_or_else(Bytes::new, |id| id.to_bytes()),
        topic_id: id.topic_id.to_bytes(),
        partition: id.index,
    };
    let asked = partition.replicas.iter().filter_map(|replica| {
        let address = &view.state.spu(replica.spu)?.address;
        let channel = shared.host.network.channel(address, &ChannelOptions::default()).ok()?;
        let request = request.clone();
        Some(async move {
            let mut client = PeerClient::new(channel);
            let standing = client.standing(request);
            let answer = shared.host.clock.timeout(shared.settings.probe_timeout, standing).await;
            answer.ok()?.ok().map(tonic::Response::into_inner)
        })
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}
