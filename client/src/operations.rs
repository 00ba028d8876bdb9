//! Calls of operators: topics that change while in use, nodes, replicas that move, controllers.

use plimsoll_proto::ids::{ControllerId, SpuId};
use plimsoll_proto::v1::{self, change_controller_request};

use crate::admin::Admin;
use crate::error::AdminError;

impl Admin {
    /// Changes what the request names of a topic's configuration; storage nodes apply it while they run. Returns the
    /// whole configuration. Repeating it changes nothing.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `INVALID_ARGUMENT`: correct the request. `CONTROLLER_DISK`, `NO_QUORUM`: later.
    pub async fn alter_topic(&self, request: v1::AlterTopicRequest) -> Result<v1::TopicConfig, AdminError> {
        let altered = self
            .call(&mut false, move |mut admin| {
                let request = request.clone();
                async move { admin.alter_topic(request).await }
            })
            .await?;
        self.visible(altered.version).await;
        altered.config.ok_or_else(|| AdminError::Malformed("the answer has no configuration".to_owned()))
    }

    /// Adds partitions until the topic has `total`. Records with a key may go to another partition afterwards than
    /// before: their order holds within each partition only. Repeating it changes nothing.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `INVALID_ARGUMENT` (fewer than there are, or too many): correct the request. `NO_PLACEMENT`:
    /// not enough storage nodes with room are online. `CONTROLLER_DISK`, `NO_QUORUM`: later.
    pub async fn add_partitions(&self, name: impl Into<String>, total: u32) -> Result<(), AdminError> {
        let name = name.into();
        let added = self
            .call(&mut false, move |mut admin| {
                let request = v1::AddPartitionsRequest { name: name.clone(), total };
                async move { admin.add_partitions(request).await }
            })
            .await?;
        self.visible(added.version).await;
        Ok(())
    }

    /// Cordons or drains a node, takes it out of service, or brings it back; the duty it had before. `force` takes
    /// it out of service even where it has the only living in-sync copy of a partition. Repeating it changes
    /// nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: no such node. `EXPECTATION_FAILED`: it has an only copy.
    pub async fn set_spu_duty(
        &self,
        spu: SpuId,
        duty: v1::SpuDuty,
        force: bool,
    ) -> Result<v1::SpuDuty, AdminError> {
        let answer = self
            .call(&mut false, move |mut admin| {
                let request = v1::SetSpuDutyRequest { spu_id: spu.0, duty: duty.into(), force };
                async move { admin.set_spu_duty(request).await }
            })
            .await?;
        self.visible(answer.version).await;
        Ok(answer.before())
    }

    /// Moves a partition to these nodes, in order of preference; returns at once with what moves, or `None` when
    /// nothing has to. With `dry_run` nothing is begun. New replicas are added, catch up, and only then the old ones
    /// go.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `INVALID_ARGUMENT`: correct the request. `NO_PLACEMENT`: a node has no
    /// volume at level normal. `EXPECTATION_FAILED`: the partition is on its way already; cancel that first.
    pub async fn reassign(
        &self,
        topic: impl Into<String>,
        partition: u32,
        to: Vec<SpuId>,
        dry_run: bool,
    ) -> Result<Option<v1::PartitionMove>, AdminError> {
        let request = v1::ReassignRequest {
            topic: topic.into(),
            partition,
            to: to.into_iter().map(|spu| spu.0).collect(),
            dry_run,
            cancel: false,
        };
        Ok(self.send_reassign(request).await?.r#move)
    }

    /// Calls the move of a partition off: the added replicas go.
    ///
    /// # Errors
    /// `EXPECTATION_FAILED`: it is not on its way, or only added replicas are in sync.
    pub async fn cancel_reassign(&self, topic: impl Into<String>, partition: u32) -> Result<(), AdminError> {
        let request =
            v1::ReassignRequest { topic: topic.into(), partition, cancel: true, ..Default::default() };
        self.send_reassign(request).await.map(drop)
    }

    async fn send_reassign(&self, request: v1::ReassignRequest) -> Result<v1::ReassignResponse, AdminError> {
        let dry_run = request.dry_run;
        let answer = self
            .call(&mut false, move |mut admin| {
                let request = request.clone();
                async move { admin.reassign(request).await }
            })
            .await?;
        if !dry_run {
            self.visible(answer.version).await;
        }
        Ok(answer)
    }

    /// Begins to move replicas off volumes at level throttle or worse onto those with room, one of each volume, or
    /// with `dry_run` only says which. The controllers do so by themselves after a while.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn relieve(&self, dry_run: bool) -> Result<Vec<v1::PartitionMove>, AdminError> {
        self.send_relieve(v1::RelieveRequest { dry_run, cancel: false }).await
    }

    /// Calls every relief off that is under way; which those were.
    ///
    /// # Errors
    /// `EXPECTATION_FAILED` where only added replicas are in sync; what was called off before stays so.
    pub async fn cancel_relief(&self) -> Result<Vec<v1::PartitionMove>, AdminError> {
        self.send_relieve(v1::RelieveRequest { dry_run: false, cancel: true }).await
    }

    async fn send_relieve(&self, request: v1::RelieveRequest) -> Result<Vec<v1::PartitionMove>, AdminError> {
        let answer =
            self.call(&mut false, move |mut admin| async move { admin.relieve(request).await }).await?;
        if !request.dry_run {
            self.visible(answer.version).await;
        }
        Ok(answer.moves)
    }

    /// Takes a controller into the cluster that was started with `--join` at this `HOST:PORT`.
    ///
    /// # Errors
    /// `EXPECTATION_FAILED`: nothing answers there, or the id was that of a controller that left.
    pub async fn add_controller(&self, id: ControllerId, address: String) -> Result<(), AdminError> {
        let add = v1::ControllerAddress { controller_id: id.0, address };
        self.change_controller(change_controller_request::Change::Add(add)).await.map(drop)
    }

    /// Removes a controller; its id is never used again.
    ///
    /// # Errors
    /// `EXPECTATION_FAILED`: without it no majority of the others answers.
    pub async fn remove_controller(&self, id: ControllerId) -> Result<(), AdminError> {
        self.change_controller(change_controller_request::Change::Remove(id.0)).await.map(drop)
    }

    /// Makes another controller lead; which one leads then.
    ///
    /// # Errors
    /// `EXPECTATION_FAILED`: it does not answer. `TIMED_OUT`: it did not take the lead.
    pub async fn transfer_controller(&self, to: ControllerId) -> Result<ControllerId, AdminError> {
        let answer = self.change_controller(change_controller_request::Change::Transfer(to.0)).await?;
        Ok(ControllerId(answer.leader))
    }

    async fn change_controller(
        &self,
        change: change_controller_request::Change,
    ) -> Result<v1::ChangeControllerResponse, AdminError> {
        self.call(&mut false, move |mut admin| {
            let request = v1::ChangeControllerRequest { change: Some(change.clone()) };
            async move { admin.change_controller(request).await }
        })
        .await
    }

    /// The state of the cluster as any controller knows it, also one that has no quorum; `stale` in the answer says
    /// that it may be old. Of several answers the one that has applied most.
    ///
    /// # Errors
    /// `NoController` when none answers within the deadline.
    pub async fn stale_cluster_status(&self) -> Result<v1::ClusterStatusResponse, AdminError> {
        self.newest(
            |mut admin| async move { admin.cluster_status(v1::ClusterStatusRequest { stale: true }).await },
            |answer| answer.applied_index,
        )
        .await
    }
}
