//! An election by command asks the replicas, says what it would cost, and does no more than it was told to.

use plimsoll_proto::ids::SpuId;

use super::fake_node::FakeNode;
use super::*;

/// Where the replica of a node stands, as it says itself; nothing while it does not answer.
type Standing = watch::Sender<Option<v1::StandingResponse>>;

/// A partition on two nodes, of which one has left the set.
struct World {
    controllers: Vec<Controller>,
    admin: AdminClient<Channel>,
    nodes: Vec<Node>,
    standings: Vec<Standing>,
    _servers: Vec<Task>,
    id: PartitionId,
}

impl World {
    async fn new() -> Self {
        let host = Host::real();
        let controllers = controllers(&host, 1).await;
        leader(&host, &controllers).await;
        let (mut nodes, mut standings, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for id in 1..=2 {
            let (standing, told) = watch::channel(None);
            let (address, server) = FakeNode { id, standing: told }.serve(&host).await;
            servers.push(server);
            standings.push(standing);
            let registration = v1::RegisterRequest { address, ..registration(id) };
            nodes.push(Node::start_as(&host, &controllers[0], registration).await);
        }
        let mut admin = AdminClient::new(channel(&host, &controllers[0]));
        let config = v1::TopicConfig { partitions: 1, replicas: 2, min_in_sync: 1, ..Default::default() };
        let topic_id = admin.create_topic(create("t", config)).await.unwrap().into_inner().topic_id;
        let id = PartitionId { topic_id: TopicId::from_slice(&topic_id).unwrap(), index: 0 };
        let mut world = Self { controllers, admin, nodes, standings, _servers: servers, id };
        let leader = world.leader();
        world.change_set(&[leader]).await;
        world
    }

    fn partition(&self) -> crate::cluster::Partition {
        self.controllers[0].raft().view().state.partition(self.id).unwrap().clone()
    }

    fn leader(&self) -> u32 {
        self.partition().leader_spu().unwrap().0
    }

    fn other(&self) -> u32 {
        3 - self.leader()
    }

    /// The leader proposes a set, and it is committed.
    async fn change_set(&mut self, members: &[u32]) {
        let (leader, partition, id) = (self.leader(), self.partition(), self.id);
        let run = |spu: u32| self.nodes.iter().find(|node| node.id == spu).unwrap().incarnation;
        let in_sync = members.iter().map(|spu| v1::InSyncMember { spu_id: *spu, incarnation: run(*spu) });
        let in_sync = in_sync.collect();
        let node = self.nodes.iter_mut().find(|node| node.id == leader).unwrap();
        let request = v1::ChangeInSyncRequest {
            cluster_id: node.cluster_id.clone(),
            spu_id: leader,
            incarnation: node.incarnation,
            topic_id: id.topic_id.to_bytes(),
            partition: id.index,
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch.0,
            in_sync,
            reason: "as told".to_owned(),
        };
        assert!(node.control.change_in_sync(request).await.unwrap().into_inner().applied);
    }

    fn stands(&self, spu: u32, log_end: u64, high_watermark: u64) {
        let node = self.nodes.iter().find(|node| node.id == spu).unwrap();
        let standing = v1::StandingResponse {
            spu_id: spu,
            incarnation: node.incarnation,
            held: true,
            last_epoch: self.partition().leader_epoch.0,
            log_end,
            high_watermark,
            ..Default::default()
        };
        self.standings[usize::try_from(spu - 1).unwrap()].send_replace(Some(standing));
    }

    async fn elect(&mut self, spu_id: u32, unclean: bool, dry_run: bool) -> v1::ElectLeaderResponse {
        let request =
            v1::ElectLeaderRequest { topic: "t".to_owned(), partition: 0, spu_id, unclean, dry_run };
        self.admin.elect_leader(request).await.unwrap().into_inner()
    }

    async fn unclean_elections(&mut self) -> Vec<v1::ClusterEvent> {
        let events = self.admin.list_events(v1::ListEventsRequest::default()).await.unwrap().into_inner();
        events.events.into_iter().filter(|event| event.kind == "unclean_election").collect()
    }

    async fn stop(self) {
        for controller in self.controllers {
            controller.stop(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_without_being_told_to() {
    let mut world = World::new().await;
    let (leader, other) = (world.leader(), world.other());
    let before = world.partition();
    assert_eq!(before.in_sync, [SpuId(leader)].into());
    // Only the one that lacks records answers.
    world.stands(other, 5, 5);
    for (unclean, dry_run) in [(false, false), (false, true), (true, true)] {
        let answer = world.elect(other, unclean, dry_run).await;
        let said = (answer.elected, answer.unclean, answer.leader, answer.leader_before);
        assert_eq!(said, (false, true, other, leader), "unclean {unclean}, dry run {dry_run}");
        let candidate = answer.candidates.iter().find(|candidate| candidate.spu_id == other).unwrap();
        assert_eq!((candidate.at_risk_from, candidate.at_risk_open), (5, true));
        assert_eq!(world.partition(), before, "unclean {unclean}, dry run {dry_run}");
    }
    assert!(world.unclean_elections().await.is_empty());

    let answer = world.elect(other, true, false).await;
    assert_eq!((answer.elected, answer.unclean, answer.leader), (true, true, other));
    let after = world.partition();
    assert_eq!((after.leader_spu(), after.in_sync), (Some(SpuId(other)), [SpuId(other)].into()));
    assert_eq!(answer.leader_epoch, after.leader_epoch.0);
    let [event] = world.unclean_elections().await.try_into().unwrap();
    assert!(event.reason.contains("offsets at risk: 5 and on"), "{event:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_at_risk_is_bounded_by_a_member_that_answers() {
    let mut world = World::new().await;
    let (leader, other) = (world.leader(), world.other());
    world.stands(leader, 8, 8);
    world.stands(other, 5, 5);
    // Somebody leads, and nobody else was asked for.
    let answer = world.elect(0, true, false).await;
    assert_eq!((answer.elected, answer.unclean, answer.leader), (false, false, leader));
    let answer = world.elect(other, true, false).await;
    assert!(answer.elected && answer.unclean);
    let [event] = world.unclean_elections().await.try_into().unwrap();
    assert!(event.reason.contains("offsets at risk: 5 to 8"), "{event:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_election_is_held_without_further_words_but_not_by_a_dry_run() {
    let mut world = World::new().await;
    let (leader, other) = (world.leader(), world.other());
    world.change_set(&[leader, other]).await;
    world.stands(other, 8, 5);
    let before = world.partition();
    let answer = world.elect(other, false, true).await;
    assert_eq!((answer.elected, answer.unclean, answer.leader), (false, false, other));
    assert_eq!(world.partition(), before);
    let answer = world.elect(other, false, false).await;
    assert_eq!(
        (answer.elected, answer.unclean, answer.leader, answer.leader_before),
        (true, false, other, leader)
    );
    assert_eq!(world.leader(), other);
    assert!(world.unclean_elections().await.is_empty());
    world.stop().await;
}
