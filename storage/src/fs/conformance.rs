//! One suite for every implementation of the door.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use plimsoll_proto::disk::DiskCause;

use super::faulty::FaultyDisk;
use super::memory::{MemoryDisk, MemoryDiskSettings};
use super::real::RealDisk;
use super::{Disk, DiskError, FailureCause, OpenMode};

/// A directory that goes when the test ends, also when it fails.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("plimsoll-fs-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A small real tmpfs; needs root.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    fn tmpfs(name: &str, options: &str) -> Option<Self> {
        let dir = TempDir::new(name);
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "plimsoll-test"]).arg(&dir.0).output();
        match status {
            Ok(done) if done.status.success() => Some(Self { dir }),
            Ok(done) => {
                println!("SKIPPED {name}: mount: {}", String::from_utf8_lossy(&done.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED {name}: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir.0).status();
    }
}

fn read_all(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

/// What every door promises, whatever its size.
fn conforms(disk: &dyn Disk) {
    names_and_directories(disk);
    contents(disk);
    allocation_keeps_the_length_and_cutting_gives_it_back(disk);
    unlinked_files_stay_readable(disk);
    one_lock_at_a_time(disk);
    a_lock_whose_file_is_gone_is_told(disk);
    let space = disk.space().unwrap();
    assert!(space.total_bytes > 0 && space.available_bytes <= space.total_bytes);
    assert!(space.total_inodes == 0 || space.available_inodes <= space.total_inodes);
    assert_eq!(disk.mount_identity(), disk.mount_identity());
}

fn names_and_directories(disk: &dyn Disk) {
    assert!(matches!(disk.open("none", OpenMode::Read), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.open("none", OpenMode::Write), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.open("none/a", OpenMode::CreateNew), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.list("none"), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.remove_file("none"), Err(DiskError::NotFound { .. })));
    disk.create_dir("d").unwrap();
    disk.create_dir("d").unwrap();
    drop(disk.open("d/b", OpenMode::CreateNew).unwrap());
    drop(disk.open("d/a", OpenMode::CreateNew).unwrap());
    assert!(matches!(disk.open("d/a", OpenMode::CreateNew), Err(DiskError::AlreadyExists { .. })));
    disk.create_dir("d/sub").unwrap();
    let names: Vec<_> = disk.list("d").unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect();
    assert_eq!(names, [("a".to_owned(), false), ("b".to_owned(), false), ("sub".to_owned(), true)]);
    assert!(disk.list("").unwrap().iter().any(|e| e.name == "d" && e.is_dir));
    disk.open("d/b", OpenMode::Write).unwrap().write_at(b"new", 0).unwrap();
    disk.rename("d/b", "d/a").unwrap();
    assert_eq!(read_all(disk, "d/a"), b"new");
    assert!(disk.remove_dir("d").is_err(), "not empty");
    disk.sync_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    disk.remove_dir("d/sub").unwrap();
    disk.remove_file("d/a").unwrap();
    disk.remove_dir("d").unwrap();
    assert!(matches!(disk.list("d"), Err(DiskError::NotFound { .. })));
}

fn contents(disk: &dyn Disk) {
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(b"hello", 3).unwrap();
    file.write_at(b"J", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read_all(disk, "f"), b"\0\0\0Jello");
    let mut buf = [0; 4];
    assert_eq!(file.read_at(&mut buf, 6).unwrap(), 2, "fewer only at the end");
    assert_eq!(file.read_at(&mut buf, 100).unwrap(), 0);
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(read_all(disk, "f"), b"\0\0\0J\0\0", "what was cut does not come back");
    assert!(disk.open("f", OpenMode::Read).unwrap().write_at(b"x", 0).is_err(), "opened for reading");
    disk.remove_file("f").unwrap();
}

fn allocation_keeps_the_length_and_cutting_gives_it_back(disk: &dyn Disk) {
    const STEP: u64 = 64 * 1024;
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(b"abc", 0).unwrap();
    file.allocate(0, 4 * STEP).unwrap();
    file.allocate(0, 4 * STEP).unwrap();
    assert_eq!(file.len().unwrap(), 3);
    assert!(file.allocated_bytes().unwrap() >= 4 * STEP);
    file.set_len(3).unwrap();
    assert!(file.allocated_bytes().unwrap() < STEP, "cutting to the same length frees what lies beyond");
    assert_eq!(read_all(disk, "f"), b"abc");
    disk.remove_file("f").unwrap();
}

fn unlinked_files_stay_readable(disk: &dyn Disk) {
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(b"still here", 0).unwrap();
    disk.remove_file("f").unwrap();
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 10);
    assert_eq!(&buf, b"still here");
}

fn one_lock_at_a_time(disk: &dyn Disk) {
    let guard = disk.lock("lock").unwrap();
    assert_eq!(disk.lock("lock").unwrap_err(), DiskError::Locked);
    drop(guard);
    drop(disk.lock("lock").unwrap());
    disk.remove_file("lock").unwrap();
}

fn a_lock_whose_file_is_gone_is_told(disk: &dyn Disk) {
    let gone = || matches!(disk.space(), Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, .. }));
    let guard = disk.lock("lock").unwrap();
    disk.space().unwrap();
    disk.rename("lock", "elsewhere").unwrap();
    assert!(gone(), "it stands elsewhere");
    disk.rename("elsewhere", "lock").unwrap();
    disk.space().unwrap();
    disk.remove_file("lock").unwrap();
    assert!(gone(), "removed");
    drop(disk.open("lock", OpenMode::CreateNew).unwrap());
    assert!(gone(), "another file stands there");
    drop(guard);
    disk.space().unwrap();
    disk.remove_file("lock").unwrap();
}

