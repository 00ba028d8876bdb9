//! What is done about disks: drills of every level, a mark that comes back by itself, and whom a plan concerns.

use serde_json::Value;

use crate::documents::{event, level};
use crate::process::cluster::Cluster;
use crate::process::terminate;

#[test]
fn a_drill_of_a_level_that_still_takes_records_is_there_and_gone_again() {
    let mut cluster = Cluster::start("drill-levels");
    assert_eq!(cluster.ask(&["topic", "create", "t"]).0, 0);
    for asked in ["throttle", "reclaim"] {
        cluster.wait(&["disk"], |disks| level(disks) == "normal");
        let drill = ["disk", "drill", "--spu", "1", "--level", asked, "--ttl", "10min"];
        assert_eq!(cluster.ask(&drill).0, 0, "{asked}");
        let disks = cluster.wait(&["disk"], |disks| level(disks) == asked);
        assert!(disks["volumes"][0]["drill_ms"].as_u64() > Some(0), "{disks:#}");
        let (code, err) = cluster.produce(&["t"], b"x\n");
        assert_eq!(code, 0, "{asked}: {err}");
        assert_eq!(cluster.ask(&["disk", "drill", "--spu", "1", "--end"]).0, 0, "{asked}");
    }
    cluster.wait(&["disk"], |disks| level(disks) == "normal");
    assert_eq!(cluster.ask(&["consume", "t", "--until-end"]).1, "x\nx\n");
    terminate(&mut cluster.server);
}

#[test]
fn a_mark_that_is_lent_comes_back_by_itself() {
    let mut cluster = Cluster::start("lent-ttl");
    let enter =
        |disks: &Value| disks["volumes"][0]["marks"]["readonly_enter_bytes"].as_u64().expect("a mark");
    let before = enter(&cluster.wait(&["disk"], |disks| level(disks) == "normal"));
    let borrowed = cluster.json(&["disk", "borrow", "--spu", "1", "--bytes", "4MiB", "--ttl", "2s"]);
    assert_eq!(borrowed["read_only_enter_bytes"], before - (4 << 20));
    let events = cluster.wait(&["events"], |events| event(events, "mark_restored").is_some());
    assert!(event(&events, "mark_lowered").is_some(), "{events:#}");
    cluster.wait(&["disk"], |disks| enter(disks) == before);
    let (code, shown, _) = cluster.ask(&["disk"]);
    assert!(code == 0 && !shown.contains("mark lowered"), "{shown}");
    terminate(&mut cluster.server);
}

#[test]
fn a_plan_names_the_groups_that_would_lose_records() {
    let mut cluster = Cluster::start("plan-groups");
    let create = ["topic", "create", "t", "--segment-bytes", "1MiB", "--on-pressure", "trim-past-groups"];
    assert_eq!(cluster.ask(&create).0, 0);
    let lines = vec![vec![b'x'; 900_000]; 6].join(&b'\n');
    assert_eq!(cluster.produce(&["t", "--linger", "0ms"], &lines).0, 0);
    for (group, count) in [("ahead", "6"), ("behind", "1")] {
        let (code, _, err) = cluster.ask(&["consume", "t", "--group", group, "--count", count]);
        assert_eq!(code, 0, "{err}");
    }
    let plan = ["disk", "plan", "--target-free", "256MiB"];
    let planned = cluster.wait(&plan, |plan| plan["volumes"][0]["logs"][0]["records"].as_u64() > Some(1));
    let log = &planned["volumes"][0]["logs"][0];
    let after = log["log_start_after"].as_u64().expect("an offset");
    let behind = serde_json::json!({ "group": "behind", "committed": 1, "unread_records": after - 1 });
    assert_eq!(log["groups"], serde_json::json!([behind]), "{planned:#}");
    let (code, out, err) = cluster.ask(&plan);
    assert_eq!(code, 0, "{err}");
    let row: Vec<&str> = out.lines().last().expect("a table").split_whitespace().collect();
    assert_eq!(row, ["behind", "t/0", "1", &(after - 1).to_string()], "{out}");
    let reclaim = ["disk", "reclaim", "--spu", "1", "--target-free", "200MiB", "--dry-run"];
    assert!(cluster.json(&reclaim)["logs"].is_array());
    terminate(&mut cluster.server);
}
