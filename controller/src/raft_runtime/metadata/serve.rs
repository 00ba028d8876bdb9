//! The process of a metadata store: serves one [`RocksStore`] to the controller that started it.
//!
//! RocksDB aborts whatever process it is in. Here that ends nothing else, and leaves what the last write left.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk as _, DiskError};
use rustix::fs::{FileType, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

use super::frames::{Answer, Contents, HEADER_BYTES, Request, body_of, frame, message_in};
use super::{MetadataError, MetadataStore as _, RocksSettings, RocksStore};

/// Held while the store is open: a process that is slow to end must not meet the next one in it.
const LOCK: &str = "metadata.lock";

/// Why a process does not serve a store, or ends before it is told to. The controller logs it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody typed the command. Exit code 2.
    #[error(
        "this is for a controller to start, with the place of its metadata store; see `plimsoll controller run`"
    )]
    NotOfController,
    /// The data directory can't be used.
    #[error("the metadata store in {dir} can't be used: {error}")]
    Disk {
        /// The data directory.
        dir: String,
        /// What its disk says.
        error: DiskError,
    },
    /// The store is of no use to this process any more; the next one may fare better.
    #[error("{0}")]
    Unusable(String),
    /// What came from the controller can't be read, or the answer can't be sent.
    #[error("the controller can't be understood: {0}")]
    Connection(#[from] io::Error),
}

/// What [`serve`] has to be told.
pub(super) fn arguments(root: &Path, settings: &RocksSettings) -> Vec<OsString> {
    let RocksSettings { dir, margin_bytes, ballast_bytes, flushes_per_compaction } = settings;
    vec![
        root.into(),
        dir.into(),
        margin_bytes.to_string().into(),
        ballast_bytes.to_string().into(),
        flushes_per_compaction.to_string().into(),
    ]
}

fn place(arguments: Vec<OsString>) -> Option<(PathBuf, RocksSettings)> {
    let [root, rest @ ..] = &arguments[..] else { return None };
    let rest: Vec<&str> = rest.iter().map(|argument| argument.to_str()).collect::<Option<_>>()?;
    let [dir, margin, ballast, flushes] = rest[..] else { return None };
    let settings = RocksSettings {
        dir: dir.to_owned(),
        margin_bytes: margin.parse().ok()?,
        ballast_bytes: ballast.parse().ok()?,
        flushes_per_compaction: flushes.parse().ok()?,
    };
    Some((root.into(), settings))
}

/// Serves the store that `arguments` name over the socket at standard input, until the controller closes it or ends.
/// Blocks. To be called at the start of a process that does nothing else: it ends with the thread that started it, and
/// leaves no core dump.
///
/// # Errors
/// See [`ServeError`]; the process is to end with its text on standard error.
pub fn serve(arguments: Vec<OsString>) -> Result<(), ServeError> {
    let (root, settings) = place(arguments).ok_or(ServeError::NotOfController)?;
    let mut connection = connection().ok_or(ServeError::NotOfController)?;
    become_expendable();
    let unusable = |error| ServeError::Disk { dir: root.display().to_string(), error };
    let disk = Arc::new(RealDisk::open_existing(&root).map_err(unusable)?);
    let _held = disk.lock(LOCK).map_err(unusable)?;
    let mut store = RocksStore::new(disk, &root, settings);
    while let Some(request) = next_request(&mut connection)? {
        let answer = answer(&mut store, request)?;
        connection.write_all(&frame(&answer)?)?;
    }
    Ok(())
}

/// Standard input, if a controller is at its other end.
fn connection() -> Option<UnixStream> {
    let stdin = io::stdin();
    let mode = rustix::fs::fstat(&stdin).ok()?.st_mode;
    (FileType::from_raw_mode(mode) == FileType::Socket).then_some(())?;
    stdin.as_fd().try_clone_to_owned().ok().map(UnixStream::from)
}

/// Each of these only makes the end of this process cheaper for others: it goes on without.
fn become_expendable() {
    // A controller that is killed while this one is busy: the end of the connection would be seen only afterwards.
    let _asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // It ends for want of disk space; a core dump would take what is left. Dumps into a pipe know no limit (core(5)).
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _limited = rustix::process::setrlimit(Resource::Core, none);
    let _off = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // The controller reads its last words when it has ended; until then a full pipe must not stop it.
    let stderr = io::stderr();
    let _unblocked = rustix::fs::fcntl_getfl(&stderr)
        .and_then(|flags| rustix::fs::fcntl_setfl(&stderr, flags | OFlags::NONBLOCK));
    let _named = rustix::thread::set_name(c"plimsoll-store");
}

/// `None` at the end of the connection.
fn next_request(connection: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut header = [0; HEADER_BYTES];
    match connection.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (length, checksum) = body_of(header)?;
    let mut body = Vec::new();
    // It grows with what arrives.
    connection.take(length).read_to_end(&mut body)?;
    message_in(&body, length, checksum).map(Some)
}

fn answer(store: &mut RocksStore, request: Request) -> Result<Answer, ServeError> {
    let done = match request.write {
        Some(write) => store.write(&write.into()).map(|()| None),
        None => store.load(),
    };
    let begun_anew = store.begun_anew();
    match done {
        Ok(stored) => Ok(Answer { no_room: false, stored: stored.map(Contents::from), begun_anew }),
        Err(MetadataError::NoRoom) => Ok(Answer { no_room: true, stored: None, begun_anew }),
        Err(MetadataError::Unusable(why) | MetadataError::Interrupted(why)) => Err(ServeError::Unusable(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_store_is_told_whole_or_not_at_all() {
        let root = Path::new("/a b/\u{e4}");
        let settings =
            RocksSettings { margin_bytes: u64::MAX, flushes_per_compaction: 3, ..RocksSettings::default() };
        let told = arguments(root, &settings);
        assert_eq!(place(told.clone()), Some((root.to_owned(), settings)));
        for count in 0..told.len() {
            assert_eq!(place(told[..count].to_vec()), None);
        }
        assert_eq!(place([told.clone(), vec!["more".into()]].concat()), None);
        for at in 2..told.len() {
            let mut odd = told.clone();
            odd[at] = "-1".into();
            assert_eq!(place(odd), None);
        }
    }
}
