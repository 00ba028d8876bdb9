//! What a controller's settings are, and what they refuse.

use plimsoll_spu::SpuSettings;

use super::*;

fn file(controllers: &[&str]) -> ControllerFile {
    ControllerFile {
        id: 1,
        data_dir: "/d".into(),
        controllers: controllers.iter().map(|text| (*text).to_owned()).collect(),
        ..ControllerFile::default()
    }
}

#[test]
fn the_own_address_comes_from_the_list() {
    let plan = file(&["1@a:7001", "2@b:7001", "3@c:7001"]).plan().expect("a good list");
    assert_eq!(plan.listen, "a:7001");
    assert_eq!(plan.settings.raft.peers.len(), 3);
    let alone = file(&[]).plan().expect("a controller alone");
    assert_eq!(alone.listen, LISTEN_DEFAULT);
    let single = file(&["a:7001"]).plan().expect("the only one needs no id");
    assert_eq!(single.settings.raft.peers.get(&ControllerId(1)).map(String::as_str), Some("a:7001"));
}

#[test]
fn what_does_not_agree_is_named() {
    let cases: [(ControllerFile, &str); 15] = [
        (ControllerFile { id: 0, ..file(&[]) }, "--id"),
        (ControllerFile { data_dir: PathBuf::new(), ..file(&[]) }, "--data-dir"),
        (file(&["2@b:1", "3@c:1"]), "--controller 1@HOST:PORT"),
        (file(&["1@a:1", "b:1"]), "b:1"),
        (file(&["1@a:1", "1@b:1"]), "twice"),
        (file(&["x@a:1"]), "x@a:1"),
        (ControllerFile { advertise: Some("z:1".into()), ..file(&["1@a:1"]) }, "say the same"),
        (ControllerFile { listen: Some("0.0.0.0:1".into()), ..file(&[]) }, "--advertise"),
        (ControllerFile { confirm: Span(Duration::from_secs(1)), ..file(&[]) }, "confirm"),
        (ControllerFile { join_age: Span(Duration::from_secs(7)), ..file(&[]) }, "suspect_after"),
        (ControllerFile { election_tick: 3, ..file(&[]) }, "heartbeat_tick"),
        // An election that may begin after 3.02 s; half of the silence that makes a node suspect is 3 s.
        (
            ControllerFile { election_tick: 151, tick: Span(Duration::from_millis(10)), ..file(&[]) },
            "election",
        ),
        (ControllerFile { mass_window: Span(Duration::from_secs(8)), ..file(&[]) }, "mass_window"),
        (ControllerFile { bootstrap: true, join: true, ..file(&[]) }, "bootstrap and join"),
        (ControllerFile { spus: [0].into(), ..file(&[]) }, "spus"),
    ];
    for (file, named) in cases {
        let failure = file.plan().expect_err(named);
        assert_eq!(failure.code, 7);
        assert!(failure.message.contains(named), "{named}: {}", failure.message);
    }
    let just = ControllerFile { election_tick: 150, tick: Span(Duration::from_millis(10)), ..file(&[]) };
    just.plan().expect("three seconds are half of six");
}

/// Nobody is elected in the place of a node that still believes in its lease.
#[test]
fn no_node_is_offline_while_its_lease_may_run() {
    let lease = plimsoll_spu::replica::Lease::LENGTH;
    let with = |suspect_after, confirm| {
        let (suspect_after, confirm) = (Span(suspect_after), Span(confirm));
        ControllerFile { suspect_after, confirm, ..file(&[]) }.plan()
    };
    let (mut suspect_after, mut confirm) = (Duration::from_secs(20), Duration::from_secs(20));
    let less = Duration::from_millis(100);
    while with(suspect_after - less, confirm).is_ok() {
        suspect_after -= less;
    }
    while with(suspect_after, confirm - less).is_ok() {
        confirm -= less;
    }
    assert_eq!(suspect_after + confirm, lease, "{suspect_after:?} and {confirm:?} are the least");

    // Storage nodes count with the same: several heartbeats before they are suspect, a hand-over within a lease.
    type Set = fn(&mut SpuSettings, Duration);
    let node = |set: Set, to: Duration| {
        let mut settings = SpuSettings {
            id: 1,
            data_dirs: vec!["/d".into()],
            controllers: vec!["1@a:1".to_owned()],
            heartbeat_answer_wait_max: Span(suspect_after / 2),
            ..SpuSettings::default()
        };
        set(&mut settings, to);
        settings.validate().is_ok()
    };
    let limits: [(Set, Duration); 3] = [
        (|of, to| of.heartbeat_interval = Span(to), suspect_after / 4),
        (|of, to| of.heartbeat_answer_wait_max = Span(to), suspect_after / 2),
        (|of, to| of.hand_over_max = Span(to), lease),
    ];
    for (set, most) in limits {
        assert!(node(set, most) && !node(set, most + Duration::from_millis(1)), "{most:?}");
    }
}
