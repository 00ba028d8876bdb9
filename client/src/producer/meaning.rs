//! What an acknowledgement says about where the records are.

use std::fmt;

use plimsoll_proto::v1;

/// What an acknowledgement means: who has the record, and on what.
///
/// ```
/// use plimsoll_client::AckMeaning;
///
/// fn survives_power_loss_of_all(meaning: AckMeaning) -> bool {
///     matches!(meaning, AckMeaning::Synced(_))
/// }
/// assert!(!survives_power_loss_of_all(AckMeaning::Replicated(3)));
/// assert_eq!(AckMeaning::Synced(3).to_string(), "synced(3)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AckMeaning {
    /// The record was sent; nobody says that it was written ([`Acks::None`](crate::Acks::None)).
    Sent,
    /// The leader has written it; it may be lost with that node ([`Acks::Leader`](crate::Acks::Leader)). A topic with
    /// `flush = ack` says `Synced(1)` instead.
    Leader,
    /// So many copies have written it, the leader included: all of the in-sync set. It outlives the loss of all but
    /// one, not a loss of power of all at once.
    Replicated(u32),
    /// So many copies have it on their disks, synced, the leader included.
    Synced(u32),
}

impl AckMeaning {
    /// What a server says. What it does not say is not promised.
    pub(crate) fn of(ack: &v1::ProduceAck) -> Self {
        match ack.meaning() {
            v1::AckMeaning::Synced => Self::Synced(ack.copies),
            v1::AckMeaning::Replicated => Self::Replicated(ack.copies),
            v1::AckMeaning::Leader => Self::Leader,
            v1::AckMeaning::None | v1::AckMeaning::Unspecified => Self::Sent,
        }
    }
}

impl fmt::Display for AckMeaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent => f.write_str("sent"),
            Self::Leader => f.write_str("leader"),
            Self::Replicated(copies) => write!(f, "replicated({copies})"),
            Self::Synced(copies) => write!(f, "synced({copies})"),
        }
    }
}
