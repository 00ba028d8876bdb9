//! Elections by command.

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1;

use crate::admin::Admin;
use crate::error::AdminError;

impl Admin {
    /// Gives the leadership of a partition to `to`, or to the replica that loses least, when nobody leads it or
    /// another one is asked for. The answer has what every replica holds and which committed offsets would be lost
    /// with it.
    ///
    /// Without `unclean` a replica that may lack committed records is not elected: the answer then says `unclean`
    /// and not `elected`. With `dry_run` nobody is.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `INVALID_ARGUMENT`: correct the request. `NO_LEADER`: no replica
    /// answers. `EXPECTATION_FAILED`: the partition changed meanwhile; ask again.
    pub async fn elect_leader(
        &self,
        topic: impl Into<String>,
        partition: u32,
        to: Option<SpuId>,
        unclean: bool,
        dry_run: bool,
    ) -> Result<v1::ElectLeaderResponse, AdminError> {
        let spu_id = to.map_or(0, |spu| spu.0);
        let request = v1::ElectLeaderRequest { topic: topic.into(), partition, spu_id, unclean, dry_run };
        let answer = self
            .call(&mut false, move |mut admin| {
                let request = request.clone();
                async move { admin.elect_leader(request).await }
            })
            .await?;
        if answer.elected {
            self.visible(answer.version).await;
        }
        Ok(answer)
    }
}
