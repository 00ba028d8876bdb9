//! Cordon, drain, offline and back.

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1::{self, ErrorDetail, Reason, entry::Change};

use super::answer;
use super::shared::Shared;
use crate::cluster::{Duty, Mismatch, Outcome};

/// How often it is asked anew because the node started again, or somebody else was faster.
const ATTEMPTS: u32 = 5;

pub(super) async fn set(
    shared: &Shared,
    request: v1::SetSpuDutyRequest,
) -> Result<v1::SetSpuDutyResponse, ErrorDetail> {
    let wanted =
        Duty::from_wire(request.duty).ok_or_else(|| answer::invalid("the duty is not known here"))?;
    let spu_id = SpuId(request.spu_id);
    for _ in 0..ATTEMPTS {
        let view = shared.leading()?;
        let Some(spu) = view.state.spu(spu_id) else {
            return Err(answer::invalid(format!("no storage node {spu_id} ever registered")));
        };
        let before = spu.duty;
        if before == wanted {
            let version = view.state.version().0;
            return Ok(v1::SetSpuDutyResponse { version, before: before.to_wire().into() });
        }
        let change = v1::SetSpuDuty {
            spu_id: spu_id.0,
            incarnation: spu.incarnation.0,
            expected: before.to_wire().into(),
            wanted: wanted.to_wire().into(),
            reason: format!("asked for: {wanted}"),
            force: request.force,
        };
        let proposed = shared.propose(Change::SetSpuDuty(change)).await?;
        match proposed.applied {
            Outcome::Changed(_) => {
                let version = proposed.index;
                return Ok(v1::SetSpuDutyResponse { version, before: before.to_wire().into() });
            }
            Outcome::NoOp(Mismatch::OtherState | Mismatch::StaleIncarnation) => {}
            Outcome::NoOp(Mismatch::LastCopy) => {
                let text = format!(
                    "storage node {spu_id} has the only living in-sync copy of a partition; drain it first, or force it"
                );
                return Err(ErrorDetail::not_written(Reason::ExpectationFailed, text));
            }
            Outcome::NoOp(mismatch) => return Err(answer::mismatch(mismatch)),
        }
    }
    Err(ErrorDetail::not_written(Reason::ExpectationFailed, "the node changes all the time"))
}
