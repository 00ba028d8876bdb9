//! A drill against a running cluster.

use std::process::{Command, Stdio};

use plimsoll_chaos::cluster::{Cluster, Topology};
use plimsoll_chaos::rig::{DiskKind, Rig, VolumeSpec};
use plimsoll_client::{Client, VolumeState};
use plimsoll_host::Host;

const VOLUME_BYTES: u64 = 96 << 20;

fn drill(arguments: &[&str]) -> (Option<i32>, Vec<serde_json::Value>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_plimsoll-chaos"))
        .args(["drill", "--json", "--no-color", "--seconds", "1"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let story = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), story)
}

async fn nothing_is_left(client: &Client) {
    let topics = client.admin().list_topics().await.expect("topics");
    assert!(topics.iter().all(|topic| !topic.name.starts_with("plimsoll-drill")), "{topics:?}");
    let image = client.metadata();
    let mut volumes = image.spus.values().flat_map(|spu| &spu.volumes);
    assert!(volumes.all(|volume| volume.state() == VolumeState::Writable), "{:?}", image.spus);
}

#[test]
fn a_drill_of_a_running_cluster_passes_and_leaves_nothing_behind() {
    // Not `#[tokio::test]`: the servers end with the thread that starts them.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let host = Host::real();
        let rig = Rig::create(false, DiskKind::Simulated).expect("a folder");
        let topology = Topology::three_nodes(VolumeSpec::of_bytes(VOLUME_BYTES));
        let mut cluster = Cluster::start(rig, &topology).expect("a cluster");
        let client = cluster.connect(&host).await.expect("it comes up");
        let addresses = cluster.controller_addresses().to_vec();
        let arguments: Vec<&str> =
            addresses.iter().flat_map(|address| ["--controller", address.as_str()]).collect();

        let (code, outcomes, story) = drill(&arguments);
        assert_eq!(code, Some(0), "{story}");
        assert_eq!(outcomes[0]["verdict"], "pass", "{story}");
        let figures: Vec<&str> = outcomes[0]["figures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|figure| figure["name"].as_str())
            .collect();
        for figure in ["detect_ms", "reroute_ms", "recover_ms", "liveness_faults"] {
            assert!(figures.contains(&figure), "{figures:?}");
        }
        assert!(outcomes[0]["acked"].as_u64().is_some_and(|acked| acked > 200), "{story}");
        nothing_is_left(&client).await;

        // A node that is not there: typed, and nothing is left either.
        let (code, outcomes, story) = drill(&[&arguments[..], &["--spu", "77"]].concat());
        assert_eq!(code, Some(1), "{story}");
        assert!(outcomes[0]["reasons"][0].as_str().is_some_and(|why| why.contains("spu 77")), "{story}");
        nothing_is_left(&client).await;
        cluster.check_alive().expect("everything still runs");
    });
}

#[test]
fn a_cluster_that_is_not_there_is_told() {
    let (code, outcomes, story) = drill(&["--controller", "127.0.0.1:1"]);
    assert_eq!(code, Some(1), "{story}");
    let why = outcomes[0]["reasons"][0].as_str().unwrap_or_default();
    assert!(why.contains("no controller answers"), "{outcomes:?}\n{story}");
}
