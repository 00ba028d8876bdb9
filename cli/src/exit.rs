//! How a command ends: exit codes that scripts can rely on, and messages that name the remedy.

use plimsoll_client::{AdminError, ConnectError, ConsumeError, ProduceError, ProduceErrorKind, Reason};

use crate::output::say;

/// Exit codes. Part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    NoConnection = 3,
    NotFound = 4,
    DirectoryTaken = 5,
    PortInUse = 6,
    Configuration = 7,
    Degraded = 10,
    Critical = 11,
    DiskFull = 20,
    TimedOut = 124,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// For people; empty when there is nothing to say.
    pub(crate) message: String,
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u8, message: message.into() }
    }

    /// A code without a word: everything was said.
    pub(crate) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// Says on standard error why, unless everything was said.
    pub(crate) fn tell(&self) {
        if !self.message.is_empty() {
            say(format!("plimsoll: {}", self.message));
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Settings(why) => Self::new(Code::Usage, format!("{why} (--controller)")),
            ConnectError::NoController { .. } => Self::new(
                Code::NoConnection,
                format!(
                    "{error}\nstart a controller there, or name others with --controller HOST:PORT or --profile NAME"
                ),
            ),
        }
    }
}

fn of_reason(reason: Option<Reason>) -> Option<Code> {
    match reason? {
        Reason::DiskFull | Reason::ControllerDisk => Some(Code::DiskFull),
        Reason::UnknownTopic | Reason::UnknownPartition => Some(Code::NotFound),
        Reason::WrongJoinToken => Some(Code::Configuration),
        Reason::NoQuorum => Some(Code::NoConnection),
        _ => None,
    }
}

fn remedy(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::UnknownTopic) => "\nsee which there are with `plimsoll topic list`",
        Some(Reason::DiskFull) => "\nsee which disk with `plimsoll disk`, and make room on it",
        Some(Reason::ControllerDisk) => "\nmake room on the disk of the controllers",
        Some(Reason::NoPlacement) => "\nsee with `plimsoll disk` which nodes are online and have room",
        Some(Reason::NoQuorum) => "\nmore than half of the controllers must run; start those that are down",
        Some(Reason::TopicExists) => "\nchoose another name, or delete it with `plimsoll topic delete`",
        _ => "",
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let code = of_reason(error.reason()).unwrap_or(match &error {
            AdminError::NoController { .. } => Code::NoConnection,
            AdminError::TimedOut { .. } => Code::TimedOut,
            AdminError::Refused(_) | AdminError::Malformed(_) => Code::Failed,
        });
        Self::new(code, format!("{error}{}", remedy(error.reason())))
    }
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        if let ProduceErrorKind::Admin(admin) = &error.kind {
            let code = Self::from(admin.clone()).code;
            return Self { code, message: format!("{error}{}", remedy(error.reason())) };
        }
        let code = of_reason(error.reason()).unwrap_or(match &error.kind {
            ProduceErrorKind::UnknownTopic(_) | ProduceErrorKind::UnknownPartition { .. } => Code::NotFound,
            ProduceErrorKind::DeadlineExceeded { .. } => Code::TimedOut,
            _ => Code::Failed,
        });
        let remedy = match &error.kind {
            ProduceErrorKind::UnknownTopic(_) => remedy(Some(Reason::UnknownTopic)),
            ProduceErrorKind::RecordTooLarge { .. } => {
                "\nsend smaller records, or create the topic with a greater --batch-bytes-max"
            }
            _ => remedy(error.reason()),
        };
        Self::new(code, format!("{error}{remedy}"))
    }
}

impl From<ConsumeError> for Failure {
    fn from(error: ConsumeError) -> Self {
        let code = of_reason(error.reason()).unwrap_or(match &error {
            ConsumeError::UnknownTopic(_) | ConsumeError::UnknownPartition { .. } => Code::NotFound,
            ConsumeError::TimedOut { .. } => Code::TimedOut,
            _ => Code::Failed,
        });
        let remedy = match &error {
            ConsumeError::UnknownTopic(_) => remedy(Some(Reason::UnknownTopic)),
            _ => remedy(error.reason()),
        };
        Self::new(code, format!("{error}{remedy}"))
    }
}

impl From<plimsoll_host::config::ConfigError> for Failure {
    fn from(error: plimsoll_host::config::ConfigError) -> Self {
        Self::new(Code::Configuration, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_client::{ErrorDetail, Refusal};

    use super::*;

    #[test]
    fn a_refusal_has_the_code_of_its_reason() {
        for (reason, code) in [
            (Reason::DiskFull, 20),
            (Reason::ControllerDisk, 20),
            (Reason::UnknownTopic, 4),
            (Reason::NoQuorum, 3),
            (Reason::TopicExists, 1),
            (Reason::InvalidTopic, 1),
        ] {
            let refusal = Refusal::new(ErrorDetail::not_written(reason, "why"));
            assert_eq!(Failure::from(AdminError::Refused(refusal)).code, code, "{reason:?}");
        }
    }
}
