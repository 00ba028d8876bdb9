//! What tests of sessions share.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::ControllerId;
use tokio::sync::{mpsc, watch};

use super::shared::{SessionSettings, Shared};
use crate::liveness::Event;
use crate::raft_runtime::journal::{MemoryJournal, Recovered};
use crate::raft_runtime::metadata::MemoryStore;
use crate::raft_runtime::{MemoryIdentity, RaftHandle, RaftSettings, start};

/// What the services of one controller share, over a lane that is its only voter and leads.
pub(super) struct Alone {
    pub(super) shared: Shared,
    pub(super) raft: RaftHandle,
    pub(super) term: u64,
    _queue: mpsc::Receiver<(Duration, Event)>,
    _stopping: watch::Sender<bool>,
}

impl Alone {
    pub(super) async fn start(settings: SessionSettings) -> Self {
        let host = Host::real();
        let id = ControllerId(1);
        let raft = RaftSettings::new(id, BTreeMap::from([(id, "127.0.0.1:1".to_owned())]));
        let journal = Box::new(MemoryJournal::new(Recovered::fresh([1]), 64 << 20));
        let (identity, store) = (Box::new(MemoryIdentity::default()), Box::new(MemoryStore::default()));
        let (raft, peers) = start(&host, raft, identity, journal, store, None).await.expect("it starts");
        let mut views = raft.watch();
        let term = views.wait_for(|view| view.is_leader).await.expect("it leads").term;
        let vantage = peers.vantage(&host);
        let (stopping, stopped) = watch::channel(false);
        let (shared, queue) = Shared::new(host, id, settings, raft.clone(), vantage, stopped);
        Self { shared, raft, term, _queue: queue, _stopping: stopping }
    }
}
