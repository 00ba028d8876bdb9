//! What operators do to a running cluster of real processes: topics that change, nodes that are drained, partitions
//! that move, controllers that come and go, tokens.

mod controllers;
mod recorded;

use std::time::Duration;

use anyhow::ensure;
use plimsoll_client::{Client, Record, TopicConfig};
use plimsoll_host::Clock;
use plimsoll_proto::ids::SpuId;
use plimsoll_tests::{Ended, Layout, LocalCluster, eventually};
use serde_json::Value;

use recorded::Recorded;

const PATIENCE: Duration = Duration::from_secs(60);

async fn started(controllers: u32, spus: u32) -> (LocalCluster, Client) {
    let layout = Layout { controllers, spus, disk_bytes: None };
    let mut cluster = LocalCluster::start(layout).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    (cluster, client)
}

fn limit() -> Duration {
    Clock::real().now().saturating_add(PATIENCE)
}

/// Runs a command that has to succeed, and reads what it prints.
async fn json(cluster: &LocalCluster, arguments: &[&str]) -> Value {
    let ended = cluster.command(&[arguments, &["-o", "json"]].concat()).await.expect("it runs");
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}{}", ended.stderr, cluster.logs());
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn refused(ended: &Ended, code: i32, word: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert!(ended.stderr.contains(word), "{}", ended.stderr);
}

fn replicas(client: &Client, topic: &str, index: u32) -> Vec<u32> {
    let image = client.metadata();
    let partition = image
        .topic_by_name(topic)
        .and_then(|topic| topic.partitions.iter().find(|partition| partition.index == index));
    partition.map(|p| p.replicas.iter().map(|r| r.spu_id).collect()).unwrap_or_default()
}

async fn create(client: &Client, name: &str, partitions: u32, replicas: u32) {
    let config = TopicConfig { partitions, replicas, min_in_sync: replicas.min(2), ..TopicConfig::default() };
    client.admin().create_topic(name, config).await.expect("created");
}

#[tokio::test]
async fn a_topic_changes_while_it_is_in_use() {
    let (cluster, client) = started(1, 2).await;
    create(&client, "t", 1, 2).await;
    let t = Recorded::of(&client, "t").await;
    t.produce(0, 100).await;
    let planned = json(&cluster, &["topic", "alter", "t", "--retention-bytes", "64KiB", "--dry-run"]).await;
    assert_eq!(planned["dry_run"], true);
    let altered = json(
        &cluster,
        &[
            "topic",
            "alter",
            "t",
            "--retention-bytes",
            "64KiB",
            "--segment-bytes",
            "64KiB",
            "--batch-bytes-max",
            "16KiB",
            "--flush",
            "ack",
            "--min-in-sync",
            "1",
        ],
    )
    .await;
    let undo = altered["undo"].as_str().expect("a command that takes it back");
    assert!(undo.contains("--retention-bytes forever") && undo.contains("--flush os"), "{undo}");
    // The new limits count for what is written from now on, without a restart of anything.
    t.produce(100, 100).await;
    let config = client.admin().describe_topic("t").await.expect("described").config.expect("one");
    assert_eq!((config.retention_bytes, config.min_in_sync), (64 << 10, 1));
    assert_eq!(t.consume().await, (0..200).collect::<Vec<u32>>());
    let large = client.producer("t").build().await.expect("a producer");
    let answer = match large.send(Record::new(vec![b'x'; 32 << 10])).await {
        Ok(delivery) => delivery.await.map(drop),
        Err(error) => Err(error),
    };
    assert!(answer.expect_err("larger than a batch may be now").to_string().contains("RECORD_TOO_LARGE"));

    json(&cluster, &["topic", "add-partitions", "t", "--to", "4"]).await;
    json(&cluster, &["topic", "add-partitions", "t", "--to", "4"]).await;
    refused(
        &cluster.command(&["topic", "add-partitions", "t", "--to", "3"]).await.expect("it runs"),
        1,
        "fewer",
    );
    t.produce(200, 200).await;
    assert_eq!(t.consume().await, (0..400).collect::<Vec<u32>>());
    let used: Vec<bool> = client
        .admin()
        .describe_topic("t")
        .await
        .expect("described")
        .partitions
        .iter()
        .map(|partition| partition.leader != 0)
        .collect();
    assert_eq!(used, [true; 4]);
    refused(
        &cluster.command(&["topic", "alter", "none", "--flush", "os"]).await.expect("it runs"),
        4,
        "UNKNOWN_TOPIC",
    );
    refused(
        &cluster.command(&["topic", "alter", "t", "--min-in-sync", "9"]).await.expect("it runs"),
        1,
        "min_in_sync",
    );
    t.judge().await;
}

