//! Which controllers there are, and one joining or leaving at a time.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::ids::ControllerId;
use plimsoll_proto::v1;

use super::apply::{Applying, Effect, expect};
use super::expectation::Mismatch;

/// Most controllers of a cluster.
pub const CONTROLLERS_MAX: usize = 7;

/// The controllers and where they are. Empty only in a cluster that was made before this was kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Controllers {
    /// By id, with `host:port`.
    pub members: BTreeMap<ControllerId, String>,
    /// Index of the entry that changed them last; 0 while they are those that the cluster was made with.
    pub since_index: u64,
    /// Ids of those that left. None of them is ever used again: what such a controller voted for is forgotten.
    pub former: BTreeSet<ControllerId>,
}

impl Controllers {
    /// The members as they travel.
    pub fn to_wire(&self) -> Vec<v1::ControllerMember> {
        let member = |(id, address): (&ControllerId, &String)| v1::ControllerMember {
            controller_id: id.0,
            address: address.clone(),
        };
        self.members.iter().map(member).collect()
    }

    /// Reads members as they travel; `None` for an id of 0 or named twice, an empty address, or too many.
    pub fn from_wire(members: &[v1::ControllerMember]) -> Option<Self> {
        let mut read = BTreeMap::new();
        for member in members {
            let id = ControllerId(member.controller_id);
            let sound = id.0 != 0 && !member.address.is_empty();
            if !sound || read.insert(id, member.address.clone()).is_some() {
                return None;
            }
        }
        (read.len() <= CONTROLLERS_MAX).then(|| Self { members: read, ..Self::default() })
    }
}

impl Applying<'_> {
    pub(super) fn set_controllers(&mut self, change: &v1::SetControllers) -> Result<Effect, Mismatch> {
        let next = Controllers::from_wire(&change.controllers).ok_or(Mismatch::Malformed)?;
        let expected: BTreeSet<_> = change.expected.iter().copied().map(ControllerId).collect();
        let current: BTreeSet<_> = self.state.controllers.members.keys().copied().collect();
        expect(current.is_empty() || current == expected, Mismatch::OtherState)?;
        let after: BTreeSet<_> = next.members.keys().copied().collect();
        let one = expected.symmetric_difference(&after).count() == 1;
        expect(one && !after.is_empty(), Mismatch::Malformed)?;
        let used = after.iter().any(|id| self.state.controllers.former.contains(id));
        expect(!used, Mismatch::FormerController)?;
        let controllers = &mut self.state.controllers;
        controllers.former.extend(expected.difference(&after));
        controllers.members = next.members;
        controllers.since_index = self.index;
        self.event(v1::ClusterEvent {
            kind: "controllers_changed".to_owned(),
            from: listed(&expected),
            to: listed(&after),
            ..Default::default()
        });
        Ok(Effect::Done)
    }
}

fn listed(ids: &BTreeSet<ControllerId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
