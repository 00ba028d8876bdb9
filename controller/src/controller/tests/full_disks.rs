//! Controllers whose disks fill: no topics are created or altered, and everything else goes on.

use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings, StatvfsFault};

use super::*;

async fn on_disks(host: &Host, count: u64) -> (Vec<Controller>, Vec<MemoryDisk>) {
    let disks: Vec<_> = (0..count).map(|_| MemoryDisk::new(MemoryDiskSettings::plain(256 << 20))).collect();
    let shared = disks.iter().map(|disk| std::sync::Arc::new(disk.clone()) as SharedDisk).collect();
    (controllers_on(host, count, SessionSettings::default(), shared).await, disks)
}

/// Asks until the answer is as wanted.
async fn until<T, F: Future<Output = Result<T, tonic::Status>>>(
    host: &Host,
    wanted: impl Fn(&Result<T, tonic::Status>) -> bool,
    mut ask: impl FnMut() -> F,
) -> Result<T, tonic::Status> {
    let asking = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            host.clock.sleep(Duration::from_millis(50)).await;
        }
    };
    host.clock.timeout(PATIENCE, asking).await.expect("in time")
}

fn is_refused<T>(answer: &Result<T, tonic::Status>) -> bool {
    answer.as_ref().is_err_and(|status| reason(status).0 == Reason::ControllerDisk)
}

fn one() -> v1::TopicConfig {
    v1::TopicConfig { replicas: 1, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_refused_while_everything_else_goes_on() {
    let host = Host::real();
    let (controllers, disks) = on_disks(&host, 3).await;
    let leading = leader(&host, &controllers).await;
    let mut nodes = Vec::new();
    for id in 1..=2 {
        nodes.push(Node::start(&host, &controllers[leading], id).await);
    }
    let admin = AdminClient::new(channel(&host, &controllers[leading]));
    let create_topic = |name: &str| {
        let (mut admin, request) = (admin.clone(), create(name, one()));
        async move { admin.create_topic(request).await }
    };
    create_topic("before").await.unwrap();

    // One follower that is full costs nothing.
    let follower = (leading + 1) % 3;
    disks[follower].take_all_bytes();
    let status = || async { admin.clone().cluster_status(v1::ClusterStatusRequest::default()).await };
    let told = until(
        &host,
        |answer| answer.as_ref().is_ok_and(|a| a.get_ref().controllers[follower].disk_full),
        status,
    );
    told.await.unwrap();
    create_topic("one-follower-is-full").await.unwrap();

    // Two leave no majority; and the leader's own disk is enough.
    disks[(leading + 2) % 3].take_all_bytes();
    until(&host, is_refused, || create_topic("no-majority")).await.unwrap_err();
    disks[follower].release();
    disks[(leading + 2) % 3].release();
    until(&host, |answer| !is_refused(answer), || create_topic("majority")).await.unwrap();
    disks[leading].take_all_bytes();
    let refused = until(&host, is_refused, || create_topic("full")).await.unwrap_err();
    let detail = ErrorDetail::from_status(&refused).unwrap();
    assert!(detail.retry_after_ms > 0 && detail.outcome() == v1::Outcome::NotWritten, "{detail:?}");
    let alter =
        v1::AlterTopicRequest { name: "before".to_owned(), retention_ms: Some(1), ..Default::default() };
    assert!(is_refused(&admin.clone().alter_topic(alter).await));
    let grow = v1::AddPartitionsRequest { name: "before".to_owned(), total: 2 };
    assert!(is_refused(&admin.clone().add_partitions(grow).await));

    // Volumes, duties, registrations, producer ids and deletes go on.
    assert!(nodes[0].change_volume(VolumeState::Writable, VolumeState::WriteOffline).await.applied);
    let cordon =
        v1::SetSpuDutyRequest { spu_id: 2, duty: v1::SpuDuty::Cordoned.into(), ..Default::default() };
    admin.clone().set_spu_duty(cordon).await.unwrap();
    Node::start(&host, &controllers[leading], 3).await;
    admin.clone().init_producer(v1::InitProducerRequest {}).await.unwrap();
    admin.clone().delete_topic(v1::DeleteTopicRequest { name: "before".to_owned() }).await.unwrap();

    // Unknown is never plenty.
    disks[leading].release();
    nodes.push(Node::start(&host, &controllers[leading], 4).await);
    until(&host, |answer| !is_refused(answer), || create_topic("room")).await.unwrap();
    disks[leading].set_statvfs(StatvfsFault::Hangs);
    until(&host, is_refused, || create_topic("hung")).await.unwrap_err();
    disks[leading].set_statvfs(StatvfsFault::Honest);
    until(&host, |answer| !is_refused(answer), || create_topic("again")).await.unwrap();
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}
