//! What those who write and read records see when nobody answers: the right exit code, soon, and why.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::process::{Folder, Server, command, free_addresses, plimsoll};
use plimsoll_host::Host;

const NO_CONNECTION: i32 = 3;
const TIMED_OUT: i32 = 124;

/// Three controllers and a storage node, each a process.
struct Cluster {
    controllers: [String; 3],
    voters: Vec<Server>,
    spu: Option<Server>,
    folder: Folder,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let [a, b, c, spu] = free_addresses();
        let controllers = [a, b, c];
        let named: Vec<String> = (1..).zip(&controllers).map(|(id, at)| format!("{id}@{at}")).collect();
        let run = |kind: &str, id: usize, listen: &str, more: &[&str]| {
            let data = folder.path(&format!("{kind}-{id}"));
            let id = id.to_string();
            let run = [kind, "run", "--id", &id, "--listen", listen, "--data-dir", &data];
            let mut command = command(&[&run[..], more].concat());
            for named in &named {
                command.args(["--controller", named]);
            }
            Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        let voters = (1..).zip(&controllers).map(|(id, at)| run("controller", id, at, &["--bootstrap"]));
        let voters = voters.collect();
        let node = run("spu", 1, &spu, &["--advertise", &spu, "--byte-limit", "64MiB"]);
        Self { voters, spu: Some(node), controllers, folder }
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let named = self.controllers.iter().flat_map(|at| ["--controller", at]);
        arguments.iter().copied().chain(named).collect()
    }

    fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        plimsoll(&self.arguments(arguments))
    }

    /// Ends with this code, soon, and says all of these words.
    fn ends(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let clock = Host::real().clock;
        let began = clock.now();
        let (found, out, err) = self.ask(arguments);
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
        // The default would be 30 s.
        let took = clock.now() - began;
        assert!(took < Duration::from_secs(20), "{arguments:?} took {took:?}");
        words.iter().for_each(|word| assert!(err.contains(word), "{arguments:?} lacks {word}: {err}"));
    }
}

#[test]
fn commands_for_records_end_typed_and_say_what_they_waited_for() {
    let mut cluster = Cluster::start("unreachable");
    let records = cluster.folder.file("records", "one\ntwo\n");
    let produce = ["produce", "orders", "--file", &records];
    let created = || cluster.ask(&["topic", "create", "orders"]).0 == 0;
    assert!((0..100).any(|_| created()), "it serves");
    cluster.ends(&produce, 0, &["2 records acknowledged"]);
    cluster.ends(&["consume", "orders", "--group", "g", "--count", "2"], 0, &[]);

    // Without a quorum: what needs no controller goes on, and what does says so. One that did not lead is left: a
    // leader gives what it has of producer ids also when it is alone.
    let (_, status, err) = cluster.ask(&["cluster", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let leader = status["leader"].as_u64().unwrap_or_else(|| panic!("{status:#}{err}"));
    let survivor = cluster.voters.swap_remove(usize::try_from(leader % 3).unwrap());
    cluster.voters = vec![survivor];
    let leaderless = || cluster.ask(&["topic", "list"]).0 == NO_CONNECTION;
    assert!((0..100).any(|_| leaderless()), "the one that is left does not lead");
    let brief = ["--timeout", "3s"];
    let said = ["no producer id, so nothing was sent", "NO_QUORUM", "start those that are down"];
    cluster.ends(&[&produce[..], &brief].concat(), NO_CONNECTION, &said);
    let bench = ["bench", "produce", "orders", "--records", "1"];
    cluster.ends(&[&bench[..], &brief].concat(), NO_CONNECTION, &said);
    cluster.ends(&[&produce[..], &["--no-idempotence"]].concat(), 0, &["2 records acknowledged"]);
    let (code, out, err) = cluster.ask(&["consume", "orders", "--until-end"]);
    assert_eq!((code, out.as_str()), (0, "one\ntwo\none\ntwo\n"), "{err}");
    cluster.ends(&["bench", "consume", "orders"], 0, &[]);

    // Without the only storage node either: a leader may come back, so it is waited for, and said who is missing.
    cluster.spu = None;
    let lost = ["no connection to spu 1: nothing listens there"];
    for read in [
        &["consume", "orders", "--until-end"][..],
        &["bench", "consume", "orders"],
        &["consume", "orders", "--group", "g", "--count", "1"],
    ] {
        cluster.ends(&[read, &brief].concat(), TIMED_OUT, &lost);
    }
    // One that follows a topic waits as long as it is let, and says for what.
    let mut follows = command(&cluster.arguments(&["consume", "orders"]));
    let mut follows = Server(follows.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let line = BufReader::new(follows.0.stderr.take().unwrap()).lines().next();
    let line = line.expect("it says something").unwrap();
    assert_eq!(line, format!("partition 0: waiting; {}", lost[0]));
    drop(follows);

    // Nothing listens at all.
    cluster.voters.clear();
    for arguments in [
        &produce[..],
        &bench,
        &["bench", "consume", "orders"],
        &["consume", "orders"],
        &["consume", "orders", "--group", "g"],
    ] {
        cluster.ends(arguments, NO_CONNECTION, &["nothing listens there", "start a controller there"]);
    }
}
