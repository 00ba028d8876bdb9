//! The state of a memory disk: names, inodes, and the account of blocks.

use std::collections::BTreeMap;

use plimsoll_proto::disk::DiskCause;

use super::inode::Inode;
use super::names::{NameChange, Node, normal, parent};
use super::{MemoryDiskSettings, StatvfsFault, out_of_space};
use crate::fs::{DirEntry, DiskError, FailureCause, OpenMode, SpaceSample};

#[derive(Debug)]
pub(super) struct Image {
    pub(super) settings: MemoryDiskSettings,
    pub(super) inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    pub(super) names: BTreeMap<String, Node>,
    pub(super) durable_names: BTreeMap<String, Node>,
    pub(super) unsynced: Vec<NameChange>,
    pub(super) used_blocks: u64,
    /// Inodes that are locked, and where they stood then.
    pub(super) locks: BTreeMap<u64, String>,
    pub(super) generation: u64,
    pub(super) foreign_bytes: u64,
    pub(super) foreign_inodes: u64,
    pub(super) greedy: bool,
    pub(super) sync_fails: bool,
    pub(super) read_only: bool,
    pub(super) vanished: bool,
    pub(super) statvfs: StatvfsFault,
}

impl Image {
    pub(super) fn new(settings: MemoryDiskSettings) -> Self {
        assert!(settings.block_bytes > 0, "a block has bytes");
        Self {
            settings,
            inodes: BTreeMap::new(),
            inode_next: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced: Vec::new(),
            used_blocks: 0,
            locks: BTreeMap::new(),
            generation: 0,
            foreign_bytes: 0,
            foreign_inodes: 0,
            greedy: false,
            sync_fails: false,
            read_only: false,
            vanished: false,
            statvfs: StatvfsFault::Honest,
        }
    }

    pub(super) fn inode(&self, inode: u64) -> &Inode {
        self.inodes.get(&inode).expect("an open handle keeps its inode")
    }

    fn inode_mut(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an open handle keeps its inode")
    }

    // --- account -----------------------------------------------------------------------------------------

    fn used_bytes(&self) -> u64 {
        self.used_blocks * self.settings.block_bytes
    }

    pub(super) fn available_bytes(&self) -> u64 {
        let taken = self.used_bytes() + self.foreign_bytes + self.settings.root_reserve_bytes;
        self.settings.capacity_bytes.saturating_sub(taken)
    }

    pub(super) fn available_inodes(&self) -> u64 {
        if self.settings.capacity_inodes == 0 {
            return 0;
        }
        let dirs = self.names.values().filter(|node| **node == Node::Dir).count() as u64;
        let files = self.inodes.values().filter(|inode| inode.linked || inode.handles > 0).count() as u64;
        self.settings.capacity_inodes.saturating_sub(dirs + files + self.foreign_inodes)
    }

    pub(super) fn sample(&self) -> SpaceSample {
        SpaceSample {
            total_bytes: self.settings.capacity_bytes,
            available_bytes: self.available_bytes(),
            total_inodes: self.settings.capacity_inodes,
            available_inodes: self.available_inodes(),
        }
    }

    /// Whether every lock that is held stands where it was taken.
    pub(super) fn locks_are_there(&self) -> bool {
        self.locks.iter().all(|(inode, path)| self.node(path) == Some(Node::File(*inode)))
    }

    pub(super) fn unlinked_open_bytes(&self) -> u64 {
        let unlinked = self.inodes.values().filter(|inode| !inode.linked && inode.handles > 0);
        unlinked.map(Inode::blocks).sum::<u64>() * self.settings.block_bytes
    }

    pub(super) fn open_handles(&self) -> u64 {
        self.inodes.values().map(|inode| inode.handles).sum()
    }

    pub(super) fn feed_greedy(&mut self) {
        if self.greedy {
            self.foreign_bytes += self.available_bytes();
            self.foreign_inodes += self.available_inodes();
        }
    }

    /// Why no further block can be had, if so.
    fn block_refusal(&self) -> Option<DiskCause> {
        let block = self.settings.block_bytes;
        if self.settings.quota_bytes.is_some_and(|quota| self.used_bytes() + block > quota) {
            return Some(DiskCause::Quota);
        }
        (self.available_bytes() < block).then_some(DiskCause::Bytes)
    }

    pub(super) fn check_writable(&self, operation: &'static str) -> Result<(), DiskError> {
        let cause = match (self.vanished, self.read_only) {
            (true, _) => FailureCause::Vanished,
            (false, true) => FailureCause::ReadOnlyFilesystem,
            (false, false) => return Ok(()),
        };
        Err(DiskError::VolumeFailed { cause, operation })
    }

    fn check_there(&self, operation: &'static str) -> Result<(), DiskError> {
        if self.vanished {
            return Err(DiskError::VolumeFailed { cause: FailureCause::Vanished, operation });
        }
        Ok(())
    }

