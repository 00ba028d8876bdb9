//! The rig makes real disks, the filler really fills them, and nothing stays behind.

use std::path::Path;
use std::time::Duration;

use plimsoll_chaos::filler::{Filler, space};
use plimsoll_chaos::rig::{DiskKind, Rig};
use plimsoll_host::Host;

const DISK_BYTES: u64 = 16 << 20;

/// A rig with one small disk, unless this machine does not let us mount.
fn small_disk(test: &str) -> Option<(Rig, std::path::PathBuf)> {
    let mut rig = Rig::create(false, DiskKind::Tmpfs).expect("a folder for temporary files");
    let disk = rig.volume("disk", DISK_BYTES).expect("a folder");
    if rig.kind() == DiskKind::Simulated {
        println!("SKIPPED {test}: mounting a tmpfs needs root");
        return None;
    }
    Some((rig, disk))
}

fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
    table.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

#[tokio::test]
async fn a_fill_ends_at_a_real_enospc_and_gives_everything_back() {
    let Some((rig, disk)) = small_disk("a_fill_ends_at_a_real_enospc_and_gives_everything_back") else {
        return;
    };
    let host = Host::real();
    let before = space(&disk).expect("statvfs");
    assert_eq!(before.capacity_bytes, DISK_BYTES);
    let mark = DISK_BYTES / 20;
    let mut filler = Filler::create(&disk).expect("a file");
    let fill = filler.fill(&host.clock, 200 << 20, mark, Duration::from_millis(30)).await.expect("a fill");
    assert!(fill.enospc.is_some(), "{fill:?}");
    assert!(fill.full.free_bytes < mark, "{fill:?}");
    assert_eq!(fill.full.free_bytes, 0);
    assert!(fill.began() <= fill.enospc && fill.began() == fill.crossed, "{fill:?}");
    filler.remove().expect("unlink");
    assert_eq!(space(&disk).expect("statvfs").free_bytes, before.free_bytes);
    drop(rig);
    assert!(!is_mounted(&disk));
    assert!(!disk.exists());
}

#[test]
fn what_is_given_back_is_taken_again() {
    let Some((_rig, disk)) = small_disk("what_is_given_back_is_taken_again") else { return };
    let mut first = Filler::create(&disk).expect("a file");
    assert!(!first.take(DISK_BYTES / 2).expect("room"));
    let other = disk.join("other");
    std::fs::create_dir(&other).expect("a folder");
    let mut second = Filler::create(&other).expect("a file");
    assert!(second.take(DISK_BYTES).expect("full"), "the second one meets the end");
    first.remove().expect("unlink");
    let before = second.taken_bytes();
    assert!(second.take(DISK_BYTES).expect("full again"));
    assert!(second.taken_bytes() - before >= DISK_BYTES / 2);
}

#[test]
fn a_killed_run_is_cleaned_up_by_the_next() {
    let Some((rig, disk)) = small_disk("a_killed_run_is_cleaned_up_by_the_next") else { return };
    let base = rig.root().parent().expect("all runs share a folder").to_owned();
    // No process has this number: Linux counts them up to 2^22.
    let dead = base.join("99999999-1-0");
    let mount = dead.join("disk");
    std::fs::create_dir_all(&mount).expect("a folder");
    rustix::mount::mount("left-over", &mount, "tmpfs", rustix::mount::MountFlags::empty(), c"size=1m")
        .expect("a mount");
    let next = Rig::create(false, DiskKind::Tmpfs).expect("the next run");
    assert!(!is_mounted(&mount));
    assert!(!dead.exists());
    drop(next);
    drop((rig, disk));
}
