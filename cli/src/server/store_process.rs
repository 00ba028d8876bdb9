//! The process that a controller keeps its metadata store in: this program, with a first argument that is no command of
//! its users. Help, completion and manual pages do not know it.

use std::env::ArgsOs;

use plimsoll_controller::raft_runtime::metadata::{ServeError, StoreProgram, serve};

use super::signals::Signals;
use crate::exit::{Code, Failure, Outcome};

const FIRST_ARGUMENT: &str = "controller-store";

/// Starts this very program, also when another version lies at its path by now (proc(5), `/proc/pid/exe`).
pub(super) fn store_program() -> StoreProgram {
    StoreProgram { path: "/proc/self/exe".into(), arguments: vec![FIRST_ARGUMENT.into()] }
}

/// Serves a store if that is what this process was started for. Blocks until the controller needs it no more.
pub(crate) fn serve_store_if_asked(mut arguments: ArgsOs) -> Option<Outcome> {
    (arguments.nth(1)? == FIRST_ARGUMENT).then(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        // The controller is asked to stop by signals, which may go to all of its processes; this one ends after it.
        let _ignored = Signals::install()?;
        let served = serve(arguments.collect());
        drop(entered);
        Ok(served?)
    })
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = match &error {
            ServeError::NotOfController => Code::Usage,
            ServeError::Disk { .. } | ServeError::Unusable(_) | ServeError::Connection(_) => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}
