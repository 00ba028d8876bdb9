//! Ctrl-C and SIGTERM: no more lines are read, what is under way is waited for, and all of it is summed up.

use std::future::Future;
use std::pin::pin;

use plimsoll_client::ProduceError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Counts;
use crate::exit::Failure;
use crate::output::say;

/// A signal that asks for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Interrupt,
    Terminate,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// As shells tell it: 128 and the number of the signal.
    fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The signals that ask for the end, from [`Interrupts::listen`] on: they no longer end the process by themselves.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    asked: Option<Asked>,
}

impl Interrupts {
    pub(super) fn listen() -> Result<Self, Failure> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, asked: None })
    }

    /// Cancel safe.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }

    /// What the work comes to; `None` and the work dropped when the end is asked for before.
    pub(super) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            asked = self.next() => {
                self.asked = Some(asked);
                None
            }
        }
    }

    /// Says what is waited for now.
    pub(super) fn tell(&self, counts: &Counts) {
        let (sent, acked, failed) = counts.now();
        let left = sent.saturating_sub(acked + failed);
        say(format!("stopping; waiting for {left} records under way (a second signal ends it at once)"));
    }

    /// What the rest of the work comes to, also when the end is asked for meanwhile.
    ///
    /// # Errors
    /// The end was asked for twice: what became of the records under way is not known.
    pub(super) async fn wait_out<T>(
        &mut self,
        rest: impl Future<Output = T>,
        counts: &Counts,
    ) -> Result<T, Failure> {
        let mut rest = pin!(rest);
        loop {
            let before = self.asked;
            if let Some(done) = self.unless(rest.as_mut()).await {
                return Ok(done);
            }
            if before.is_some() {
                return Err(self.cut_off(counts));
            }
            self.tell(counts);
        }
    }

    fn cut_off(&self, counts: &Counts) -> Failure {
        let (sent, acked, failed) = counts.now();
        let unknown = sent.saturating_sub(acked + failed);
        self.ended(&format!(
            "{acked} records acknowledged, {failed} failed, {unknown} may or may not have been written"
        ))
    }

    /// How a command ends that was stopped, and summed up what it did.
    pub(super) fn failure(&self, first_error: Option<ProduceError>) -> Failure {
        let error = first_error.map_or_else(String::new, |error| format!("; the first that failed: {error}"));
        self.ended(&format!("no more lines were read{error}"))
    }

    fn ended(&self, how: &str) -> Failure {
        let asked = self.asked.unwrap_or(Asked::Interrupt);
        Failure { code: asked.code(), message: format!("ended by {}: {how}", asked.name()) }
    }
}
