//! The contract of the command line: exit codes, messages that name the remedy, JSON that can be read.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use crate::process::{Folder, Server, command, free_addresses, plimsoll, terminate};

#[test]
fn usage_is_code_2_and_help_is_0() {
    for arguments in [&["frobnicate"][..], &[], &["topic", "create"], &["consume", "t", "--from", "soon"]] {
        assert_eq!(plimsoll(arguments).0, 2, "{arguments:?}");
    }
    let (code, out, _) = plimsoll(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("standalone"), "{out}");
    let (code, _, err) = plimsoll(&["topic", "list", "--controller", "nowhere"]);
    assert_eq!(code, 2);
    assert!(err.contains("--controller"), "{err}");
}

#[test]
fn json_is_versioned() {
    let (code, out, _) = plimsoll(&["version", "-o", "json"]);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json["version"], 1);
    assert!(json["plimsoll"].is_string());
}

#[test]
fn where_nothing_listens_is_code_3() {
    let [controller] = free_addresses();
    for arguments in [
        &["topic", "list"][..],
        &["disk"],
        &["events"],
        &["cluster", "status"],
        &["produce", "t"],
        &["consume", "t"],
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--controller", &controller]);
        let (code, out, err) = plimsoll(&arguments);
        assert_eq!(code, 3, "{arguments:?}: {err}");
        assert!(
            err.contains("nothing listens there") && err.contains("--controller"),
            "{arguments:?}: {err}"
        );
        assert!(out.is_empty() && err.contains(&controller), "{arguments:?}: {err}");
    }
}

#[test]
fn configuration_is_code_7_and_names_the_key() {
    let folder = Folder::new("configuration");
    let unknown = folder.file("unknown.toml", "id = 1\nfrobnication = true\n");
    let wrong = folder.file("wrong.toml", "id = 1\nlisten = 5\n");
    let missing = folder.path("missing.toml");
    let data = folder.path("data");
    for (arguments, named) in [
        (&["spu", "run"][..], "--id"),
        (&["spu", "run", "--id", "1"], "--data-dir"),
        (&["spu", "run", "--id", "1", "--data-dir", &data], "--controller"),
        (&["spu", "run", "--config", &unknown], "frobnication"),
        (&["spu", "run", "--config", &wrong], "listen"),
        (&["spu", "run", "--config", &missing], "missing.toml"),
        (&["controller", "run", "--data-dir", &data], "--id"),
        (&["controller", "run", "--config", &unknown], "frobnication"),
        (&["controller", "run", "--id", "1", "--data-dir", &data, "--controller", "2@a:1"], "--controller"),
        (&["controller", "run", "--id", "1", "--data-dir", &data, "--listen", "127.0.0.1:0"], "--bootstrap"),
        (&["standalone", "--config", &unknown], "frobnication"),
        (&["standalone", "--data-dir", ""], "--data-dir"),
    ] {
        let (code, _, err) = plimsoll(arguments);
        assert_eq!(code, 7, "{arguments:?}: {err}");
        assert!(err.contains(named), "{arguments:?} should name {named}: {err}");
    }
}

#[test]
fn a_port_in_use_is_code_6() {
    let folder = Folder::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let data = folder.path("data");
    for arguments in [
        &["controller", "run", "--id", "1", "--bootstrap", "--data-dir", &data, "--listen", &address][..],
        &[
            "spu",
            "run",
            "--id",
            "1",
            "--data-dir",
            &data,
            "--controller",
            "127.0.0.1:1",
            "--listen",
            &address,
        ],
        &["standalone", "--data-dir", &data, "--listen", &address],
    ] {
        let (code, _, err) = plimsoll(arguments);
        assert_eq!(code, 6, "{arguments:?}: {err}");
        assert!(err.contains(&address) && err.contains("--listen"), "{arguments:?}: {err}");
    }
}

