//! Which cluster the data directories belong to, before any of them is opened.

use std::time::Duration;

use plimsoll_host::Host;
use plimsoll_proto::ids::{ClusterId, SpuId};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::volume::{OpenError, VolumeIdentity, read_identity};
use tokio::sync::oneshot;

use super::error::StartError;

/// A directory that does not answer for this long is left to the opening of its volume.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// The cluster that the directories name; `None` when all of them are fresh.
///
/// Each directory is read on a lane of its own: one on a hung mount must not keep the others from telling.
///
/// # Errors
/// [`StartError::OtherIdentity`] when one belongs to another node.
pub(super) async fn known_cluster(
    host: &Host,
    spu_id: SpuId,
    disks: &[SharedDisk],
) -> Result<Option<ClusterId>, StartError> {
    let mut answers = Vec::new();
    for disk in disks {
        let (tell, told) = oneshot::channel();
        let reader = disk.clone();
        host.tasks.spawn_lane("identity", move || {
            // Nobody waits any more for a directory that took too long.
            Box::pin(async move { drop(tell.send(read_identity(reader.as_ref()))) })
        });
        answers.push((disk.label(), told));
    }
    let mut cluster = None;
    for (directory, told) in answers {
        let Ok(Ok(read)) = host.clock.timeout(ANSWER_WAIT_MAX, told).await else { continue };
        let Some(found) = read.map_err(StartError::from)? else { continue };
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
