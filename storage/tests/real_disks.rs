//! Real disks: what a volume does on each filesystem that runs out, lies, freezes, grows or loses power.
//!
//! Everywhere: a refusal is typed and changes the level in the same call, nothing acknowledged is lost, reading,
//! trimming, deleting and starting go on without room, and with room the same process takes records again within
//! two seconds of samples.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod rig;

use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use plimsoll_proto::disk::{DiskCause, DiskLevel};
use plimsoll_storage::fs::{Disk, DiskError, FailureCause, OpenMode};
use plimsoll_storage::log::{AppendError, LogSettings};
use plimsoll_storage::space::Observation;
use plimsoll_storage::volume::ReplicaGuards;
use rig::life::{Life, WALL_MS, is_full, partition};
use rig::{Rig, run};

const EXT4: [&str; 5] = ["mkfs.ext4", "-qF", "-m", "10", "-N"];
const XFS: [&str; 2] = ["mkfs.xfs", "-q"];
/// The smallest that mkfs.xfs makes.
const XFS_MIB: u64 = 300;
/// Nobody, on every Linux.
const NOBODY: u32 = 65534;

/// The rig, or a line that says why not.
fn rig(name: &str, made: Result<Rig, String>) -> Option<Rig> {
    made.map_err(|reason| println!("SKIPPED real-disks-{name}: {reason}")).ok()
}

fn done(name: &str, cases: u32) {
    println!("CASES real-disks {name} cases={cases}");
}

/// Fills what is left, lives without room, starts without room, and comes back when `release` has made some.
fn full_and_back(mut life: Life, cause: DiskCause, release: impl FnOnce(&Life)) -> Life {
    let refused = life.fill(60_000);
    assert!(is_full(&refused, cause), "{refused:?}");
    assert_eq!(life.level(), DiskLevel::ReadOnly);
    life.check("full");
    let refused = life.produce(1, 60_000).unwrap_err();
    assert!(matches!(refused, AppendError::OutOfSpace { .. }), "{refused:?}");
    life.volume.sync(&partition(0)).unwrap();
    let mut life = life.again(false, || {});
    life.check("started without room");
    let half = life.end(0).get() / 2;
    let half = plimsoll_proto::ids::Offset::new(half).unwrap();
    life.volume.set_high_watermark(&partition(0), half);
    life.volume.trim_head(&partition(0), half).unwrap();
    life.check("trimmed without room");
    assert!(life.volume.delete_partition(&partition(1)).unwrap() > 0);
    life.forget(1, plimsoll_proto::ids::Offset::ZERO);
    release(&life);
    assert!(life.recover().is_some(), "{:?}", life.volume.level());
    life.produce(0, 60_000).unwrap();
    let mut life = life.again(true, || {});
    assert!(life.opened.clean);
    life.check("with room");
    life.produce(0, 60_000).unwrap();
    life
}

/// Blocks kept for another user are not ours, and a volume need not be root's to run.
#[test]
fn ext4_as_another_user_than_root() {
    let made = Rig::image(64, &[&EXT4[..], &["512"]].concat(), "loop,resuid=1234");
    let Some(rig) = rig("ext4-nobody", made) else { return };
    rig.on_disk("chown", &[&NOBODY.to_string()]).unwrap();
    let path = rig.path();
    std::thread::scope(|scope| {
        let lives = scope.spawn(|| {
            // Of this thread only; with the user id go the capabilities.
            let uid = rustix::process::Uid::from_raw(NOBODY);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let mut life = Life::begin(&path);
            for _ in 0..20 {
                life.produce(1, 60_000).unwrap();
            }
            life.leave(8 << 20);
            let life = full_and_back(life, DiskCause::Bytes, Life::give_back);
            let kept = rustix::fs::statvfs(&path).unwrap();
            assert!(kept.f_bfree - kept.f_bavail > kept.f_blocks / 20, "the reserve was never ours");
            life.volume.close(WALL_MS).unwrap();
        });
        lives.join().unwrap();
    });
    done("ext4-nobody", 1);
}

