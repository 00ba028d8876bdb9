//! What tests of this module share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use plimsoll_storage::fs::{Disk, OpenMode};

/// A directory that goes when dropped.
pub(crate) struct TempDir {
    path: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let unique =
            format!("plimsoll-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Overwrites the beginning of every file in `dir`.
pub(crate) fn overwrite_all(disk: &dyn Disk, dir: &str, with: &[u8]) {
    for entry in disk.list(dir).expect("the directory is there") {
        let path = format!("{dir}/{}", entry.name);
        let file = disk.open(&path, OpenMode::Write).expect("the file is there");
        file.set_len(0).expect("cutting works");
        file.write_at(with, 0).expect("there is room");
    }
}

/// Xorshift64* (Marsaglia 2003, Vigna 2016), from a seed that is not 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).expect("31 bits") % n.max(1)
    }

    /// Flips, fills, copies: `from` with up to four changes. Its length changes only with `lengths`.
    pub(crate) fn mutate(&mut self, from: &[u8], lengths: bool) -> Vec<u8> {
        let mut out = from.to_vec();
        for _ in 0..=self.below(4) {
            if out.is_empty() {
                return out;
            }
            let at = self.below(out.len());
            let end = (at + 1 + self.below(700)).min(out.len());
            match self.below(if lengths { 8 } else { 6 }) {
                0 | 1 => out[at] ^= 1 << self.below(8),
                2 => out[at..end].fill([0, 0xff, 0x80][self.below(3)]),
                3 => {
                    let copy = out[at..end].to_vec();
                    let to = self.below(out.len() - copy.len() + 1);
                    out[to..to + copy.len()].copy_from_slice(&copy);
                }
                // By records and sectors.
                4 => {
                    let (from, to) = (at & !7, self.below(out.len()) & !7);
                    let bytes = (8 * self.below(100)).min(out.len() - from.max(to));
                    out.copy_within(from..from + bytes, to);
                }
                5 => {
                    let sector = at & !511;
                    let end = (sector + 512).min(out.len());
                    out[sector..end].fill(0);
                }
                6 => out.truncate(at),
                _ => {
                    let copy = out[at..end].to_vec();
                    out.splice(at..at, copy);
                }
            }
        }
        out
    }
}
