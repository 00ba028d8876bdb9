//! The data directory of a controller that has voted, on a disk in memory. Made once; every input changes its files.

use std::cell::RefCell;
use std::sync::Arc;

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use plimsoll_storage::fs::{DiskFile, OpenMode, SharedDisk};
use raft::eraftpb::HardState;

use super::forms::RECORD_HEAD_BYTES;
use crate::raft_runtime::journal::{FileJournal, Journal as _, JournalError, JournalSettings};
use crate::raft_runtime::{DataDir, DataDirError, Identity as _};

pub(super) const CONTROLLER: u64 = 1;
pub(super) const FILES: [&str; 2] = ["journal/a.log", "journal/b.log"];
/// The shortest that there may be.
pub(super) const FILE_BYTES: usize = 1024 * 1024;
/// First byte of the records.
pub(super) const BODY: usize = 8192;
/// Of the vote that was given.
pub(super) const TERM: u64 = 5;
const IDENTITY: &str = "controller.id";

pub(super) struct Directory {
    disk: SharedDisk,
    journals: [Box<dyn DiskFile>; 2],
    /// What the files held when it was made, without the zeros behind it.
    images: [Vec<u8>; 2],
    /// Bytes of each that may be other than zero.
    touched: [usize; 2],
    made_anew: bool,
}

thread_local! {
    static MADE: RefCell<Option<Directory>> = const { RefCell::new(None) };
}

pub(super) fn settings() -> JournalSettings {
    JournalSettings { file_bytes: FILE_BYTES as u64, ..JournalSettings::default() }
}

fn open_dir(disk: &SharedDisk, bootstrap: bool) -> Result<(DataDir, FileJournal), DataDirError> {
    DataDir::open(disk, ControllerId(CONTROLLER), bootstrap, [1, 2, 3].map(ControllerId), &settings())
}

/// All that a file holds, without the zeros at its end.
pub(super) fn read_whole(disk: &SharedDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).expect("there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("known")).expect("small")];
    let read = file.read_at(&mut bytes, 0).expect("reads");
    bytes.truncate(read);
    bytes
}

/// Without the zeros at the end, but with the head and as many as a record may end in.
pub(super) fn used(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate((end + RECORD_HEAD_BYTES).next_multiple_of(8).max(BODY));
    bytes
}

/// A disk with room for one, and for the journal that is made while the old one is still open.
pub(super) fn new_disk() -> SharedDisk {
    Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(8 << 20)))
}

impl Directory {
    fn new() -> Self {
        let disk = new_disk();
        let (mut dir, mut journal) = open_dir(&disk, true).expect("empty");
        dir.set_cluster_id(ClusterId([7; 16])).expect("room");
        journal.load().expect("just made");
        journal.set_hard_state(&HardState { term: TERM, vote: 2, commit: 0 }).expect("room");
        journal.sync().expect("works");
        drop((dir, journal));
        let images = FILES.map(|path| used(read_whole(&disk, path)));
        let touched = [images[0].len(), images[1].len()];
        let journals = FILES.map(|path| disk.open(path, OpenMode::Write).expect("there"));
        Self { disk, journals, images, touched, made_anew: false }
    }

    /// Every thread has its own.
    pub(super) fn with<T>(act: impl FnOnce(&mut Self) -> T) -> T {
        MADE.with_borrow_mut(|made| {
            let result = act(made.get_or_insert_with(Self::new));
            made.take_if(|directory| directory.made_anew);
            result
        })
    }

    /// Its journal is not the one that was made first: the next input needs another directory.
    pub(super) fn forget(&mut self) {
        self.made_anew = true;
    }

    pub(super) fn images(&self) -> [Vec<u8>; 2] {
        self.images.clone()
    }

    /// These bytes, and zeros behind them.
    pub(super) fn put_files(&mut self, files: &[Vec<u8>; 2]) {
        for (index, bytes) in files.iter().enumerate() {
            let bytes = &bytes[..bytes.len().min(FILE_BYTES)];
            let mut over = bytes.to_vec();
            over.resize(bytes.len().max(self.touched[index]), 0);
            self.journals[index].write_at(&over, 0).expect("room");
            self.set_len(index, FILE_BYTES);
            self.touched[index] = bytes.len();
        }
    }

    pub(super) fn set_len(&self, index: usize, len: usize) {
        if self.journals[index].len() != Ok(len as u64) {
            self.journals[index].set_len(len as u64).expect("room");
        }
    }

    /// The zeros at the ends are gone.
    pub(super) fn cut(&self) {
        for (index, touched) in self.touched.into_iter().enumerate() {
            self.set_len(index, touched);
        }
    }

    /// So many bytes of records were written to either file.
    pub(super) fn touch(&mut self, used: u64) {
        let end = BODY + usize::try_from(used).expect("small");
        self.touched = self.touched.map(|touched| touched.max(end));
    }

    /// What may be other than zero of both files.
    pub(super) fn read_files(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|index| {
            let mut bytes = vec![0; self.touched[index]];
            let read = self.journals[index].read_at(&mut bytes, 0).expect("reads");
            bytes.truncate(read);
            bytes
        })
    }

    pub(super) fn put_identity(&self, bytes: &[u8]) {
        let file = self.disk.open(IDENTITY, OpenMode::Write).expect("there");
        file.set_len(0).expect("cuts");
        file.write_at(bytes, 0).expect("room");
    }

    pub(super) fn read_identity(&self) -> Vec<u8> {
        read_whole(&self.disk, IDENTITY)
    }

    pub(super) fn open_journal(&self) -> Result<FileJournal, JournalError> {
        FileJournal::open(&self.disk, &settings(), CONTROLLER)
    }

    /// What a start does.
    pub(super) fn open(&self, bootstrap: bool) -> Result<(DataDir, FileJournal), DataDirError> {
        open_dir(&self.disk, bootstrap)
    }
}
