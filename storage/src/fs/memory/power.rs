//! What a power loss leaves of a memory disk.

use super::PowerLoss;
use super::image::Image;
use super::inode::Inode;
use super::names::{drop_orphans, files};

impl Image {
    pub(super) fn power_loss(&mut self, loss: PowerLoss) {
        let mut random = match loss {
            PowerLoss::LosesAllUnsynced => None,
            PowerLoss::Tears { seed } => Some(Random(seed)),
        };
        let unsynced = std::mem::take(&mut self.unsynced);
        let kept = random.as_mut().map_or(0, |random| random.at_most(unsynced.len() as u64));
        let mut names = std::mem::take(&mut self.durable_names);
        for change in unsynced.into_iter().take(usize::try_from(kept).unwrap_or(usize::MAX)) {
            change.apply(&mut names);
        }
        drop_orphans(&mut names);
        let linked = files(&names);
        self.inodes.retain(|id, _| linked.contains(id));
        for inode in self.inodes.values_mut() {
            match random.as_mut() {
                None => inode.lose_power(None),
                Some(random) => inode.lose_power(Some(&mut |n| random.at_most(n))),
            }
            inode.linked = true;
            inode.cover(self.settings.block_bytes);
        }
        self.used_blocks = self.inodes.values().map(Inode::blocks).sum();
        self.durable_names.clone_from(&names);
        self.names = names;
        self.locks.clear();
        self.generation += 1;
        self.sync_fails = false;
        self.read_only = false;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn at_most(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        n.checked_add(1).map_or(z, |range| z % range)
    }
}
