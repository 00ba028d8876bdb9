//! What people and clients ask.

use plimsoll_proto::v1::{self, ErrorDetail, admin_server::Admin};
use tonic::{Request, Response, Status};

use super::shared::Shared;
use super::{alter, duty, elect, members, metrics, moves, status, topics};

/// Most events of one answer.
const EVENTS_MAX: u32 = 10_000;

/// Service `plimsoll.v1.Admin`.
#[derive(Clone, Debug)]
pub struct AdminService {
    shared: Shared,
}

impl AdminService {
    /// The service over what the controller shares.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn events(&self, request: v1::ListEventsRequest) -> Result<v1::ListEventsResponse, ErrorDetail> {
        let view = self.shared.read().await?;
        let limit = if request.limit == 0 { EVENTS_MAX } else { request.limit.min(EVENTS_MAX) };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events = whole_entries(view.state.events_after(request.after_index), limit);
        Ok(v1::ListEventsResponse { events })
    }
}

/// At most `limit` events, but never half of an entry's: the caller goes on after its index.
fn whole_entries<'a>(
    events: impl Iterator<Item = &'a v1::ClusterEvent>,
    limit: usize,
) -> Vec<v1::ClusterEvent> {
    let mut listed: Vec<v1::ClusterEvent> = Vec::new();
    for event in events {
        if listed.len() >= limit && listed.last().is_some_and(|last| last.index != event.index) {
            break;
        }
        listed.push(event.clone());
    }
    listed
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Ok(Response::new(topics::create(&self.shared, request.into_inner()).await?))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Ok(Response::new(topics::delete(&self.shared, request.into_inner()).await?))
    }

    async fn list_topics(
        &self,
        _request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let state = &self.shared.read().await?.state;
        let topics = state.topics().iter().map(|(id, topic)| topic.to_info(*id)).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics, version: state.version().0 }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = topics::name(&request.get_ref().name)?;
        let state = &self.shared.read().await?.state;
        let (id, topic) = state.topic_by_name(name.as_str()).ok_or_else(|| topics::unknown(&name))?;
        let (topic, version) = (Some(topic.to_info(id)), state.version().0);
        Ok(Response::new(v1::DescribeTopicResponse { topic, version }))
    }

    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        let answer = match self.shared.leading() {
            Ok(view) => status::status(&self.shared, &view),
            Err(_) if request.get_ref().stale => status::stale(&self.shared, &self.shared.raft.view()),
            Err(detail) => return Err(detail.into()),
        };
        Ok(Response::new(answer))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Ok(Response::new(self.events(request.into_inner()).await?))
    }

    async fn metrics(
        &self,
        _request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsResponse>, Status> {
        Ok(Response::new(metrics::metrics(&self.shared).await?))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let producer_id = self.shared.producer_ids.take(&self.shared).await?;
        Ok(Response::new(v1::InitProducerResponse { producer_id, producer_epoch: 0 }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Ok(Response::new(alter::alter(&self.shared, request.into_inner()).await?))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        Ok(Response::new(alter::add_partitions(&self.shared, request.into_inner()).await?))
    }

    async fn elect_leader(
        &self,
        request: Request<v1::ElectLeaderRequest>,
    ) -> Result<Response<v1::ElectLeaderResponse>, Status> {
        Ok(Response::new(elect::elect(&self.shared, request.into_inner()).await?))
    }

    async fn set_spu_duty(
        &self,
        request: Request<v1::SetSpuDutyRequest>,
    ) -> Result<Response<v1::SetSpuDutyResponse>, Status> {
        Ok(Response::new(duty::set(&self.shared, request.into_inner()).await?))
    }

    async fn reassign(
        &self,
        request: Request<v1::ReassignRequest>,
    ) -> Result<Response<v1::ReassignResponse>, Status> {
        Ok(Response::new(moves::reassign(&self.shared, request.into_inner()).await?))
    }

    async fn relieve(
        &self,
        request: Request<v1::RelieveRequest>,
    ) -> Result<Response<v1::RelieveResponse>, Status> {
        Ok(Response::new(moves::relieve(&self.shared, request.into_inner()).await?))
    }

    async fn change_controller(
        &self,
        request: Request<v1::ChangeControllerRequest>,
    ) -> Result<Response<v1::ChangeControllerResponse>, Status> {
        Ok(Response::new(members::change(&self.shared, request.into_inner()).await?))
    }
}
