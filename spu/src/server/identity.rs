//! Which cluster the data directories belong to, before any of them is opened.

use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::{ClusterId, SpuId};
use plimsoll_storage::fs::{Disk, DiskError, OpenMode, SharedDisk};
use plimsoll_storage::volume::{LOCK_FILE, OpenError, VolumeIdentity, read_identity};
use tokio::sync::oneshot;

use super::error::StartError;

/// A directory that does not answer for this long is left to the opening of its volume.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// The cluster that the directories name; `None` when all of them are fresh.
///
/// Each directory is read on a lane of its own: one on a hung mount must not keep the others from telling.
///
/// A directory that can't be read is left to the opening of its volume, unless that goes for all.
///
/// # Errors
/// [`StartError::OtherIdentity`] when one belongs to another node; [`StartError::Directory`].
pub(super) async fn known_cluster(
    host: &Host,
    spu_id: SpuId,
    disks: &[SharedDisk],
) -> Result<Option<ClusterId>, StartError> {
    let answers = ask_each(host, disks, "identity", |disk| read_identity(disk)).await;
    let mut cluster = None;
    if answers.len() == disks.len() && answers.iter().all(|(_, read)| read.is_err()) {
        return Err(answers.into_iter().find_map(|(_, read)| read.err()).map_or_else(
            || StartError::Configuration("no data directory was given".to_owned()),
            StartError::from,
        ));
    }
    for (directory, read) in answers {
        let Ok(Some(found)) = read else { continue };
        let VolumeIdentity { cluster_id, spu_id: found_spu, volume_id } = found;
        if found_spu != spu_id || cluster.is_some_and(|known| known != cluster_id) {
            let foreign = OpenError::ForeignIdentity {
                directory,
                found_cluster: cluster_id,
                found_spu,
                volume: volume_id,
            };
            return Err(foreign.into());
        }
        cluster = Some(cluster_id);
    }
    Ok(cluster)
}

/// The first directory that another process uses, if there is one: then that process is what the operator has
/// to look at, not the port.
pub(super) async fn in_use(host: &Host, disks: &[SharedDisk]) -> Option<StartError> {
    let is_locked = |disk: &dyn Disk| {
        // A directory without the file was never used; asking for the lock would make it.
        disk.open(LOCK_FILE, OpenMode::Read).is_ok() && matches!(disk.lock(LOCK_FILE), Err(DiskError::Locked))
    };
    let answers = ask_each(host, disks, "lock", is_locked).await;
    answers.into_iter().find(|(_, locked)| *locked).map(|(directory, _)| StartError::Locked { directory })
}

/// Asks every disk on a lane of its own; those that don't answer in time are left out.
async fn ask_each<T: Send + 'static>(
    host: &Host,
    disks: &[SharedDisk],
    name: &str,
    question: impl Fn(&dyn Disk) -> T + Copy + Send + 'static,
) -> Vec<(String, T)> {
    let mut asked = Vec::new();
    for disk in disks {
        let (tell, told) = oneshot::channel();
        let disk = disk.clone();
        let label = disk.label();
        host.tasks.spawn_lane(name, move || {
            Box::pin(async move {
                // Nobody waits any more for a directory that took too long.
                drop(tell.send(question(disk.as_ref())));
            })
        });
        asked.push((label, told));
    }
    let mut answers = Vec::new();
    for (label, told) in asked {
        if let Ok(Ok(answer)) = host.clock.timeout(ANSWER_WAIT_MAX, told).await {
            answers.push((label, answer));
        }
    }
    answers
}
