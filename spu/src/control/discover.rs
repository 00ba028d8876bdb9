//! Learning the cluster's identity, for data directories that are still empty.

use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::ClusterId;
use plimsoll_proto::v1;
use plimsoll_proto::v1::metadata_client::MetadataClient;

use super::controllers::{Controllers, describe};

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);
const KIND: &str = "no controller tells which cluster this is";

/// Waits until a controller says which cluster it belongs to. Only a node whose data directories are all empty
/// needs this; every other one knows.
///
/// Says on the log, within its budget, which controllers do not answer and why. Cancel safe.
pub async fn discover_cluster(controllers: &Controllers) -> ClusterId {
    let host = controllers.host();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), &host.random);
    loop {
        for address in controllers.in_order() {
            match host.clock.timeout(ANSWER_WAIT_MAX, ask(controllers, &address)).await {
                Ok(Ok(cluster_id)) => {
                    controllers.works_again(&address, KIND);
                    return cluster_id;
                }
                Ok(Err(why)) => controllers.complain(&address, KIND, &why),
                Err(_) => controllers.complain(&address, KIND, "it does not answer in time"),
            }
        }
        host.clock.sleep(backoff.next_pause()).await;
    }
}

async fn ask(controllers: &Controllers, address: &str) -> Result<ClusterId, String> {
    let channel = controllers.channel(address).map_err(|status| describe(&status))?;
    let request = v1::WatchRequest { cluster_id: bytes::Bytes::new() };
    let mut updates =
        MetadataClient::new(channel).watch(request).await.map_err(|status| describe(&status))?.into_inner();
    let update = updates.message().await.map_err(|status| describe(&status))?;
    let update = update.ok_or("it ended the watch without a word")?;
    let cluster_id = ClusterId::from_slice(&update.cluster_id).map_err(|error| error.to_string())?;
    match cluster_id {
        ClusterId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => Err("it does not know yet".to_owned()),
        known => Ok(known),
    }
}
