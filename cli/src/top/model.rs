//! What the screen shows: the last look at the cluster, and what changed since the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use plimsoll_client::{AdminError, Client, SpuId, TopicId};
use plimsoll_host::Host;
use plimsoll_proto::ids::PartitionId;

use crate::health::{self, Finding, Verdict};
use crate::volume::{Volume, volumes_of};

/// Partitions that are asked for their ends at each look; more are not counted.
const PARTITIONS_MAX: usize = 256;
/// How long coordinators of groups may take.
const GROUPS_MAX_WAIT: Duration = Duration::from_secs(1);
/// Groups whose offsets are asked for at each look.
const GROUPS_ASKED_MAX: usize = 32;
/// Events shown at most.
const EVENTS: usize = 200;

/// One look.
#[derive(Default)]
pub(super) struct Look {
    pub(super) at: Duration,
    pub(super) verdict: Option<Verdict>,
    pub(super) findings: Vec<Finding>,
    pub(super) cluster: String,
    pub(super) leader: Option<u64>,
    pub(super) controllers: (usize, usize),
    pub(super) spus: (usize, usize),
    pub(super) volumes: Vec<Volume>,
    pub(super) topics: Vec<Topic>,
    /// `None` when a coordinator did not answer: the list would not be whole.
    pub(super) groups: Option<Vec<Group>>,
    /// Newest first.
    pub(super) events: Vec<Vec<String>>,
}

pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: usize,
    pub(super) led: usize,
    /// Partitions whose every replica is in sync.
    pub(super) whole: usize,
    /// Sum of the ends of the partitions that answered, and how many did.
    pub(super) ends: u64,
    pub(super) answered: usize,
    pub(super) records: u64,
}

pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: u32,
    /// Partitions with a committed offset.
    pub(super) partitions: u32,
    /// Records behind those offsets; `None` when the end of one of them is not known.
    pub(super) lag: Option<u64>,
}

/// The last look and rates since the one before.
#[derive(Default)]
pub(super) struct Model {
    pub(super) look: Look,
    /// Records a second by topic.
    pub(super) rates: BTreeMap<String, u64>,
    pub(super) paused: bool,
    /// Why the picture is old, and since when.
    pub(super) lost: Option<(String, Duration)>,
}

impl Model {
    pub(super) fn take(&mut self, look: Look) {
        let passed = look.at.saturating_sub(self.look.at).as_millis();
        self.rates = look
            .topics
            .iter()
            .filter_map(|topic| {
                let before = self.look.topics.iter().find(|before| before.name == topic.name)?;
                // Other partitions have answered: the sums cannot be compared.
                let comparable = before.answered == topic.answered && topic.answered > 0 && passed > 0;
                let grown = u128::from(topic.ends.saturating_sub(before.ends));
                comparable
                    .then(|| (topic.name.clone(), u64::try_from(grown * 1000 / passed).unwrap_or(u64::MAX)))
            })
            .collect();
        self.lost = None;
        self.look = look;
    }

    pub(super) fn lost(&mut self, why: String, now: Duration) {
        let since = self.lost.take().map_or(now, |(_, since)| since);
        self.lost = Some((why, since));
    }
}

/// Looks at the cluster.
pub(super) async fn look(client: &Client, host: &Host) -> Result<Look, AdminError> {
    let looked = health::look(client, host).await?;
    let status = looked.status;
    let events = looked.events.into_iter().rev().take(EVENTS);
    let mut volumes: Vec<Volume> = status.spus.iter().flat_map(volumes_of).collect();
    volumes.sort_by(|a, b| (a.spu, &a.path).cmp(&(b.spu, &b.path)));
    let online = status.spus.iter().filter(|spu| {
        spu.info.as_ref().is_some_and(|info| info.state() == plimsoll_proto::v1::SpuState::Online)
    });
    let (topics, ends) = topics(client).await;
    Ok(Look {
        at: host.clock.now(),
        verdict: Some(health::verdict(&looked.findings)),
        findings: looked.findings,
        cluster: crate::words::hex(&status.cluster_id).chars().take(8).collect(),
        leader: (status.leader > 0).then_some(status.leader),
        controllers: (
            status.controllers.iter().filter(|controller| controller.reachable).count(),
            status.controllers.len(),
        ),
        spus: (online.count(), status.spus.len()),
        volumes,
        topics,
        groups: groups(client, host, &ends).await,
        events: events.map(|event| crate::events::Event::from(event).row()).collect(),
    })
}