#[tokio::test]
async fn the_replicas_of_a_lost_disk_are_made_anew_and_its_node_comes_back_with_an_empty_one() {
    let (mut cluster, client) = started(1, 4).await;
    create(&client, "t", 3, 3).await;
    let t = Recorded::of(&client, "t").await;
    t.produce(0, 500).await;
    let lost = replicas(&client, "t", 0)[0];
    let id = lost.to_string();
    cluster.spu(lost).kill();
    let folder = cluster.data(lost).to_owned();
    std::fs::remove_dir_all(&folder).expect("removed");
    t.produce(500, 500).await;

    json(&cluster, &["spu", "drain", &id]).await;
    let whole = client.wait_metadata(PATIENCE, |image| {
        image.topics.values().flat_map(|topic| &topic.partitions).all(|partition| {
            partition.in_sync.len() == 3 && partition.replicas.iter().all(|replica| replica.spu_id != lost)
        })
    });
    assert!(whole.await, "{:?}\n{}", client.metadata().topics, cluster.logs());
    json(&cluster, &["spu", "offline", &id]).await;
    let well = eventually(limit(), "the cluster is well", || async {
        let ended = cluster.command(&["cluster", "health"]).await?;
        ensure!(ended.code == Some(0), "{}", ended.stdout);
        Ok(())
    });
    well.await.expect("nothing is wrong");

    std::fs::create_dir(&folder).expect("made");
    json(&cluster, &["spu", "online", &id]).await;
    cluster.spu(lost).start().expect("started again");
    let config = TopicConfig { partitions: 1, replicas: 4, ..TopicConfig::default() };
    let holds = eventually(limit(), "it takes replicas", || async {
        Ok(client.admin().create_topic("u", config).await?)
    });
    holds.await.expect("a topic that needs every node");
    t.produce(1000, 100).await;
    assert_eq!(t.consume().await, (0..1100).collect::<Vec<u32>>());
    t.judge().await;
}

#[tokio::test]
async fn a_node_is_emptied_while_the_topic_is_in_use_and_loses_nothing() {
    let (mut cluster, client) = started(1, 4).await;
    create(&client, "t", 4, 3).await;
    let t = Recorded::of(&client, "t").await;
    t.produce(0, 500).await;
    let drained = (1..=4).find(|spu| replicas(&client, "t", 0).contains(spu)).expect("somebody holds it");
    let id = drained.to_string();
    json(&cluster, &["spu", "cordon", &id]).await;
    json(&cluster, &["spu", "drain", &id]).await;
    // Producers and the moves are at work at the same time.
    t.produce(500, 1500).await;
    let empty = client.wait_metadata(PATIENCE, |image| {
        let mut all = image.topics.values().flat_map(|topic| &topic.partitions);
        all.all(|p| {
            p.replicas.iter().all(|r| r.spu_id != drained) && p.reassignment.is_none() && p.in_sync.len() == 3
        })
    });
    assert!(empty.await, "{}", cluster.logs());
    let shown = json(&cluster, &["spu", "describe", &id]).await;
    assert_eq!(
        (shown["spu"]["duty"].as_str(), shown["spu"]["replicas"].as_u64()),
        (Some("draining"), Some(0))
    );
    assert_eq!(t.consume().await, (0..2000).collect::<Vec<u32>>());
    // Its folder is empty of records, and it can go for good.
    let folder = cluster.data(drained).to_path_buf();
    eventually(limit(), "the replicas are deleted", || async {
        let logs =
            walk(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).count();
        ensure!(logs == 0, "{logs} logs are left");
        Ok(())
    })
    .await
    .expect("deleted");
    cluster.spu(drained).kill();
    assert_eq!(t.consume().await.len(), 2000);
    cluster.spu(drained).start().expect("starts");
    json(&cluster, &["spu", "online", &id]).await;
    let online = client.wait_metadata(PATIENCE, |image| {
        image.spus[&SpuId(drained)].state() == plimsoll_proto::v1::SpuState::Online
    });
    assert!(online.await);
    t.judge().await;
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .filter(|path| path.to_string_lossy().contains("partitions"))
        .collect()
}

