//! Controllers whose metadata store is in a process of its own: whatever becomes of that process, the controller goes
//! on, and none of it outlives the controller.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use plimsoll_client::{Client, TopicConfig};
use plimsoll_host::Clock;
use plimsoll_tests::{Layout, LocalCluster, eventually};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

fn limit() -> Duration {
    Clock::real().now().saturating_add(PATIENCE)
}

async fn started(controllers: u32) -> (LocalCluster, Client) {
    let layout = Layout { controllers, spus: 1, disk_bytes: None };
    let mut cluster = LocalCluster::start(layout).expect("a cluster starts");
    let client = cluster.online().await.expect("online");
    (cluster, client)
}

async fn create(client: &Client, name: &str) {
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..TopicConfig::default() };
    client.admin().create_topic(name, config).await.expect("created");
}

/// State and parent of a process, as proc(5) has them behind its name in parentheses.
fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = line.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// The process of the store, while a controller has one.
fn store_of(controller: u32) -> anyhow::Result<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        if state_and_parent(pid).is_some_and(|(state, parent)| parent == controller && state != "Z") {
            found.push(pid);
        }
    }
    let [pid] = found[..] else { bail!("controller process {controller} has the children {found:?}") };
    let command = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    ensure!(command.split(|byte| *byte == 0).any(|word| word == b"controller-store"), "{pid} is another one");
    Ok(pid)
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it is there");
}

/// Waits until the process is gone; what nobody has waited for yet counts as gone.
async fn gone(pid: u32) {
    let looked = eventually(limit(), "the process of the store is gone", || async {
        match state_and_parent(pid) {
            Some((state, _)) if state != "Z" => bail!("it is there: {state}"),
            _ => Ok(()),
        }
    });
    looked.await.expect("it ends with its controller");
}

#[tokio::test]
async fn a_controller_goes_on_when_the_process_of_its_store_is_killed_and_gets_another() {
    let (mut cluster, client) = started(3).await;
    create(&client, "before").await;
    let status = client.admin().cluster_status().await.expect("led");
    let (leader, term) = (status.leader, status.term);
    let controllers: Vec<u32> = (1..=3).map(|id| cluster.controller(id).pid().expect("it runs")).collect();
    let mut last = Vec::new();
    for round in 0..3 {
        let mut stores = Vec::new();
        for controller in &controllers {
            let another = eventually(limit(), "another process of the store", || async {
                let pid = store_of(*controller)?;
                ensure!(!last.contains(&pid), "{pid} was killed");
                Ok(pid)
            });
            stores.push(another.await.expect("by itself"));
        }
        for pid in &stores {
            signal(*pid, Signal::KILL);
            create(&client, &format!("round-{round}-{pid}")).await;
        }
        last = stores;
    }
    let status = client.admin().cluster_status().await.expect("led");
    assert_eq!((status.leader, status.term), (leader, term), "nobody had to be elected:\n{}", cluster.logs());
    cluster.check_alive().expect("the controllers live");
    for id in 1..=3 {
        let log = cluster.controller(id).log().to_owned();
        let written = eventually(limit(), "the store is written again", || async {
            let log = std::fs::read_to_string(&log)?;
            let interrupted = log.find("was interrupted").context("a word about it")?;
            ensure!(log[interrupted..].contains("metadata store is written again"), "{log}");
            ensure!(log.matches("was interrupted").count() < 20, "few words about it: {log}");
            Ok(())
        });
        written.await.expect("by itself");
    }
}

#[tokio::test]
async fn nothing_of_a_controller_outlives_it_and_the_next_one_finds_its_store() {
    let (mut cluster, client) = started(1).await;
    create(&client, "kept").await;
    // One that hangs does not see its connection end: the kernel kills it with the thread that started it.
    for (kind, hangs) in [(Signal::KILL, false), (Signal::KILL, true), (Signal::TERM, false)] {
        let controller = cluster.controller(1).pid().expect("it runs");
        let there = eventually(limit(), "a process of the store", || async { store_of(controller) });
        let store = there.await.expect("by itself");
        if hangs {
            signal(store, Signal::STOP);
        }
        signal(controller, kind);
        gone(store).await;
        ended(&mut cluster).await;
        cluster.controller(1).start().expect("started again");
        let listed = eventually(limit(), "it answers", || async { Ok(client.admin().list_topics().await?) });
        let topics = listed.await.expect("it answers");
        assert!(topics.iter().any(|topic| topic.name == "kept"), "{topics:?}");
    }
    let log = std::fs::read_to_string(cluster.controller(1).log()).expect("a log");
    assert!(!log.contains("interrupted") && !log.contains("rebuilt"), "a stop in order is none: {log}");
}

/// Waits until the first controller has ended.
async fn ended(cluster: &mut LocalCluster) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if cluster.controller(1).ended().expect("waited for").is_some() {
            return;
        }
        Clock::real().sleep(Duration::from_millis(20)).await;
    }
    panic!("the controller does not end:\n{}", cluster.logs());
}

#[tokio::test]
async fn a_hung_process_of_the_store_holds_up_neither_changes_nor_the_end() {
    let (mut cluster, client) = started(1).await;
    let controller = cluster.controller(1).pid().expect("it runs");
    let there = eventually(limit(), "a process of the store", || async { store_of(controller) });
    let store = there.await.expect("by itself");
    signal(store, Signal::STOP);
    let begun = Clock::real();
    let mut rounds = 0;
    // Three times as long as a change may wait to be written.
    while begun.now() < Duration::from_secs(6) {
        create(&client, "again").await;
        client.admin().delete_topic("again").await.expect("deleted");
        rounds += 1;
    }
    assert!(rounds >= 5, "{rounds} in six seconds");
    create(&client, "kept").await;
    assert_eq!(state_and_parent(store).map(|(state, _)| state).as_deref(), Some("T"), "it hung all the time");
    cluster.controller(1).terminate();
    ended(&mut cluster).await;
    gone(store).await;
    cluster.controller(1).start().expect("started again");
    let listed = eventually(limit(), "it answers", || async { Ok(client.admin().list_topics().await?) });
    assert!(listed.await.expect("it answers").iter().any(|topic| topic.name == "kept"));
}

#[tokio::test]
async fn the_command_is_for_controllers_only_and_nobody_is_told_of_it() {
    for arguments in [&["controller-store"][..], &["controller-store", "/tmp", "metadata", "0", "0", "16"]] {
        let ended = plimsoll_tests::run_to_end(arguments, "hello").await.expect("it ends");
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("plimsoll controller run"), "{}", ended.stderr);
    }
    for arguments in [&["--help"][..], &["controller", "--help"], &["completion", "bash"], &["man"]] {
        let ended = plimsoll_tests::run_to_end(arguments, "").await.expect("it ends");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stdout.contains("controller-store"), "{arguments:?}");
    }
}
