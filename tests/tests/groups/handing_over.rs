//! Partitions go from member to member: what is committed before, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use plimsoll_client::{Client, GroupConsumer, GroupEvent, Offset};
use plimsoll_host::Host;

use super::{LIMIT, cluster, drain, produce, spread, topic};

/// Lets two members read until a group has committed so many records and both have partitions.
async fn until_committed(
    (client, group): (&Client, &str),
    members: &mut [GroupConsumer],
    seen: &mut BTreeMap<String, u32>,
    records: u64,
) -> anyhow::Result<()> {
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    loop {
        for member in &mut *members {
            drain(member, seen, Duration::from_millis(100)).await?;
        }
        let committed: u64 = client.group(group).committed().await?.values().map(|offset| offset.get()).sum();
        if committed == records && members.iter().all(|member| !member.assigned().is_empty()) {
            return Ok(());
        }
        ensure!(clock.now() < until, "{committed} of {records} are committed");
    }
}

#[tokio::test]
async fn members_commit_by_themselves_in_time_and_before_they_give_up() -> anyhow::Result<()> {
    let (_cluster, client) = cluster(1, None).await?;
    topic(&client, "t", 4, 1).await?;
    produce(&client, "t", 0, 400).await?;
    let member =
        |group: &str, interval| client.group(group).topics(["t"]).auto_commit(Some(interval)).build();
    // By the clock, which strikes while a commit is under way: nobody commits, closes or gives anything up here.
    let mut often = [member("often", Duration::from_millis(1)).await?];
    until_committed((&client, "often"), &mut often, &mut BTreeMap::new(), 400).await?;

    // When partitions go: the clock never strikes.
    let never = Duration::from_secs(3600);
    let mut seen = BTreeMap::new();
    let mut first = member("never", never).await?;
    let mut events = first.events();
    while seen.len() < 400 {
        drain(&mut first, &mut seen, Duration::from_millis(100)).await?;
    }
    assert_eq!(client.group("never").committed().await?, BTreeMap::new());
    let all = first.assigned().clone();
    let mut both = [first, member("never", never).await?];
    spread(&mut both, 4).await?;
    let committed = client.group("never").committed().await?;
    assert_eq!(
        committed.keys().copied().collect::<BTreeSet<_>>(),
        *both[1].assigned(),
        "what went, and no more"
    );
    produce(&client, "t", 400, 100).await?;
    while seen.len() < 500 {
        for member in &mut both {
            drain(member, &mut seen, Duration::from_millis(100)).await?;
        }
    }
    assert!(seen.values().all(|times| *times == 1), "nothing is read again by its new owner");
    let mut told = (BTreeSet::new(), BTreeSet::new());
    while let Ok(event) = events.try_recv() {
        match event {
            GroupEvent::Assigned(partitions) => told.0.extend(partitions),
            GroupEvent::Revoked(partitions) => told.1.extend(partitions),
            other => bail!("{other:?}"),
        }
    }
    assert_eq!(told, (all, both[1].assigned().clone()));
    Ok(())
}

#[tokio::test]
async fn a_listener_says_what_is_dealt_with_before_partitions_go() -> anyhow::Result<()> {
    /// Records that were delivered, and not dealt with yet.
    const BEHIND: u64 = 3;
    let (_cluster, client) = cluster(1, None).await?;
    topic(&client, "t", 4, 1).await?;
    produce(&client, "t", 0, 400).await?;
    let member = || {
        let settings = client.group("g").topics(["t"]).auto_commit(None);
        let behind = |offset: Offset| Offset::new(offset.get() - BEHIND).expect("they have a hundred each");
        settings.on_revoke(move |going| async move {
            going.into_iter().map(|(partition, delivered)| (partition, behind(delivered))).collect()
        })
    };
    let mut seen = BTreeMap::new();
    let mut first = member().build().await?;
    while seen.len() < 400 {
        drain(&mut first, &mut seen, Duration::from_millis(100)).await?;
    }
    let mut both = [first, member().build().await?];
    let clock = Host::real().clock;
    let until = clock.now() + LIMIT;
    let again = |seen: &BTreeMap<String, u32>| seen.values().filter(|times| **times == 2).count();
    while both[1].assigned().len() < 2 || again(&seen) < 2 * usize::try_from(BEHIND)? {
        for member in &mut both {
            drain(member, &mut seen, Duration::from_millis(100)).await?;
        }
        ensure!(clock.now() < until, "{:?}, {} again", both[1].assigned(), again(&seen));
    }
    assert_eq!((seen.values().max(), again(&seen)), (Some(&2), 2 * usize::try_from(BEHIND)?));
    assert_eq!(client.group("g").committed().await?.len(), 2, "what went, and no more");
    for member in both {
        member.close().await?;
    }
    let committed: u64 = client.group("g").committed().await?.values().map(|offset| offset.get()).sum();
    assert_eq!(committed, 400 - 4 * BEHIND, "it is asked at the close, too");
    Ok(())
}

#[tokio::test]
async fn ten_members_share_a_hundred_partitions_within_a_second() -> anyhow::Result<()> {
    let (_cluster, client) = cluster(1, None).await?;
    topic(&client, "t", 100, 1).await?;
    let member = || client.group("g").topics(["t"]).build();
    let mut members = Vec::new();
    for _ in 0..9 {
        members.push(member().await?);
    }
    spread(&mut members, 100).await?;
    let clock = Host::real().clock;
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let joined = clock.now();
        members.push(member().await?);
        spread(&mut members, 100).await?;
        joins.push(clock.now().saturating_sub(joined));
        let tenth = members.pop().context("ten")?;
        let leaves_at = clock.now();
        tenth.close().await?;
        spread(&mut members, 100).await?;
        leaves.push(clock.now().saturating_sub(leaves_at));
    }
    println!("FIGURE a tenth member over 100 partitions: joins {joins:?}, leaves {leaves:?}");
    assert!(joins.iter().chain(&leaves).all(|took| *took <= Duration::from_secs(1)), "{joins:?} {leaves:?}");
    Ok(())
}