/// A process that ends while its metadata store is open may crash instead: each end must be in order.
#[test]
fn a_port_in_use_is_code_6_also_on_a_ready_directory() {
    let folder = Folder::new("ready");
    let [controller, spu] = free_addresses();
    let data = folder.path("data");
    let serve = ["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &spu];
    let mut server = Server(command(&serve).stderr(Stdio::null()).spawn().expect("the binary runs"));
    let listed = || plimsoll(&["topic", "list", "--controller", &controller]).0 == 0;
    assert!((0..20).any(|_| listed()), "it serves");
    terminate(&mut server);

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).expect("bound");
    let inside = folder.path("data/controller");
    for round in 0..10 {
        for arguments in [
            &["standalone", "--data-dir", &data, "--listen", &taken.0, "--spu-listen", &spu][..],
            &["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &taken.0],
            &["controller", "run", "--id", "1", "--data-dir", &inside, "--listen", &taken.0],
        ] {
            let (code, _, err) = plimsoll(arguments);
            assert_eq!(code, 6, "round {round}: {arguments:?}: {err}");
        }
    }
}

#[test]
fn a_local_cluster_that_never_was_is_code_4() {
    let folder = Folder::new("never");
    let dir = folder.path("nothing");
    for verb in ["stop", "status"] {
        let (code, _, err) = plimsoll(&["cluster", verb, "--dir", &dir]);
        assert_eq!(code, 4, "{verb}: {err}");
        assert!(err.contains(&dir), "{verb}: {err}");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let mut child = command(&["version", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.is_empty());
}

/// One process, from nothing to records and back to nothing, on ports of its own.
#[test]
fn standalone_serves_what_the_commands_ask() {
    let folder = Folder::new("standalone");
    let [controller, spu, free, other] = free_addresses();
    let data = folder.path("data");
    // However full the machine's own disk is.
    let limit = ["--byte-limit", "256MiB"];
    let serve = ["standalone", "--data-dir", &data, "--listen", &controller, "--spu-listen", &spu];
    let serve = [&serve[..], &limit].concat();
    let mut server = Server(command(&serve).stderr(Stdio::null()).spawn().expect("the binary runs"));
    let ask = |arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--controller", &controller]);
        plimsoll(&arguments)
    };

    let (code, _, err) = ask(&["topic", "create", "t", "--partitions", "2"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = ask(&["topic", "create", "t"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("TOPIC_EXISTS"), "{err}");
    assert_eq!(ask(&["topic", "create", "a/b"]).0, 1);
    assert_eq!(ask(&["topic", "describe", "absent"]).0, 4);
    assert_eq!(ask(&["consume", "absent", "--until-end"]).0, 4);

    let mut produce =
        command(&["produce", "t", "--key-separator", ":", "-o", "json", "--controller", &controller])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
    let lines: String = (0..100).map(|n| format!("k{}:v{n}\n", n % 7)).collect();
    produce.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let produced = produce.wait_with_output().expect("it ends");
    let summary: serde_json::Value = serde_json::from_slice(&produced.stdout).expect("JSON");
    assert_eq!((&summary["acked"], &summary["failed"]), (&100.into(), &0.into()));

    let mut refused = command(&["produce", "t", "--controller", &controller])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    refused.stdin.take().expect("piped").write_all(&vec![b'x'; 40_000_000]).expect("it reads all of it");
    let refused = refused.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{err}");
    assert!(err.contains("RECORD_TOO_LARGE") && err.contains("1048576"), "{err}");

    let (code, _, err) = ask(&["topic", "create", "wide", "--replicas", "2"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("NO_PLACEMENT"), "{err}");

    let (code, out, err) = ask(&["consume", "t", "--until-end", "-f", "json"]);
    assert_eq!(code, 0, "{err}");
    let mut values: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|record| record["value"].as_str().expect("text").to_owned())
        .collect();
    values.sort_by_key(|value| value[1..].parse::<u32>().expect("a number"));
    assert_eq!(values, (0..100).map(|n| format!("v{n}")).collect::<Vec<_>>());
    assert_eq!(ask(&["consume", "t", "--count", "3"]).1.lines().count(), 3);

    let (code, out, _) = ask(&["cluster", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &status["spus"][0]["state"]), (0, &"online".into()));
    let (code, out, _) = ask(&["disk", "-o", "json"]);
    let disks: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, disks["volumes"].as_array().map(Vec::len)), (0, Some(1)));
    assert!(ask(&["events"]).1.contains("topic_created"));

    // A second process on the same directory changes nothing.
    let again = ["standalone", "--data-dir", &data, "--listen", &free, "--spu-listen", &other];
    let (code, _, err) = plimsoll(&again);
    assert_eq!(code, 5, "{err}");
    assert_eq!(ask(&["topic", "delete", "t"]).0, 0);

    terminate(&mut server);
}

#[test]
fn a_dry_start_makes_nothing() {
    let folder = Folder::new("dry");
    let dir = folder.path("cluster");
    let (code, out, err) =
        plimsoll(&["cluster", "start", "--local", "--dir", &dir, "--port", "42001", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("would start") && out.contains("undo: plimsoll cluster stop"), "{out}");
    assert!(!folder.0.join("cluster").exists());
}
