//! What people see: story lines that scroll, and a panel of gauges below them that is drawn anew.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_host::Clock;

use crate::rig::share;

/// A colour of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Good.
    Green,
    /// Attention.
    Yellow,
    /// Bad.
    Red,
    /// Headings.
    Bold,
    /// Asides.
    Dim,
}

/// Where the story is told. Shared by all tasks of a run.
#[derive(Debug)]
pub struct Screen {
    clock: Clock,
    colour: bool,
    live: bool,
    to_stderr: bool,
    state: Mutex<Drawn>,
}

#[derive(Debug, Default)]
struct Drawn {
    panel_lines: usize,
    last_plain_panel: Option<Duration>,
}

/// How often the panel is printed where it cannot be drawn over.
const PLAIN_PANEL_INTERVAL: Duration = Duration::from_secs(10);

impl Screen {
    /// On standard output, or on standard error when that is for machines.
    pub fn new(clock: Clock, colour: bool, to_stderr: bool) -> Self {
        let terminal =
            if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self {
            clock,
            colour: colour && terminal,
            live: terminal && !dumb,
            to_stderr,
            state: Mutex::default(),
        }
    }

    /// Another one for the same place.
    pub fn again(&self) -> Self {
        Self::new(self.clock.clone(), self.colour, self.to_stderr)
    }

    /// Text in a colour, where colours are wanted.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Bold => "1",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// One line of the story, with the time since the start.
    pub fn say(&self, text: &str) {
        self.put(&format!("{:>6.1} s  {text}", self.clock.now().as_secs_f64()));
    }

    /// The heading of an act.
    pub fn heading(&self, text: &str) {
        self.put("");
        self.put(&self.paint(Colour::Bold, text));
    }

    /// Lines that belong to the one before.
    pub fn detail(&self, text: &str) {
        for line in text.lines() {
            self.put(&format!("          {}", self.paint(Colour::Dim, line)));
        }
    }

    fn put(&self, line: &str) {
        let mut drawn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{}{line}\n", Self::erase(drawn.panel_lines));
        drawn.panel_lines = 0;
        self.write(&text);
    }

    /// Columns of the terminal; 120 where there is none.
    pub fn columns(&self) -> usize {
        let size = if self.to_stderr {
            rustix::termios::tcgetwinsize(std::io::stderr())
        } else {
            rustix::termios::tcgetwinsize(std::io::stdout())
        };
        size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(120)
    }

    /// Draws the panel below the story. Lines are cut to the width: one that wraps could not be erased.
    pub fn panel(&self, lines: &[String]) {
        let mut drawn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if !self.live {
            if drawn.last_plain_panel.is_some_and(|last| now.saturating_sub(last) < PLAIN_PANEL_INTERVAL) {
                return;
            }
            drawn.last_plain_panel = Some(now);
        }
        let mut text = Self::erase(drawn.panel_lines);
        let columns = if self.live { self.columns() } else { usize::MAX };
        for line in lines {
            text.push_str(&cut(line, columns));
            text.push('\n');
        }
        drawn.panel_lines = if self.live { lines.len() } else { 0 };
        self.write(&text);
    }

    /// Takes the panel away, before the last words.
    pub fn end(&self) {
        let mut drawn = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = Self::erase(drawn.panel_lines);
        drawn.panel_lines = 0;
        self.write(&text);
    }

    fn erase(lines: usize) -> String {
        if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
    }

    fn write(&self, text: &str) {
        // A closed pipe is no reason to fail: the verdict is also in the status.
        if self.to_stderr {
            drop(std::io::stderr().write_all(text.as_bytes()));
        } else {
            let mut out = std::io::stdout().lock();
            drop(out.write_all(text.as_bytes()));
            drop(out.flush());
        }
    }
}

/// The first `columns` visible characters; escape sequences take no room and are all kept.
fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut seen, mut escape) = (0, false);
    for character in line.chars() {
        if escape || character == '\x1b' {
            escape = character != 'm';
            kept.push(character);
        } else if seen < columns {
            seen += 1;
            kept.push(character);
        }
    }
    kept
}

/// `[####xxxx........]`: own data, what others have taken, free.
pub fn gauge(own: u64, foreign: u64, capacity: u64, width: usize) -> String {
    let cells = |bytes: u64| -> usize {
        let exact =
            share(bytes, capacity.max(1)).clamp(0.0, 1.0) * f64::from(u32::try_from(width).unwrap_or(0));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the width"
        )]
        let whole = exact.round() as usize;
        whole.min(width)
    };
    let own_cells = cells(own);
    let foreign_cells = cells(own.saturating_add(foreign)).saturating_sub(own_cells);
    let free_cells = width.saturating_sub(own_cells).saturating_sub(foreign_cells);
    format!("[{}{}{}]", "#".repeat(own_cells), "x".repeat(foreign_cells), ".".repeat(free_cells))
}

/// `12.3 MiB`.
#[expect(clippy::cast_precision_loss, reason = "for people, one decimal")]
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        for (line, columns, text) in [
            ("abcdef", 4, "abcd"),
            ("abc", 4, "abc"),
            ("a\x1b[31mbcd\x1b[0mef", 3, "a\x1b[31mbc\x1b[0m"),
            ("\u{e4}\u{f6}\u{fc}", 2, "\u{e4}\u{f6}"),
        ] {
            assert_eq!(cut(line, columns), text, "{line:?}");
        }
    }

    #[test]
    fn a_gauge_has_its_width_whatever_the_numbers() {
        for (own, foreign, capacity, text) in [
            (0, 0, 100, "[..........]"),
            (30, 40, 100, "[###xxxx...]"),
            (100, 0, 100, "[##########]"),
            (90, 90, 100, "[#########x]"),
            (0, 0, 0, "[..........]"),
            (5, u64::MAX, 100, "[#xxxxxxxxx]"),
        ] {
            assert_eq!(gauge(own, foreign, capacity, 10), text, "{own} {foreign} {capacity}");
        }
    }
}