/// What every small door does when it is full. `fill` takes all bytes, `free` gives them back.
fn full_disk_conforms(disk: &dyn Disk, fill: &dyn Fn(), free: &dyn Fn()) {
    let file = disk.open("log", OpenMode::CreateNew).unwrap();
    let other = disk.open("other", OpenMode::CreateNew).unwrap();
    let guard = disk.lock("lock").unwrap();
    drop(guard);
    file.allocate(0, 64 * 1024).unwrap();
    fill();
    if disk.reserves() {
        file.write_at(&[7; 64 * 1024], 0).unwrap();
        file.sync_data().unwrap();
    }
    let end = file.len().unwrap();
    let Err(DiskError::OutOfSpace { written, .. }) = file.write_at(&[8; 256 * 1024], end) else {
        panic!("a write beyond what was allocated must meet the full disk");
    };
    assert_eq!(file.len().unwrap(), end + written, "the error says how much was taken");
    file.set_len(end).unwrap();
    assert!(matches!(other.allocate(0, 1024 * 1024), Err(DiskError::OutOfSpace { written: 0, .. })));
    drop(disk.lock("lock").unwrap());
    drop(disk.open("log", OpenMode::Write).unwrap());
    disk.remove_file("other").unwrap();
    drop(other);
    free();
    file.write_at(&[9; 256 * 1024], end).unwrap();
    file.sync_data().unwrap();
    disk.remove_file("log").unwrap();
    disk.remove_file("lock").unwrap();
}

fn out_of_inodes_conforms(disk: &dyn Disk) {
    let file = disk.open("log", OpenMode::CreateNew).unwrap();
    let mut made = 0;
    let error = loop {
        match disk.open(&format!("n{made}"), OpenMode::CreateNew) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 100_000, "inodes never ran out");
    };
    assert!(matches!(error, DiskError::OutOfSpace { cause: DiskCause::Inodes, .. }), "{error:?}");
    let error = disk.create_dir("dir").unwrap_err();
    assert!(matches!(error, DiskError::OutOfSpace { cause: DiskCause::Inodes, .. }), "{error:?}");
    file.write_at(b"appends go on", 0).unwrap();
    for n in 0..made {
        disk.remove_file(&format!("n{n}")).unwrap();
    }
    disk.create_dir("dir").unwrap();
    disk.remove_dir("dir").unwrap();
    disk.remove_file("log").unwrap();
}

#[test]
fn memory_disk_conforms() {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    conforms(&disk);
    full_disk_conforms(&disk, &|| assert!(disk.take_all_bytes() > 0), &|| disk.release());
    out_of_inodes_conforms(&disk);
    assert_eq!(disk.available_bytes(), 8 << 20, "everything was given back");
    assert_eq!(disk.open_handles(), 0);
}

