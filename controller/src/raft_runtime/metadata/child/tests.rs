//! The process is this program of tests, started again with one test to run: [`the_process_of_a_store`].

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, entry::Change};
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::fs::{Disk as _, OpenMode, SharedDisk};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::*;
use crate::cluster::RULES_VERSION;
use crate::raft_runtime::journal::JournalSettings;
use crate::raft_runtime::metadata::conformance::{batch, small, stored, suite};
use crate::raft_runtime::testing::TempDir;
use crate::raft_runtime::{DataDir, RaftHandle, RaftSettings, start};

/// What stands between the arguments of the tests and those of the process.
const MARK: &str = "for-the-process";
/// What a test waits for at most; all of it takes a fraction of a second.
const LONG: Duration = Duration::from_secs(30);

/// Not a test, unless it is started by one.
#[test]
fn the_process_of_a_store() {
    let mut arguments: Vec<OsString> =
        std::env::args_os().skip_while(|argument| argument != MARK).skip(1).collect();
    if arguments.is_empty() {
        return;
    }
    let kind = arguments.remove(0);
    let answer = |bytes: &[u8]| {
        let socket = std::os::unix::net::UnixStream::from(
            std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned().unwrap(),
        );
        let mut socket = &socket;
        io::Read::read_exact(&mut socket, &mut [0; HEADER_BYTES]).unwrap();
        socket.write_all(bytes).unwrap();
    };
    match kind.to_str() {
        Some("serves") => {
            if let Err(error) = super::super::serve(arguments) {
                eprintln!("{error}");
            }
        }
        Some("aborts") => {
            eprintln!("{}\n\x1b[31mAssertion `room' failed.", "chatter ".repeat(1000));
            answer(&[]);
            std::process::abort();
        }
        Some("hangs") => {
            answer(&[]);
            loop {
                std::thread::park();
            }
        }
        Some("claims") => answer(&[255; 8]),
        Some("cuts") => answer(&frame(&Answer::default()).unwrap()[..5]),
        Some("bends") => answer(&{
            let mut bent = frame(&Answer { no_room: true, ..Answer::default() }).unwrap();
            *bent.last_mut().unwrap() ^= 1;
            bent
        }),
        other => panic!("{other:?}"),
    }
}

fn program(kind: &str) -> StoreProgram {
    let test = format!("{}::the_process_of_a_store", module_path!().split_once("::").unwrap().1);
    let arguments = [&test, "--exact", "--nocapture", MARK, kind].map(OsString::from);
    StoreProgram { path: std::env::current_exe().unwrap(), arguments: arguments.to_vec() }
}

fn store(root: &Path, settings: &RocksSettings) -> ChildStore {
    ChildStore::with_limit(&Host::real(), program("serves"), root, settings, LONG)
}

fn interrupted<T: std::fmt::Debug>(result: Result<T, MetadataError>) -> String {
    match result {
        Err(MetadataError::Interrupted(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Processes that have `root` among their arguments: those of a store there.
fn processes(root: &Path) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let of_store = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == root.as_os_str().as_encoded_bytes())
    };
    pids.filter(of_store).filter_map(Pid::from_raw).collect()
}

fn the_process(root: &Path) -> Pid {
    let [pid] = processes(root)[..] else { panic!("{:?}", processes(root)) };
    pid
}

/// Waits until the process is gone and nobody has to wait for it.
#[expect(clippy::disallowed_methods, reason = "waits for the operating system, not for code of ours")]
fn reaped(pid: Pid) {
    let begun = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(begun.elapsed() < LONG, "{pid:?} is there");
        std::thread::yield_now();
    }
}

#[test]
fn a_store_in_a_process_conforms() {
    let dir = TempDir::new("child");
    suite(|| Box::new(store(dir.path(), &small())));
    assert_eq!(processes(dir.path()), []);
}

#[test]
fn a_process_that_is_killed_comes_back_with_the_whole_state() {
    let dir = TempDir::new("child-killed");
    let mut store = store(dir.path(), &small());
    assert_eq!(store.load(), Ok(None));
    store.write(&batch(3, &[("a", Some("1")), ("b", Some("2"))], false)).unwrap();
    let first = the_process(dir.path());
    kill_process(first, Signal::KILL).unwrap();
    reaped(first);
    let part = batch(4, &[("c", Some("3"))], false);
    let why = interrupted(store.write(&part));
    assert!(why.contains("SIGKILL"), "{why}");
    assert!(interrupted(store.write(&part)).contains("no process"), "it is not started for a part");
    assert_eq!(processes(dir.path()), []);
    assert_eq!(store.load(), Ok(stored(3, &[("a", "1"), ("b", "2")])));
    assert_ne!(the_process(dir.path()), first);
    store.write(&batch(5, &[("d", Some("4"))], true)).unwrap();
    drop(store);
    assert_eq!(self::store(dir.path(), &small()).load(), Ok(stored(5, &[("d", "4")])));
}

