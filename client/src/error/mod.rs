//! Errors by operation. Kinds are few and say what the caller can do; the typed refusal of the server is
//! inside.
//!
//! Each tells the same: the [`Reason`](crate::Reason) of the server, the three numbers of a full disk
//! ([`Space`](crate::Space)), what helps ([`RetryAdvice`](crate::RetryAdvice)), and whether the request had an effect
//! ([`Outcome`](crate::Outcome)).

mod admin;
mod consume;
mod controllers;
mod last_cause;
mod produce;

use std::time::Duration;

pub use self::admin::AdminError;
pub use self::consume::ConsumeError;
pub(crate) use self::controllers::Hindrances;
use self::controllers::listed;
pub use self::controllers::{ControllerAttempt, ControllerFailure};
pub use self::last_cause::LastCause;
pub(crate) use self::last_cause::told;
pub use self::produce::{ProduceError, ProduceErrorKind};

/// No controller could be used.
///
/// ```
/// use plimsoll_client::{Client, ConnectError, ControllerFailure};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let nowhere = Client::builder().controllers(["not an address"]).build().await;
/// assert!(matches!(nowhere, Err(ConnectError::Settings(_))));
///
/// let refused = std::time::Duration::from_millis(200);
/// let nobody = Client::builder().controllers(["127.0.0.1:1"]).refused_timeout(refused).build().await;
/// let Err(ConnectError::NoController { attempts, .. }) = nobody else { panic!("{nobody:?}") };
/// assert_eq!(attempts[0].failure, ControllerFailure::NotListening);
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings can't work; nothing was dialled.
    #[error("{0}")]
    Settings(String),
    /// None of the controllers answered in time.
    #[error("no controller answered within {} ms: {}", waited.as_millis(), listed(attempts))]
    NoController {
        /// How long was waited.
        waited: Duration,
        /// Each controller in the order in which they were named, and why it was of no use.
        attempts: Vec<ControllerAttempt>,
    },
}
