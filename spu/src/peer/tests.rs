//! Two nodes over real connections: what is acknowledged by all is in both logs, and fetchers do it.

use plimsoll_host::{ChannelOptions, ServerOptions, Task};
use plimsoll_proto::v1::peer_client::PeerClient;
use plimsoll_proto::v1::peer_server::PeerServer;
use plimsoll_proto::v1::{self, Acks, Reason};

use super::PeerService;
use crate::runtime::testing::{
    CLUSTER, LIMIT, TestCluster, batch, config, job, produce, produce_when_led, read, values,
};
use crate::runtime::{FetchFrom, ProduceResult};

/// Serves every node at a port of its own and tells all of the addresses.
async fn serve(cluster: &mut TestCluster) -> (Vec<Task>, Vec<String>) {
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for at in 0..cluster.nodes.len() {
        let listener = cluster.host.network.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let service = PeerService::new(cluster.host.clone(), cluster.nodes[at].handle.clone());
        let server = plimsoll_host::server(&ServerOptions::default())
            .add_service(PeerServer::new(service))
            .serve_with_incoming(listener.into_incoming());
        servers.push(cluster.host.tasks.spawn("test server", async move { drop(server.await) }));
        let id = plimsoll_proto::ids::SpuId(u32::try_from(at + 1).expect("few nodes"));
        cluster.image.spus.get_mut(&id).expect("registered").address = address.clone();
        addresses.push(address);
    }
    cluster.publish();
    (servers, addresses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetchers_replicate_and_follow_a_new_leader() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 2)).await;
    let (_servers, _) = serve(&mut cluster).await;
    let clock = cluster.host.clock.clone();
    let produced = async {
        let first = produce_when_led(cluster.node(1), job(1, Acks::All, batch(b"a"))).await;
        let second = produce(cluster.node(1), job(1, Acks::All, batch(b"b"))).await;
        (first, second)
    };
    let (first, second) = clock.timeout(LIMIT, produced).await.expect("the follower fetches");
    for (answer, base) in [(first, 0), (second, 1)] {
        let ProduceResult::Ack(ack) = answer else { panic!("refused: {answer:?}") };
        assert_eq!((ack.base_offset, ack.copies), (base, 2));
    }

    cluster.lead(2);
    let moved = async {
        loop {
            match produce_when_led(cluster.node(2), job(2, Acks::All, batch(b"c"))).await {
                ProduceResult::Ack(ack) => return ack,
                ProduceResult::Error(detail) => assert_eq!(detail.reason(), Reason::NotLeader),
            }
        }
    };
    let moved = clock.timeout(LIMIT, moved).await.expect("the old leader follows");
    assert_eq!((moved.base_offset, moved.copies), (2, 2));
    let all = async {
        loop {
            let held = read(cluster.node(1), FetchFrom::Earliest, true).await.expect("reads of any replica");
            if values(&held) == ["a", "b", "c"] {
                return;
            }
        }
    };
    clock.timeout(LIMIT, all).await.expect("the high watermark reaches the follower");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_pings_ask_on() {
    let mut cluster = TestCluster::new(2, 64 << 20, config(2, 1)).await;
    let (servers, addresses) = serve(&mut cluster).await;
    let channel =
        cluster.host.network.channel(&addresses[0], &ChannelOptions::default()).expect("a good address");
    let mut client = PeerClient::new(channel);
    let ping = |cluster_id: bytes::Bytes, probe_address: &str| v1::PingRequest {
        cluster_id,
        probe_address: probe_address.to_owned(),
    };
    let refused = client.ping(ping(vec![1; 16].into(), "")).await.expect_err("another cluster");
    let detail = v1::ErrorDetail::from_status(&refused).expect("typed");
    assert_eq!(detail.reason(), Reason::WrongCluster);

    let answer = client.ping(ping(CLUSTER.to_bytes(), &addresses[1])).await.expect("it answers").into_inner();
    assert_eq!((answer.spu_id, answer.incarnation), (1, 10));
    assert!(answer.probe_reached && !answer.probe_refused);
    let nobody = cluster.host.network.bind("127.0.0.1:0").await.expect("a free port");
    let closed = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let answer = client.ping(ping(CLUSTER.to_bytes(), &closed)).await.expect("it answers").into_inner();
    assert!(answer.probe_refused && !answer.probe_reached);
    drop(servers);

    let stale = v1::ReplicateRequest {
        cluster_id: CLUSTER.to_bytes(),
        spu_id: 2,
        incarnation: 3,
        ..v1::ReplicateRequest::default()
    };
    let response = cluster.node(1).handle.replicate(stale).await;
    let detail = response.error.expect("refused");
    assert_eq!((detail.reason(), detail.current_incarnation), (Reason::StaleIncarnation, 20));
}