/// Appends go on without an inode, and what needs one says so.
#[test]
fn ext4_without_inodes() {
    let made = Rig::image(64, &[&EXT4[..], &["64"]].concat(), "loop,resuid=1234");
    let Some(rig) = rig("ext4-inodes", made) else { return };
    let mut life = Life::begin(&rig.path());
    let taken =
        (0..).take_while(|n| life.outside.open(&format!("n{n}"), OpenMode::CreateNew).is_ok()).count();
    assert_eq!(life.outside.space().unwrap().available_inodes, 0);
    for _ in 0..200 {
        life.produce(0, 30_000).unwrap();
    }
    life.check("without inodes");
    let refused = life.volume.create_partition(partition(5), LogSettings::default(), life.now).unwrap_err();
    assert!(is_full(&refused, DiskCause::Inodes), "{refused:?}");
    let mut life = life.again(false, || {});
    assert_eq!(life.level(), DiskLevel::ReadOnly, "no inode is a level as no byte is one");
    life.check("started without inodes");
    assert!(life.volume.delete_partition(&partition(1)).unwrap() > 0);
    for n in 0..taken {
        life.outside.remove_file(&format!("n{n}")).unwrap();
    }
    assert!(life.recover().is_some(), "{:?}", life.volume.level());
    life.volume.create_partition(partition(5), LogSettings::default(), life.now).unwrap();
    life.produce(0, 30_000).unwrap();
    life.check("with inodes");
    done("ext4-inodes", 1);
}

#[test]
fn xfs_that_is_full() {
    let Some(rig) = rig("xfs", Rig::image(XFS_MIB, &XFS, "loop")) else { return };
    let mut life = Life::begin(&rig.path());
    for _ in 0..20 {
        life.produce(1, 60_000).unwrap();
    }
    life.leave(24 << 20);
    drop(full_and_back(life, DiskCause::Bytes, Life::give_back));
    done("xfs", 1);
}

/// A quota is invisible to statvfs: only the refused call tells of it, and only a trial of the same that it is gone.
#[test]
fn btrfs_with_a_quota() {
    let Some(rig) = rig("btrfs-quota", Rig::image(256, &["mkfs.btrfs", "-q"], "loop")) else { return };
    let volume = rig.path().join("volume");
    let volume = rig::text(&volume);
    let limited = rig
        .on_disk("btrfs", &["quota", "enable"])
        .and_then(|_| run("btrfs", &["subvolume", "create", volume]))
        .and_then(|_| run("btrfs", &["qgroup", "limit", "32M", volume]));
    if let Err(reason) = limited {
        return println!("SKIPPED real-disks-btrfs-quota: {reason}");
    }
    let mut life = Life::begin(&rig.path());
    assert!(life.volume.facts().unreserved);
    let refused = life.fill(60_000);
    assert!(is_full(&refused, DiskCause::Quota), "{refused:?}");
    assert!(life.outside.space().unwrap().available_bytes > 64 << 20, "statvfs shows room");
    life.check("at the quota");
    assert_eq!(life.recover(), None, "while the quota stands, figures do not make it writable");
    run("btrfs", &["qgroup", "limit", "none", volume]).unwrap();
    assert!(life.recover().is_some(), "{:?}", life.volume.level());
    life.produce(0, 60_000).unwrap();
    let mut life = life.again(true, || {});
    life.check("with a greater quota");
    done("btrfs-quota", 1);
}

