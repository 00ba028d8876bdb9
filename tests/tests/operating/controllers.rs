//! Controllers that come and go, are too few, or are told the wrong token.

use std::time::Duration;

use anyhow::{bail, ensure};
use plimsoll_chaos::process;
use plimsoll_host::Clock;
use plimsoll_proto::ids::ControllerId;
use plimsoll_tests::{Layout, LocalCluster, Scratch, eventually, run_to_end};
use serde_json::Value;

use super::recorded::Recorded;
use super::{PATIENCE, create, json, limit, refused, started};

#[tokio::test]
async fn five_controllers_go_on_without_two_and_stop_without_three() {
    let (mut cluster, client) = started(5, 1).await;
    create(&client, "of-five", 1, 1).await;
    // The one that leads and one that follows.
    let leader = u32::try_from(client.admin().cluster_status().await.expect("led").leader).expect("an id");
    let followers: Vec<u32> = (1..=5).filter(|id| *id != leader).collect();
    cluster.controller(leader).kill();
    cluster.controller(followers[0]).kill();
    create(&client, "of-three", 1, 1).await;
    let of_three = Recorded::of(&client, "of-three").await;
    of_three.produce(0, 10).await;
    cluster.controller(followers[1]).kill();
    let stopped = eventually(limit(), "two of five decide nothing", || async {
        let ended = cluster.command(&["topic", "create", "of-two", "--timeout", "3s"]).await?;
        ensure!(ended.code == Some(3) && ended.stderr.contains("NO_QUORUM"), "{ended:?}");
        Ok(())
    });
    stopped.await.expect("refused");
    // Whoever was away has missed a topic, and learns of it.
    for id in [leader, followers[0]] {
        cluster.controller(id).start().expect("starts");
    }
    create(&client, "of-four", 1, 1).await;
    let known = eventually(limit(), "everybody has applied the same", || async {
        let controllers = client.admin().cluster_status().await?.controllers;
        let applied: Vec<u64> = controllers.iter().filter(|c| c.reachable).map(|c| c.applied_index).collect();
        ensure!(applied.len() == 4 && applied.iter().all(|index| *index == applied[0]), "{controllers:?}");
        Ok(())
    });
    known.await.expect("four agree");
    let topics = client.admin().list_topics().await.expect("listed");
    let mut names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    // The one that two could not create may be there: a leader that did not know yet that it was alone took it down, and
    // could not tell what would become of it.
    names.retain(|name| name.starts_with("of-") && *name != "of-two");
    names.sort_unstable();
    assert_eq!(names, ["of-five", "of-four", "of-three"]);
    of_three.produce(10, 10).await;
    assert_eq!(of_three.consume().await, (0..20).collect::<Vec<_>>());
    of_three.judge().await;
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
