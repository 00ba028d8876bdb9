//! What the node asks of the leading controller.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plimsoll_host::Task;
use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::{Incarnation, VolumeId};
use plimsoll_proto::v1::{self, Reason};
use tokio::sync::mpsc;

use super::controllers::{CallError, Controllers};
use super::link::ControlSettings;
use crate::runtime::{ChangeInSync, ChangeVolume, ControlRequest, NodeHandle};

/// In-sync changes on their way at the same time; others wait in the node's queue.
const IN_SYNC_AT_ONCE_MAX: usize = 64;
const IN_SYNC_LIMIT: Duration = Duration::from_secs(3);
const VOLUME_LIMIT: Duration = Duration::from_secs(2);
const KIND: &str = "volume state can't be changed";

#[derive(Clone)]
pub(super) struct Asker {
    pub(super) controllers: Controllers,
    pub(super) node: NodeHandle,
    pub(super) settings: ControlSettings,
    pub(super) stale: mpsc::Sender<Incarnation>,
}

impl Asker {
    /// Sends what the node asks for, until the node is gone.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<ControlRequest>) {
        let mut in_sync = FuturesUnordered::new();
        // One task for each volume: a newer request replaces an older one.
        let mut volumes: BTreeMap<VolumeId, Task> = BTreeMap::new();
        loop {
            tokio::select! {
                request = requests.recv(), if in_sync.len() < IN_SYNC_AT_ONCE_MAX => match request {
                    Some(ControlRequest::ChangeInSync(change)) => in_sync.push(self.change_in_sync(change)),
                    Some(ControlRequest::ChangeVolume(change)) => {
                        let volume = change.volume;
                        let asking = self.clone().change_volume(change);
                        volumes.insert(volume, self.controllers.host().tasks.spawn("change volume", asking));
                    }
                    // A full queue holds the same word already.
                    Some(ControlRequest::RegisterAgain(spent)) => drop(self.stale.try_send(spent)),
                    None => return,
                },
                Some(()) = in_sync.next() => {}
            }
        }
    }

    /// Asks once. Without an answer the leader that proposed decides what to do.
    async fn change_in_sync(&self, change: ChangeInSync) {
        let ChangeInSync { partition, incarnation, leader_epoch, partition_epoch, in_sync, reason, answer } =
            change;
        let member = |(spu, incarnation): &(plimsoll_proto::ids::SpuId, Incarnation)| v1::InSyncMember {
            spu_id: spu.0,
            incarnation: incarnation.0,
        };
        let request = v1::ChangeInSyncRequest {
            cluster_id: self.settings.cluster_id.to_bytes(),
            spu_id: self.settings.spu_id.0,
            incarnation: incarnation.0,
            topic_id: partition.topic_id.to_bytes(),
            partition: partition.index,
            leader_epoch: leader_epoch.0,
            partition_epoch: partition_epoch.0,
            in_sync: in_sync.iter().map(member).collect(),
            reason,
        };
        let called = self
            .controllers
            .call(IN_SYNC_LIMIT, |mut client| {
                let request = request.clone();
                async move { client.change_in_sync(request).await }
            })
            .await;
        match called {
            // A leader that stopped waiting has moved on.
            Ok(response) => drop(answer.send(response)),
            Err(error) => self.note(&error, incarnation),
        }
    }

    /// Asks until the volume is in the wanted state, as far as a controller or the image says.
    async fn change_volume(self, change: ChangeVolume) {
        let host = self.controllers.host().clone();
        let subject = change.volume.short();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), &host.random);
        let request = v1::ChangeVolumeRequest {
            cluster_id: self.settings.cluster_id.to_bytes(),
            spu_id: self.settings.spu_id.0,
            incarnation: change.incarnation.0,
            volume_id: change.volume.to_bytes(),
            expected: change.expected.into(),
            wanted: change.wanted.into(),
            reason: change.reason.clone(),
        };
        loop {
            let (_, incarnation) = self.node.identity();
            if incarnation != change.incarnation || self.shows(&change) {
                self.controllers.works_again(&subject, KIND);
                return;
            }
            let called = self
                .controllers
                .call(VOLUME_LIMIT, |mut client| {
                    let request = request.clone();
                    async move { client.change_volume(request).await }
                })
                .await;
            match called {
                Ok(answer) if answer.applied || answer.current() == change.wanted => {
                    self.controllers.works_again(&subject, KIND);
                    return;
                }
                Ok(answer) => {
                    let why = format!(
                        "it is {}, not {}",
                        answer.current().as_str_name(),
                        change.expected.as_str_name()
                    );
                    self.controllers.trouble(&subject, KIND, &why);
                }
                Err(error) => {
                    self.note(&error, change.incarnation);
                    self.controllers.trouble(&subject, KIND, &error.to_string());
                }
            }
            host.clock.sleep(backoff.next_pause()).await;
        }
    }

    fn shows(&self, change: &ChangeVolume) -> bool {
        self.node.metadata().volume_state(self.settings.spu_id, change.volume) == change.wanted
    }

    fn note(&self, error: &CallError, incarnation: Incarnation) {
        if let CallError::Refused(detail) = error
            && detail.reason() == Reason::StaleIncarnation
        {
            // A full queue holds the same word already.
            let _ = self.stale.try_send(incarnation);
        }
    }
}
