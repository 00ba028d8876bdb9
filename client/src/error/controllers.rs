//! What controllers that were asked in vain said, and what of it the caller is told.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_proto::ids::ClusterId;
use plimsoll_proto::v1::ErrorDetail;

use super::{AdminError, LastCause};
use crate::metadata::{is_refused, why};
use crate::refusal::{Outcome, Refusal};

/// A controller that was of no use to a call, or to a client that was to be connected, and why.
///
/// ```
/// use plimsoll_client::{ControllerAttempt, ControllerFailure};
///
/// let attempt = ControllerAttempt { address: "10.0.0.1:7001".to_owned(), failure: ControllerFailure::Unanswered };
/// assert_eq!(attempt.to_string(), "10.0.0.1:7001: no answer in time");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{address}: {failure}")]
pub struct ControllerAttempt {
    /// Where it was looked for, as `HOST:PORT`.
    pub address: String,
    /// Why it was of no use.
    pub failure: ControllerFailure,
}

/// Why a controller was of no use to a call, or to a client that was to be connected.
///
/// ```
/// use plimsoll_client::{ControllerFailure, ErrorDetail, Reason, Refusal};
///
/// let refusal = Refusal::new(ErrorDetail::not_written(Reason::NoQuorum, "no majority answers"));
/// assert_eq!(ControllerFailure::Refused(refusal.clone()).refusal(), Some(&refusal));
/// assert_eq!(ControllerFailure::NotListening.to_string(), "nothing listens there");
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ControllerFailure {
    /// It refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The machine is there and refuses the connection: start the controller, or correct its address.
    #[error("nothing listens there")]
    NotListening,
    /// There was no connection, or it broke.
    #[error("{why}")]
    ConnectionLost {
        /// What the transport said.
        why: String,
    },
    /// It did not answer in time.
    #[error("no answer in time")]
    Unanswered,
    /// Connecting only: it is of another cluster than [`cluster_id`](crate::ClientBuilder::cluster_id) says. Correct
    /// the address or the id.
    #[error("it belongs to cluster {cluster_id}")]
    OtherCluster {
        /// Its cluster.
        cluster_id: ClusterId,
    },
    /// Connecting only: it knows nobody who leads the controllers, and may be cut off from the others.
    #[error("it knows no leader")]
    NoLeader,
    /// Connecting only: what it answered is not of the protocol.
    #[error("malformed answer: {why}")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
}

impl ControllerFailure {
    /// What the controller said, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NotListening
            | Self::ConnectionLost { .. }
            | Self::Unanswered
            | Self::OtherCluster { .. }
            | Self::NoLeader
            | Self::Malformed { .. } => None,
        }
    }

    /// What became of a call that failed.
    pub(crate) fn of_status(status: &tonic::Status) -> Self {
        match ErrorDetail::from_status(status) {
            Some(detail) => Self::Refused(Refusal::new(detail)),
            None if is_refused(status) => Self::NotListening,
            None => Self::ConnectionLost { why: why(status) },
        }
    }
}

/// As a part of a sentence.
pub(super) fn listed(attempts: &[ControllerAttempt]) -> String {
    attempts.iter().map(ControllerAttempt::to_string).collect::<Vec<_>>().join("; ")
}

/// What stood in the way of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Hindrances {
    /// The newest of each controller.
    by_address: BTreeMap<String, ControllerFailure>,
    /// Who was silent last.
    silent: Option<ControllerAttempt>,
    /// Who answered last, if anybody has.
    answered: Option<String>,
}

impl Hindrances {
    /// Takes what came of asking one or several controllers at once. `cut_short` when the deadline left them less than
    /// the time of an attempt: then silence says less than what came before.
    pub(crate) fn add(&mut self, attempts: Vec<ControllerAttempt>, cut_short: bool) {
        for attempt in attempts {
            let hasty = cut_short && attempt.failure == ControllerFailure::Unanswered;
            if !hasty || !self.by_address.contains_key(&attempt.address) {
                self.by_address.insert(attempt.address.clone(), attempt.failure.clone());
            }
            match attempt.failure {
                ControllerFailure::Refused(_) => self.answered = Some(attempt.address),
                _ if hasty && self.silent.is_some() => {}
                _ => self.silent = Some(attempt),
            }
        }
    }