#[test]
fn a_process_that_aborts_is_reaped_and_its_last_words_are_told() {
    let dir = TempDir::new("child-aborts");
    let mut store = ChildStore::with_limit(&Host::real(), program("aborts"), dir.path(), &small(), LONG);
    for _ in 0..3 {
        for why in [interrupted(store.load()), interrupted(store.write(&batch(1, &[], true)))] {
            assert!(why.contains("SIGABRT") && why.contains("Assertion `room' failed."), "{why}");
            assert!(why.len() < 2 * LAST_WORDS_BYTES && !why.contains(char::is_control), "{why}");
            assert_eq!(processes(dir.path()), []);
        }
    }
}

#[test]
fn a_process_that_hangs_is_killed_and_does_not_hold_up_the_end() {
    let dir = TempDir::new("child-hangs");
    let limit = Duration::from_millis(300);
    let mut store = ChildStore::with_limit(&Host::real(), program("hangs"), dir.path(), &small(), limit);
    let why = interrupted(store.load());
    assert!(why.contains("did not answer") && why.contains("SIGKILL"), "{why}");
    assert_eq!(processes(dir.path()), []);
    // More than its socket takes.
    let large = "v".repeat(4 << 20);
    let why = interrupted(store.write(&batch(1, &[("k", Some(&large))], true)));
    assert!(why.contains("did not answer"), "{why}");
    drop(store);

    let mut store = self::store(dir.path(), &small());
    store.write(&batch(3, &[("a", Some("1"))], true)).unwrap();
    let pid = the_process(dir.path());
    kill_process(pid, Signal::STOP).unwrap();
    drop(store);
    reaped(pid);
}

#[test]
fn nonsense_from_a_process_is_an_interruption() {
    let dir = TempDir::new("child-nonsense");
    for (kind, words) in [("claims", "longer than any"), ("cuts", "it ended"), ("bends", "wrong checksum")] {
        let mut store = ChildStore::with_limit(&Host::real(), program(kind), dir.path(), &small(), LONG);
        let why = interrupted(store.load());
        assert!(why.contains(words), "{kind}: {why}");
        assert_eq!(processes(dir.path()), []);
    }
    let none = StoreProgram { path: "/nowhere/plimsoll".into(), arguments: Vec::new() };
    let mut store = ChildStore::new(&Host::real(), none, dir.path(), &small());
    let why = interrupted(store.load());
    assert!(why.contains("/nowhere/plimsoll"), "{why}");
}

#[test]
fn two_processes_never_have_the_store_open() {
    let dir = TempDir::new("child-twice");
    let mut first = store(dir.path(), &small());
    first.write(&batch(3, &[("a", Some("1"))], true)).unwrap();
    let mut second = store(dir.path(), &small());
    for why in [interrupted(second.load()), interrupted(second.write(&batch(4, &[], true)))] {
        assert!(why.contains("locked by another process"), "{why}");
    }
    first.write(&batch(5, &[("b", Some("2"))], false)).unwrap();
    drop(first);
    assert_eq!(second.load(), Ok(stored(5, &[("a", "1"), ("b", "2")])));
}

/// A controller alone, whose journal is in memory.
async fn run(host: &Host, disk: &SharedDisk, store: ChildStore) -> RaftHandle {
    let id = ControllerId(1);
    let journal =
        JournalSettings { file_bytes: JournalSettings::FILE_BYTES_MIN, ..JournalSettings::default() };
    let (identity, journal) = DataDir::open(disk, id, true, [id], &journal).unwrap();
    let mut settings = RaftSettings::new(id, BTreeMap::from([(id, "127.0.0.1:1".to_owned())]));
    settings.metadata_interval = Duration::from_millis(20);
    let parts = (Box::new(identity), Box::new(journal), Box::new(store));
    let (handle, _) = start(host, settings, parts.0, parts.1, parts.2, None).await.unwrap();
    let mut view = handle.watch();
    drop(host.clock.timeout(LONG, view.wait_for(|view| view.is_leader)).await.unwrap().unwrap());
    handle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_starts_decides_and_stops_whatever_becomes_of_its_store() {
    let host = Host::real();
    let dir = TempDir::new("child-controller");
    let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(8 << 20)));
    let mut applied = 0;
    for (kind, limit) in
        [("aborts", LONG), ("hangs", Duration::from_millis(300)), ("serves", LONG), ("aborts", LONG)]
    {
        let store = ChildStore::with_limit(&host, program(kind), dir.path(), &small(), limit);
        let handle = run(&host, &disk, store).await;
        assert!(handle.view().applied_index >= applied, "nothing is lost");
        let term = handle.view().term;
        for _ in 0..20 {
            let change = Change::AllocateProducerIds(v1::AllocateProducerIds { count: 1 });
            let entry = v1::Entry { rules: RULES_VERSION, change: Some(change), ..v1::Entry::default() };
            applied = handle.propose(entry, LONG).await.unwrap().index;
        }
        assert_eq!(handle.view().term, term);
        handle.stop(LONG).await;
        assert_eq!(processes(dir.path()), []);
        if kind == "serves" {
            let stored = self::store(dir.path(), &small()).load().unwrap().unwrap();
            assert!(stored.applied_index >= applied, "{stored:?}");
        }
    }
}

