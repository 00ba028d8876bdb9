//! What controllers see of storage nodes for each other, and for whom they look.

use plimsoll_host::config::Secret;
use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1::raft_peer_client::RaftPeerClient;
use plimsoll_proto::v1::{ProbeRequest, ProbeSight};

use super::fake_node::FakeNode;
use super::*;

async fn sight(host: &Host, asked: &Controller, request: ProbeRequest) -> Result<ProbeSight, Reason> {
    let mut client = RaftPeerClient::new(channel(host, asked));
    let answer = client.probe(request).await;
    answer.map(|answer| answer.into_inner().sight()).map_err(|status| reason(&status).0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_looks_for_its_peers_at_what_is_registered_and_at_nothing_else() {
    let host = Host::real();
    let controllers = controllers(&host, 3).await;
    let leading = leader(&host, &controllers).await;
    let (leader, asked) = (&controllers[leading], &controllers[(leading + 1) % 3]);
    let from = u64::try_from(leading + 1).unwrap();
    let own = u64::try_from((leading + 1) % 3 + 1).unwrap();
    let (of_one, _one) = FakeNode::of(1).serve(&host).await;
    let (of_other, _other) = FakeNode::of(7).serve(&host).await;
    let nowhere = {
        let listener = host.network.bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };

    let mut control = ControlClient::new(channel(&host, leader));
    let mut runs = Vec::new();
    for (id, address) in (1..).zip([of_one, of_other, nowhere]) {
        let registration = v1::RegisterRequest { address, ..registration(id) };
        runs.push(register(&host, &mut control, registration).await);
    }
    let last = SpuId(3);
    let mut views = asked.raft().watch();
    host.clock
        .timeout(PATIENCE, views.wait_for(|view| view.state.spu(last).is_some()))
        .await
        .unwrap()
        .unwrap();
    let request = |id: u32| {
        let run = &runs[usize::try_from(id - 1).unwrap()];
        let cluster_id = run.cluster_id.clone();
        ProbeRequest { cluster_id, from, spu_id: id, incarnation: run.incarnation }
    };

    assert_eq!(sight(&host, asked, request(1)).await, Ok(ProbeSight::Answered));
    assert_eq!(sight(&host, asked, request(2)).await, Ok(ProbeSight::Silent), "somebody else is there");
    assert_eq!(sight(&host, asked, request(3)).await, Ok(ProbeSight::Refused));
    let good = request(1);
    for (what, refused, why) in [
        (
            "a node that is not registered",
            ProbeRequest { spu_id: 9, ..good.clone() },
            Reason::StaleIncarnation,
        ),
        ("an older run", ProbeRequest { incarnation: 1, ..good.clone() }, Reason::StaleIncarnation),
        (
            "another cluster",
            ProbeRequest { cluster_id: vec![9; 16].into(), ..good.clone() },
            Reason::WrongCluster,
        ),
        ("nobody's", ProbeRequest { from: 9, ..good.clone() }, Reason::InvalidArgument),
        ("its own", ProbeRequest { from: own, ..good.clone() }, Reason::InvalidArgument),
    ] {
        assert_eq!(sight(&host, asked, refused).await, Err(why), "{what}");
    }
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_the_token_of_controllers_is_not_looked_for() {
    let host = Host::real();
    let listener = host.network.bind("127.0.0.1:0").await.unwrap();
    let id = ControllerId(1);
    let mut raft = RaftSettings::new(id, BTreeMap::from([(id, listener.local_addr().unwrap().to_string())]));
    raft.peer_token = Some(Secret("known to controllers only".to_owned()));
    let parts = Parts {
        identity: Box::new(MemoryIdentity::default()),
        journal: Box::new(MemoryJournal::new(Recovered::fresh([1]), 64 << 20)),
        store: Box::new(MemoryStore::default()),
        disk: None,
    };
    let session = SessionSettings::default();
    let controller = Controller::start_with(host.clone(), raft, session, parts, listener).await.unwrap();
    let refused = sight(&host, &controller, ProbeRequest { from: 2, spu_id: 1, ..Default::default() }).await;
    assert_eq!(refused, Err(Reason::WrongJoinToken));
    controller.stop(Duration::from_secs(1)).await;
}
