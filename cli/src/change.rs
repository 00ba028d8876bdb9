//! Commands that change something: `--dry-run`, and how to take it back.

use serde::Serialize;

use crate::exit::Outcome;
use crate::output::{OutputArgs, print};

/// `--dry-run` and `-o`, on every command that changes something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Says what would be done, and checks what can be checked, but changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl From<ChangeArgs> for OutputArgs {
    fn from(args: ChangeArgs) -> Self {
        args.output
    }
}

/// A change that was made, or would be.
#[derive(Debug, Serialize)]
pub(crate) struct Change<T> {
    dry_run: bool,
    /// What was done, or would be, in words.
    change: String,
    /// The command that takes it back; absent when nothing does.
    undo: Option<String>,
    #[serde(flatten)]
    detail: T,
}

/// A change without more to say.
#[derive(Debug, Serialize)]
pub(crate) struct Nothing {}

impl Change<Nothing> {
    /// Says it both ways: "create topic t" and "created topic t".
    pub(crate) fn new(args: ChangeArgs, would: impl Into<String>, done: impl Into<String>) -> Self {
        Self::with(args, would, done, Nothing {})
    }
}

impl<T: Serialize> Change<T> {
    /// A change with further fields for programs.
    pub(crate) fn with(
        args: ChangeArgs,
        would: impl Into<String>,
        done: impl Into<String>,
        detail: T,
    ) -> Self {
        let change = if args.dry_run { would.into() } else { done.into() };
        Self { dry_run: args.dry_run, change, undo: None, detail }
    }

    /// Names the command that takes it back.
    pub(crate) fn undo(mut self, command: impl Into<String>) -> Self {
        self.undo = Some(command.into());
        self
    }

    /// Prints it.
    pub(crate) fn print(self, args: ChangeArgs) -> Outcome {
        print(args, &self, Self::text)
    }

    fn text(&self) -> String {
        let mut text = match self.dry_run {
            true => format!("would {}; nothing was changed\n", self.change),
            false => format!("{}\n", self.change),
        };
        match &self.undo {
            Some(undo) => text.push_str(&format!("undo: {undo}\n")),
            None => text.push_str("undo: there is none\n"),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn what_is_done_and_what_would_be_are_told_apart_and_the_undo_is_named() {
        let args = |dry_run| ChangeArgs { dry_run, output: OutputArgs { output: Format::Table } };
        let change = |dry_run| {
            Change::new(args(dry_run), "create topic t", "created topic t").undo("plimsoll topic delete t")
        };
        assert_eq!(change(false).text(), "created topic t\nundo: plimsoll topic delete t\n");
        assert!(change(true).text().starts_with("would create topic t; nothing was changed\n"));
        assert!(Change::new(args(false), "x", "y").text().ends_with("undo: there is none\n"));
        let json = serde_json::to_value(change(true)).expect("plain data");
        assert_eq!((&json["dry_run"], &json["undo"]), (&true.into(), &"plimsoll topic delete t".into()));
    }
}