/// A device that promised more than it has: the sync says so, once. What an earlier one covered is there.
#[test]
fn a_thin_volume_that_lies() {
    let made = Rig::thin(96, 24, &[&EXT4[..], &["512"]].concat(), "loop");
    let Some(mut rig) = rig("thin", made) else { return };
    let mut life = Life::begin(&rig.path());
    for _ in 0..50 {
        life.produce(0, 60_000).unwrap();
    }
    let durable = life.volume.sync(&partition(0)).unwrap();
    assert_eq!(durable.get(), 50);
    let failed = loop {
        for _ in 0..50 {
            life.produce(0, 60_000).unwrap();
        }
        match life.volume.sync(&partition(0)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, DiskError::VolumeFailed { cause: FailureCause::SyncFailed, .. }), "{failed:?}");
    assert_eq!(life.level(), DiskLevel::Failed);
    let durable = life.volume.log(&partition(0)).unwrap().durable_end;
    assert!(durable.get() >= 50);
    assert!(life.volume.sync(&partition(0)).is_err(), "never tried again");
    let refused = life.produce(0, 100).unwrap_err();
    assert!(matches!(refused, AppendError::VolumeFailed { written: false, .. }), "{refused:?}");
    // The page cache goes; what the sync did not cover was never promised.
    life.forget_beyond_the_sync(0, durable);
    let mut life = life.again(false, || {
        rig.back_with(104).unwrap();
        rig.remount().unwrap();
    });
    assert!(life.opened.page_cache_lost);
    assert!(life.end(0) >= durable);
    life.check("after the lie");
    life.produce(0, 60_000).unwrap();
    life.volume.sync(&partition(0)).unwrap();
    done("thin", 1);
}

/// Reads go on, an append waits and is then as any other, and a sensor without an answer is never plenty.
#[test]
fn a_frozen_mount() {
    let made = Rig::image(64, &[&EXT4[..], &["512"]].concat(), "loop");
    let Some(rig) = rig("frozen", made) else { return };
    let mut life = Life::begin(&rig.path());
    for _ in 0..20 {
        life.produce(0, 60_000).unwrap();
    }
    let frozen = match rig.freeze() {
        Ok(frozen) => frozen,
        Err(reason) => return println!("SKIPPED real-disks-frozen: {reason}"),
    };
    life.check("frozen");
    life.volume.observe(Observation::NoAnswer, life.now);
    assert!(life.level() >= DiskLevel::Reclaim);
    std::thread::scope(|scope| {
        let (told, hears) = sync_channel(1);
        let life = &mut life;
        scope.spawn(move || told.send(life.produce(0, 60_000)).unwrap());
        assert!(hears.recv_timeout(Duration::from_millis(500)).is_err(), "a write to a frozen mount waits");
        drop(frozen);
        hears.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    });
    assert_eq!(life.end(0).get(), 21);
    life.sample();
    assert_eq!(life.level(), DiskLevel::Normal);
    let mut life = life.again(true, || {});
    life.check("thawed");
    done("frozen", 1);
}

fn grows(name: &str, rig: &Rig, grow: impl FnOnce() -> Result<String, String>) {
    let mut life = Life::begin(&rig.path());
    life.leave(8 << 20);
    let refused = life.fill(60_000);
    assert!(is_full(&refused, DiskCause::Bytes), "{refused:?}");
    life.sample();
    let before = life.volume.facts().capacity_bytes;
    if let Err(reason) = grow() {
        return println!("SKIPPED real-disks-{name}: {reason}");
    }
    assert!(life.recover().is_some(), "{:?}", life.volume.level());
    assert!(life.volume.facts().capacity_bytes > before + (64 << 20), "the capacity is picked up live");
    life.produce(0, 60_000).unwrap();
    life.check("grown");
    done(name, 1);
}

#[test]
fn ext4_that_grows_while_it_is_full() {
    let made = Rig::image(48, &[&EXT4[..], &["512"]].concat(), "loop,resuid=1234");
    let Some(rig) = rig("grown-ext4", made) else { return };
    grows("grown-ext4", &rig, || run("resize2fs", &[&rig.grow_image(160)?]));
}

#[test]
fn xfs_that_grows_while_it_is_full() {
    let Some(rig) = rig("grown-xfs", Rig::image(XFS_MIB, &XFS, "loop")) else { return };
    grows("grown-xfs", &rig, || {
        rig.grow_image(2 * XFS_MIB)?;
        rig.on_disk("xfs_growfs", &["-d"])
    });
}

#[test]
fn tmpfs_that_grows_while_it_is_full() {
    let Some(rig) = rig("grown-tmpfs", Rig::tmpfs(48)) else { return };
    grows("grown-tmpfs", &rig, || rig.on_disk("mount", &["-o", "remount,size=160m"]));
}

