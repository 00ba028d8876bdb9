//! `grpc.health.v1` and reflection.
//!
//! `""` and `plimsoll.v1.Metadata` are SERVING while this controller knows a leader; `plimsoll.v1.Control` and
//! `plimsoll.v1.Admin` while it leads. A full disk alone never makes a controller NOT_SERVING; a journal that takes
//! nothing does, for then it knows no leader.

use std::sync::Arc;

use plimsoll_host::{Host, Task};
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1;
use tokio::sync::watch;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService as Reported};

use crate::raft_runtime::View;

/// The service as it is added to a server.
pub(crate) type HealthService = HealthServer<Reported>;

const READABLE: [&str; 2] = ["", "plimsoll.v1.Metadata"];
const LEADING: [&str; 2] = ["plimsoll.v1.Control", "plimsoll.v1.Admin"];

/// The service, and the task that keeps it true.
pub(crate) fn service(
    host: &Host,
    id: ControllerId,
    views: watch::Receiver<Arc<View>>,
) -> (HealthService, Task) {
    let reporter = HealthReporter::new();
    let service = HealthServer::new(Reported::from_health_reporter(reporter.clone()));
    (service, host.tasks.spawn("health", report(reporter, id, views)))
}

async fn report(reporter: HealthReporter, id: ControllerId, mut views: watch::Receiver<Arc<View>>) {
    let mut before = None;
    loop {
        let (readable, leading) = {
            let view = views.borrow_and_update();
            (view.leader.is_some(), view.is_leader)
        };
        if before != Some((readable, leading)) {
            set(&reporter, &READABLE, readable).await;
            set(&reporter, &LEADING, leading).await;
            if leading {
                tracing::info!(controller = %id, "this controller leads");
            }
            before = Some((readable, leading));
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

async fn set(reporter: &HealthReporter, services: &[&str], serving: bool) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    for service in services {
        reporter.set_service_status(*service, if serving { Serving } else { NotServing }).await;
    }
}

/// Reflection over every service of the controller.
///
/// # Errors
/// The descriptors of the build can't be read.
pub(crate) fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}
