//! `grpc.health.v1`: one service for producing, one for fetching.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Name under which the health of producing is asked for: NOT_SERVING only when no volume is writable.
pub const PRODUCE_SERVICE: &str = "plimsoll.produce";
/// Name under which the health of fetching is asked for: SERVING until the node stops.
pub const FETCH_SERVICE: &str = "plimsoll.fetch";

/// Keeps the health of both services up to date until the node stops. The empty service name, which stands
/// for the whole node, follows fetching.
pub async fn report_health(
    reporter: HealthReporter,
    mut produce: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    reporter.set_service_status(FETCH_SERVICE, ServingStatus::Serving).await;
    loop {
        let status = match *produce.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status(PRODUCE_SERVICE, status).await;
        let gone = tokio::select! {
            changed = produce.changed() => changed.is_err(),
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        if gone {
            break;
        }
    }
    for service in ["", PRODUCE_SERVICE, FETCH_SERVICE] {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
}