#[tokio::test]
async fn a_partition_goes_where_it_is_sent_and_a_node_out_of_service_stays_away() {
    let (cluster, client) = started(1, 4).await;
    create(&client, "t", 1, 2).await;
    let t = Recorded::of(&client, "t").await;
    t.produce(0, 300).await;
    let before = replicas(&client, "t", 0);
    let others: Vec<u32> = (1..=4).filter(|spu| !before.contains(spu)).collect();
    let to = others.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let planned = json(&cluster, &["partition", "reassign", "t/0", "--to", &to, "--dry-run"]).await;
    assert_eq!(planned["moves"][0]["to"], serde_json::json!(others));
    assert_eq!(replicas(&client, "t", 0), before, "a dry run changes nothing");
    json(&cluster, &["partition", "reassign", "t/0", "--to", &to]).await;
    let moved = client.wait_metadata(PATIENCE, |image| {
        let partition = &image.topic_by_name("t").expect("there").partitions[0];
        partition.reassignment.is_none()
            && partition.replicas.iter().map(|r| r.spu_id).eq(others.iter().copied())
            && others.contains(&partition.leader)
    });
    assert!(moved.await, "{}", cluster.logs());
    t.produce(300, 100).await;
    assert_eq!(t.consume().await, (0..400).collect::<Vec<u32>>());
    t.judge().await;
    let wrong = cluster.command(&["partition", "reassign", "t/0", "--to", "9,1"]).await.expect("it runs");
    refused(&wrong, 1, "NO_PLACEMENT");
    let none = cluster.command(&["partition", "reassign", "t/0", "--cancel"]).await.expect("it runs");
    refused(&none, 1, "not on its way");
    assert_eq!(json(&cluster, &["partition", "relief", "--dry-run"]).await["moves"], serde_json::json!([]));

    // Out of service: it registers again only when it is asked back.
    let id = others[0].to_string();
    json(&cluster, &["spu", "offline", &id]).await;
    let offline = |state| {
        let client = client.clone();
        let spu = SpuId(others[0]);
        async move { client.wait_metadata(PATIENCE, |image| image.spus[&spu].state() == state).await }
    };
    assert!(offline(plimsoll_proto::v1::SpuState::Offline).await);
    let last = others[1].to_string();
    refused(
        &cluster.command(&["spu", "offline", &last]).await.expect("it runs"),
        1,
        "only living in-sync copy",
    );
    cluster.spu_says(others[0], "out of service").await.expect("it is told why");
    json(&cluster, &["spu", "online", &id]).await;
    assert!(offline(plimsoll_proto::v1::SpuState::Online).await, "{}", cluster.logs());
}

/// Sets the limit of a volume while its node runs.
fn limit_volume(cluster: &LocalCluster, spu: u32, bytes: u64) {
    let folder = cluster.data(spu).display().to_string();
    let script = "printf '%s\\n' \"$1\" >\"$0/byte-limit.new\" && mv \"$0/byte-limit.new\" \"$0/byte-limit\"";
    let status = std::process::Command::new("sh").args(["-c", script, &folder, &bytes.to_string()]).status();
    assert!(status.expect("a shell").success());
}

#[tokio::test]
async fn a_volume_short_of_room_gives_replicas_to_others() {
    let layout = Layout { controllers: 1, spus: 4, disk_bytes: None };
    let mut cluster =
        LocalCluster::start_with(layout, &["--relief-after", "1s"], &[]).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    create(&client, "t", 1, 2).await;
    let t = Recorded::of(&client, "t").await;
    t.produce_of(0, 60, 500_000).await;
    let short = replicas(&client, "t", 0)[1];
    // What the node told last may be from before the records.
    let told = eventually(limit(), "the records count as used", || async {
        let disks = json(&cluster, &["disk", "--spu", &short.to_string()]).await;
        let used = disks["volumes"][0]["used_bytes"].as_u64().expect("a number");
        ensure!(used > 60 * 500_000, "{used} bytes");
        Ok(used)
    });
    let used = told.await.expect("told");
    // Between throttle (10 % free) and read-only (5 %).
    limit_volume(&cluster, short, used * 1000 / 925);
    let relieved = client.wait_metadata(PATIENCE, |image| {
        let partition = &image.topic_by_name("t").expect("there").partitions[0];
        partition.replicas.iter().all(|replica| replica.spu_id != short)
            && partition.reassignment.is_none()
            && partition.in_sync.len() == 2
    });
    assert!(relieved.await, "{}", cluster.logs());
    let events = client.admin().list_events(0, 1000).await.expect("listed");
    let begun = events.iter().find(|event| event.kind == "reassignment_started").expect("an event");
    assert_eq!(begun.reason, "its volume is short of room");
    assert_eq!(t.consume().await, (0..60).collect::<Vec<u32>>());
    t.judge().await;
}
