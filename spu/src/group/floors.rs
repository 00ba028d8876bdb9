//! What active groups have not read yet, asked of their coordinators for the reclaim on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::group::OFFSETS_TOPIC;
use plimsoll_proto::ids::{Offset, PartitionId, SpuId, TopicId};
use plimsoll_proto::v1;
use plimsoll_proto::v1::group_client::GroupClient;
use tonic::transport::Channel;

use crate::runtime::{GroupFloors, NodeHandle};

/// Floors only rise, but for a reset: an old one is a low one.
const INTERVAL: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(1);
const ASK_MAX: Duration = Duration::from_secs(3);
/// A group that neither committed nor had members for this long holds nothing back.
const ACTIVE_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps the floors of this node up to date, while there are topics that pressure may trim.
pub(super) async fn keep(host: Host, node: NodeHandle) {
    let mut stopping = node.stopping();
    let mut channels: BTreeMap<String, GroupClient<Channel>> = BTreeMap::new();
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = host.clock.sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let topics = node.trimmed_topics();
        let has_groups = node.metadata().topic_by_name(OFFSETS_TOPIC).is_some();
        if topics.is_empty() || !has_groups {
            pause = FIRST;
            continue;
        }
        // Without an answer of every coordinator the floors stay as they were.
        match ask_all(&host, &node, &topics, &mut channels).await {
            Some(floors) => {
                node.set_group_floors(GroupFloors { floors, unknown: false });
                pause = INTERVAL;
            }
            None => pause = FIRST,
        }
    }
}

async fn ask_all(
    host: &Host,
    node: &NodeHandle,
    topics: &[TopicId],
    channels: &mut BTreeMap<String, GroupClient<Channel>>,
) -> Option<BTreeMap<PartitionId, Offset>> {
    let image = node.metadata();
    let offsets = image.topic_by_name(OFFSETS_TOPIC)?;
    let mut missing: BTreeSet<u32> = offsets.partitions.iter().map(|info| info.index).collect();
    let leaders: BTreeSet<u32> = offsets.partitions.iter().map(|info| info.leader).collect();
    let mut floors = BTreeMap::new();
    for leader in leaders {
        let address = image.address(SpuId(leader))?.to_owned();
        if !channels.contains_key(&address) {
            let channel = host.network.channel(&address, &ChannelOptions::default()).ok()?;
            channels.insert(address.clone(), GroupClient::new(channel));
        }
        let client = channels.get_mut(&address)?;
        let request = v1::GroupFloorsRequest {
            cluster_id: node.cluster_id().to_bytes(),
            active_within_ms: u64::try_from(ACTIVE_WITHIN.as_millis()).unwrap_or(u64::MAX),
            topic_ids: topics.iter().map(|id| id.to_bytes()).collect(),
        };
        let answer = host.clock.timeout(ASK_MAX, client.group_floors(request)).await.ok()?.ok()?.into_inner();
        for index in &answer.partitions {
            missing.remove(index);
        }
        for floor in answer.floors {
            let topic_id = TopicId::from_slice(&floor.topic_id).ok()?;
            let offset = Offset::new(floor.offset).ok()?;
            let lowest = floors.entry(PartitionId { topic_id, index: floor.partition }).or_insert(offset);
            *lowest = offset.min(*lowest);
        }
    }
    missing.is_empty().then_some(floors)
}
