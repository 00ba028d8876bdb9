//! How long a call goes on while no controller leads. Pure.

use std::time::Duration;

use plimsoll_proto::v1::Reason;

use crate::refusal::Refusal;

/// An election takes a second or two; a majority that is down takes as long as somebody needs to start it.
#[derive(Debug)]
pub(crate) struct Leaderless {
    limit: Duration,
    since: Option<Duration>,
}

impl Leaderless {
    /// Gives up when no controller has led for `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// Takes what those said that were asked from `asked_at` on and answered at all; whether to give up. Silence says
    /// nothing.
    pub(crate) fn answered<'a>(
        &mut self,
        answers: impl IntoIterator<Item = &'a Refusal>,
        asked_at: Duration,
        now: Duration,
    ) -> bool {
        let mut said = false;
        for refusal in answers {
            if refusal.reason() != Reason::NoQuorum {
                self.since = None;
                return false;
            }
            said = true;
        }
        said && now.saturating_sub(*self.since.get_or_insert(asked_at)) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::ErrorDetail;

    use super::*;

    #[test]
    fn it_ends_when_all_that_answer_have_said_for_long_that_none_leads() {
        let s = Duration::from_secs;
        let refusal = |reason| Refusal::new(ErrorDetail::not_written(reason, ""));
        let (none, other) = (refusal(Reason::NoQuorum), refusal(Reason::NotControllerLeader));
        let mut leaderless = Leaderless::new(s(4));
        assert!(!leaderless.answered([], s(0), s(3)), "nobody answers");
        assert!(!leaderless.answered([&none, &none], s(3), s(5)));
        assert!(!leaderless.answered([&none, &other], s(5), s(6)), "one knows who leads");
        assert!(!leaderless.answered([&none], s(6), s(8)));
        assert!(!leaderless.answered([], s(8), s(9)));
        assert!(leaderless.answered([&none], s(9), s(10)));
    }
}
