//! Servers that are started wrongly: each says what to do, ends with its own exit code and changes nothing.

use std::net::TcpListener;
use std::path::Path;

use plimsoll_chaos::process;
use plimsoll_tests::{Ended, Layout, LocalCluster, Scratch, run_to_end};

const LOCKED_OR_FOREIGN: i32 = 5;
const PORT_IN_USE: i32 = 6;
const CONFIGURATION: i32 = 7;

fn one() -> LocalCluster {
    LocalCluster::start(Layout { controllers: 1, spus: 1, disk_bytes: None }).expect("a cluster starts")
}

fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' is missing in:\n{said}");
    }
}

fn address() -> String {
    format!("127.0.0.1:{}", process::free_port().expect("a free port"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[tokio::test]
async fn a_port_in_use_is_exit_code_6_and_leaves_the_directory_alone() {
    let scratch = Scratch::new().expect("a scratch folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("bound").to_string();
    for kind in ["spu", "controller"] {
        let data = scratch.folder(kind).expect("a folder");
        let member = format!("1@{}", if kind == "spu" { address() } else { listen.clone() });
        let directory = text(&data);
        let mut arguments = vec![
            kind,
            "run",
            "--id",
            "1",
            "--data-dir",
            &directory,
            "--listen",
            &listen,
            "--controller",
            &member,
        ];
        if kind == "controller" {
            arguments.push("--bootstrap");
        }
        let ended = run_to_end(&arguments, "").await.expect("it ends");
        assert_ended(&ended, PORT_IN_USE, &[&listen, "in use"]);
        assert_eq!(entries(&data), 0, "{kind} left something in its directory");
    }
}

#[tokio::test]
async fn an_unknown_key_in_the_configuration_is_exit_code_7() {
    let scratch = Scratch::new().expect("a scratch folder");
    let config = scratch.root().join("wrong.toml");
    std::process::Command::new("sh")
        .args(["-c", "printf 'no_such_key = 1\\n' > \"$0\""])
        .arg(&config)
        .status()
        .expect("a shell writes the file");
    for kind in ["spu", "controller"] {
        let data = text(&scratch.folder(kind).expect("a folder"));
        let (listen, member) = (address(), format!("1@{}", address()));
        let config = text(&config);
        let arguments = [
            kind,
            "run",
            "--config",
            &config,
            "--id",
            "1",
            "--data-dir",
            &data,
            "--listen",
            &listen,
            "--controller",
            &member,
        ];
        let ended = run_to_end(&arguments, "").await.expect("it ends");
        assert_ended(&ended, CONFIGURATION, &["no_such_key", "wrong.toml"]);
        assert_eq!(entries(Path::new(&data)), 0, "{kind} left something in its directory");
    }
}

#[tokio::test]
async fn settings_that_do_not_agree_are_exit_code_7() {
    let scratch = Scratch::new().expect("a scratch folder");
    let data = text(&scratch.folder("spu").expect("a folder"));
    for (listen, controller, word) in
        [("0.0.0.0:0", "1@127.0.0.1:7001", "advertise"), ("127.0.0.1:0", "nonsense", "controller")]
    {
        let arguments =
            ["spu", "run", "--id", "1", "--data-dir", &data, "--listen", listen, "--controller", controller];
        let ended = run_to_end(&arguments, "").await.expect("it ends");
        assert_ended(&ended, CONFIGURATION, &[word]);
    }
}

#[tokio::test]
async fn a_directory_in_use_is_exit_code_5() {
    let mut cluster = one();
    drop(cluster.online().await.expect("online"));
    let data = text(cluster.data(1));
    let (listen, member) = (address(), format!("1@{}", cluster.controller_addresses()[0]));
    let arguments =
        ["spu", "run", "--id", "1", "--data-dir", &data, "--listen", &listen, "--controller", &member];
    let ended = run_to_end(&arguments, "").await.expect("it ends");
    assert_ended(&ended, LOCKED_OR_FOREIGN, &[&data, "in use"]);
    cluster.check_alive().expect("the first one goes on");
}

#[tokio::test]
async fn a_directory_of_another_node_is_exit_code_5() {
    let mut cluster = one();
    drop(cluster.online().await.expect("online"));
    cluster.spu(1).kill();
    let data = text(cluster.data(1));
    let (listen, member) = (address(), format!("1@{}", cluster.controller_addresses()[0]));
    let arguments =
        ["spu", "run", "--id", "2", "--data-dir", &data, "--listen", &listen, "--controller", &member];
    let ended = run_to_end(&arguments, "").await.expect("it ends");
    assert_ended(&ended, LOCKED_OR_FOREIGN, &[&data, "SPU 1"]);
    // Its owner starts as before.
    cluster.spu(1).start().expect("started");
    drop(cluster.online().await.expect("online again"));
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_exit_code_5() {
    let mut cluster = one();
    drop(cluster.online().await.expect("online"));
    let mut other = one();
    drop(other.online().await.expect("online"));
    cluster.spu(1).kill();
    let data = text(cluster.data(1));
    let (listen, member) = (address(), format!("1@{}", other.controller_addresses()[0]));
    let arguments =
        ["spu", "run", "--id", "1", "--data-dir", &data, "--listen", &listen, "--controller", &member];
    let ended = run_to_end(&arguments, "").await.expect("it ends");
    assert_ended(&ended, LOCKED_OR_FOREIGN, &["cluster"]);
    other.check_alive().expect("the other cluster goes on");
}

#[tokio::test]
async fn where_no_controller_listens_the_message_names_the_address() {
    let nobody = address();
    let member = format!("1@{nobody}");
    let ended = run_to_end(&["topic", "list", "--controller", &member], "").await.expect("it ends");
    assert_ne!(ended.code, Some(0), "{}", ended.stdout);
    assert!(ended.stderr.contains(&nobody), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}