/// Committed ends of partitions.
type Ends = BTreeMap<PartitionId, u64>;

/// Groups with most members first; `None` when a coordinator does not answer in time.
async fn groups(client: &Client, host: &Host, ends: &Ends) -> Option<Vec<Group>> {
    let listed = host.clock.timeout(GROUPS_MAX_WAIT, client.list_groups()).await.ok()?.ok()?;
    let mut listed: Vec<_> = listed.into_iter().collect();
    listed.sort_by(|a, b| (b.members, &a.group).cmp(&(a.members, &b.group)));
    let lag = |info: plimsoll_client::GroupInfo, asked: bool| async move {
        let committed = async {
            if !asked {
                return None;
            }
            let group = client.group(info.group.clone());
            host.clock.timeout(GROUPS_MAX_WAIT, group.committed()).await.ok()?.ok()
        };
        let committed = committed.await;
        let behind = |(partition, offset): (&PartitionId, &plimsoll_client::Offset)| {
            ends.get(partition).map(|end| end.saturating_sub(offset.get()))
        };
        let lag = committed.and_then(|committed| committed.iter().map(behind).sum());
        Group { name: info.group, members: info.members, partitions: info.offsets, lag }
    };
    let asked = listed.into_iter().enumerate().map(|(at, info)| lag(info, at < GROUPS_ASKED_MAX));
    Some(futures::future::join_all(asked).await)
}

async fn topics(client: &Client) -> (Vec<Topic>, Ends) {
    let image = client.metadata();
    let mut topics: BTreeMap<TopicId, Topic> = BTreeMap::new();
    let mut committed = Ends::new();
    let mut asked = FuturesUnordered::new();
    for (id, info) in &image.topics {
        let led = info.partitions.iter().filter(|partition| partition.leader != 0).count();
        let whole =
            info.partitions.iter().filter(|partition| partition.in_sync.len() >= partition.replicas.len());
        let topic = Topic {
            name: info.name.clone(),
            partitions: info.partitions.len(),
            led,
            whole: whole.count(),
            ends: 0,
            answered: 0,
            records: 0,
        };
        topics.insert(*id, topic);
        for partition in info.partitions.iter().filter(|partition| partition.leader != 0) {
            if asked.len() < PARTITIONS_MAX {
                let node = client.node(SpuId(partition.leader));
                let partition = PartitionId { topic_id: *id, index: partition.index };
                asked.push(async move { (partition, node.offsets(partition).await) });
            }
        }
    }
    while let Some((partition, answer)) = asked.next().await {
        if let (Some(topic), Ok(ends)) = (topics.get_mut(&partition.topic_id), answer) {
            committed.insert(partition, ends.high_watermark);
            topic.ends = topic.ends.saturating_add(ends.log_end);
            topic.records = topic.records.saturating_add(ends.log_end.saturating_sub(ends.log_start));
            topic.answered += 1;
        }
    }
    let mut topics: Vec<Topic> = topics.into_values().collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    (topics, committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_looks_that_can_be_compared() {
        let look = |at, ends, answered| Look {
            at: Duration::from_secs(at),
            topics: vec![Topic {
                name: "t".to_owned(),
                partitions: 2,
                led: 2,
                whole: 2,
                ends,
                answered,
                records: ends,
            }],
            ..Default::default()
        };
        let mut model = Model::default();
        model.take(look(10, 100, 2));
        assert_eq!(model.rates.get("t"), None);
        model.take(look(12, 500, 2));
        assert_eq!(model.rates.get("t"), Some(&200));
        model.take(look(14, 300, 1));
        assert_eq!(model.rates.get("t"), None);
        model.lost("gone".to_owned(), Duration::from_secs(15));
        model.lost("gone still".to_owned(), Duration::from_secs(16));
        assert_eq!(model.lost, Some(("gone still".to_owned(), Duration::from_secs(15))));
        model.take(look(18, 300, 1));
        assert_eq!(model.lost, None);
    }
}
