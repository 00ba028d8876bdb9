//! Signals that a server lives by.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// SIGXFSZ on Linux (x86, ARM, RISC-V): a write beyond RLIMIT_FSIZE. Its default action kills.
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT, which ask for a stop in order.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the signals. From here on a write beyond the file size limit is an error (EFBIG) that the disk
    /// door classifies, not the end of the process: the handler stays when the listener is dropped.
    pub(super) fn install() -> Result<Self, Failure> {
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until a stop is asked for. Cancel safe.
    pub(super) async fn stop_asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
