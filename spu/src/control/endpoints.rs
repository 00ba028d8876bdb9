//! Which controllers there are, and which one to ask first.

use plimsoll_proto::invalid::Invalid;

/// The controllers as configured, and who leads as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    configured: Vec<String>,
    leader: Option<String>,
}

impl Endpoints {
    pub(super) fn new(configured: Vec<String>) -> Self {
        Self { configured, leader: None }
    }

    /// Every address worth trying, the leader's first.
    pub(super) fn in_order(&self) -> Vec<String> {
        let others = self.configured.iter().filter(|address| Some(*address) != self.leader.as_ref());
        self.leader.iter().chain(others).cloned().collect()
    }

    /// Somebody who must know says who leads.
    pub(super) fn leads(&mut self, address: &str) {
        if !address.is_empty() && self.leader.as_deref() != Some(address) {
            self.leader = Some(address.to_owned());
        }
    }

    /// This one was asked and does not lead, or did not answer.
    pub(super) fn does_not_lead(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
    }
}

/// `HOST:PORT` of a controller given as `[ID@]HOST:PORT`.
///
/// # Errors
/// [`Invalid`] when the id is not a number from 1, or the rest is not an address.
pub fn controller_authority(text: &str) -> Result<String, Invalid> {
    let wrong = || Invalid::new("controller", "is not [ID@]HOST:PORT");
    let (id, address) = match text.split_once('@') {
        Some((id, address)) => (Some(id), address),
        None => (None, text),
    };
    if let Some(id) = id {
        id.parse::<u64>().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 || host.contains(['/', ' ', '@']) {
        return Err(wrong());
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_comes_first_and_nobody_twice() {
        let mut endpoints = Endpoints::new(vec!["a:1".into(), "b:1".into(), "c:1".into()]);
        assert_eq!(endpoints.in_order(), ["a:1", "b:1", "c:1"]);
        endpoints.leads("b:1");
        assert_eq!(endpoints.in_order(), ["b:1", "a:1", "c:1"]);
        endpoints.leads("");
        endpoints.does_not_lead("a:1");
        assert_eq!(endpoints.in_order(), ["b:1", "a:1", "c:1"]);
        // A leader that was not configured is believed: a controller named it.
        endpoints.leads("d:1");
        assert_eq!(endpoints.in_order(), ["d:1", "a:1", "b:1", "c:1"]);
        endpoints.does_not_lead("d:1");
        assert_eq!(endpoints.in_order(), ["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn controllers_are_written_with_and_without_id() {
        for (text, address) in [("1@a:7", "a:7"), ("a:7", "a:7"), ("3@[::1]:7", "[::1]:7")] {
            assert_eq!(controller_authority(text), Ok(address.to_owned()), "{text}");
        }
        for bad in ["", "a", "0@a:7", "x@a:7", "1@", "1@a", "a:0", "a:99999", ":7", "1@2@a:7", "http://a:7"] {
            assert!(controller_authority(bad).is_err(), "{bad}");
        }
    }
}
