//! What nodes last told the leader about themselves: a picture of the moment, never part of the state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_proto::ids::{Incarnation, SpuId, VolumeId};
use plimsoll_proto::v1;

use crate::election::VolumeLevels;
use crate::placement::Facts;

/// The last heartbeat of one node.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) incarnation: Incarnation,
    pub(super) at: Duration,
    pub(super) volumes: Vec<v1::VolumeFacts>,
}

/// Facts of all nodes; clones share them. The lock is held for a look, never across an await.
#[derive(Clone, Debug, Default)]
pub(super) struct FactsTable {
    heard: Arc<Mutex<BTreeMap<SpuId, Heard>>>,
}

impl FactsTable {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SpuId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: a new leader starts with what it hears itself.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn put(&self, spu: SpuId, heard: Heard) {
        self.lock().insert(spu, heard);
    }

    pub(super) fn get(&self, spu: SpuId) -> Option<Heard> {
        self.lock().get(&spu).cloned()
    }

    /// Nodes heard from since `since`, the latest first.
    pub(super) fn heard_since(&self, since: Duration) -> Vec<SpuId> {
        let heard = self.lock();
        let mut recent: Vec<_> =
            heard.iter().filter(|(_, h)| h.at >= since).map(|(spu, h)| (h.at, *spu)).collect();
        recent.sort_by(|a, b| b.cmp(a));
        recent.into_iter().map(|(_, spu)| spu).collect()
    }

    /// Facts of every volume heard since `since`.
    pub(super) fn volumes(&self, since: Duration) -> Facts {
        let heard = self.lock();
        let recent = heard.iter().filter(|(_, heard)| heard.at >= since);
        recent
            .flat_map(|(spu, heard)| heard.volumes.iter().map(move |facts| (*spu, facts)))
            .filter_map(|(spu, facts)| {
                Some(((spu, VolumeId::from_slice(&facts.volume_id).ok()?), facts.clone()))
            })
            .collect()
    }

    /// Levels of every volume heard since `since`; volumes whose sensor has no answer are left out.
    pub(super) fn levels(&self, since: Duration) -> VolumeLevels {
        self.volumes(since)
            .into_iter()
            .filter(|(_, facts)| !facts.unknown)
            .filter_map(|(key, facts)| Some((key, facts.level().known()?)))
            .collect()
    }
}
