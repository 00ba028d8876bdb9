//! Registration: which incarnation this run of the node is.

use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::ids::{ClusterId, Incarnation};
use plimsoll_proto::v1::{self, Reason};
use tokio::sync::{mpsc, watch};

use super::PROTOCOL;
use super::controllers::{CallError, Controllers};
use super::link::{ControlSettings, Fatal};
use crate::runtime::NodeHandle;

const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A registration that held this long was a good one: the next is tried at once.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
const KIND: &str = "registration fails";

/// Registers, and again whenever this incarnation is told to be stale. Ends only when the node must stop.
pub(super) async fn run(
    controllers: Controllers,
    node: NodeHandle,
    settings: ControlSettings,
    registered: watch::Sender<Option<Incarnation>>,
    mut stale: mpsc::Receiver<Incarnation>,
    fatal: watch::Sender<Option<Fatal>>,
) {
    let host = controllers.host().clone();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2), &host.random);
    let mut nonce = host.random.id16();
    let mut ever = false;
    loop {
        let incarnation = match register(&controllers, &node, &settings, nonce).await {
            Ok(incarnation) => incarnation,
            Err(error) => {
                if let Some(reason) = fatal_reason(&error, settings.cluster_id)
                    && !ever
                {
                    fatal.send_replace(Some(reason));
                    return;
                }
                if is_stale(&error) {
                    nonce = host.random.id16();
                }
                controllers.trouble("node", KIND, &error.to_string());
                host.clock.sleep(backoff.next_pause()).await;
                continue;
            }
        };
        ever = true;
        controllers.works_again("node", KIND);
        tracing::info!(spu = settings.spu_id.0, incarnation = incarnation.0, "registered");
        node.set_incarnation(settings.cluster_id, incarnation);
        node.loss_told();
        registered.send_replace(Some(incarnation));
        let since = host.clock.now();
        if !told_stale(&mut stale, incarnation).await {
            return;
        }
        registered.send_replace(None);
        if host.clock.now().saturating_sub(since) > SETTLED_AFTER {
            backoff.reset();
        }
        controllers.complain("node", "incarnation is stale, registering again", &incarnation.to_string());
        host.clock.sleep(backoff.next_pause()).await;
        nonce = host.random.id16();
    }
}

/// Waits until `current` is told to be stale; a late word about an older one changes nothing. `false` when
/// nobody is left to tell.
async fn told_stale(stale: &mut mpsc::Receiver<Incarnation>, current: Incarnation) -> bool {
    while let Some(told) = stale.recv().await {
        if told == current {
            return true;
        }
    }
    false
}

async fn register(
    controllers: &Controllers,
    node: &NodeHandle,
    settings: &ControlSettings,
    nonce: [u8; 16],
) -> Result<Incarnation, CallError> {
    let request = v1::RegisterRequest {
        cluster_id: settings.cluster_id.to_bytes(),
        spu_id: settings.spu_id.0,
        start_nonce: bytes::Bytes::copy_from_slice(&nonce),
        address: settings.advertise.clone(),
        rack: settings.rack.clone(),
        volumes: node.volume_facts(),
        replicas: node.replica_reports(),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        join_token: settings.join_token.as_ref().map_or_else(String::new, |token| token.0.clone()),
    };
    let answer = controllers
        .call(CALL_LIMIT, |mut client| {
            let request = request.clone();
            async move { client.register(request).await }
        })
        .await?;
    Ok(Incarnation(answer.incarnation))
}

fn is_stale(error: &CallError) -> bool {
    match error {
        CallError::Refused(detail) => detail.reason() == Reason::StaleIncarnation,
        CallError::NoLeader { .. } => false,
    }
}

fn fatal_reason(error: &CallError, cluster_id: ClusterId) -> Option<Fatal> {
    let CallError::Refused(detail) = error else { return None };
    match detail.reason() {
        Reason::WrongCluster => {
            Some(Fatal::OtherCluster { ours: cluster_id, message: detail.message.clone() })
        }
        Reason::WrongJoinToken => Some(Fatal::WrongJoinToken { message: detail.message.clone() }),
        Reason::UnsupportedProtocol => Some(Fatal::UnsupportedProtocol { message: detail.message.clone() }),
        _ => None,
    }
}
