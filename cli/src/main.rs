//! `plimsoll`: runs the servers of a cluster and administers it.
//!
//! It holds no logic of its own: servers are in their crates, commands are calls of the SDK.

mod bench;
mod change;
mod cluster;
mod completion;
mod connect;
mod consume;
mod controllers;
mod disk;
mod doctor;
mod elect;
mod events;
mod exit;
mod files;
mod given;
mod group;
mod health;
mod known;
mod latency;
mod log;
mod moves;
mod output;
mod partition;
mod produce;
mod profile;
mod retention;
mod server;
mod spu;
mod top;
mod topic;
mod topic_change;
mod version;
mod volume;
mod watching;
mod words;
mod yaml;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use plimsoll_host::Host;

use crate::exit::{Code, Failure, Outcome};

/// A distributed streaming log that treats a full disk as a state it passes through
///
/// Exit codes: 0 fine, 1 failed, 2 usage, 3 no connection, 4 not found, 5 directory locked or of another identity,
/// 6 port in use, 7 configuration, 10 degraded, 11 critical, 20 refused for lack of disk space, 124 timed out.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs, lists, adds and removes controllers
    #[command(subcommand)]
    Controller(controllers::ControllerCommand),
    /// Runs, lists, cordons and drains storage nodes
    #[command(subcommand)]
    Spu(spu::SpuCommand),
    /// Runs a controller and a storage node in one process
    Standalone(server::StandaloneArgs),
    /// Starts, stops and shows clusters
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Creates, lists, describes and deletes topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Lists partitions, moves them and elects their leaders
    #[command(subcommand)]
    Partition(partition::PartitionCommand),
    /// Lists, describes, resets and deletes consumer groups
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Sends each line of standard input as a record
    Produce(produce::ProduceArgs),
    /// Prints records
    Consume(consume::ConsumeArgs),
    /// Shows how full each volume is and why it is at its level
    Disk(disk::DiskArgs),
    /// Shows what the cluster committed about itself
    Events(events::EventsArgs),
    /// Shows and changes what topics keep
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Puts load on a topic and tells rates and percentiles
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    /// Looks at this machine and the cluster: PASS, WARN or FAIL, with a remedy
    Doctor(doctor::DoctorArgs),
    /// Shows volumes, topics, groups and events, live, on the whole terminal
    Top(top::TopArgs),
    /// Shows or checks a configuration, with the origin of each value
    #[command(subcommand)]
    Config(server::ConfigCommand),
    /// Reads the files of logs, without a running cluster
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Explains and mutes what `cluster health` says
    #[command(subcommand)]
    Health(health::HealthCommand),
    /// Keeps clusters by name
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Prints what makes a shell complete commands
    Completion(completion::CompletionArgs),
    /// Prints the manual page, or writes those of all commands
    Man(completion::ManArgs),
    /// Shows the version
    Version(version::VersionArgs),
}

/// How long standard error may take for the last lines of a log.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let done = server::serve_store_if_asked(std::env::args_os()).unwrap_or_else(command);
    plimsoll_host::logging::flush(LOG_FLUSH_MAX);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

fn command() -> Outcome {
    let matches = Arguments::command().get_matches();
    let Arguments { command } = parse(&matches)?;
    let runtime = runtime(&command)?;
    let done = runtime.block_on(run(command, &matches));
    // A read of standard input that never returns must not hold the end up.
    runtime.shutdown_background();
    done
}

/// What was typed; the matches are kept so that `--watch` can run it again.
fn parse(matches: &ArgMatches) -> Result<Arguments, Failure> {
    Arguments::from_arg_matches(matches).map_err(|error| Failure::new(Code::Usage, error.to_string()))
}

