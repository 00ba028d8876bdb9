//! The examples that users read, run as they are.

use futures::StreamExt;

use super::full_disks::{fill, give_back, use_space};
use super::{TOPIC, cluster};

#[path = "../../examples/consumer_group.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod consumer_group;
#[path = "../../examples/full_disk.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod full_disk;
#[path = "../../examples/producer.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod producer;

#[tokio::test]
async fn the_producer_delivers_everything() {
    let Some((cluster, _client)) = cluster(1, 3).await else { return };
    let acknowledged = producer::run(cluster.controller_addresses(), TOPIC, 5000).await;
    assert_eq!(acknowledged.expect("no error"), 5000);
}

#[tokio::test]
async fn the_application_on_a_full_disk_leaves_samples_out_and_loses_no_order() {
    let Some((mut cluster, client)) = cluster(1, 1).await else { return };
    use_space(&client).await;
    let mut health = client.watch_health();
    let running = full_disk::run(cluster.controller_addresses(), TOPIC, 500);
    let filling = async {
        let level = async |health: &mut plimsoll_client::HealthWatch, full: usize| {
            while health.next().await.expect("it never ends").full_volumes().count() != full {}
        };
        level(&mut health, 0).await;
        fill(&mut cluster, 1);
        level(&mut health, 1).await;
        // Long enough for the application to learn of it too.
        plimsoll_host::Host::real().clock.sleep(std::time::Duration::from_secs(2)).await;
        give_back(&mut cluster, 1);
    };
    let (report, ()) = tokio::join!(running, filling);
    let report = report.expect("no error");
    assert_eq!(report.orders, 500, "{report:?}");
    assert!(report.alarms >= 1 && report.left_out > 0 && report.samples > 0, "{report:?}");
}

#[tokio::test]
async fn the_members_of_a_group_read_everything_once() {
    let Some((cluster, client)) = cluster(1, 4).await else { return };
    for partition in 0..4 {
        super::fill(&client, partition, 250).await;
    }
    let first = consumer_group::run(cluster.controller_addresses(), "billing", TOPIC, 400).await;
    assert_eq!(first.expect("no error"), 400);
    // What the first had dealt with was committed.
    let rest = consumer_group::run(cluster.controller_addresses(), "billing", TOPIC, 600).await;
    assert_eq!(rest.expect("no error"), 600);
    let committed = client.group("billing").committed().await.expect("no error");
    assert_eq!(committed.values().map(|offset| offset.get()).sum::<u64>(), 1000);
}
