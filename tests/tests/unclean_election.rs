//! An election by command with real processes: what it costs is said before, nothing is lost without being told to,
//! and what takes it back is named.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_client::{Client, Record, StartAt, TopicConfig};
use plimsoll_host::Clock;
use plimsoll_proto::v1::PartitionInfo;
use plimsoll_tests::{Ended, Layout, LocalCluster, eventually};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn limit() -> Duration {
    Clock::real().now().saturating_add(PATIENCE)
}

async fn elect(cluster: &LocalCluster, further: &[&str]) -> Ended {
    cluster.command(&[&["partition", "elect", "t/0"], further].concat()).await.expect("it ends")
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn candidate(election: &Value, spu: u32) -> &Value {
    let candidates = election["candidates"].as_array().expect("a list");
    candidates.iter().find(|candidate| candidate["spu"] == spu).expect("every replica is shown")
}

fn partition(client: &Client) -> PartitionInfo {
    client.metadata().topic_by_name("t").expect("the topic is there").partitions[0].clone()
}

async fn led_by(client: &Client, spu: u32) {
    let led = client.wait_metadata(PATIENCE, |image| {
        image.topic_by_name("t").is_some_and(|topic| topic.partitions[0].leader == spu)
    });
    assert!(led.await, "SPU {spu} leads: {:?}", partition(client));
}

/// Acknowledged by all that are in sync, or the test fails.
async fn produce(client: &Client, numbers: std::ops::Range<u32>) {
    let producer = client.producer("t").build().await.expect("a producer");
    for number in numbers {
        let delivery = producer.send(Record::new(number.to_string())).await.expect("accepted");
        delivery.await.expect("acknowledged");
    }
    producer.close().await;
}

async fn consume(client: &Client) -> Vec<String> {
    let mut consumer =
        client.consumer("t").start(StartAt::Earliest).until_end().build().await.expect("a consumer");
    let mut values = Vec::new();
    while let Some(record) = consumer.next().await {
        let value = record.expect("a record").value.unwrap_or_default();
        values.push(String::from_utf8(value.to_vec()).expect("digits"));
    }
    values
}

/// Two nodes, five records that both have and know to be committed; returns who leads and who follows.
async fn started() -> (LocalCluster, Client, u32, u32) {
    let mut cluster =
        LocalCluster::start(Layout { controllers: 1, spus: 2, disk_bytes: None }).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    let config = TopicConfig { partitions: 1, replicas: 2, min_in_sync: 1, ..TopicConfig::default() };
    client.admin().create_topic("t", config).await.expect("created");
    produce(&client, 0..5).await;
    let leader = partition(&client).leader;
    let follower = 3 - leader;
    let known = eventually(limit(), "the follower knows what is committed", || async {
        let ended = elect(&cluster, &["--to", &follower.to_string(), "--dry-run", "-o", "json"]).await;
        ensure!(ended.code == Some(0), "{ended:?}");
        let shown = json(&ended);
        ensure!(candidate(&shown, follower)["high_watermark"] == 5, "{shown}");
        Ok(())
    });
    known.await.expect("replicated");
    (cluster, client, leader, follower)
}

#[tokio::test]
async fn a_clean_election_names_the_command_that_takes_it_back() {
    let (cluster, client, leader, follower) = started().await;
    let to = follower.to_string();
    let planned = json(&elect(&cluster, &["--to", &to, "--dry-run", "-o", "json"]).await);
    assert_eq!((&planned["elected"], &planned["unclean"]), (&Value::from(false), &Value::from(false)));
    assert_eq!(partition(&client).leader, leader, "a dry run changes nothing");

    let ended = elect(&cluster, &["--to", &to]).await;
    let undo = format!("undo: plimsoll partition elect t/0 --to {leader} --controller ");
    assert!(ended.code == Some(0) && ended.stdout.contains(&undo), "{ended:?}");
    led_by(&client, follower).await;
    // The command that asks for it names the cluster itself.
    let words: Vec<&str> =
        undo.split_whitespace().skip(2).take_while(|word| *word != "--controller").collect();
    let ended = cluster.command(&words).await.expect("it ends");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    led_by(&client, leader).await;
    assert_eq!(consume(&client).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn an_unclean_election_names_the_offsets_at_risk_and_is_held_only_when_told_to() {
    let (mut cluster, client, leader, follower) = started().await;
    cluster.spu(follower).pause();
    let alone = client.wait_metadata(PATIENCE, |image| {
        image.topic_by_name("t").is_some_and(|topic| topic.partitions[0].in_sync == [leader])
    });
    assert!(alone.await, "{:?}", partition(&client));
    // Acknowledged, and on the leader only; then it dies, and the other one wakes up.
    produce(&client, 5..8).await;
    cluster.spu(leader).kill();
    cluster.spu(follower).go_on();
    let chosen = eventually(limit(), "the other one is all there is", || async {
        let ended = elect(&cluster, &["--dry-run", "-o", "json"]).await;
        ensure!(ended.code == Some(0), "{ended:?}");
        let shown = json(&ended);
        ensure!(shown["leader"] == follower && shown["unclean"] == true, "{shown}");
        Ok(shown)
    });
    let chosen = chosen.await.expect("nobody leads");
    let before = partition(&client);
    let shown = candidate(&chosen, follower);
    assert_eq!(
        (&shown["at_risk_from"], &shown["at_risk_to"], &shown["at_risk_open"]),
        (&Value::from(5), &Value::Null, &Value::from(true)),
        "{chosen}"
    );

    // Without the word for it, and as a dry run with it, it is said and not done.
    let words = "would lose what is committed from offset 5 on";
    for arguments in [&[][..], &["--unclean", "--dry-run"]] {
        let ended = elect(&cluster, arguments).await;
        let dry_run = !arguments.is_empty();
        assert_eq!(ended.code, Some(i32::from(!dry_run)), "{ended:?}");
        assert!(ended.stdout.contains("5 and on") && !ended.stdout.contains("elected SPU"), "{ended:?}");
        assert!(if dry_run { &ended.stdout } else { &ended.stderr }.contains(words), "{ended:?}");
    }
    let events = async || client.admin().list_events(0, 1000).await.expect("events");
    assert!(events().await.iter().all(|event| event.kind != "unclean_election"));
    let now = partition(&client);
    assert_eq!((now.leader_epoch, now.leader), (before.leader_epoch, before.leader));

    let ended = elect(&cluster, &["--unclean"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("elected SPU {follower} to lead t/0")), "{ended:?}");
    assert!(ended.stdout.ends_with("undo: there is none: what is lost by it stays lost\n"), "{ended:?}");
    led_by(&client, follower).await;
    let events = events().await;
    let unclean: Vec<_> = events.iter().filter(|event| event.kind == "unclean_election").collect();
    assert!(unclean.len() == 1 && unclean[0].reason.contains("offsets at risk: 5 and on"), "{unclean:?}");
    // Five, six and seven were at risk, and are gone.
    produce(&client, 100..101).await;
    assert_eq!(consume(&client).await, ["0", "1", "2", "3", "4", "100"]);
}

/// Asks a node to stop in order and waits until it has.
async fn stop(cluster: &mut LocalCluster, spu: u32) {
    cluster.spu(spu).terminate();
    let clock = Clock::real();
    let until = limit();
    while cluster.spu(spu).ended().expect("waited for").is_none() {
        assert!(clock.now() < until, "SPU {spu} does not end:\n{}", cluster.logs());
        clock.sleep(Duration::from_millis(20)).await;
    }
}

/// Copies a folder with everything in it, as it is.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-aT").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{copied}");
}

async fn in_sync(client: &Client, count: usize) {
    let whole = client.wait_metadata(PATIENCE, |image| {
        image.topic_by_name("t").is_some_and(|topic| topic.partitions[0].in_sync.len() == count)
    });
    assert!(whole.await, "{:?}", partition(client));
}

/// What the health of the cluster ends with, and what it says of stopped replicas.
async fn stopped(cluster: &LocalCluster) -> anyhow::Result<(Option<i32>, Option<Value>)> {
    let ended = cluster.command(&["cluster", "health", "-o", "json"]).await?;
    let health: Value = serde_json::from_str(&ended.stdout)?;
    let findings = health["findings"].as_array().context("a list")?;
    Ok((ended.code, findings.iter().find(|finding| finding["code"] == "REPLICA_STOPPED").cloned()))
}

#[tokio::test]
async fn a_node_that_is_set_back_costs_nobody_else_a_record_and_what_it_lacks_can_be_had_again() {
    let (mut cluster, client, keeper, set_back) = started().await;
    let folder = cluster.data(set_back).to_owned();
    let older = folder.with_file_name("older");
    stop(&mut cluster, set_back).await;
    copy(&folder, &older);
    cluster.spu(set_back).start().expect("started again");
    in_sync(&client, 2).await;
    produce(&client, 5..8).await;

    // It is the last one that has everything, and then its disk is what it was before: nobody is told.
    stop(&mut cluster, keeper).await;
    led_by(&client, set_back).await;
    stop(&mut cluster, set_back).await;
    std::fs::remove_dir_all(&folder).expect("removed");
    copy(&older, &folder);
    cluster.spu(set_back).start().expect("started again");
    let leads = eventually(limit(), "it leads again", || async {
        ensure!(consume(&client).await == ["0", "1", "2", "3", "4"], "no");
        Ok(())
    });
    leads.await.expect("with what it has");
    cluster.spu(keeper).start().expect("started again");
    let told = eventually(limit(), "the other one has stopped", || async {
        let (code, told) = stopped(&cluster).await?;
        told.map(|told| (code, told)).context("nothing is said of it")
    });
    let (code, told) = told.await.expect("it is told");
    assert_eq!(code, Some(11), "{told}");
    let member = &told["members"][0];
    assert_eq!(member["name"], format!("t/0 on spu {keeper}"), "{told}");
    let why = format!("leader spu {set_back} would cut it to 5, committed is all below 8");
    assert!(member["detail"].as_str().is_some_and(|detail| detail.contains(&why)), "{told}");

    // The next command to type says what it would cost, and with the word for it the records are back.
    let next = told["next"].as_str().expect("a command");
    let words: Vec<&str> = next.split(' ').skip(1).collect();
    let ended = cluster.command(&words).await.expect("it ends");
    assert!(ended.code == Some(0) && ended.stdout.contains("dry run"), "{next}: {ended:?}");
    let ended = elect(&cluster, &["--to", &keeper.to_string(), "--unclean"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    led_by(&client, keeper).await;
    assert_eq!(consume(&client).await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let well = eventually(limit(), "both have everything", || async {
        let (code, told) = stopped(&cluster).await?;
        ensure!(code == Some(0) && told.is_none(), "{code:?}: {told:?}");
        Ok(())
    });
    well.await.expect("it follows again");
}
