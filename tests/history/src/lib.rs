//! The history checker: given what producers sent and were told, what consumers read, what replicas hold and
//! who led, it names every promise that was broken.
//!
//! What it does not do: it runs nothing, reads no clock and no files, and knows nothing of how the system
//! works inside. Simulation, end-to-end tests and chaos record into the same [`History`] and ask
//! [`check`] at the end.
//!
//! ```text
//! producer:  Sent ----------> Answered(Acked | Refused | Unknown)
//! observer:        Committed, MayTrim, Led, Healed, HeldBack, Regained, Refused, Logged
//! consumer:                   Read, Read, Seek, Read
//! replica:                                            Held (once, at the end)
//! ```
//!
//! A record is known by its [`Payload`]: every record that is sent to a partition must differ from every
//! other one, which the checker verifies ([`Violation::Reused`]).

mod event;
mod rules;
mod violation;

pub use event::{Answer, Event, Held, History, Payload, Promise, Regained};
pub use rules::{LIVE_WITHIN, check};
pub use violation::Violation;
