//! The byte limit of a volume that is changed while the node runs: a file `byte-limit` in the data directory.
//!
//! It holds one size, such as `200MiB`, and wins over the setting of the same name. It is read with every sample
//! of the space, so a change counts within a second and a restart keeps it. Without the file the setting counts.
//! A file that says nothing usable (torn, empty, below the minimum) changes nothing.

use plimsoll_host::config::ByteSize;
use plimsoll_storage::fs::{Disk, DiskError, OpenMode};

/// Name of the file in the data directory.
const FILE: &str = "byte-limit";
/// More than any size in words; a longer file is none of ours.
const LENGTH_MAX: usize = 64;
/// As for the setting.
const LIMIT_MIN: u64 = 16 << 20;

/// The limit of one volume, as it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteLimit {
    configured: Option<u64>,
    in_force: Option<u64>,
}

impl ByteLimit {
    /// What the settings say, until the file was read.
    pub(super) fn new(configured: Option<u64>) -> Self {
        Self { configured, in_force: configured }
    }

    /// Reads the file and returns the limit that counts now.
    pub(super) fn read(&mut self, disk: &dyn Disk) -> Option<u64> {
        let mut text = [0; LENGTH_MAX];
        match disk.open(FILE, OpenMode::Read).and_then(|file| file.read_at(&mut text, 0)) {
            Ok(length) => {
                if let Some(limit) = parse(text.get(..length).unwrap_or_default()) {
                    self.in_force = Some(limit);
                }
            }
            Err(DiskError::NotFound { .. }) => self.in_force = self.configured,
            // Whatever is wrong shows in the samples; the last limit stays.
            Err(_) => {}
        }
        self.in_force
    }
}

fn parse(bytes: &[u8]) -> Option<u64> {
    // A full buffer may be the beginning of something longer.
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() < LENGTH_MAX)?;
    let limit: ByteSize = text.strip_suffix('\n')?.trim().parse().ok()?;
    (limit.0 >= LIMIT_MIN).then_some(limit.0)
}

#[cfg(test)]
mod tests {
    use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};

    use super::*;

    #[test]
    fn the_file_wins_and_what_it_cannot_mean_changes_nothing() {
        let disk = MemoryDisk::new(MemoryDiskSettings::plain(64 << 20));
        let mut limit = ByteLimit::new(Some(32 << 20));
        assert_eq!(limit.read(&disk), Some(32 << 20));
        for (text, then) in [
            ("20MiB\n", 20 << 20),
            ("", 20 << 20),
            // Without the end of its line it may be the beginning of a longer number.
            ("30MiB", 20 << 20),
            ("much\n", 20 << 20),
            ("1MiB\n", 20 << 20),
            ("48000000\n", 48_000_000),
        ] {
            // Every new text in a new file, as a rename over the old one gives.
            if disk.open(FILE, OpenMode::Read).is_ok() {
                disk.remove_file(FILE).expect("it is there");
            }
            let file = disk.open(FILE, OpenMode::CreateNew).expect("room");
            file.write_at(text.as_bytes(), 0).expect("room");
            assert_eq!(limit.read(&disk), Some(then), "{text:?}");
        }
        disk.remove_file(FILE).expect("it is there");
        assert_eq!(limit.read(&disk), Some(32 << 20));
    }
}
