//! Errors of sessions as callers get them.

use std::time::Duration;

use plimsoll_proto::ids::{ClusterId, ControllerId, Incarnation};
use plimsoll_proto::v1::{ErrorDetail, Reason};

use crate::cluster::Mismatch;
use crate::raft_runtime::{ProposeError, View};

/// A wait that is enough for an election to end.
const ELECTION: Duration = Duration::from_millis(500);

/// A wait after which the disks of the controllers were looked at again, several times.
const ROOM: Duration = Duration::from_secs(5);

/// Another controller leads, or none: the caller asks there.
pub(super) fn not_leading(leader: Option<(ControllerId, String)>) -> ErrorDetail {
    match leader {
        Some((id, address)) => ErrorDetail {
            controller_address: address,
            ..ErrorDetail::not_written(Reason::NotControllerLeader, format!("controller {id} leads"))
        },
        None => no_quorum("no controller leads at present"),
    }
}

/// This controller does not lead, as the view says.
pub(super) fn not_leading_now(view: &View) -> ErrorDetail {
    not_leading(view.leader_address())
}

pub(super) fn no_quorum(message: &str) -> ErrorDetail {
    ErrorDetail::not_written(Reason::NoQuorum, message).retry_after(ELECTION)
}

/// The controllers' disks have too little room for more topics; everything else goes on.
pub(super) fn no_room_to_grow(why: String) -> ErrorDetail {
    let text = format!("the controllers take no new or altered topics: {why}");
    ErrorDetail::not_written(Reason::ControllerDisk, text).retry_after(ROOM)
}

pub(super) fn from_propose(error: ProposeError) -> ErrorDetail {
    let message = error.to_string();
    match error {
        ProposeError::NotLeader { leader } => not_leading(leader),
        ProposeError::NoQuorum => no_quorum(&message),
        ProposeError::Disk { retry_after } => {
            ErrorDetail::not_written(Reason::ControllerDisk, message).retry_after(retry_after)
        }
        ProposeError::NoRoomToGrow { why } => no_room_to_grow(why),
        ProposeError::Overloaded => {
            ErrorDetail::not_written(Reason::MemoryPressure, message).retry_after(ELECTION)
        }
        ProposeError::TooLarge { limit, .. } => {
            ErrorDetail { limit, ..ErrorDetail::not_written(Reason::InvalidArgument, message) }
        }
        ProposeError::TimedOut => ErrorDetail::unknown(Reason::TimedOut, message),
        ProposeError::ShuttingDown => ErrorDetail::not_written(Reason::ShuttingDown, message),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::not_written(Reason::InvalidArgument, message)
}

pub(super) fn wrong_cluster(ours: ClusterId) -> ErrorDetail {
    ErrorDetail::not_written(Reason::WrongCluster, format!("this is cluster {ours}"))
}

/// The asker's run is over: it registers again, or stops.
pub(super) fn stale_incarnation(current: Option<Incarnation>) -> ErrorDetail {
    ErrorDetail {
        current_incarnation: current.map_or(0, |incarnation| incarnation.0),
        ..ErrorDetail::not_written(
            Reason::StaleIncarnation,
            "this run of the node is not registered (any more)",
        )
    }
}

pub(super) fn mismatch(mismatch: Mismatch) -> ErrorDetail {
    let reason = match mismatch {
        Mismatch::TopicExists => Reason::TopicExists,
        Mismatch::StaleIncarnation | Mismatch::UnknownSpu => Reason::StaleIncarnation,
        Mismatch::Malformed => Reason::InvalidArgument,
        Mismatch::PlacementChanged => Reason::NoPlacement,
        Mismatch::OutOfService => Reason::OutOfService,
        Mismatch::UnknownVolume
        | Mismatch::UnknownPartition
        | Mismatch::UnknownRules
        | Mismatch::AlreadyApplied
        | Mismatch::AlreadyBootstrapped
        | Mismatch::NotBootstrapped
        | Mismatch::OtherState
        | Mismatch::ForbiddenTransition
        | Mismatch::StaleLeaderEpoch
        | Mismatch::StalePartitionEpoch
        | Mismatch::IneligibleMember
        | Mismatch::IneligibleLeader
        | Mismatch::OtherConfig
        | Mismatch::LastCopy
        | Mismatch::MoveUnderWay
        | Mismatch::NoMove
        | Mismatch::NotInSyncYet
        | Mismatch::FormerController
        | Mismatch::Unchanged => Reason::ExpectationFailed,
    };
    ErrorDetail::not_written(reason, mismatch.to_string())
}
