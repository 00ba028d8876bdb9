//! The error of a value from outside that breaks a rule of its type.

/// A value from outside broke a rule; nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {why}")]
pub struct Invalid {
    /// What kind of value it was.
    pub what: &'static str,
    /// Which rule it breaks, as the rest of a sentence.
    pub why: &'static str,
}

impl Invalid {
    /// An error that reads "`what` `why`".
    pub const fn new(what: &'static str, why: &'static str) -> Self {
        Self { what, why }
    }
}
