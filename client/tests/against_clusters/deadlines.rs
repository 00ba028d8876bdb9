use std::time::Duration;

use plimsoll_client::{
    AdminError, Client, ConsumeError, ControllerAttempt, ControllerFailure, GroupError, LastCause, Reason,
    SpuId, TopicConfig,
};
use plimsoll_host::Host;

use super::{LIMIT, TOPIC, cluster_with};

#[tokio::test]
async fn what_stood_in_the_way_of_a_call_is_a_type_in_its_error() {
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..Default::default() };
    let Some((mut cluster, client)) = cluster_with(3, 1, config).await else { return };
    // The coordinator is there.
    client.group("billing").committed().await.expect("it answers");
    let addresses = cluster.controller_addresses();
    let client =
        Client::builder().controllers(addresses.clone()).call_timeout(Duration::from_secs(1)).build();
    let client = client.await.expect("connected");
    let clock = Host::real().clock;

    // One of three controllers cannot lead.
    cluster.controller(1).kill();
    cluster.controller(2).kill();
    let alone = async {
        loop {
            // What was under way while they died ends in other ways.
            if let Err(AdminError::TimedOut { last: Some(LastCause::Refused(refusal)), .. }) =
                client.admin().list_topics().await
                && refusal.reason() == Reason::NoQuorum
            {
                return;
            }
        }
    };
    clock.timeout(LIMIT, alone).await.expect("the deadline tells what the last controller said");

    cluster.controller(3).kill();
    let error = client.admin().list_topics().await.expect_err("nobody is there");
    let AdminError::NoController { attempts, .. } = &error else { panic!("{error:?}") };
    let dead = |address: &String| ControllerAttempt {
        address: address.clone(),
        failure: ControllerFailure::NotListening,
    };
    let mut expected: Vec<_> = addresses.iter().map(dead).collect();
    expected.sort_by(|a, b| a.address.cmp(&b.address));
    assert_eq!(*attempts, expected);
    let text: Vec<_> =
        expected.iter().map(|dead| format!("{}: nothing listens there", dead.address)).collect();
    assert_eq!(error.to_string(), format!("no leading controller answered: {}", text.join("; ")));

    // The metadata name the leader still, and it is gone.
    cluster.spu(1).kill();
    let error = client.consumer(TOPIC).until_end().build().await.expect_err("its end is not known");
    let ConsumeError::TimedOut { last, .. } = &error else { panic!("{error:?}") };
    assert!(is_gone(last), "{error:?}");
    let error = client.group("billing").committed().await.expect_err("nobody coordinates");
    let GroupError::TimedOut { last, .. } = &error else { panic!("{error:?}") };
    assert!(is_gone(last), "{error:?}");
}

/// Whether the node is the cause, with nothing at its address any more.
fn is_gone(last: &Option<LastCause>) -> bool {
    let Some(LastCause::ConnectionLost { spu: SpuId(1), why }) = last else { return false };
    why == "nothing listens there"
}
