//! The rig makes real disks, the filler really fills them, and nothing stays behind.

use std::path::Path;
use std::time::Duration;

use plimsoll_chaos::filler::Filler;
use plimsoll_chaos::rig::{Disk, DiskKind, Filesystem, Missing, Rig, VolumeSpec};
use plimsoll_host::Host;

const DISK_BYTES: u64 = 16 << 20;

/// A rig with one small disk, unless this machine does not let us mount.
fn small_disk(test: &str) -> Option<(Rig, Disk)> {
    let mut rig = Rig::create(false, DiskKind::Tmpfs).expect("a folder for temporary files");
    let disk = rig.volume("disk", VolumeSpec::of_bytes(DISK_BYTES)).expect("a folder");
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
    let before = disk.space().expect("statvfs");
    assert_eq!(before.capacity_bytes, DISK_BYTES);
    let mark = DISK_BYTES / 20;
    let mut filler = Filler::create(&disk).expect("a file");
    let fill = filler.fill(&host.clock, 200 << 20, mark, Duration::from_millis(30)).await.expect("a fill");
    assert!(fill.enospc.is_some(), "{fill:?}");
    assert!(fill.full.free_bytes < mark, "{fill:?}");
    assert_eq!(fill.full.free_bytes, 0);
    assert!(fill.began() <= fill.enospc && fill.began() == fill.crossed, "{fill:?}");
    filler.remove().expect("unlink");
    assert_eq!(disk.space().expect("statvfs").free_bytes, before.free_bytes);
    drop(rig);
    assert!(!is_mounted(disk.folder()));
    assert!(!disk.folder().exists());
}

#[test]
fn what_is_given_back_is_taken_again() {
    let Some((_rig, disk)) = small_disk("what_is_given_back_is_taken_again") else { return };
    let own = disk.data().join("own");
    let file = rustix::fs::open(
        &own,
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, DISK_BYTES / 2).expect("room");
    let mut filler = Filler::create(&disk).expect("a file");
    assert!(!filler.take(DISK_BYTES / 4).expect("room"));
    assert!(filler.take(DISK_BYTES).expect("full"), "it meets the end");
    let before = filler.taken_bytes();
    drop(file);
    rustix::fs::unlink(&own).expect("it is there");
    assert!(filler.take(DISK_BYTES).expect("full again"));
    assert!(filler.taken_bytes() - before >= DISK_BYTES / 2);
    filler.give_back(1 << 20).expect("it has that much");
    assert_eq!(disk.space().expect("statvfs").free_bytes, 1 << 20);
}

#[test]
fn a_simulated_disk_is_a_limit_that_shrinks() {
    let mut rig = Rig::create(false, DiskKind::Simulated).expect("a folder for temporary files");
    let disk = rig.volume("disk", VolumeSpec::of_bytes(64 << 20)).expect("a folder");
    assert_eq!(disk.space().expect("a size").free_bytes, 64 << 20);
    let mut filler = Filler::create(&disk).expect("nothing to make");
    assert!(!filler.take(40 << 20).expect("room"));
    let limit = std::fs::read_to_string(disk.data().join("byte-limit")).expect("the limit");
    assert_eq!(limit, format!("{}\n", 24 << 20));
    assert!(filler.take(40 << 20).expect("full"));
    filler.remove().expect("a limit");
    assert!(disk.space().expect("a size").free_bytes > 63 << 20);
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

#[tokio::test]
async fn every_filesystem_fills_and_leaves_nothing_behind() {
    for (filesystem, bytes) in [
        (Filesystem::Ext4, 64u64 << 20),
        (Filesystem::Xfs, 320 << 20),
        (Filesystem::BtrfsQuota, 64 << 20),
        (Filesystem::Thin, 32 << 20),
    ] {
        let mut rig = Rig::create(false, DiskKind::Tmpfs).expect("a folder for temporary files");
        let disk = match rig.volume("disk", VolumeSpec::of_bytes(bytes).on(filesystem)) {
            Ok(disk) => disk,
            Err(error) => {
                let missing = Missing::of(&error).unwrap_or_else(|| panic!("{filesystem:?}: {error:#}"));
                println!("SKIPPED every_filesystem_fills_and_leaves_nothing_behind: {missing}");
                continue;
            }
        };
        let host = Host::real();
        let mut filler = Filler::create(&disk).expect("a file");
        let fill = filler.fill(&host.clock, 2 << 30, bytes / 20, Duration::from_millis(30)).await;
        let fill = fill.unwrap_or_else(|error| panic!("{filesystem:?}: {error:#}"));
        assert!(fill.enospc.is_some(), "{filesystem:?}: {fill:?}");
        filler.remove().expect("unlink");
        let (root, mount) = (rig.root().to_owned(), disk.mount().to_owned());
        assert!(is_mounted(&mount));
        drop(rig);
        assert!(!is_mounted(&mount), "{filesystem:?}");
        assert!(!root.exists(), "{filesystem:?}");
    }
}

#[test]
fn what_was_not_synced_is_gone_after_a_loss_of_power() {
    let mut rig = Rig::create(false, DiskKind::Tmpfs).expect("a folder for temporary files");
    let lost = rig.volume("disk", VolumeSpec::of_bytes(64 << 20).on(Filesystem::Ext4)).and_then(|disk| {
        let open = |name: &str| {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            rustix::fs::open(disk.folder().join(name), flags, rustix::fs::Mode::RUSR).expect("a file")
        };
        let synced = open("synced");
        rustix::io::write(&synced, b"there").expect("room");
        rustix::fs::fsync(&synced).expect("a disk that works");
        drop(synced);
        drop(open("forgotten"));
        disk.lose_power().map(|()| disk)
    });
    match lost {
        Ok(disk) => {
            assert_eq!(std::fs::read(disk.folder().join("synced")).expect("the file"), b"there");
            assert!(!disk.folder().join("forgotten").exists());
        }
        Err(error) => {
            let missing = Missing::of(&error).unwrap_or_else(|| panic!("{error:#}"));
            println!("SKIPPED what_was_not_synced_is_gone_after_a_loss_of_power: {missing}");
        }
    }
}