    // --- names -------------------------------------------------------------------------------------------

    pub(super) fn node(&self, path: &str) -> Option<Node> {
        match normal(path) {
            "" => Some(Node::Dir),
            path => self.names.get(path).copied(),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn check_entry(&self, path: &str, operation: &'static str) -> Result<(), DiskError> {
        self.check_writable(operation)?;
        if self.node(parent(path)) != Some(Node::Dir) {
            return Err(DiskError::NotFound { operation });
        }
        match self.block_refusal() {
            Some(cause) if self.settings.entries_need_block => Err(out_of_space(cause, operation, 0)),
            _ => Ok(()),
        }
    }

    fn check_inode(&self, operation: &'static str) -> Result<(), DiskError> {
        if self.settings.capacity_inodes > 0 && self.available_inodes() == 0 {
            return Err(out_of_space(DiskCause::Inodes, operation, 0));
        }
        Ok(())
    }

    pub(super) fn open(&mut self, path: &str, mode: OpenMode) -> Result<u64, DiskError> {
        self.check_there("open")?;
        let inode = match (self.node(path), mode) {
            (Some(Node::File(_)), OpenMode::CreateNew) => {
                return Err(DiskError::AlreadyExists { operation: "create" });
            }
            (Some(Node::File(inode)), _) => inode,
            // EISDIR.
            (Some(Node::Dir), _) => return Err(DiskError::Unknown { errno: 21, operation: "open" }),
            (None, OpenMode::CreateNew) => {
                self.check_entry(path, "create")?;
                self.check_inode("create")?;
                let inode = self.inode_next;
                self.inode_next += 1;
                self.inodes.insert(inode, Inode::linked());
                self.change(NameChange::Add(path.to_owned(), Node::File(inode)));
                inode
            }
            (None, _) => return Err(DiskError::NotFound { operation: "open" }),
        };
        if mode != OpenMode::Read {
            self.check_writable("open")?;
        }
        self.inode_mut(inode).handles += 1;
        Ok(inode)
    }

    pub(super) fn close(&mut self, inode: u64) {
        let file = self.inode_mut(inode);
        assert!(file.handles > 0, "closed more often than opened");
        file.handles -= 1;
        self.free_if_unused(inode);
    }

    /// Frees the blocks when neither a name nor a handle is left. The bytes stay for as long as a power loss
    /// could bring the name back.
    fn free_if_unused(&mut self, inode: u64) {
        let file = self.inode_mut(inode);
        if file.linked || file.handles > 0 {
            return;
        }
        self.used_blocks -= file.free_blocks_from(0);
        if !self.may_come_back(inode) {
            self.inodes.remove(&inode);
        }
        self.feed_greedy();
    }

    /// Whether a power loss could leave a name of it.
    fn may_come_back(&self, inode: u64) -> bool {
        let added = |change: &NameChange| matches!(change, NameChange::Add(_, Node::File(i)) if *i == inode);
        self.durable_names.values().any(|node| *node == Node::File(inode)) || self.unsynced.iter().any(added)
    }

    pub(super) fn list(&self, dir: &str) -> Result<Vec<DirEntry>, DiskError> {
        self.check_there("list")?;
        let dir = normal(dir);
        if self.node(dir) != Some(Node::Dir) {
            return Err(DiskError::NotFound { operation: "list" });
        }
        let children = self.names.iter().filter(|(path, _)| parent(path) == dir);
        let mut entries: Vec<DirEntry> = children
            .map(|(path, node)| {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                DirEntry { name, is_dir: *node == Node::Dir }
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    pub(super) fn create_dir(&mut self, dir: &str) -> Result<(), DiskError> {
        self.check_there("create_dir")?;
        match self.node(dir) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(DiskError::AlreadyExists { operation: "create_dir" }),
            None => {
                self.check_entry(dir, "create_dir")?;
                self.check_inode("create_dir")?;
                self.change(NameChange::Add(dir.to_owned(), Node::Dir));
                Ok(())
            }
        }
    }

    pub(super) fn remove_file(&mut self, path: &str) -> Result<(), DiskError> {
        self.check_writable("remove_file")?;
        match self.node(path) {
            Some(Node::File(inode)) => {
                self.change(NameChange::Remove(path.to_owned()));
                self.inode_mut(inode).linked = false;
                self.free_if_unused(inode);
                Ok(())
            }
            Some(Node::Dir) => Err(DiskError::Unknown { errno: 21, operation: "remove_file" }),
            None => Err(DiskError::NotFound { operation: "remove_file" }),
        }
    }

    pub(super) fn remove_dir(&mut self, dir: &str) -> Result<(), DiskError> {
        self.check_writable("remove_dir")?;
        if self.node(dir) != Some(Node::Dir) {
            return Err(DiskError::NotFound { operation: "remove_dir" });
        }
        if !self.list(dir)?.is_empty() {
            // ENOTEMPTY.
            return Err(DiskError::Unknown { errno: 39, operation: "remove_dir" });
        }
        self.change(NameChange::Remove(dir.to_owned()));
        self.feed_greedy();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.check_entry(to, "rename")?;
        if self.node(from).is_none() {
            return Err(DiskError::NotFound { operation: "rename" });
        }
        let replaced = self.node(to);
        self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        if let Some(Node::File(inode)) = replaced.filter(|_| from != to) {
            self.inode_mut(inode).linked = false;
            self.free_if_unused(inode);
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> Result<(), DiskError> {
        self.check_there("sync_dir")?;
        if self.node(dir) != Some(Node::Dir) {
            return Err(DiskError::NotFound { operation: "open" });
        }
        if self.sync_fails {
            return Err(sync_failed("sync_dir"));
        }
        let dir = normal(dir).to_owned();
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|change| change.dir() == dir);
        self.unsynced = rest;
        for change in synced {
            change.apply(&mut self.durable_names);
        }
        self.forget_unreachable();
        Ok(())
    }

    fn forget_unreachable(&mut self) {
        let gone = |(id, inode): (&u64, &Inode)| {
            (!inode.linked && inode.handles == 0 && !self.may_come_back(*id)).then_some(*id)
        };
        let gone: Vec<u64> = self.inodes.iter().filter_map(gone).collect();
        for inode in gone {
            self.inodes.remove(&inode);
        }
    }

    // --- contents ----------------------------------------------------------------------------------------

    pub(super) fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let end = offset + bytes.len() as u64;
        let block_bytes = self.settings.block_bytes;
        let mut refusal = None;
        let mut reach = end;
        if let Some(limit) = self.settings.file_bytes_max.filter(|limit| end > *limit) {
            refusal = Some(DiskCause::Limit);
            reach = limit.max(offset);
        }
        for block in offset / block_bytes..reach.div_ceil(block_bytes) {
            let has = self.inode(inode).has_block(block);
            let needs_block = !has || self.settings.copy_on_write;
            if let Some(cause) = self.block_refusal().filter(|_| needs_block) {
                refusal = Some(cause);
                reach = (block * block_bytes).max(offset);
                break;
            }
            if !has {
                self.take_block(inode, block);
            }
        }
        let written = reach - offset;
        let taken = usize::try_from(written).unwrap_or(usize::MAX);
        self.inode_mut(inode).write(bytes.get(..taken).unwrap_or(bytes), offset);
        refusal.map_or(Ok(()), |cause| Err(out_of_space(cause, "write", written)))
    }

    fn take_block(&mut self, inode: u64, block: u64) {
        self.inode_mut(inode).add_block(block);
        self.used_blocks += 1;
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> Result<(), DiskError> {
        let file = self.inode(inode);
        if self.settings.file_bytes_max.is_some_and(|limit| len > limit && len > file.len()) {
            return Err(out_of_space(DiskCause::Limit, "set_len", 0));
        }
        let cuts = len <= file.len();
        let first_free = len.div_ceil(self.settings.block_bytes);
        let file = self.inode_mut(inode);
        file.set_len(len);
        if cuts {
            self.used_blocks -= file.free_blocks_from(first_free);
            self.feed_greedy();
        }
        Ok(())
    }

    /// All or nothing, as tmpfs does it.
    pub(super) fn allocate(&mut self, inode: u64, offset: u64, len: u64) -> Result<(), DiskError> {
        let end = offset.saturating_add(len);
        if self.settings.file_bytes_max.is_some_and(|limit| end > limit) {
            return Err(out_of_space(DiskCause::Limit, "allocate", 0));
        }
        let block_bytes = self.settings.block_bytes;
        let file = self.inode(inode);
        let missing: Vec<u64> = (offset / block_bytes..end.div_ceil(block_bytes))
            .filter(|block| !file.has_block(*block))
            .collect();
        let bytes = missing.len() as u64 * block_bytes;
        if self.settings.quota_bytes.is_some_and(|quota| self.used_bytes() + bytes > quota) {
            return Err(out_of_space(DiskCause::Quota, "allocate", 0));
        }
        if bytes > self.available_bytes() {
            return Err(out_of_space(DiskCause::Bytes, "allocate", 0));
        }
        for block in missing {
            self.take_block(inode, block);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64) -> Result<(), DiskError> {
        if self.sync_fails {
            self.inode_mut(inode).fail_sync();
            return Err(sync_failed("sync"));
        }
        if self.settings.thin_bytes.is_some_and(|thin| self.used_bytes() > thin) {
            // As measured on a thin volume: EIO once, then the filesystem turns read-only.
            self.read_only = true;
            self.inode_mut(inode).fail_sync();
            return Err(sync_failed("sync"));
        }
        self.inode_mut(inode).sync();
        Ok(())
    }
}

fn sync_failed(operation: &'static str) -> DiskError {
    DiskError::VolumeFailed { cause: FailureCause::SyncFailed, operation }
}