/// A tmpfs that goes when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, and a word about it, where nobody may mount.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let dir = TempDir::new(name);
        let options = std::ffi::CString::new(format!("size={bytes},mode=0755")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match rustix::mount::mount("plimsoll-test", dir.path(), "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                println!("SKIPPED {name}: mount a tmpfs: {error}");
                None
            }
        }
    }

    fn disk(&self) -> RealDisk {
        RealDisk::open(self.0.path()).unwrap()
    }

    /// A foreign writer takes all bytes but these.
    fn fill(&self, leave: u64) {
        let disk = self.disk();
        let file = disk.open("foreign", OpenMode::CreateNew).unwrap();
        let free = disk.space().unwrap().available_bytes;
        file.allocate(0, free - leave).unwrap();
        assert_eq!(disk.space().unwrap().available_bytes, leave);
    }

    fn empty(&self) {
        self.disk().remove_file("foreign").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// A look that sees room where there is none: as when a foreign writer takes it in between.
fn blind() -> RocksSettings {
    RocksSettings { margin_bytes: 0, ballast_bytes: 0, ..RocksSettings::default() }
}

/// RocksDB aborts in some of the rounds and gives an error in the others, as its threads happen to meet.
#[test]
fn a_foreign_writer_at_a_write_ends_the_process_of_the_store_only() {
    let Some(small_disk) = SmallDisk::new("child-full-at-write", 8 << 20) else { return };
    let root = small_disk.0.path();
    for index in (3..23).step_by(2) {
        let mut store = self::store(root, &blind());
        store.write(&batch(index, &[("a", Some("1"))], true)).unwrap();
        small_disk.fill(0);
        // Nothing but its position, for which the look needs no room.
        let why = interrupted(store.write(&batch(index + 1, &[], false)));
        println!("{why}");
        assert!(
            why.contains("SIGABRT") && why.contains("Assertion") || why.contains("No space left"),
            "{why}"
        );
        assert_eq!(processes(root), []);
        small_disk.empty();
        assert_eq!(store.load(), Ok(stored(index, &[("a", "1")])), "what the last successful write left");
        store.write(&batch(index + 1, &[("b", Some("2"))], true)).unwrap();
        drop(store);
        assert_eq!(self::store(root, &blind()).load(), Ok(stored(index + 1, &[("b", "2")])));
    }
}

/// The first look sees that the disk is full, and RocksDB is not opened.
#[test]
fn without_room_the_process_lives_and_touches_nothing() {
    let Some(small_disk) = SmallDisk::new("child-no-room", 8 << 20) else { return };
    let root = small_disk.0.path();
    let mut store = store(root, &small());
    store.write(&batch(3, &[("a", Some("1"))], true)).unwrap();
    let pid = the_process(root);
    small_disk.fill(64 << 10);
    assert_eq!(store.write(&batch(4, &[("b", Some("2"))], false)), Err(MetadataError::NoRoom));
    assert_eq!(the_process(root), pid);
    // RocksDB gives back what it had preallocated.
    drop(store);
    small_disk.empty();
    small_disk.fill(64 << 10);
    let mut store = self::store(root, &small());
    assert_eq!(store.load(), Err(MetadataError::NoRoom));
    small_disk.empty();
    assert_eq!(store.load(), Ok(stored(3, &[("a", "1")])));
    store.write(&batch(5, &[("b", Some("2"))], false)).unwrap();
    assert_eq!(store.load(), Ok(stored(5, &[("a", "1"), ("b", "2")])));
}
