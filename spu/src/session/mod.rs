//! What producers and consumers talk to: the service `plimsoll.v1.Spu` and the node's health.
//!
//! What it does not do: it decides nothing about a partition. It checks what came from outside, keeps to
//! its bounds of memory and hands everything else to the node.
//!
//! Start at [`SpuService`].

mod budget;
mod credit;
mod fetch;
mod health;
mod produce;
mod request;
mod service;
mod volumes;

pub use budget::{Budget, BudgetLimits};
pub use health::{FETCH_SERVICE, PRODUCE_SERVICE, report_health};
pub use service::{SessionSettings, SpuService};
pub use volumes::VolumesService;
