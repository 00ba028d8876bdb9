//! Reliefs by hand: begun, looked at, and called off.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use plimsoll_host::Host;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::local::Local;

/// However busy the machine is.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A process that stands still, and goes on at the end.
struct Paused(Pid);

impl Paused {
    fn new(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _gone_already = kill_process(self.0, Signal::CONT);
    }
}

fn wait(what: &str, mut wanted: impl FnMut() -> bool) {
    let clock = Host::real().clock;
    let until = clock.now() + WAIT_MAX;
    while !wanted() {
        assert!(clock.now() < until, "{what}");
    }
}

#[test]
fn a_relief_that_is_under_way_is_called_off_and_may_begin_again() {
    let local = Local::start("relief", 1, 2);
    local.must(&format!("topic create t --replicas 1 --controller {}", local.controllers));
    let replicas = || {
        let listed = local.json("partition list t");
        let replicas = listed["partitions"][0]["replicas"].as_array().unwrap().clone();
        replicas.iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let short = replicas()[0];
    let other = 3 - short;
    let called_off = |line: &str| local.json(&format!("partition relief --cancel{line}"));
    let nothing = called_off("");
    assert_eq!((&nothing["change"], &nothing["moves"]), (&json!("no relief was under way"), &json!([])));

    local.json(&format!("disk drill --spu {short} --level throttle --ttl 10min"));
    let relief = || local.json("partition relief --dry-run")["moves"].clone();
    let to_other = json!([{
        "topic": "t", "partition": 0, "from": [short], "to": [other], "cause": "relief",
    }]);
    wait("the controllers know that there is little room", || relief() == to_other);

    // Who stands still receives nothing: the relief stays under way.
    let paused = Paused::new(local.spu_pid(other));
    let begun = local.json("partition relief");
    assert_eq!((&begun["moves"], replicas().len()), (&to_other, 2), "{begun:#}");
    let cancel = format!("plimsoll partition relief --cancel --controller {}", local.controllers);
    assert_eq!(begun["undo"], json!(cancel));

    let back = |document: &Value| {
        let moved = &document["moves"][0];
        (moved["topic"].clone(), moved["from"].clone(), moved["to"].clone())
    };
    let expected = (json!("t"), json!([other]), json!([short]));
    let would = called_off(" --dry-run");
    assert_eq!(back(&would), expected, "{would:#}");
    assert_eq!((would["dry_run"].as_bool(), replicas().len()), (Some(true), 2), "nothing was called off");
    let done = called_off("");
    assert_eq!(back(&done), expected, "{done:#}");
    assert_eq!(done["undo"], json!(format!("plimsoll partition relief --controller {}", local.controllers)));
    assert_eq!(replicas(), [short]);
    drop(paused);

    // It is only that one which was called off.
    wait("the other node is heard of again", || relief() == to_other);
    local.json("partition relief");
    wait("the replica has moved", || replicas() == [other]);
}