#[test]
fn faulty_disk_without_a_fault_conforms() {
    let memory = MemoryDisk::new(MemoryDiskSettings::plain(8 << 20));
    let (disk, faults) = FaultyDisk::new(Arc::new(memory.clone()));
    conforms(&disk);
    full_disk_conforms(&disk, &|| assert!(memory.take_all_bytes() > 0), &|| memory.release());
    assert!(faults.calls() > 50 && faults.fired().is_empty());
}

#[test]
fn real_disk_conforms() {
    let dir = TempDir::new("real");
    let disk = RealDisk::open(&dir.0.join("made/on/the/way")).unwrap();
    conforms(&disk);
    assert!(!disk.mount_identity().boot_id.is_empty());
}

#[test]
fn real_tmpfs_conforms_also_when_full() {
    let Some(mounted) = Mounted::tmpfs("full", "size=4m,nr_inodes=64") else { return };
    let disk = RealDisk::open(&mounted.dir.0).unwrap();
    conforms(&disk);
    assert!(disk.reserves());
    // A second handle on the same filesystem plays the foreign writer.
    let foreign = RealDisk::open(&mounted.dir.0).unwrap();
    let fill = || {
        let file = foreign.open("filler", OpenMode::CreateNew).unwrap();
        while file.write_at(&[1; 64 * 1024], file.len().unwrap()).is_ok() {}
    };
    full_disk_conforms(&disk, &fill, &|| foreign.remove_file("filler").unwrap());
    out_of_inodes_conforms(&disk);
}

#[test]
fn a_vanished_mount_is_told_from_an_empty_directory() {
    let Some(mounted) = Mounted::tmpfs("vanish", "size=1m") else { return };
    let disk = RealDisk::open(&mounted.dir.0).unwrap();
    disk.space().unwrap();
    let done = Command::new("umount").arg("-l").arg(&mounted.dir.0).status().unwrap();
    assert!(done.success());
    assert!(matches!(disk.space(), Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, .. })));
}

#[test]
fn a_directory_that_was_removed_or_replaced_is_told() {
    let dir = TempDir::new("replaced");
    let root = dir.0.join("data");
    let gone = |disk: &RealDisk| {
        matches!(disk.space(), Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, .. }))
    };
    let disk = RealDisk::open(&root).unwrap();
    let guard = disk.lock("lock").unwrap();
    rustix::fs::rename(&root, dir.0.join("moved")).unwrap();
    assert!(gone(&disk), "nothing is there");
    let other = RealDisk::open(&root).unwrap();
    drop(other.lock("lock").unwrap());
    assert!(gone(&disk) && !gone(&other), "another directory is there");
    drop(guard);
}

/// An ext4 image on a small tmpfs, with blocks reserved for another user and few inodes.
#[test]
fn real_ext4_conforms_also_when_full_and_never_counts_what_root_keeps() {
    let Some(holder) = Mounted::tmpfs("ext4-holder", "size=48m") else { return };
    let image = holder.dir.0.join("image");
    let image_path = image.to_str().unwrap();
    let run = |command: &str, arguments: &[&str]| {
        Command::new(command).args(arguments).output().is_ok_and(|done| done.status.success())
    };
    let made = run("truncate", &["-s", "32M", image_path])
        && run("mkfs.ext4", &["-qF", "-m", "10", "-N", "64", image_path]);
    let dir = TempDir::new("ext4");
    let mount = Mounted { dir };
    let target = mount.dir.0.to_str().unwrap();
    if !made || !run("mount", &["-o", "loop,resuid=1234", image_path, target]) {
        println!("SKIPPED ext4: mkfs.ext4 or a loop mount is missing");
        return;
    }
    let disk = RealDisk::open(&mount.dir.0).unwrap();
    conforms(&disk);
    assert!(disk.reserves());
    let space = disk.space().unwrap();
    assert!(
        space.available_bytes + space.total_bytes / 20 < space.total_bytes,
        "the reserve is not available"
    );
    let foreign = RealDisk::open(&mount.dir.0).unwrap();
    let fill = || {
        let file = foreign.open("filler", OpenMode::CreateNew).unwrap();
        while file.write_at(&[1; 4096], file.len().unwrap()).is_ok() {}
        file.sync_data().unwrap();
    };
    full_disk_conforms(&disk, &fill, &|| foreign.remove_file("filler").unwrap());
    out_of_inodes_conforms(&disk);
}