/// The limit is of a whole process, so this test runs itself again below one.
#[test]
fn a_limit_on_the_size_of_files() {
    const BELOW: &str = "PLIMSOLL_PROOF_BELOW_A_LIMIT";
    if let Some(root) = std::env::var_os(BELOW) {
        return below_a_limit(root.as_ref());
    }
    let made = run("prlimit", &["--version"]).and_then(|_| Rig::tmpfs(64));
    let Some(rig) = rig("file-size", made) else { return };
    let itself = std::env::current_exe().unwrap();
    // An ignored signal stays ignored; by default SIGXFSZ kills, and `plimsoll` ignores it.
    let ran = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=524288:unlimited \"$@\"", "sh", rig::text(&itself)])
        .args(["--exact", "a_limit_on_the_size_of_files", "--nocapture"])
        .env(BELOW, rig.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "{said}");
    done("file-size", 1);
}

fn below_a_limit(root: &std::path::Path) {
    let mut life = Life::begin(root);
    let refused = life.fill(60_000);
    assert!(is_full(&refused, DiskCause::Limit), "{refused:?}");
    life.check("at the limit");
    assert_eq!(life.recover(), None, "while the limit stands, figures do not make it writable");
    run("prlimit", &["--pid", &std::process::id().to_string(), "--fsize=unlimited"]).unwrap();
    assert!(life.recover().is_some(), "{:?}", life.volume.level());
    life.produce(0, 60_000).unwrap();
    let mut life = life.again(true, || {});
    life.check("without a limit");
}

/// Rounds of a life and a loss of power on one filesystem.
fn power_losses(name: &str, made: Result<Rig, String>) {
    let Some(mut rig) = rig(name, made) else { return };
    let full = std::env::var_os("PLIMSOLL_PROVE_FULL").is_some();
    let rounds = if full { 20 } else { 2 };
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = rig::life::Random(seed | 1);
    let mut life = Life::begin(&rig.path());
    for round in 0..rounds {
        let what = format!("PLIMSOLL_SEED={seed} scripts/prove real-disks: {name}, round {round}");
        let mut durable = [life.end(0), life.end(1)];
        for index in 0..2 {
            life.volume.sync(&partition(u32::try_from(index).unwrap())).unwrap();
        }
        for _ in 0..100 + random.below(200) {
            let index = u32::try_from(random.below(2)).unwrap();
            let at = usize::try_from(index).unwrap();
            match random.below(20) {
                0 | 1 => durable[at] = life.volume.sync(&partition(index)).unwrap(),
                2 => {
                    life.now += Duration::from_secs(11);
                    life.volume.tick(life.now, WALL_MS, &ReplicaGuards::new());
                }
                3 if random.below(4) == 0 => {
                    let start = life.volume.log(&partition(index)).unwrap().log_start.get();
                    let to = start + random.below(durable[at].get().max(start) - start + 1);
                    let to = plimsoll_proto::ids::Offset::new(to).unwrap();
                    life.volume.trim_head(&partition(index), to).unwrap();
                }
                _ => {
                    let bytes = usize::try_from(random.below(40_000)).unwrap();
                    life.produce(index, bytes).unwrap();
                }
            }
        }
        for index in 0..2 {
            let at = usize::try_from(index).unwrap();
            life.forget_beyond_the_sync(index, durable[at]);
        }
        let mut lost = Ok(());
        life = life.again(false, || lost = rig.power_loss());
        if let Err(reason) = lost {
            return println!("SKIPPED real-disks-{name}: {reason}");
        }
        assert!(life.opened.page_cache_lost, "{what}");
        for index in 0..2 {
            let view = life.volume.log(&partition(index)).unwrap();
            assert!(view.log_end >= durable[usize::try_from(index).unwrap()], "{what}: {view:?}");
        }
        life.check(&what);
    }
    println!("CASES real-disks {name} cases={rounds} seed={seed}");
}

#[test]
fn ext4_without_power() {
    power_losses("power-ext4", Rig::image(128, &[&EXT4[..], &["512"]].concat(), "loop"));
}

#[test]
fn xfs_without_power() {
    power_losses("power-xfs", Rig::image(XFS_MIB, &XFS, "loop"));
}
