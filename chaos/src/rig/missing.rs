//! What this machine lacks, told apart from what went wrong.

use std::fmt;

/// Something that a scenario needs and this machine does not have; the scenario is skipped with this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

impl Missing {
    /// As an error.
    pub fn because(reason: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self(reason.into()))
    }

    /// The reason, if that is what an error is about.
    pub fn of(error: &anyhow::Error) -> Option<String> {
        error.chain().find_map(|cause| cause.downcast_ref::<Self>()).map(|missing| missing.0.clone())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not here: {}", self.0)
    }
}

impl std::error::Error for Missing {}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_reason_is_found_below_what_was_said_about_it() {
        let error = Err::<(), _>(Missing::because("no xfs")).context("a disk").expect_err("an error");
        assert_eq!(Missing::of(&error), Some("no xfs".to_owned()));
        assert_eq!(Missing::of(&anyhow::anyhow!("no xfs")), None);
    }
}
