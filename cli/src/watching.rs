//! `--watch`: the same command again and again.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::ArgMatches;
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use crate::exit::{Code, Outcome};
use crate::output::write_out;

/// More often than this is of use to nobody, and costs the controllers.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// How often the command is to be repeated, if it is.
pub(crate) fn asked(matches: &ArgMatches) -> Option<Duration> {
    let mut leaf = matches;
    while let Some((_, inner)) = leaf.subcommand() {
        leaf = inner;
    }
    // Commands without the flag do not know its name.
    let pause = leaf.try_get_one::<Span>("watch").ok().flatten()?;
    Some(pause.0.max(PAUSE_MIN))
}

/// Runs the command until it is interrupted. What fails may work the next time, unless the command itself is wrong.
pub(crate) async fn run(pause: Duration, host: &Host, again: impl AsyncFn() -> Outcome) -> Outcome {
    let screen = io::stdout().is_terminal();
    loop {
        if screen {
            // Home and clear (ECMA-48), so that each picture stands where the last one stood.
            write_out(b"\x1b[H\x1b[2J")?;
        }
        match again().await {
            Err(failure) if ends(failure.code) => return Err(failure),
            Err(failure) => failure.tell(),
            Ok(()) => {}
        }
        host.clock.sleep(pause).await;
    }
}

/// A closed pipe, a wrong command, or nothing there to be shown.
fn ends(code: u8) -> bool {
    [0, Code::Usage as u8, Code::NotFound as u8, Code::Configuration as u8].contains(&code)
}
