//! Digests of what a run recorded and of what it left on its disks: the same seed gives the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use plimsoll_history::Event;
use plimsoll_storage::fs::memory::MemoryDisk;
use plimsoll_storage::fs::{Disk as _, OpenMode};

use super::faults::Node;

/// Of all events, with everything in them, in their order.
pub(super) fn of_events(events: &[Event]) -> u64 {
    let mut digest = DefaultHasher::new();
    for event in events {
        digest.write(format!("{event:?}").as_bytes());
        digest.write_u8(b'\n');
    }
    digest.finish()
}

/// How many events there are of each kind.
pub(super) fn by_kind(events: &[Event]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for event in events {
        let shown = format!("{event:?}");
        let name = shown.split([' ', '(']).next().unwrap_or_default();
        *kinds.entry(name.to_owned()).or_default() += 1;
    }
    kinds
}

/// Of every file of every disk: where it is, how long, and each of its bytes.
pub(super) fn of_disks(disks: &BTreeMap<Node, MemoryDisk>) -> u64 {
    let mut digest = DefaultHasher::new();
    for (node, disk) in disks {
        digest.write(node.to_string().as_bytes());
        of_dir(disk, "", &mut digest);
    }
    digest.finish()
}

fn of_dir(disk: &MemoryDisk, dir: &str, digest: &mut DefaultHasher) {
    for entry in disk.list(dir).expect("a disk in memory whose faults are undone") {
        let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
        digest.write(path.as_bytes());
        if entry.is_dir {
            of_dir(disk, &path, digest);
        } else {
            of_file(disk, &path, digest);
        }
    }
}

fn of_file(disk: &MemoryDisk, path: &str, digest: &mut DefaultHasher) {
    const PIECE: usize = 64 << 10;
    let file = disk.open(path, OpenMode::Read).expect("a file that was listed");
    let (mut piece, mut at) = (vec![0; PIECE], 0u64);
    loop {
        let read = file.read_at(&mut piece, at).expect("a file of a disk in memory");
        if read == 0 {
            break;
        }
        digest.write(&piece[..read]);
        at += u64::try_from(read).unwrap_or(0);
    }
    digest.write_u64(at);
}
