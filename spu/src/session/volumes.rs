//! What people ask of a node's volumes: the service `plimsoll.v1.Volumes`.

use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::v1::{self, ErrorDetail};
use tonic::{Request, Response, Status};

use super::request::invalid;
use crate::runtime::NodeHandle;

/// Longest time that a mark stays lowered.
const BORROW_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest drill.
const DRILL_MAX: Duration = Duration::from_secs(3600);

/// Serves `plimsoll.v1.Volumes`.
#[derive(Clone)]
pub struct VolumesService {
    node: NodeHandle,
}

impl VolumesService {
    /// A service on `node`.
    pub fn new(node: NodeHandle) -> Self {
        Self { node }
    }
}

/// A time from the wire, 1 ms to `max`.
fn ttl(ms: u64, max: Duration) -> Result<Duration, ErrorDetail> {
    let ttl = Duration::from_millis(ms);
    if ms > 0 && ttl <= max {
        return Ok(ttl);
    }
    let mut detail = invalid(format!("ttl_ms must be 1 to {}", max.as_millis()));
    detail.limit = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    Err(detail)
}

/// The level of a drill; none ends it.
fn drill_level(request: &v1::DrillRequest) -> Result<Option<DiskLevel>, ErrorDetail> {
    match v1::DiskLevel::try_from(request.level) {
        Ok(v1::DiskLevel::Unspecified) => Ok(None),
        Ok(v1::DiskLevel::Reclaim) => Ok(Some(DiskLevel::Reclaim)),
        Ok(v1::DiskLevel::Throttle) => Ok(Some(DiskLevel::Throttle)),
        Ok(v1::DiskLevel::ReadOnly) => Ok(Some(DiskLevel::ReadOnly)),
        Ok(v1::DiskLevel::Normal | v1::DiskLevel::Failed) | Err(_) => {
            Err(invalid("a drill leads to reclaim, throttle or read-only"))
        }
    }
}

#[tonic::async_trait]
impl v1::volumes_server::Volumes for VolumesService {
    async fn plan_reclaim(
        &self,
        request: Request<v1::PlanReclaimRequest>,
    ) -> Result<Response<v1::PlanReclaimResponse>, Status> {
        let request = request.into_inner();
        let plan = self.node.reclaim(&request.volume_id, request.target_free_bytes, false).await?;
        Ok(Response::new(plan))
    }

    async fn reclaim(
        &self,
        request: Request<v1::PlanReclaimRequest>,
    ) -> Result<Response<v1::PlanReclaimResponse>, Status> {
        let request = request.into_inner();
        let plan = self.node.reclaim(&request.volume_id, request.target_free_bytes, true).await?;
        Ok(Response::new(plan))
    }

    async fn borrow(
        &self,
        request: Request<v1::BorrowRequest>,
    ) -> Result<Response<v1::BorrowResponse>, Status> {
        let request = request.into_inner();
        let ttl = if request.bytes == 0 { Duration::ZERO } else { ttl(request.ttl_ms, BORROW_MAX)? };
        Ok(Response::new(self.node.borrow(&request.volume_id, request.bytes, ttl, request.dry_run).await?))
    }

    async fn drill(&self, request: Request<v1::DrillRequest>) -> Result<Response<v1::DrillResponse>, Status> {
        let request = request.into_inner();
        let level = drill_level(&request)?;
        let ttl = if level.is_none() { Duration::ZERO } else { ttl(request.ttl_ms, DRILL_MAX)? };
        Ok(Response::new(self.node.drill(&request.volume_id, level, ttl, request.dry_run).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_levels_from_outside_are_bounded() {
        assert_eq!(ttl(1, DRILL_MAX).expect("short"), Duration::from_millis(1));
        for bad in [0, 3_600_001, u64::MAX] {
            assert_eq!(ttl(bad, DRILL_MAX).expect_err("out of bounds").limit, 3_600_000);
        }
        let level = |level| drill_level(&v1::DrillRequest { level, ..Default::default() });
        assert_eq!(level(0).expect("none"), None);
        assert_eq!(level(v1::DiskLevel::ReadOnly.into()).expect("a level"), Some(DiskLevel::ReadOnly));
        for bad in [1, 5, 99, -1] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }
}
