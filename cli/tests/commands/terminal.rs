//! `plimsoll top` in a real terminal.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use crate::process::cluster::Cluster;
use crate::process::terminal::{Size, Terminal};
use crate::process::terminate;
use rustix::process::{Pid, Signal, kill_process};

const SMALL: Size = (80, 24);
const LARGE: Size = (200, 50);
const ESCAPE: &str = "\u{1b}";
const CTRL_C: &str = "\u{3}";

/// A cluster of one process with a topic.
fn with_a_topic(name: &str) -> Cluster {
    let cluster = Cluster::start(name);
    let (code, _, err) = cluster.ask(&["topic", "create", "orders"]);
    assert_eq!(code, 0, "{err}");
    cluster
}

fn open_top(cluster: &Cluster, size: Size) -> Terminal {
    Terminal::run(cluster.command(&["top", "--every", "200ms"]), size)
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Ends it in this way: fine, soon, and the terminal is as before.
fn quit(mut top: Terminal, end: impl FnOnce(&mut Terminal)) {
    end(&mut top);
    let (code, took) = top.ended();
    assert_eq!(code, Some(0), "{}", top.screen.text());
    // A look at a cluster that does not answer takes 5 s: that is not waited for.
    assert!(took < Duration::from_secs(3), "{took:?}");
    top.assert_restored();
}

#[test]
fn top_fills_a_terminal_follows_its_size_and_leaves_it_as_it_was() {
    let mut cluster = with_a_topic("terminal");
    for (at, (size, other)) in [(SMALL, LARGE), (LARGE, SMALL)].into_iter().enumerate() {
        let mut top = open_top(&cluster, size);
        let words = ["OK", "volumes", "orders", "groups: none", "topic_created", "q quit"];
        top.wait("the picture", |screen| screen.has(&words) && screen.last_row().starts_with("q quit"));
        assert!(!top.screen.cursor && top.screen.alternate);
        assert_eq!(top.screen.has(&["capacity", "fills"]), size == LARGE, "{}", top.screen.text());

        let topic = format!("new-{at}");
        assert_eq!(cluster.ask(&["topic", "create", &topic]).0, 0);
        top.wait("a topic that is new", |screen| screen.has(&[&topic]));

        top.press("p");
        top.wait("a pause", |screen| screen.has(&["PAUSED", "p go on"]));
        top.resize(other);
        top.wait("the other size", |screen| {
            screen.last_row().starts_with("q quit") && screen.has(&["capacity"]) == (other == LARGE)
        });
        top.press(" ");
        top.wait("no pause", |screen| !screen.has(&["PAUSED"]) && screen.has(&["p pause", "OK"]));
        quit(top, |top| top.press("q"));
    }
    for key in [CTRL_C, ESCAPE] {
        let mut top = open_top(&cluster, SMALL);
        top.wait("the picture", |screen| screen.has(&["orders"]));
        quit(top, |top| top.press(key));
    }
    for asked in [Signal::TERM, Signal::INT] {
        let mut top = open_top(&cluster, SMALL);
        top.wait("the picture", |screen| screen.has(&["orders"]));
        quit(top, |top| signal(top.pid(), asked));
    }
    terminate(&mut cluster.server);
}

#[test]
fn top_says_that_the_cluster_is_gone_and_hears_keys_all_the_same() {
    let mut cluster = with_a_topic("terminal-gone");
    let mut top = open_top(&cluster, LARGE);
    let mut other = open_top(&cluster, SMALL);
    top.wait("the picture", |screen| screen.has(&["OK", "orders", "topic_created"]));
    other.wait("the picture", |screen| screen.has(&["OK", "orders"]));
    signal(cluster.server.0.id(), Signal::STOP);
    top.wait("an old picture", |screen| screen.has(&["OLD PICTURE", "orders"]));
    top.press("p");
    top.wait("a pause", |screen| screen.has(&["p go on"]));
    top.press("p");
    top.wait("no pause", |screen| screen.has(&["p pause"]));
    quit(other, |other| other.press("q"));
    signal(cluster.server.0.id(), Signal::CONT);
    top.wait("a new picture", |screen| screen.has(&["OK", "orders"]) && !screen.has(&["OLD PICTURE"]));

    terminate(&mut cluster.server);
    top.wait("an old picture", |screen| screen.has(&["OLD PICTURE", "orders"]));
    quit(top, |top| top.press("q"));
}