/// Servers share the machine's cores; a command needs one.
fn runtime(command: &Command) -> Result<tokio::runtime::Runtime, Failure> {
    let serves = matches!(
        command,
        Command::Controller(controllers::ControllerCommand::Run(_))
            | Command::Spu(spu::SpuCommand::Run(_))
            | Command::Standalone(_)
    );
    let mut builder = if serves {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().map_err(|error| Failure::new(Code::Failed, format!("runtime: {error}")))
}

async fn run(command: Command, matches: &ArgMatches) -> Outcome {
    let host = Host::real();
    match watching::asked(matches) {
        None => once(command, &host).await,
        Some(pause) => {
            let again = async || once(parse(matches)?.command, &host).await;
            watching::run(pause, &host, again).await
        }
    }
}

async fn once(command: Command, host: &Host) -> Outcome {
    match command {
        Command::Controller(command) => controllers::run(command, host).await,
        Command::Spu(command) => spu::run(command, host).await,
        Command::Standalone(args) => server::run_standalone(args, host).await,
        Command::Cluster(command) => cluster::run(command, host).await,
        Command::Topic(command) => topic::run(command, host).await,
        Command::Group(command) => group::run(command, host).await,
        Command::Partition(command) => partition::run(command, host).await,
        Command::Produce(args) => produce::run(args, host).await,
        Command::Consume(args) => consume::run(args, host).await,
        Command::Disk(args) => disk::run(args, host).await,
        Command::Events(args) => events::run(args, host).await,
        Command::Retention(command) => retention::run(command, host).await,
        Command::Bench(command) => bench::run(*command, host).await,
        Command::Doctor(args) => doctor::run(args, host).await,
        Command::Top(args) => top::run(args, host).await,
        Command::Config(command) => server::run_config(command),
        Command::Log(command) => log::run(command),
        Command::Health(command) => health::run(command, host),
        Command::Profile(command) => profile::run(command),
        Command::Completion(args) => completion::completion(&args, Arguments::command()),
        Command::Man(args) => completion::man(&args, Arguments::command()),
        Command::Version(args) => version::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command, by its words.
    fn commands(command: &clap::Command, words: &str, found: &mut Vec<String>) {
        let words = format!("{words} {}", command.get_name()).trim().to_owned();
        let inner: Vec<_> = command.get_subcommands().filter(|inner| inner.get_name() != "help").collect();
        if inner.is_empty() || !command.is_subcommand_required_set() {
            found.push(words.clone());
        }
        inner.into_iter().for_each(|inner| commands(inner, &words, found));
    }

    #[test]
    fn the_reference_names_every_command() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md"));
        let page = page.expect("docs/cli.md");
        let mut all = Vec::new();
        commands(&Arguments::command(), "", &mut all);
        let missing: Vec<_> = all
            .iter()
            // The subjects of a configuration are those of the servers.
            .filter(|words| !words.starts_with("plimsoll config") && words.as_str() != "plimsoll")
            .filter(|words| !page.contains(&format!("`{words}`")))
            .collect();
        assert!(missing.is_empty(), "docs/cli.md lacks {missing:?}");
    }

    #[test]
    fn every_command_prints_as_asked_and_is_watched_or_tried_without_effect() {
        // Servers print their log.
        const NO_DOCUMENT: [&str; 5] = [
            "plimsoll controller run",
            "plimsoll spu run",
            "plimsoll standalone",
            "plimsoll completion",
            "plimsoll man",
        ];
        let mut all = Vec::new();
        commands(&Arguments::command(), "", &mut all);
        let mut wrong = Vec::new();
        for words in all {
            let root = Arguments::command();
            let path: Vec<&str> = words.split(' ').skip(1).collect();
            let command = path.iter().fold(&root, |at, word| at.find_subcommand(word).expect("listed"));
            let has = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            // There `--controller` is a value that is kept or checked, not whom to talk to.
            let kept = ["plimsoll config", "plimsoll profile"].iter().any(|noun| words.starts_with(noun));
            let talks = has("controller") && !kept && !words.ends_with(" run");
            let server = words.ends_with(" run") || words == "plimsoll standalone" || path.is_empty();
            let live = words == "plimsoll top";
            let document = has("output") || NO_DOCUMENT.contains(&words.as_str());
            let repeats = has("watch") || has("dry-run") || words == "plimsoll completion";
            if !(server || live || document && repeats) || talks && !(has("profile") && has("timeout")) {
                wrong.push(words);
            }
        }
        assert!(wrong.is_empty(), "these lack flags that every command has: {wrong:?}");
    }

    /// What each command needs at least, so that one wrong value is all that is wrong.
    const NEEDED: [(&str, &[&str]); 37] = [
        ("plimsoll topic create", &["t"]),
        ("plimsoll topic describe", &["t"]),
        ("plimsoll topic delete", &["t"]),
        ("plimsoll topic alter", &["t"]),
        ("plimsoll topic add-partitions", &["t", "--to=2"]),
        ("plimsoll retention set", &["t"]),
        ("plimsoll produce", &["t"]),
        ("plimsoll consume", &["t"]),
        ("plimsoll bench produce", &["t"]),
        ("plimsoll bench consume", &["t"]),
        ("plimsoll group describe", &["g"]),
        ("plimsoll group delete", &["g"]),
        ("plimsoll group reset", &["g", "--to=earliest", "--topic=t"]),
        ("plimsoll partition reassign", &["t/0", "--to=1"]),
        ("plimsoll partition elect", &["t/0"]),
        ("plimsoll disk reclaim", &["--spu=1", "--target-free=1GiB"]),
        ("plimsoll disk borrow", &["--spu=1", "--bytes=1MiB"]),
        ("plimsoll disk drill", &["--spu=1"]),
        ("plimsoll spu describe", &["1"]),
        ("plimsoll spu cordon", &["1"]),
        ("plimsoll spu drain", &["1"]),
        ("plimsoll spu offline", &["1"]),
        ("plimsoll spu online", &["1"]),
        ("plimsoll controller add", &["4@h:7001"]),
        ("plimsoll controller remove", &["4"]),
        ("plimsoll controller transfer", &["4"]),
        ("plimsoll cluster start", &["--local"]),
        ("plimsoll log dump", &["/d"]),
        ("plimsoll log verify", &["/d"]),
        ("plimsoll health mute", &["DISK_FULL"]),
        ("plimsoll health unmute", &["DISK_FULL"]),
        ("plimsoll profile set", &["p", "--controller=h:7001"]),
        ("plimsoll profile use", &["p"]),
        ("plimsoll profile delete", &["p"]),
        ("plimsoll completion", &["bash"]),
        ("plimsoll config view", &["client"]),
        ("plimsoll config check", &["client"]),
    ];

    /// Flags whose values are text: whether there is such a thing is seen when it is looked for.
    const FREE_TEXT: [&str; 20] = [
        "advertise",
        "bundle",
        "config",
        "controller",
        "data-dir",
        "dir",
        "file",
        "group",
        "join-token",
        "key-separator",
        "listen",
        "log",
        "peer-token",
        "profile",
        "rack",
        "separator",
        "spu-advertise",
        "spu-listen",
        "topic",
        "volume",
    ];

    fn parsed(words: &str, leave_out: &str, more: &str) -> Result<(), clap::error::ErrorKind> {
        let needed =
            NEEDED.iter().find(|(command, _)| *command == words).map_or(&[][..], |(_, needed)| needed);
        let needed = needed.iter().copied().filter(|given| given.split('=').next() != Some(leave_out));
        let more = Some(more).filter(|more| !more.is_empty());
        let matches = Arguments::command().try_get_matches_from(words.split(' ').chain(needed).chain(more));
        let parsed = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
        parsed.map(drop).map_err(|error| error.kind())
    }

    #[test]
    fn nonsense_in_any_flag_is_an_error_and_never_a_panic() {
        use clap::error::ErrorKind::{InvalidValue, TooManyValues, ValueValidation};
        let mut all = Vec::new();
        commands(&Arguments::command(), "", &mut all);
        let root = Arguments::command();
        let mut taken = Vec::new();
        for words in all.iter().filter(|words| words.as_str() != "plimsoll") {
            assert_eq!(parsed(words, "", ""), Ok(()), "{words}");
            let path = words.split(' ').skip(1);
            let command = path.fold(&root, |at, word| at.find_subcommand(word).expect("listed"));
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                for nonsense in ["10XB", "-1", "", "\u{1}", "99999999999999999999999", "two words"] {
                    let found = parsed(words, &format!("--{flag}"), &format!("--{flag}={nonsense}"));
                    let refused = matches!(found, Err(InvalidValue | TooManyValues | ValueValidation));
                    // The last record.
                    let meant = (words.as_str(), flag, nonsense) == ("plimsoll consume", "from", "-1");
                    if !(refused || meant || FREE_TEXT.contains(&flag)) {
                        taken.push(format!("{words} --{flag}={nonsense}: {found:?}"));
                    }
                }
            }
        }
        assert!(taken.is_empty(), "{taken:#?}");
    }

    #[test]
    fn nothing_of_something_is_not_its_default() {
        for (words, flags) in [
            ("plimsoll topic create", &["partitions=0", "replicas=0", "min-in-sync=0", "retention=0s"][..]),
            ("plimsoll topic create", &["retention=999us", "retention-bytes=0", "segment-bytes=0"]),
            ("plimsoll topic create", &["batch-bytes-max=0", "flush-interval=0s"]),
            ("plimsoll topic alter", &["min-in-sync=0", "retention=0s", "retention-bytes=0"]),
            ("plimsoll topic alter", &["batch-bytes-max=0", "flush-interval=0s"]),
            ("plimsoll topic add-partitions", &["to=0"]),
            ("plimsoll retention set", &["for=0s", "bytes=0"]),
            ("plimsoll cluster start", &["controllers=0", "controllers=2", "controllers=4", "controllers=6"]),
            ("plimsoll cluster start", &["controllers=7", "spus=0", "port=0"]),
            ("plimsoll events", &["limit=0"]),
            ("plimsoll topic list", &["timeout=0s", "timeout=999us"]),
            ("plimsoll profile set", &["timeout=0s"]),
        ] {
            for flag in flags {
                let name = flag.split('=').next().map(|name| format!("--{name}")).unwrap_or_default();
                let found = parsed(words, &name, &format!("--{flag}"));
                assert!(found.is_err_and(|kind| kind.as_str().is_some()), "{words} --{flag}");
            }
        }
        for (words, flag) in [
            ("plimsoll topic alter", "--retention=forever"),
            ("plimsoll retention set", "--bytes=forever"),
            // What an undo may have to say.
            ("plimsoll topic alter", "--min-retention=0s"),
            ("plimsoll topic alter", "--segment-bytes=0"),
            ("plimsoll cluster start", "--controllers=5"),
        ] {
            assert_eq!(parsed(words, "", flag), Ok(()), "{words} {flag}");
        }
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }
}
