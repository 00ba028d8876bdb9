//! What operators do to a running cluster of real processes: topics that change, nodes that are drained, partitions
//! that move, controllers that come and go, tokens.

use std::time::Duration;

use anyhow::{bail, ensure};
use plimsoll_chaos::process;
use plimsoll_client::{Client, Record, StartAt, TopicConfig};
use plimsoll_host::Clock;
use plimsoll_proto::ids::{ControllerId, SpuId};
use plimsoll_tests::{Ended, Layout, LocalCluster, Scratch, eventually, run_to_end};
use serde_json::Value;

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

async fn produce(client: &Client, topic: &str, from: u32, count: u32) {
    let producer = client.producer(topic).build().await.expect("a producer");
    let mut deliveries = Vec::new();
    for number in from..from + count {
        deliveries.push(producer.send(Record::new(number.to_string())).await.expect("accepted"));
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    producer.close().await;
}

/// Every record there is, as numbers in order.
async fn consume(client: &Client, topic: &str) -> Vec<u32> {
    let mut consumer =
        client.consumer(topic).start(StartAt::Earliest).until_end().build().await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(record) = consumer.next().await {
        let value = record.expect("a record").value.unwrap_or_default();
        numbers.push(std::str::from_utf8(&value).expect("digits").parse().expect("a number"));
    }
    numbers.sort_unstable();
    numbers
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
    produce(&client, "t", 0, 100).await;
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
    produce(&client, "t", 100, 100).await;
    let config = client.admin().describe_topic("t").await.expect("described").config.expect("one");
    assert_eq!((config.retention_bytes, config.min_in_sync), (64 << 10, 1));
    assert_eq!(consume(&client, "t").await, (0..200).collect::<Vec<u32>>());
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
    produce(&client, "t", 200, 200).await;
    assert_eq!(consume(&client, "t").await, (0..400).collect::<Vec<u32>>());
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
}

#[tokio::test]
async fn a_node_is_emptied_while_the_topic_is_in_use_and_loses_nothing() {
    let (mut cluster, client) = started(1, 4).await;
    create(&client, "t", 4, 3).await;
    produce(&client, "t", 0, 500).await;
    let drained = (1..=4).find(|spu| replicas(&client, "t", 0).contains(spu)).expect("somebody holds it");
    let id = drained.to_string();
    json(&cluster, &["spu", "cordon", &id]).await;
    json(&cluster, &["spu", "drain", &id]).await;
    // Producers and the moves are at work at the same time.
    produce(&client, "t", 500, 1500).await;
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
    assert_eq!(consume(&client, "t").await, (0..2000).collect::<Vec<u32>>());
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
    assert_eq!(consume(&client, "t").await.len(), 2000);
    cluster.spu(drained).start().expect("starts");
    json(&cluster, &["spu", "online", &id]).await;
    let online = client.wait_metadata(PATIENCE, |image| {
        image.spus[&SpuId(drained)].state() == plimsoll_proto::v1::SpuState::Online
    });
    assert!(online.await);
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
    produce(&client, "t", 0, 300).await;
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
    produce(&client, "t", 300, 100).await;
    assert_eq!(consume(&client, "t").await, (0..400).collect::<Vec<u32>>());
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

#[tokio::test]
async fn controllers_come_and_go_one_at_a_time() {
    let (mut cluster, client) = started(3, 1).await;
    create(&client, "t", 1, 1).await;
    let joining = cluster.start_joining_controller().expect("it starts");
    let added = eventually(limit(), "the fourth listens", || async {
        let ended = cluster.command(&["controller", "add", &joining]).await?;
        ensure!(ended.code == Some(0), "{}", ended.stderr);
        Ok(())
    });
    added.await.expect("added");
    let four = |value: Value| value["controllers"].as_array().map_or(0, Vec::len);
    assert_eq!(four(json(&cluster, &["controller", "list"]).await), 4);
    let transferred = eventually(limit(), "the fourth takes the lead", || async {
        let ended = cluster.command(&["controller", "transfer", "4"]).await?;
        ensure!(ended.code == Some(0), "{}", ended.stderr);
        Ok(())
    });
    transferred.await.expect("it answers by then");
    eventually(limit(), "the new one leads", || async {
        let leader = client.admin().cluster_status().await?.leader;
        if leader == 4 { Ok(()) } else { bail!("{leader} leads") }
    })
    .await
    .expect("it leads");
    create(&client, "led-by-the-fourth", 1, 1).await;
    // The first one lost its disk: it leaves, and its number is never used again.
    cluster.controller(1).kill();
    json(&cluster, &["controller", "remove", "1"]).await;
    assert_eq!(four(json(&cluster, &["controller", "list"]).await), 3);
    let again = format!("1@{}", cluster.controller_addresses()[1]);
    let ended = cluster.command(&["controller", "add", &again]).await.expect("it runs");
    assert_ne!(ended.code, Some(0), "{}", ended.stdout);
    // Every one that is left starts again by itself and knows who belongs to the cluster.
    for id in 2..=4 {
        cluster.controller(id).kill();
    }
    for id in 2..=4 {
        cluster.controller(id).start().expect("starts");
    }
    create(&client, "after-a-restart", 1, 1).await;
    cluster.controller(1).start().expect("starts");
    let told = eventually(limit(), "the removed one is not believed", || async {
        let status = client.admin().cluster_status().await?;
        ensure!(status.controllers.iter().all(|c| c.controller_id != 1), "{:?}", status.controllers);
        Ok(())
    });
    told.await.expect("three");
    // One of three may still be gone; the leader removes itself by handing over first.
    let leader = client.admin().cluster_status().await.expect("led").leader;
    client.admin().remove_controller(ControllerId(leader)).await.expect("removed");
    create(&client, "two-are-left", 1, 1).await;
}

#[tokio::test]
async fn without_a_majority_the_status_says_so_and_shows_what_is_known() {
    let (mut cluster, client) = started(3, 1).await;
    create(&client, "t", 1, 1).await;
    // One of three: nothing is lost yet, and health says so.
    cluster.controller(1).kill();
    let degraded = eventually(limit(), "a controller is missed", || async {
        let ended = cluster.command(&["cluster", "health"]).await?;
        ensure!(ended.code == Some(10) && ended.stdout.contains("CONTROLLER_DOWN"), "{ended:?}");
        Ok(())
    });
    degraded.await.expect("degraded");
    cluster.controller(2).kill();
    let ended = eventually(limit(), "no quorum", || async {
        let ended = cluster.command(&["cluster", "status", "--timeout", "4s", "-o", "json"]).await?;
        ensure!(ended.code != Some(0), "{}", ended.stdout);
        Ok(ended)
    })
    .await
    .expect("it ends");
    refused(&ended, 3, "NO_QUORUM");
    let shown: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((shown["stale"].as_bool(), shown["answered_by"].as_u64()), (Some(true), Some(3)));
    assert_eq!(shown["topics"], 1);
    let ended = cluster.command(&["cluster", "health"]).await.expect("it ends");
    assert_eq!(ended.code, Some(11), "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("CRITICAL") && ended.stdout.contains("CONTROLLER_NO_QUORUM"),
        "{}",
        ended.stdout
    );
    // No command waits for the whole of its time when nobody leads; what was known is shown, and said to be old.
    let clock = Clock::real();
    let commands = [
        (&["topic", "list"][..], "t "),
        (&["topic", "describe", "t"], "topic t "),
        (&["partition", "list"], "t/0"),
        (&["retention", "show"], "t "),
        (&["topic", "create", "u"], ""),
        (&["topic", "delete", "t"], ""),
        (&["topic", "alter", "t", "--retention", "1h"], ""),
        (&["topic", "add-partitions", "t", "--to", "2"], ""),
        (&["retention", "set", "t", "--for", "1h"], ""),
        (&["spu", "cordon", "1"], ""),
        (&["controller", "list"], ""),
        (&["partition", "elect", "t/0"], ""),
        (&["events"], ""),
    ];
    let began = clock.now();
    let ask = async |(arguments, shows)| {
        let arguments: &[&str] = arguments;
        let ended = cluster.command(&[arguments, &["--timeout", "10min"]].concat()).await.expect("it ends");
        (arguments, shows, ended)
    };
    let all = futures::future::join_all(commands.into_iter().map(ask)).await;
    let took = clock.now().saturating_sub(began);
    assert!(took < Duration::from_secs(120), "{took:?}");
    for (arguments, shows, ended) in all {
        let shows: &str = shows;
        refused(&ended, 3, "NO_QUORUM");
        assert!(ended.stdout.contains(shows), "{arguments:?}: {}", ended.stdout);
        assert_eq!(shows.is_empty(), !ended.stderr.contains("may be old"), "{arguments:?}: {}", ended.stderr);
    }
    for id in 1..=2 {
        cluster.controller(id).start().expect("starts");
    }
    create(&client, "again", 1, 1).await;
    // What waits for somebody who does not come back ends with the code of a timeout.
    cluster.spu(1).kill();
    let ended = cluster.command(&["consume", "t", "--until-end", "--timeout", "2s"]).await.expect("it ends");
    assert_eq!(ended.code, Some(124), "{}", ended.stderr);
    // All at once: whoever leads finds nobody to hand over to, and does not wait for them.
    let began = clock.now();
    for id in 1..=3 {
        cluster.controller(id).terminate();
    }
    for id in 1..=3 {
        while cluster.controller(id).ended().expect("it can be waited for").is_none() {
            assert!(clock.now() < began + PATIENCE, "controller {id} does not end: {}", cluster.logs());
            clock.sleep(Duration::from_millis(20)).await;
        }
    }
    let took = clock.now().saturating_sub(began);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn only_nodes_and_controllers_that_know_the_tokens_join() {
    let layout = Layout { controllers: 3, spus: 1, disk_bytes: None };
    let mut cluster = LocalCluster::start_with(
        layout,
        &["--join-token", "secret", "--peer-token", "among us"],
        &["--join-token", "secret"],
    )
    .expect("a cluster starts");
    let client =
        cluster.online().await.expect("three controllers believe each other, and the node is let in");
    create(&client, "t", 1, 1).await;
    let scratch = Scratch::new().expect("a scratch folder");
    for (number, token) in [("8", Some("wrong")), ("9", None)] {
        let data = scratch.folder(number).expect("a folder").display().to_string();
        let listen = format!("127.0.0.1:{}", process::free_port().expect("a free port"));
        let mut arguments = vec!["spu", "run", "--id", number, "--data-dir", &data, "--listen", &listen];
        let members = cluster.members();
        arguments.extend(members.iter().map(String::as_str));
        if let Some(token) = token {
            arguments.extend(["--join-token", token]);
        }
        let ended = run_to_end(&arguments, "").await.expect("it ends by itself");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(7), "{said}");
        assert!(said.contains("join_token") && !said.contains("secret"), "{said}");
    }
    assert_eq!(client.metadata().spus.len(), 1);
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
    let producer = client.producer("t").build().await.expect("a producer");
    for _ in 0..60 {
        let sent = producer.send(Record::new(vec![b'x'; 500_000])).await.expect("accepted");
        sent.await.expect("acknowledged");
    }
    producer.close().await;
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
    let mut consumer =
        client.consumer("t").start(StartAt::Earliest).until_end().build().await.expect("a consumer");
    let mut count = 0;
    while let Some(record) = consumer.next().await {
        record.expect("a record");
        count += 1;
    }
    assert_eq!(count, 60);
}
