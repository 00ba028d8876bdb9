//! Consumer groups with real processes: shared partitions, committed offsets, a coordinator that dies, full disks.

mod handing_over;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use plimsoll_client::{
    Client, FlushPolicy, GroupConsumer, GroupError, Offset, PartitionId, Reason, Record, TopicConfig,
};
use plimsoll_host::Host;
use plimsoll_proto::group::{OFFSETS_TOPIC, coordinator_partition};
use plimsoll_tests::{Layout, LocalCluster, eventually, run_to_end, skip};
use rustix::io::Errno;

const LIMIT: Duration = Duration::from_secs(30);

async fn cluster(spus: u32, disk_bytes: Option<u64>) -> anyhow::Result<(LocalCluster, Client)> {
    let mut cluster = LocalCluster::start(Layout { controllers: 1, spus, disk_bytes })?;
    let client = cluster.online().await?;
    Ok((cluster, client))
}

/// Three nodes with disks of 64 MiB. `None`, said aloud, where this process may not mount.
async fn on_small_disks(test: &str) -> anyhow::Result<Option<(LocalCluster, Client)>> {
    match cluster(3, Some(64 << 20)).await {
        Ok(started) => Ok(Some(started)),
        Err(error) if may_not(&error) => {
            skip(test, &format!("{error:#}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the kernel said that this process has no right to do it.
fn may_not(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Errno>().is_some_and(|errno| [Errno::PERM, Errno::ACCESS].contains(errno))
}

#[test]
fn only_a_right_that_is_missing_is_a_reason_to_skip() {
    for (errno, expected) in [(Errno::PERM, true), (Errno::ACCESS, true), (Errno::NOSPC, false)] {
        let error = anyhow::Error::from(errno).context("mount a tmpfs").context("start");
        assert_eq!(may_not(&error), expected, "{error:#}");
    }
    assert!(!may_not(&anyhow::anyhow!("mount a tmpfs: not permitted")), "text says nothing");
}

async fn topic(client: &Client, name: &str, partitions: u32, replicas: u32) -> anyhow::Result<()> {
    let config = TopicConfig {
        partitions,
        replicas,
        min_in_sync: replicas.saturating_sub(1).max(1),
        flush: FlushPolicy::Os.into(),
        ..TopicConfig::default()
    };
    client.admin().create_topic(name, config).await?;
    let led = client.wait_metadata(LIMIT, |image| {
        image.topic_by_name(name).is_some_and(|topic| topic.partitions.iter().all(|p| p.leader != 0))
    });
    ensure!(led.await, "every partition has a leader");
    Ok(())
}

async fn produce(client: &Client, topic: &str, from: u32, count: u32) -> anyhow::Result<()> {
    let producer = client.producer(topic).build().await?;
    let mut deliveries = Vec::new();
    for n in from..from + count {
        let text = n.to_string();
        deliveries.push(producer.send(Record::new(text.clone()).key(text)).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close().await;
    Ok(())
}

/// Takes what comes until nothing has come for a while.
async fn drain(
    consumer: &mut GroupConsumer,
    seen: &mut BTreeMap<String, u32>,
    quiet: Duration,
) -> anyhow::Result<()> {
    let clock = Host::real().clock;
    while let Ok(next) = clock.timeout(quiet, consumer.next()).await {
        let record = next.context("the stream goes on")??;
        let value = record.record.value.context("a value")?;
        *seen.entry(String::from_utf8(value.to_vec())?).or_default() += 1;
    }
    Ok(())
}

async fn partitions_of(client: &Client, topic: &str) -> BTreeSet<PartitionId> {
    let topic_id = client.topic_id(topic).expect("the topic is known");
    let count = client.metadata().topics[&topic_id].partitions.len();
    (0..u32::try_from(count).expect("few")).map(|index| PartitionId { topic_id, index }).collect()
}

/// Polls every member until each has its part.
async fn spread(members: &mut [GroupConsumer], partitions: usize) -> anyhow::Result<()> {
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    let (low, high) = (partitions / members.len(), partitions.div_ceil(members.len()));
    loop {
        let polls = members.iter_mut().map(|member| clock.timeout(Duration::from_millis(20), member.next()));
        futures::future::join_all(polls).await;
        let counts: Vec<usize> = members.iter().map(|member| member.assigned().len()).collect();
        if counts.iter().sum::<usize>() == partitions && counts.iter().all(|n| (low..=high).contains(n)) {
            return Ok(());
        }
        ensure!(clock.now() < until, "not spread: {counts:?}");
    }
}

#[tokio::test]
async fn two_members_read_each_record_once_and_a_third_goes_on_where_they_were() -> anyhow::Result<()> {
    let (cluster, client) = cluster(3, None).await?;
    topic(&client, "t", 8, 3).await?;
    let member = || client.group("g").topics(["t"]).build();
    let mut members = vec![member().await?, member().await?];
    spread(&mut members, 8).await.with_context(|| cluster.logs())?;
    let owned: Vec<_> = members.iter().map(|member| member.assigned().clone()).collect();
    assert!(owned[0].is_disjoint(&owned[1]));

    produce(&client, "t", 0, 2000).await?;
    let mut seen = BTreeMap::new();
    while seen.len() < 2000 {
        for member in &mut members {
            drain(member, &mut seen, Duration::from_millis(300)).await?;
        }
    }
    assert!(seen.values().all(|times| *times == 1), "undisturbed, each record comes once");
    for member in &mut members {
        member.commit().await?;
        assert!(member.lag().await?.values().all(|lag| *lag == 0));
    }
    // With both members there: nobody else may set offsets.
    let partition = *owned[0].first().expect("it has some");
    let refused = client.group("g").reset([(partition, Offset::ZERO)].into()).await.expect_err("active");
    assert_eq!(refused.reason(), Some(Reason::GroupActive));
    for member in members {
        member.close().await?;
    }
    let committed = client.group("g").committed().await?;
    assert_eq!(committed.values().map(|offset| offset.get()).sum::<u64>(), 2000);

    produce(&client, "t", 2000, 100).await?;
    let mut third = member().await?;
    let mut later = BTreeMap::new();
    while later.len() < 100 {
        drain(&mut third, &mut later, Duration::from_millis(300)).await?;
    }
    assert!(later.keys().all(|value| !seen.contains_key(value)), "what was committed does not come again");
    third.close().await?;

    let list = cluster.command(&["group", "list"]).await?;
    assert!(list.code == Some(0) && list.stdout.contains('g'), "{list:?}");
    let describe = cluster.command(&["group", "describe", "g", "-o", "json"]).await?;
    let document: serde_json::Value = serde_json::from_str(&describe.stdout)?;
    assert_eq!((document["lag"].as_u64(), document["offsets"].as_array().map(Vec::len)), (Some(0), Some(8)));
    let dry = cluster.command(&["group", "reset", "g", "--to", "earliest", "--dry-run"]).await?;
    assert!(dry.code == Some(0) && dry.stdout.contains("nothing was changed"), "{dry:?}");
    assert_eq!(client.group("g").committed().await?.values().map(|offset| offset.get()).sum::<u64>(), 2100);
    let reset = cluster.command(&["group", "reset", "g", "--to", "earliest"]).await?;
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let again = cluster.command(&["consume", "t", "--group", "g", "--count", "2100"]).await?;
    assert_eq!((again.code, again.stdout.lines().count()), (Some(0), 2100), "{}", again.stderr);
    let delete = cluster.command(&["group", "delete", "g"]).await?;
    assert_eq!(delete.code, Some(0), "{delete:?}");
    let gone = cluster.command(&["group", "describe", "g"]).await?;
    assert_eq!(gone.code, Some(4), "{gone:?}");
    let reserved = cluster.command(&["topic", "delete", OFFSETS_TOPIC]).await?;
    assert_eq!(reserved.code, Some(1), "{reserved:?}");
    // What groups leave on the disks is sound, while their nodes run.
    for id in 1..=3 {
        let directory = cluster.data(id).display().to_string();
        let verified = run_to_end(&["log", "verify", &directory], "").await?;
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert!(verified.stdout.lines().filter(|line| line.ends_with("sound")).count() > 8, "{verified:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_coordinator_that_is_killed_costs_no_commit_and_no_partition() -> anyhow::Result<()> {
    let (mut cluster, client) = cluster(3, None).await?;
    topic(&client, "t", 6, 3).await?;
    produce(&client, "t", 0, 600).await?;
    let member = || client.group("g").topics(["t"]).auto_commit(None).build();
    let mut members = vec![member().await?, member().await?];
    let mut seen = BTreeMap::new();
    spread(&mut members, 6).await.with_context(|| cluster.logs())?;
    for member in &mut members {
        drain(member, &mut seen, Duration::from_millis(500)).await?;
        member.commit().await?;
    }
    let owned: Vec<_> = members.iter().map(|member| member.assigned().clone()).collect();
    let before = client.group("g").committed().await?;

    let image = client.metadata();
    let offsets = image.topic_by_name(OFFSETS_TOPIC).context("it was created")?;
    let index = coordinator_partition("g", u32::try_from(offsets.partitions.len())?);
    let coordinator = offsets.partitions.iter().find(|info| info.index == index).context("there")?.leader;
    cluster.spu(coordinator).kill();

    produce(&client, "t", 600, 600).await?;
    for member in &mut members {
        drain(member, &mut seen, Duration::from_secs(3)).await?;
        member.commit().await.with_context(|| cluster.logs())?;
    }
    let after: Vec<_> = members.iter().map(|member| member.assigned().clone()).collect();
    assert_eq!(after, owned, "nobody lost a partition");
    let committed = client.group("g").committed().await?;
    for (partition, offset) in &before {
        assert!(committed[partition] >= *offset, "{partition}: {} after {offset}", committed[partition]);
    }
    assert_eq!(committed.values().map(|offset| offset.get()).sum::<u64>(), 1200);
    Ok(())
}

/// Takes every byte of a filesystem, as a foreign writer does.
#[expect(clippy::disallowed_methods, reason = "a foreign writer does not use our door")]
fn fill(folder: &std::path::Path) -> anyhow::Result<std::fs::File> {
    let mut file = std::fs::File::create(folder.join("foreign"))?;
    for size in [1 << 20, 4096, 1] {
        let bytes = vec![7; size];
        while file.write_all(&bytes).is_ok() {}
    }
    Ok(file)
}

#[tokio::test]
async fn a_thousand_commits_a_second_go_on_for_a_minute_on_full_disks() -> anyhow::Result<()> {
    let started = on_small_disks("a_thousand_commits_a_second_go_on_for_a_minute_on_full_disks").await?;
    let Some((mut cluster, client)) = started else { return Ok(()) };
    topic(&client, "t", 3, 3).await?;
    produce(&client, "t", 0, 300).await?;
    let mut member = client.group("members").topics(["t"]).auto_commit(None).build().await?;
    let mut seen = BTreeMap::new();
    while seen.len() < 300 {
        drain(&mut member, &mut seen, Duration::from_millis(300)).await?;
    }
    member.commit().await?;
    let partitions = partitions_of(&client, "t").await;
    let partition = *partitions.first().context("some")?;
    for group in 0..20 {
        client.group(format!("group-{group}")).reset([(partition, Offset::ZERO)].into()).await?;
    }

    let mut foreign = Vec::new();
    for id in 1..=3 {
        foreign.push(fill(cluster.data(id))?);
    }
    eventually(LIMIT, "produce is refused", || async {
        let producer = client.producer("t").deadline(Duration::from_millis(500)).build().await?;
        let delivered = match producer.send(Record::new("x")).await {
            Ok(delivery) => delivery.await.map(drop),
            Err(error) => Err(error),
        };
        if delivered.is_ok() { bail!("it was accepted") } else { Ok(()) }
    })
    .await?;

    let clock = Host::real().clock;
    // A minute; an hour when `scripts/prove` asks for all of it.
    let seconds = if std::env::var_os("PLIMSOLL_PROVE_FULL").is_some() { 3600 } else { 60 };
    let (until, begun) = (clock.now() + Duration::from_secs(seconds), clock.now());
    let commits = (0..20u32).map(|group| {
        let (client, clock) = (client.clone(), clock.clone());
        async move {
            let group = client.group(format!("group-{group}"));
            let (mut count, mut slowest) = (0u64, Duration::ZERO);
            while clock.now() < until {
                let at = clock.now();
                count += 1;
                group.reset([(partition, Offset::new(count)?)].into()).await?;
                slowest = slowest.max(clock.now().saturating_sub(at));
                // Fifty a second of each.
                clock.sleep_until(begun + Duration::from_millis(20) * u32::try_from(count)?).await;
            }
            let committed = group.committed().await?;
            ensure!(committed[&partition].get() == count, "{committed:?} after {count}");
            Ok((count, slowest))
        }
    });
    let done: Vec<(u64, Duration)> =
        futures::future::try_join_all(commits).await.with_context(|| cluster.logs())?;
    let total: u64 = done.iter().map(|(count, _)| count).sum();
    let slowest = done.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
    println!("FIGURE commits on full disks: {total} in {seconds} s, slowest {slowest:?}");
    println!("CASES offsets-commits real cases={total}");
    assert!(total >= 990 * seconds, "{total} commits in {seconds} s");
    cluster.check_alive()?;

    // A member goes on, too; a new key has room as long as there is any, and is refused with a type beyond.
    member.commit().await?;
    let many = (0..3000).map(|index| (PartitionId { index, ..partition }, Offset::ZERO)).collect();
    let full = client.group("group-0").reset(many).await.expect_err("beyond the area");
    assert_eq!(full.reason(), Some(Reason::OffsetsFull), "{full}");
    assert!(matches!(full, GroupError::TimedOut { .. } | GroupError::Refused(_)));
    client.group("group-0").reset([(partition, Offset::new(7)?)].into()).await?;
    assert_eq!(client.group("group-0").committed().await?[&partition].get(), 7);

    // And it is all there after a kill of everything.
    for id in 1..=3 {
        cluster.spu(id).kill();
    }
    for id in 1..=3 {
        cluster.spu(id).start()?;
    }
    let found =
        eventually(LIMIT, "offsets are read", || async { Ok(client.group("group-1").committed().await?) });
    assert_eq!(found.await.with_context(|| cluster.logs())?[&partition].get(), done[1].0);
    drop(foreign);
    Ok(())
}

#[tokio::test]
async fn a_first_group_is_used_when_every_disk_is_full_already() -> anyhow::Result<()> {
    let started = on_small_disks("a_first_group_is_used_when_every_disk_is_full_already").await?;
    let Some((cluster, client)) = started else { return Ok(()) };
    topic(&client, "t", 3, 3).await?;
    produce(&client, "t", 0, 300).await?;
    // With the first topic the controllers make room for groups, of which there is none yet.
    let made = client.wait_metadata(LIMIT, |image| {
        let whole = |p: &plimsoll_proto::v1::PartitionInfo| p.leader != 0 && p.in_sync.len() == 3;
        image.topic_by_name(OFFSETS_TOPIC).is_some_and(|topic| topic.partitions.iter().all(whole))
    });
    ensure!(made.await, "{}", cluster.logs());
    // What is applied is on the disks a moment later.
    client.group("probe").committed().await?;

    let mut foreign = Vec::new();
    for id in 1..=3 {
        foreign.push(fill(cluster.data(id))?);
    }
    let mut member = client.group("late").topics(["t"]).auto_commit(None).build().await?;
    let mut seen = BTreeMap::new();
    while seen.len() < 300 {
        drain(&mut member, &mut seen, Duration::from_millis(300)).await?;
    }
    member.commit().await.with_context(|| cluster.logs())?;
    member.close().await?;
    let committed = client.group("late").committed().await?;
    assert_eq!(committed.values().map(|offset| offset.get()).sum::<u64>(), 300);
    drop(foreign);
    Ok(())
}

#[tokio::test]
async fn offsets_of_a_group_that_nobody_uses_are_forgotten() -> anyhow::Result<()> {
    let layout = Layout { controllers: 1, spus: 1, disk_bytes: None };
    let mut cluster = LocalCluster::start_with(layout, &[], &["--offsets-retention", "3s"])?;
    let client = cluster.online().await?;
    topic(&client, "t", 2, 1).await?;
    produce(&client, "t", 0, 10).await?;
    let mut member = client.group("used").topics(["t"]).auto_commit(None).build().await?;
    let mut seen = BTreeMap::new();
    while seen.len() < 10 {
        drain(&mut member, &mut seen, Duration::from_millis(100)).await?;
    }
    member.commit().await?;
    for partition in partitions_of(&client, "t").await {
        client.group("dead").reset([(partition, Offset::ZERO)].into()).await?;
    }
    assert_eq!(client.group("dead").committed().await?.len(), 2);
    // A member that commits nothing more holds its group.
    let polls = async {
        loop {
            if let Err(error) = drain(&mut member, &mut seen, Duration::from_millis(100)).await {
                break Err::<(), _>(error);
            }
        }
    };
    let gone = eventually(LIMIT, "the dead group is forgotten", || async {
        let listed = client.list_groups().await?;
        let names: Vec<&str> = listed.iter().map(|info| info.group.as_str()).collect();
        ensure!(names == ["used"], "{names:?}");
        Ok(())
    });
    tokio::select! {
        gone = gone => gone.with_context(|| cluster.logs())?,
        ended = polls => return ended,
    }
    assert_eq!(client.group("used").committed().await?.len(), 2);
    let unknown = client.group("dead").describe().await.expect_err("nothing is kept of it");
    assert_eq!(unknown.reason(), Some(Reason::UnknownGroup));
    member.close().await?;
    let gone = eventually(LIMIT, "so is the other one, without its member", || async {
        ensure!(client.list_groups().await?.is_empty(), "there still");
        Ok(())
    });
    gone.await.with_context(|| cluster.logs())
}
