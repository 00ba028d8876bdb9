//! Commands that change something: `--dry-run`, and how to take it back.

use clap::{ArgMatches, Command, FromArgMatches};
use serde::Serialize;

use crate::connect;
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
    #[command(flatten)]
    cluster: Cluster,
}

/// The flags by which the cluster was named: an undo without them would be typed for another one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cluster {
    /// With a space in front, or empty.
    typed: &'static str,
}

impl clap::Args for Cluster {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl FromArgMatches for Cluster {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = connect::typed(matches);
        // Kept until the process ends, as its command line is: it is read once.
        Ok(if typed.is_empty() { Self::default() } else { Self { typed: typed.leak() } })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Cluster {
    /// Commands, one after the other, as they are typed for this cluster; `None` where there is none.
    pub(crate) fn typed(self, commands: impl IntoIterator<Item = String>) -> Option<String> {
        let commands = commands.into_iter().map(|command| format!("{command}{}", self.typed));
        let typed: Vec<String> = commands.collect();
        (!typed.is_empty()).then(|| typed.join(" && "))
    }
}

impl ChangeArgs {
    /// A command as it is typed for the cluster that was named.
    pub(crate) fn for_cluster(self, command: &str) -> String {
        format!("{command}{}", self.cluster.typed)
    }
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
    #[serde(skip)]
    cluster: Cluster,
}

/// A text as shells take it as one word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:,@+".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
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
        Self { dry_run: args.dry_run, change, undo: None, detail, cluster: args.cluster }
    }

    /// Names the command that takes it back; the flags by which the cluster was named are added.
    pub(crate) fn undo(self, command: impl Into<String>) -> Self {
        self.undo_all([command.into()])
    }

    /// As [`Change::undo`], where it takes several commands, or none.
    pub(crate) fn undo_all(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.undo = self.cluster.typed(commands);
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
    use clap::Args as _;

    use super::*;
    use crate::connect::ConnectArgs;

    #[derive(Debug, clap::Args)]
    struct Typed {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(flatten)]
        change: ChangeArgs,
    }

    fn typed(line: &[&str]) -> Typed {
        let command = Typed::augment_args(clap::Command::new("t").no_binary_name(true));
        let matches = command.try_get_matches_from(line).expect("well formed");
        Typed::from_arg_matches(&matches).expect("well formed")
    }

    #[test]
    fn what_is_done_and_what_would_be_are_told_apart_and_the_undo_is_named() {
        let args = |dry_run: bool| typed(if dry_run { &["--dry-run"] } else { &[] }).change;
        let change = |dry_run| {
            Change::new(args(dry_run), "create topic t", "created topic t").undo("plimsoll topic delete t")
        };
        assert_eq!(change(false).text(), "created topic t\nundo: plimsoll topic delete t\n");
        assert!(change(true).text().starts_with("would create topic t; nothing was changed\n"));
        assert!(Change::new(args(false), "x", "y").text().ends_with("undo: there is none\n"));
        let json = serde_json::to_value(change(true)).expect("plain data");
        assert_eq!((&json["dry_run"], &json["undo"]), (&true.into(), &"plimsoll topic delete t".into()));
        assert!(json.get("cluster").is_none(), "{json}");
    }

    #[test]
    fn an_undo_is_for_the_cluster_that_was_named() {
        for (line, flags) in [
            (&[][..], ""),
            (&["--timeout", "1s"], ""),
            (&["--profile", "far"], " --profile far"),
            (&["--controller", "a:1", "--controller", "2@b:2,c:3"], " --controller a:1,2@b:2,c:3"),
            (&["--controller", "[::1]:1", "--profile", "a"], " --controller '[::1]:1' --profile a"),
        ] {
            let args = typed(line);
            let change = Change::new(args.change, "", "").undo_all(["x".to_owned(), "y".to_owned()]);
            assert_eq!(change.undo, Some(format!("x{flags} && y{flags}")), "{line:?}");
            // What is looked at twice is still there for the connection.
            assert_eq!(args.connect.profile.is_some(), flags.contains("--profile"), "{line:?}");
            assert_eq!(args.connect.controllers.is_empty(), !flags.contains("--controller"), "{line:?}");
        }
        assert_eq!(Change::new(typed(&[]).change, "", "").undo_all([]).undo, None);
    }

    #[test]
    fn a_shell_takes_what_is_quoted_as_one_word() {
        for (text, expected) in [
            ("/var/lib-1/a.b", "/var/lib-1/a.b"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
