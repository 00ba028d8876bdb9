//! A terminal: a pseudo-terminal of a given size with a process in it, and as much of a screen (ECMA-48, xterm) as
//! `plimsoll top` uses.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use plimsoll_host::{Host, Tasks};
use rustix::process::{Signal, ioctl_tiocsctty, set_parent_process_death_signal, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::process::Server;

/// However busy the machine is.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Parts of what is drawn that wait to be looked at; the process waits when there are more.
const PARTS_MAX: usize = 1024;

/// Columns and rows.
pub(crate) type Size = (u16, u16);

pub(crate) struct Terminal {
    keys: File,
    drawn: mpsc::Receiver<Vec<u8>>,
    pub(crate) screen: Screen,
    /// Kept open, so that its modes can be asked for when the process has ended.
    line: OwnedFd,
    modes: String,
    child: Server,
}

impl Terminal {
    /// Runs a command as the leader of a session with a new terminal.
    pub(crate) fn run(mut command: Command, size: Size) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let line = ioctl_tiocgptpeer(&keys, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let line = line.unwrap();
        tcsetwinsize(&keys, winsize(size)).unwrap();
        let modes = modes(&line);
        let end = || Stdio::from(line.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let controlling = line.try_clone().unwrap();
        // SAFETY: between fork and exec there are system calls only, which are async-signal-safe and allocate nothing.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                setsid()?;
                ioctl_tiocsctty(&controlling)?;
                Ok(())
            });
        }
        let child = Server(command.spawn().unwrap());
        let keys = File::from(keys);
        let output = keys.try_clone().unwrap();
        let (parts, drawn) = mpsc::sync_channel(PARTS_MAX);
        // It ends by itself.
        drop(
            Tasks::threads().spawn_lane("terminal", move || Box::pin(async move { forward(output, &parts) })),
        );
        Self { keys, drawn, screen: Screen::new(size), line, modes, child }
    }

    pub(crate) fn resize(&mut self, size: Size) {
        self.screen.resize(size);
        tcsetwinsize(&self.keys, winsize(size)).unwrap();
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Draws until the screen is as wanted.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Screen) -> bool) {
        let clock = Host::real().clock;
        let until = clock.now() + WAIT_MAX;
        while !wanted(&self.screen) {
            let left = until.saturating_sub(clock.now());
            match self.drawn.recv_timeout(left) {
                Ok(part) => self.screen.draw(&part),
                Err(why) => panic!("{what}: {why}; the screen:\n{}", self.screen.text()),
            }
        }
    }

    /// Waits until the process has ended by itself. Its exit code, and how long that took.
    pub(crate) fn ended(&mut self) -> (Option<i32>, Duration) {
        let clock = Host::real().clock;
        let began = clock.now();
        let status = loop {
            // What is not read would hold the process up.
            if let Ok(part) = self.drawn.recv_timeout(Duration::from_millis(20)) {
                self.screen.draw(&part);
            } else if let Some(status) = self.child.0.try_wait().unwrap() {
                break status;
            }
            assert!(clock.now() - began < WAIT_MAX, "it does not end; the screen:\n{}", self.screen.text());
        };
        let took = clock.now() - began;
        // Behind all that it wrote.
        rustix::io::write(&self.line, b"\x07").unwrap();
        self.wait("the last of what was drawn", |screen| screen.bell);
        (status.code(), took)
    }

    /// Asserts that whoever typed the command has the terminal back as it was.
    pub(crate) fn assert_restored(&self) {
        assert!(self.screen.alternate_seen, "the screen of before is not drawn over");
        assert!(!self.screen.alternate, "the screen of before is back");
        assert!(self.screen.cursor, "the cursor is shown");
        assert_eq!(modes(&self.line), self.modes, "lines and echo as before");
    }
}

/// Hands over what is drawn until nobody has the other side any more (EIO), or nobody wants to see it.
fn forward(mut output: File, parts: &mpsc::SyncSender<Vec<u8>>) {
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut part) {
        if parts.send(part[..read].to_vec()).is_err() {
            break;
        }
    }
}

fn winsize((columns, rows): Size) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn modes(line: &OwnedFd) -> String {
    let modes = tcgetattr(line).unwrap();
    format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
}

/// What is to be seen: characters at places. Colours are passed over.
pub(crate) struct Screen {
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    pub(crate) alternate: bool,
    pub(crate) alternate_seen: bool,
    pub(crate) cursor: bool,
    bell: bool,
    /// The part of a sequence or character whose end has not come yet.
    begun: Vec<u8>,
}

impl Screen {
    fn new(size: Size) -> Self {
        let mut screen = Self {
            rows: Vec::new(),
            at: (0, 0),
            alternate: false,
            alternate_seen: false,
            cursor: true,
            bell: false,
            begun: Vec::new(),
        };
        screen.resize(size);
        screen
    }

    /// Empty: what stays of the old picture differs from terminal to terminal.
    fn resize(&mut self, (columns, rows): Size) {
        self.rows = vec![vec![' '; columns.into()]; rows.into()];
    }

    pub(crate) fn row(&self, row: usize) -> String {
        self.rows[row].iter().collect::<String>().trim_end().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        (0..self.rows.len()).map(|row| self.row(row) + "\n").collect()
    }

    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let text = self.text();
        words.iter().all(|word| text.contains(word))
    }

    pub(crate) fn last_row(&self) -> String {
        self.row(self.rows.len() - 1)
    }

    fn draw(&mut self, part: &[u8]) {
        for byte in part {
            self.begun.push(*byte);
            let begun = std::mem::take(&mut self.begun);
            if !self.complete(&begun) {
                self.begun = begun;
            }
        }
    }

    /// Takes a sequence or character in; whether it has come to its end.
    fn complete(&mut self, begun: &[u8]) -> bool {
        match begun {
            [0x07] => self.bell = true,
            [b'\r'] => self.at.1 = 0,
            [b'\n'] => self.at.0 += 1,
            [0x1b, b'[', parameters @ .., end @ 0x40..=0x7e] => {
                self.control(&String::from_utf8_lossy(parameters), *end);
            }
            [0x1b] | [0x1b, b'[', ..] => return false,
            // Two characters: saving the cursor and the like.
            [0x1b, _] => {}
            text => match std::str::from_utf8(text) {
                Ok(text) => text.chars().for_each(|character| self.put(character)),
                Err(_) if text.len() < 4 => return false,
                Err(_) => panic!("not UTF-8: {text:?}"),
            },
        }
        true
    }

    fn put(&mut self, character: char) {
        let (row, column) = self.at;
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = character;
        }
        self.at.1 += 1;
    }

    fn control(&mut self, parameters: &str, end: u8) {
        let number =
            |at: usize| parameters.split(';').nth(at).and_then(|number| number.parse::<usize>().ok());
        match (end, parameters) {
            (b'H', _) => self.at = (number(0).unwrap_or(1) - 1, number(1).unwrap_or(1) - 1),
            (b'J', "2") => self.rows.iter_mut().for_each(|row| row.fill(' ')),
            (b'J', "" | "0") => {
                let (row, column) = self.at;
                self.rows.iter_mut().skip(row + 1).for_each(|row| row.fill(' '));
                if let Some(row) = self.rows.get_mut(row) {
                    row.iter_mut().skip(column).for_each(|cell| *cell = ' ');
                }
            }
            (b'h' | b'l', "?1049") => {
                self.alternate = end == b'h';
                self.alternate_seen |= self.alternate;
            }
            (b'h' | b'l', "?25") => self.cursor = end == b'h',
            _ => {}
        }
    }
}