    /// What a controller said counts more than the silence of others, until it is silent itself.
    fn last(&self) -> Option<LastCause> {
        let newest = self.answered.as_ref().and_then(|address| self.by_address.get(address));
        let said = newest.into_iter().chain(self.by_address.values()).find_map(ControllerFailure::refusal);
        let silent = || self.silent.clone().map(LastCause::Controller);
        said.cloned().map(LastCause::Refused).or_else(silent)
    }

    /// How many controllers were asked.
    pub(crate) fn controllers(&self) -> usize {
        self.by_address.len()
    }

    /// How the call ends when its deadline has passed.
    pub(crate) fn give_up(self, waited: Duration, outcome: Outcome) -> AdminError {
        if self.answered.is_some() {
            return AdminError::TimedOut { waited, outcome, last: self.last() };
        }
        let attempts = self.by_address.into_iter();
        let attempts = attempts.map(|(address, failure)| ControllerAttempt { address, failure }).collect();
        AdminError::NoController { outcome, attempts }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::Reason;

    use super::*;

    const WAITED: Duration = Duration::from_secs(30);

    fn attempt(address: &str, failure: ControllerFailure) -> ControllerAttempt {
        ControllerAttempt { address: address.to_owned(), failure }
    }

    fn refusal() -> Refusal {
        Refusal::new(ErrorDetail::not_written(Reason::NoQuorum, "alone"))
    }

    /// What a deadline after these attempts tells; each with whether it was cut short.
    fn told(rounds: Vec<(Vec<ControllerAttempt>, bool)>) -> AdminError {
        let mut hindrances = Hindrances::default();
        rounds.into_iter().for_each(|(attempts, cut_short)| hindrances.add(attempts, cut_short));
        hindrances.give_up(WAITED, Outcome::NotWritten)
    }

    #[test]
    fn a_deadline_tells_what_stood_in_the_way_last() {
        use ControllerFailure::{NotListening, Refused, Unanswered};
        let refused = || attempt("b:1", Refused(refusal()));
        let dead = || attempt("a:1", NotListening);
        let silent = || attempt("b:1", Unanswered);
        let said = Some(LastCause::Refused(refusal()));
        for (rounds, expected) in [
            // Whoever speaks counts more than who is silent beside it, in either order.
            (vec![(vec![refused(), dead()], false)], said.clone()),
            (vec![(vec![dead(), refused()], false)], said.clone()),
            (vec![(vec![refused()], false), (vec![dead()], false)], said.clone()),
            // What it said before it fell silent does not.
            (vec![(vec![refused()], false), (vec![silent()], false)], Some(LastCause::Controller(silent()))),
            // Unless the deadline left no time for more.
            (vec![(vec![refused()], false), (vec![silent()], true)], said),
        ] {
            let error = told(rounds.clone());
            let AdminError::TimedOut { last, .. } = &error else { panic!("{rounds:?}: {error}") };
            assert_eq!(*last, expected, "{rounds:?}");
        }
        let gone = attempt("b:1", NotListening);
        let text = told(vec![(vec![refused()], false), (vec![gone], false)]).to_string();
        assert_eq!(
            text,
            "timed out after 30000 ms (NOT_WRITTEN); last: controller b:1: nothing listens there"
        );
    }

    #[test]
    fn where_nobody_answers_each_controller_is_told() {
        use ControllerFailure::{NotListening, Unanswered};
        let (dead, silent) = (attempt("a:1", NotListening), attempt("b:1", Unanswered));
        let hasty = attempt("a:1", Unanswered);
        let error = told(vec![(vec![silent.clone(), dead.clone()], false), (vec![hasty], true)]);
        assert_eq!(
            error.to_string(),
            "no leading controller answered: a:1: nothing listens there; b:1: no answer in time"
        );
        let AdminError::NoController { attempts, .. } = error else { panic!("{error}") };
        assert_eq!(attempts, [dead, silent]);
    }
}
