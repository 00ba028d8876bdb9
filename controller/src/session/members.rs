//! Controllers that join, leave, or take the lead: one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_host::Probe;
use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1::{self, ErrorDetail, Reason, change_controller_request, entry::Change};

use super::shared::Shared;
use super::{answer, request};
use crate::cluster::CONTROLLERS_MAX;
use crate::raft_runtime::{PeerStatus, View};

/// How long taking the lead may take.
const TRANSFER: Duration = Duration::from_secs(5);

pub(super) async fn change(
    shared: &Shared,
    asked: v1::ChangeControllerRequest,
) -> Result<v1::ChangeControllerResponse, ErrorDetail> {
    use change_controller_request::Change as Asked;
    let view = shared.leading()?;
    match asked.change {
        None => Err(answer::invalid("the request names no change")),
        Some(Asked::Add(controller)) => add(shared, &view, controller).await,
        Some(Asked::Remove(id)) => remove(shared, &view, ControllerId(id)).await,
        Some(Asked::Transfer(id)) => transfer(shared, &view, ControllerId(id)).await,
    }
}

async fn add(
    shared: &Shared,
    view: &View,
    controller: v1::ControllerAddress,
) -> Result<v1::ChangeControllerResponse, ErrorDetail> {
    let id = ControllerId(controller.controller_id);
    if id.0 == 0 {
        return Err(answer::invalid("controller ids start at 1"));
    }
    request::address(&controller.address)?;
    let mut members = members(view);
    if let Some(address) = members.get(&id) {
        if *address == controller.address {
            return Ok(answered(shared, view.state.version().0));
        }
        return Err(answer::invalid(format!("controller {id} is there already, at {address}")));
    }
    if members.values().any(|address| *address == controller.address) {
        return Err(answer::invalid(format!("{} is another controller's address", controller.address)));
    }
    if members.len() >= CONTROLLERS_MAX {
        return Err(answer::invalid(format!("a cluster has at most {CONTROLLERS_MAX} controllers")));
    }
    // One that is not there would count for the majority all the same.
    let limit = shared.settings.probe_timeout;
    if shared.host.network.probe(&controller.address, limit).await != Probe::Reached {
        let text =
            format!("nothing answers at {}; start the new controller first, with --join", controller.address);
        return Err(ErrorDetail::not_written(Reason::ExpectationFailed, text));
    }
    members.insert(id, controller.address);
    set(shared, view, members).await
}

async fn remove(
    shared: &Shared,
    view: &View,
    id: ControllerId,
) -> Result<v1::ChangeControllerResponse, ErrorDetail> {
    let mut members = members(view);
    if members.remove(&id).is_none() {
        let gone = view.state.controllers().former.contains(&id);
        return if gone {
            Ok(answered(shared, view.state.version().0))
        } else {
            Err(answer::invalid(format!("there is no controller {id}")))
        };
    }
    if members.is_empty() {
        return Err(answer::invalid("the last controller can't be removed"));
    }
    let reachable = view.peers.iter().filter(|peer| peer.id != id && peer.reachable).count();
    if reachable <= members.len() / 2 {
        let text = format!("without controller {id} only {reachable} of {} answer", members.len());
        return Err(ErrorDetail::not_written(Reason::ExpectationFailed, text));
    }
    if id == shared.id {
        // A leader hands over before it goes; the caller asks the next one.
        if let Some(heir) = heir(view, id) {
            shared.raft.transfer_leader(heir, TRANSFER).await;
        }
        return Err(answer::not_leading_now(&shared.raft.view()));
    }
    set(shared, view, members).await
}

async fn transfer(
    shared: &Shared,
    view: &View,
    id: ControllerId,
) -> Result<v1::ChangeControllerResponse, ErrorDetail> {
    let version = view.state.version().0;
    if id == shared.id {
        return Ok(answered(shared, version));
    }
    let Some(peer) = view.peers.iter().find(|peer| peer.id == id) else {
        return Err(answer::invalid(format!("there is no controller {id}")));
    };
    if !peer.reachable {
        let text = format!("controller {id} does not answer");
        return Err(ErrorDetail::not_written(Reason::ExpectationFailed, text));
    }
    if shared.raft.transfer_leader(id, TRANSFER).await {
        return Ok(v1::ChangeControllerResponse { version, leader: id.0 });
    }
    Err(ErrorDetail::unknown(Reason::TimedOut, format!("controller {id} did not take the lead in time")))
}

async fn set(
    shared: &Shared,
    view: &View,
    members: BTreeMap<ControllerId, String>,
) -> Result<v1::ChangeControllerResponse, ErrorDetail> {
    let member =
        |(id, address): (ControllerId, String)| v1::ControllerMember { controller_id: id.0, address };
    let change = v1::SetControllers {
        expected: view.peers.iter().map(|peer| peer.id.0).collect(),
        controllers: members.into_iter().map(member).collect(),
    };
    let (version, _) = shared.change(Change::SetControllers(change)).await?;
    Ok(answered(shared, version))
}

fn members(view: &View) -> BTreeMap<ControllerId, String> {
    view.peers.iter().map(|peer| (peer.id, peer.address.clone())).collect()
}

fn heir(view: &View, own: ControllerId) -> Option<ControllerId> {
    let reachable = |peer: &&PeerStatus| peer.id != own && peer.reachable;
    view.peers.iter().filter(reachable).max_by_key(|peer| peer.matched).map(|peer| peer.id)
}

fn answered(shared: &Shared, version: u64) -> v1::ChangeControllerResponse {
    v1::ChangeControllerResponse { version, leader: shared.id.0 }
}
