//! Starts that are refused because of what is on disk: each says what is wrong and what to do, changes nothing, and the
//! right start works afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use raft::eraftpb::Entry;

use super::identity::MemoryIdentity;
use super::journal::{FileJournal, Journal as _, JournalSettings, Recovered};
use super::metadata::{Batch, MemoryStore, MetadataStore as _};
use super::{RaftHandle, RaftSettings, StartError, start};
use crate::cluster::ClusterState;

fn journal_settings() -> JournalSettings {
    JournalSettings { file_bytes: JournalSettings::FILE_BYTES_MIN, ..JournalSettings::default() }
}

struct Site {
    disk: SharedDisk,
    store: MemoryStore,
}

impl Site {
    /// A controller whose journal holds this.
    fn new(contents: &Recovered) -> Self {
        let disk: SharedDisk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(4 << 20)));
        FileJournal::create(&disk, &journal_settings(), 1, contents).expect("room");
        Self { disk, store: MemoryStore::default() }
    }

    fn journal(&self) -> FileJournal {
        FileJournal::open(&self.disk, &journal_settings(), 1).expect("made")
    }

    fn contents(&self) -> Recovered {
        self.journal().load().expect("whole")
    }

    async fn start(&self, voters: &[u64]) -> Result<RaftHandle, StartError> {
        let peers: BTreeMap<_, _> =
            voters.iter().map(|id| (ControllerId(*id), format!("127.0.0.1:{id}"))).collect();
        let settings = RaftSettings::new(ControllerId(1), peers);
        let (identity, store) = (Box::<MemoryIdentity>::default(), Box::new(self.store.clone()));
        start(&Host::real(), settings, identity, Box::new(self.journal()), store, None)
            .await
            .map(|(handle, _)| handle)
    }

    async fn starts(&self, voters: &[u64]) {
        let handle = self.start(voters).await.expect("starts");
        handle.stop(std::time::Duration::from_secs(1)).await;
    }
}

fn assert_says(error: &StartError, words: &[&str]) {
    let said = error.to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_ends_before_what_was_applied_was_rolled_back() {
    let entry = |index| Entry { index, term: 1, ..Entry::default() };
    let contents = Recovered { entries: vec![entry(1), entry(2)], ..Recovered::fresh([1]) };
    let site = Site::new(&contents);
    let mut store = site.store.clone();
    let applied = |index| Batch { applied_index: index, applied_term: 1, ..Batch::default() };
    store.write(&applied(3)).expect("memory");
    let before = site.contents();
    let error = site.start(&[1]).await.expect_err("refused");
    assert!(matches!(&error, StartError::JournalBehind { last: 2, applied: 3, .. }), "{error:?}");
    assert_says(&error, &["entry 2", "entry 3", "rolled back", "journal", "new --id"]);
    assert_eq!(site.contents(), before);
    // As far as the journal goes, it may be believed.
    store.write(&applied(2)).expect("memory");
    site.starts(&[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_none_is_named() {
    let mut contents = Recovered { truncated: (4, 1), ..Recovered::fresh([1]) };
    contents.hard_state.commit = 4;
    let metadata = contents.snapshot.mut_metadata();
    (metadata.index, metadata.term) = (4, 1);
    let good = ClusterState::empty().encode_snapshot();
    let mut rotten = good.clone();
    *rotten.last_mut().expect("not empty") ^= 1;
    for data in [Vec::new(), b"no snapshot".to_vec(), good[..good.len() - 1].to_vec(), rotten] {
        contents.snapshot.data = data;
        let site = Site::new(&contents);
        let before = site.contents();
        let error = site.start(&[1]).await.expect_err("refused");
        assert!(matches!(&error, StartError::Snapshot { .. }), "{error:?}");
        assert_says(&error, &["snapshot", "journal", "restore", "new --id"]);
        assert_eq!(site.contents(), before);
    }
    contents.snapshot.data = good;
    Site::new(&contents).starts(&[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_others_than_the_cluster_was_made_with_is_named() {
    let site = Site::new(&Recovered::fresh([1, 2, 3]));
    let before = site.contents();
    for voters in [&[1][..], &[1, 2], &[1, 2, 4], &[1, 2, 3, 4]] {
        let error = site.start(voters).await.expect_err("refused");
        let StartError::OtherVoters { configured, stored } = &error else { panic!("{error:?}") };
        assert_eq!((&configured[..], &stored[..]), (voters, &[1, 2, 3][..]));
        assert_says(&error, &["[1, 2, 3]", &format!("{voters:?}"), "same list everywhere"]);
        assert_eq!(site.contents(), before);
    }
    site.starts(&[1, 2, 3]).await;
}
