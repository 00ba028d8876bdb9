//! A relief that began by itself is called off.

use plimsoll_proto::ids::PartitionId;

use super::*;
use crate::cluster::MoveCause;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relief_that_began_by_itself_is_called_off() {
    let host = Host::real();
    let session = SessionSettings {
        relief_after: Duration::ZERO,
        offsets_topic_early: false,
        ..SessionSettings::default()
    };
    let controllers = controllers_with(&host, 1, session).await;
    leader(&host, &controllers).await;
    let mut nodes = Vec::new();
    for id in 1..=4 {
        nodes.push(Node::start(&host, &controllers[0], id).await);
    }
    let mut admin = AdminClient::new(channel(&host, &controllers[0]));
    let config = v1::TopicConfig { partitions: 1, ..Default::default() };
    let created = admin.create_topic(create("t", config)).await.unwrap().into_inner();
    let id = PartitionId { topic_id: TopicId::from_slice(&created.topic_id).unwrap(), index: 0 };
    let view = controllers[0].raft().view();
    let partition = view.state.partition(id).unwrap();
    let mut replicas = partition.replicas.iter().map(|replica| replica.spu);
    let short = replicas.find(|spu| partition.leader_spu() != Some(*spu)).expect("a follower").0;
    nodes[usize::try_from(short - 1).unwrap()].level.send_replace(v1::DiskLevel::Throttle);
    let mut views = controllers[0].raft().watch();
    let begins = views.wait_for(|view| {
        let mut moves = view.state.partitions().filter_map(|(_, _, p)| p.reassignment.as_ref());
        moves.any(|moving| moving.cause == MoveCause::Relief)
    });
    drop(host.clock.timeout(PATIENCE, begins).await.expect("in time").expect("it runs"));

    let cancel = v1::RelieveRequest { cancel: true, ..Default::default() };
    let called_off = admin.relieve(cancel).await.unwrap().into_inner().moves;
    assert_eq!(called_off.len(), 1, "{called_off:?}");
    let view = controllers[0].raft().view();
    assert!(view.state.partitions().all(|(_, _, partition)| partition.reassignment.is_none()));
    let again = v1::RelieveRequest { dry_run: true, ..Default::default() };
    let planned = admin.relieve(again).await.unwrap().into_inner().moves;
    assert_eq!(planned.len(), 1, "it is as short of room as before: {planned:?}");
    drop(nodes);
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}
