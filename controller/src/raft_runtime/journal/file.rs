//! The journal on two preallocated files, used in turn.
//!
//! ```text
//! journal/a.log  | head | base | vote | entry | entry | ... | free, written with zeros once |
//! journal/b.log  | head | leftovers of an older generation                                  |
//! ```
//! A file takes appends until the lane compacts; the compacted contents go into the other file, which becomes
//! current. Every byte was allocated and written when the data directory was made: opening, votes, appends and
//! compaction take no block and no inode, whatever a foreign writer does (fallocated and written blocks stay
//! writable on a full ext4, xfs and tmpfs; on a copy-on-write filesystem the write may be refused, see
//! `Disk::reserves`).
//!
//! A sync ends with a note of it in the head, synced too, before it is told to anybody: records that are not there at the
//! next start are rot before that note and a torn tail behind it.

use plimsoll_storage::fs::{DiskError, DiskFile, FailureCause, OpenMode, SharedDisk};
use prost_raft::Message as _;
use raft::eraftpb::{Entry, HardState};

use super::header::{BODY, SLOT_BYTES, Slot, Use};
use super::record::{self, Chain, Kind};
use super::replay::{self, Damage};
use super::{Fill, Journal, JournalError, Recovered};

/// Size and place of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Directory within the data directory. Default `journal`.
    pub dir: String,
    /// Bytes of each of the two files. Default 16 MiB, minimum 1 MiB, at most 1 GiB. Fixed when the data directory
    /// is made; later changes have no effect.
    pub file_bytes: u64,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { dir: "journal".to_owned(), file_bytes: 16 * 1024 * 1024 }
    }
}

impl JournalSettings {
    /// Smallest file.
    pub const FILE_BYTES_MIN: u64 = 1024 * 1024;
    /// Largest file, also a bound for what is read at a start.
    pub const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
}

const NAMES: [&str; 2] = ["a.log", "b.log"];
/// Room at the end of a file that only votes may take.
const VOTE_RESERVE: u64 = 64 * 1024;
const CHUNK: usize = 1024 * 1024;
const UNKNOWN_ERRORS_MAX: u32 = 3;

/// See the module.
pub struct FileJournal {
    disk: SharedDisk,
    dir: String,
    controller: u64,
    files: [LogFile; 2],
    active: usize,
    chain: Chain,
    /// Where the next record goes.
    end: u64,
    /// Not every slot says yet which file is current.
    switch_pending: bool,
    unknown_errors: u32,
    failed: Option<DiskError>,
}

struct LogFile {
    file: Box<dyn DiskFile>,
    slot: Slot,
    bytes: u64,
}

