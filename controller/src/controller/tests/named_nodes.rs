//! Nodes that may register because the controllers name them.

use plimsoll_host::config::Secret;
use plimsoll_proto::ids::SpuId;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_named_nodes_register_and_the_token_is_asked_for_beside() {
    let host = Host::real();
    let session = SessionSettings { spus: [SpuId(1), SpuId(3)].into(), ..Default::default() };
    for token in [None, Some("secret")] {
        let join_token = token.map(|token| Secret(token.to_owned()));
        let session = SessionSettings { join_token, ..session.clone() };
        let controllers = controllers_with(&host, 1, session).await;
        leader(&host, &controllers).await;
        let mut control = ControlClient::new(channel(&host, &controllers[0]));
        let request = |id, token: Option<&str>| {
            let join_token = token.unwrap_or_default().to_owned();
            v1::RegisterRequest { join_token, ..registration(id) }
        };
        let registering = async {
            // It may have just begun to lead.
            while let Err(status) = control.register(request(3, token)).await {
                assert_eq!(reason(&status).0, Reason::NoQuorum, "{status}");
            }
        };
        host.clock.timeout(PATIENCE, registering).await.unwrap();
        control.register(request(1, token)).await.unwrap();
        let refused = control.register(request(2, token)).await.unwrap_err();
        assert_eq!(reason(&refused).0, Reason::InvalidArgument, "{refused}");
        assert!(refused.message().contains("SPU id 2"), "{refused}");
        if token.is_some() {
            let refused = control.register(request(1, None)).await.unwrap_err();
            assert_eq!(reason(&refused).0, Reason::WrongJoinToken, "{refused}");
        }
        let nodes = controllers[0].raft().view().state.spus().keys().copied().collect::<Vec<_>>();
        assert_eq!(nodes, [SpuId(1), SpuId(3)]);
        for controller in controllers {
            controller.stop(Duration::from_secs(1)).await;
        }
    }
}