impl FileJournal {
    /// Makes the journal of a new data directory, durably, holding `contents`. Files left by an attempt that did
    /// not finish are made anew: call it only while the directory's identity says that nothing took part yet.
    ///
    /// # Errors
    /// `Refused` when there is no room for both files, `Failed`.
    pub fn create(
        disk: &SharedDisk,
        settings: &JournalSettings,
        controller: u64,
        contents: &Recovered,
    ) -> Result<(), JournalError> {
        let bytes =
            settings.file_bytes.clamp(JournalSettings::FILE_BYTES_MIN, JournalSettings::FILE_BYTES_MAX);
        disk.create_dir(&settings.dir).map_err(classify)?;
        for (index, name) in (0u64..).zip(NAMES) {
            let path = format!("{}/{name}", settings.dir);
            match disk.remove_file(&path) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(classify(error)),
            }
            let file = disk.open(&path, OpenMode::CreateNew).map_err(classify)?;
            file.allocate(0, bytes).map_err(classify)?;
            // Written once, so that no later write has to convert or find a block.
            write_zeros(file.as_ref(), bytes).map_err(classify)?;
            let (usage, generation) = if index == 0 { (Use::Current, 1) } else { (Use::Never, 0) };
            let mut synced_end = 0;
            if index == 0 {
                let body = encode_contents(contents, &mut Chain::new(generation), bytes)?;
                file.write_at(&body, BODY).map_err(classify)?;
                synced_end = BODY + len_u64(body.len());
            }
            for sequence in 1..=2 {
                let slot = Slot { sequence, generation, usage, file_bytes: bytes, controller, synced_end };
                file.write_at(&slot.encode(), slot.offset()).map_err(classify)?;
            }
            file.sync_data().map_err(classify)?;
        }
        disk.sync_dir(&settings.dir).map_err(classify)?;
        disk.sync_dir("").map_err(classify)
    }

    /// Opens both files; [`Journal::load`] reads them. Needs no space.
    ///
    /// # Errors
    /// `Missing`, `Damaged` (no readable head, or of another controller), `Failed`.
    pub fn open(
        disk: &SharedDisk,
        settings: &JournalSettings,
        controller: u64,
    ) -> Result<Self, JournalError> {
        let [first, second] = NAMES;
        let files = [
            open_file(disk, &settings.dir, first, controller)?,
            open_file(disk, &settings.dir, second, controller)?,
        ];
        Ok(Self {
            disk: disk.clone(),
            dir: settings.dir.clone(),
            controller,
            files,
            active: 0,
            chain: Chain::new(0),
            end: BODY,
            switch_pending: false,
            unknown_errors: 0,
            failed: None,
        })
    }

    fn file(&self) -> &LogFile {
        &self.files[self.active]
    }

    fn path(&self, index: usize) -> String {
        people_path(&self.disk, &self.dir, NAMES[index])
    }

    fn check(&self) -> Result<(), JournalError> {
        self.failed.clone().map_or(Ok(()), |error| Err(JournalError::Failed(error)))
    }

    /// Classifies and remembers what is final.
    fn refuse(&mut self, error: DiskError) -> JournalError {
        let mut error = error;
        match &error {
            DiskError::Unknown { .. } => {
                self.unknown_errors += 1;
                if self.unknown_errors >= UNKNOWN_ERRORS_MAX {
                    error =
                        DiskError::VolumeFailed { cause: FailureCause::AppendErrors, operation: "journal" };
                }
            }
            DiskError::OutOfSpace { .. }
            | DiskError::VolumeFailed { .. }
            | DiskError::NotFound { .. }
            | DiskError::AlreadyExists { .. }
            | DiskError::Locked
            | DiskError::Exhausted { .. } => self.unknown_errors = 0,
        }
        let classified = classify(error);
        if let JournalError::Failed(error) = &classified {
            self.failed = Some(error.clone());
        }
        classified
    }

    fn write(&mut self, buffer: &[u8], chain: Chain, limit: u64) -> Result<(), JournalError> {
        let needed = len_u64(buffer.len());
        let room = limit.saturating_sub(self.end);
        if needed > room {
            return Err(JournalError::OutOfRoom { needed, room });
        }
        match self.file().file.write_at(buffer, self.end) {
            Ok(()) => {
                self.unknown_errors = 0;
                self.end += needed;
                self.chain = chain;
                Ok(())
            }
            // The position stays.
            Err(error) => {
                let nothing_taken = matches!(error, DiskError::OutOfSpace { written: 0, .. });
                let refused = self.refuse(error);
                if refused.is_retryable() && !nothing_taken {
                    self.wipe()?;
                }
                Err(refused)
            }
        }
    }

    /// Makes what a refused write left unreadable for good: the caller is told that nothing was written.
    fn wipe(&mut self) -> Result<(), JournalError> {
        let file = &self.file().file;
        let wiped = match file.write_at(&[0; 8], self.end) {
            Ok(()) => file.sync_data().map_err(final_error),
            Err(error) => Err(error),
        };
        wiped.map_err(|error| {
            self.refuse(match error {
                DiskError::VolumeFailed { .. } => error,
                _ => DiskError::VolumeFailed { cause: FailureCause::AppendErrors, operation: "journal" },
            })
        })
    }

    fn sync_file(&mut self, index: usize) -> Result<(), JournalError> {
        self.files[index].file.sync_data().map_err(|error| self.refuse(final_error(error)))
    }

    /// Writes a slot of a file, durably. One that was taken in part leaves the other slot to count.
    fn put_slot(&mut self, index: usize, slot: Slot) -> Result<(), JournalError> {
        match self.files[index].file.write_at(&slot.encode(), slot.offset()) {
            Ok(()) => {
                self.sync_file(index)?;
                self.files[index].slot = slot;
                Ok(())
            }
            Err(DiskError::OutOfSpace { written, .. }) if written > 0 => {
                let error =
                    DiskError::VolumeFailed { cause: FailureCause::IoError, operation: "journal head" };
                Err(self.refuse(error))
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// Both slots of a file, one after the other.
    fn put_head(&mut self, index: usize, head: Slot) -> Result<(), JournalError> {
        for _ in 0..2 {
            let sequence = self.files[index].slot.next().sequence;
            self.put_slot(index, Slot { sequence, ..head })?;
        }
        Ok(())
    }

    /// Notes in the head of the current file, durably, that all that was written is on the disk.
    fn put_synced_end(&mut self) -> Result<(), JournalError> {
        let slot = self.file().slot;
        if slot.synced_end == self.end {
            return Ok(());
        }
        self.put_slot(self.active, Slot { synced_end: self.end, ..slot.next() })
    }

    /// What a switch has to write besides the slot that decided it.
    fn finish_switch(&mut self) -> Result<(), JournalError> {
        let (active, other) = (self.active, 1 - self.active);
        self.put_slot(active, self.files[active].slot.next())?;
        self.put_head(other, Slot { usage: Use::Superseded, ..self.files[other].slot })?;
        self.switch_pending = false;
        Ok(())
    }

    /// A refusal is tried again at the next sync; until then the higher generation counts.
    fn try_to_finish_switch(&mut self) -> Result<(), JournalError> {
        match self.finish_switch() {
            Err(error) if !error.is_retryable() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn pick_active(&self) -> Result<usize, JournalError> {
        (0..self.files.len())
            .filter(|index| self.files[*index].slot.usage == Use::Current)
            .max_by_key(|index| self.files[*index].slot.generation)
            .ok_or_else(|| {
                // Both say that the other one is newer: the newer head was lost.
                let newest = (0..self.files.len()).max_by_key(|index| self.files[*index].slot.generation);
                JournalError::Damaged {
                    file: self.path(newest.unwrap_or(0)),
                    at: 0,
                    why: "its head does not say that it is current, and neither does the other file's",
                }
            })
    }
}

impl Journal for FileJournal {
    fn load(&mut self) -> Result<Recovered, JournalError> {
        self.check()?;
        let active = self.pick_active()?;
        let slot = self.files[active].slot;
        let bytes = read_all(&self.files[active]).map_err(|error| self.refuse(error))?;
        let replayed = replay::replay(&bytes, slot.generation, slot.synced_end)
            .map_err(|Damage { at, why }| JournalError::Damaged { file: self.path(active), at, why })?;
        // What was read may be in the page cache only; from now on it is relied upon. The last run may have ended with a
        // failed sync, after which the kernel takes those pages for clean: only writing them again gets them to the disk.
        for index in 0..self.files.len() {
            self.put_head(index, self.files[index].slot)?;
        }
        let start = replayed.chain.synced_end.clamp(BODY, replayed.end);
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let tail = bytes.get(index(start)..index(replayed.end)).unwrap_or_default();
        self.files[active].file.write_at(tail, start).map_err(|error| self.refuse(error))?;
        self.sync_file(active)?;
        self.active = active;
        self.end = replayed.end;
        // No two runs of a generation have the same: the head was written anew.
        let run = self.files[active].slot.sequence;
        self.chain = Chain { run, synced_end: replayed.end, ..replayed.chain };
        self.put_synced_end()?;
        self.switch_pending = self.files[1 - active].slot.usage == Use::Current;
        Ok(replayed.contents)
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.check()?;
        let limit = self.file().bytes - VOTE_RESERVE;
        let (mut buffer, mut chain) = (Vec::new(), self.chain);
        for (entry, more) in entries.iter().zip((0..entries.len()).rev()) {
            encode(&mut buffer, &mut chain, (Kind::Entry, &entry.encode_to_vec(), more), limit)?;
        }
        self.write(&buffer, chain, limit)
    }

    fn set_hard_state(&mut self, hard_state: &HardState) -> Result<(), JournalError> {
        self.check()?;
        let limit = self.file().bytes;
        let (mut buffer, mut chain) = (Vec::new(), self.chain);
        encode(&mut buffer, &mut chain, (Kind::HardState, &hard_state.encode_to_vec(), 0), limit)?;
        self.write(&buffer, chain, limit)
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.check()?;
        self.sync_file(self.active)?;
        self.chain.synced_end = self.end;
        self.put_synced_end()?;
        if self.switch_pending { self.try_to_finish_switch() } else { Ok(()) }
    }

    fn replace(&mut self, contents: &Recovered) -> Result<(), JournalError> {
        self.check()?;
        let new = 1 - self.active;
        let generation = self.files.iter().map(|file| file.slot.generation).max().unwrap_or(0) + 1;
        let mut chain = Chain::new(generation);
        let body = encode_contents(contents, &mut chain, self.files[new].bytes)?;
        // The generation is claimed first: leftovers of an attempt that was cut short never share one.
        let claim = Slot { generation, usage: Use::Superseded, synced_end: 0, ..self.files[new].slot };
        self.put_head(new, claim)?;
        for (chunk, at) in body.chunks(CHUNK).zip((BODY..).step_by(CHUNK)) {
            self.files[new].file.write_at(chunk, at).map_err(|error| self.refuse(error))?;
        }
        self.sync_file(new)?;
        let synced_end = BODY + len_u64(body.len());
        self.put_slot(new, Slot { usage: Use::Current, synced_end, ..self.files[new].slot.next() })?;
        self.active = new;
        self.end = synced_end;
        self.chain = Chain { synced_end, ..chain };
        self.switch_pending = true;
        self.try_to_finish_switch()
    }

    fn fill(&self) -> Fill {
        Fill { capacity: self.file().bytes - BODY - VOTE_RESERVE, used: self.end - BODY }
    }

    fn cost(&self, count: u64, entry_bytes: u64) -> u64 {
        // Head, padding, and the entry's own fields beside its data.
        count.saturating_mul(len_u64(record::HEAD_BYTES) + 8 + 48).saturating_add(entry_bytes)
    }

    fn label(&self) -> String {
        format!("{}/{} (controller {})", self.disk.label(), self.dir, self.controller)
    }
}

/// Base, vote and entries, as one call: one of them that is not there is rot.
fn encode_contents(
    contents: &Recovered,
    chain: &mut Chain,
    file_bytes: u64,
) -> Result<Vec<u8>, JournalError> {
    let limit = file_bytes - VOTE_RESERVE;
    let mut body = Vec::new();
    let entries = contents.entries.len();
    encode(&mut body, chain, (Kind::Base, &replay::encode_base(contents), entries + 1), limit)?;
    encode(&mut body, chain, (Kind::HardState, &contents.hard_state.encode_to_vec(), entries), limit)?;
    for (entry, more) in contents.entries.iter().zip((0..entries).rev()) {
        encode(&mut body, chain, (Kind::Entry, &entry.encode_to_vec(), more), limit)?;
    }
    let (needed, room) = (len_u64(body.len()), limit - BODY);
    if needed > room { Err(JournalError::OutOfRoom { needed, room }) } else { Ok(body) }
}

fn encode(
    buffer: &mut Vec<u8>,
    chain: &mut Chain,
    (kind, payload, more): (Kind, &[u8], usize),
    room: u64,
) -> Result<(), JournalError> {
    u32::try_from(more)
        .ok()
        .and_then(|more| record::encode(buffer, chain, kind, payload, more))
        .ok_or(JournalError::OutOfRoom { needed: len_u64(payload.len()), room })
}

fn open_file(disk: &SharedDisk, dir: &str, name: &str, controller: u64) -> Result<LogFile, JournalError> {
    let people = people_path(disk, dir, name);
    let damaged = |why| JournalError::Damaged { file: people.clone(), at: 0, why };
    let file = match disk.open(&format!("{dir}/{name}"), OpenMode::Write) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Err(JournalError::Missing { file: people }),
        Err(error) => return Err(classify(error)),
    };
    let mut head = vec![0u8; 4096 + SLOT_BYTES];
    let read = file.read_at(&mut head, 0).map_err(classify)?;
    head.truncate(read);
    let slot = Slot::newest(&head).ok_or_else(|| damaged("neither head slot is readable"))?;
    if slot.controller != controller {
        return Err(damaged("it belongs to another controller"));
    }
    let bytes = file.len().map_err(classify)?;
    let sizes = JournalSettings::FILE_BYTES_MIN..=JournalSettings::FILE_BYTES_MAX;
    if bytes != slot.file_bytes || !sizes.contains(&bytes) {
        return Err(damaged("its length is not the one it was made with"));
    }
    Ok(LogFile { file, slot, bytes })
}

fn read_all(file: &LogFile) -> Result<Vec<u8>, DiskError> {
    let bytes = usize::try_from(file.bytes).unwrap_or(0);
    let mut contents = vec![0u8; bytes];
    let mut at = 0;
    while at < bytes {
        let upto = bytes.min(at + CHUNK);
        match file.file.read_at(&mut contents[at..upto], len_u64(at))? {
            0 => break,
            read => at += read,
        }
    }
    contents.truncate(at);
    Ok(contents)
}

fn write_zeros(file: &dyn DiskFile, bytes: u64) -> Result<(), DiskError> {
    let zeros = vec![0u8; CHUNK];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(len_u64(CHUNK));
        file.write_at(&zeros[..usize::try_from(len).unwrap_or(CHUNK)], at)?;
        at += len;
    }
    Ok(())
}

fn people_path(disk: &SharedDisk, dir: &str, name: &str) -> String {
    format!("{}/{dir}/{name}", disk.label())
}

fn classify(error: DiskError) -> JournalError {
    match error {
        DiskError::VolumeFailed { .. } => JournalError::Failed(error),
        DiskError::OutOfSpace { .. }
        | DiskError::NotFound { .. }
        | DiskError::AlreadyExists { .. }
        | DiskError::Locked
        | DiskError::Exhausted { .. }
        | DiskError::Unknown { .. } => JournalError::Refused(error),
    }
}

/// Whatever a failed sync is called, it is final.
fn final_error(error: DiskError) -> DiskError {
    match error {
        DiskError::VolumeFailed { .. } => error,
        _ => DiskError::VolumeFailed { cause: FailureCause::SyncFailed, operation: "journal sync" },
    }
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
