//! Which cluster a command talks to.
//!
//! ```text
//! --controller  >  --profile  >  PLIMSOLL_CONTROLLER  >  PLIMSOLL_PROFILE  >  current profile  >  local cluster
//! ```

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use plimsoll_client::{Client, ClientBuilder};
use plimsoll_host::Host;
use plimsoll_host::config::Span;

use crate::change::quoted;
use crate::exit::Failure;
use crate::given;
use crate::profile::{self, Profile};

/// Controllers that a local cluster has when nothing else is said.
pub(crate) const CONTROLLERS_DEFAULT: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";
/// How long each call may take when nothing else is said.
const TIMEOUT_DEFAULT: Span = Span(Duration::from_secs(30));
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Where nothing listens anywhere, waiting longer is of no use to somebody at a terminal.
const REFUSED_MAX: Duration = Duration::from_millis(1500);
/// Longer than an election; a majority that is down does not come back while somebody waits at a terminal.
const NO_QUORUM_MAX: Duration = Duration::from_secs(4);

/// `--controller`, `--profile` and `--timeout`, on every command that talks to a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectArgs {
    pub(crate) controllers: Vec<String>,
    pub(crate) profile: Option<String>,
    pub(crate) timeout: Option<Span>,
}

/// Names of the flags within the matches: other commands have values of their own by the same flags.
const CONTROLLER: &str = "cluster-controller";
const PROFILE: &str = "cluster-profile";
const TIMEOUT: &str = "cluster-timeout";

impl clap::Args for ConnectArgs {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new(CONTROLLER)
                    .long("controller")
                    .value_name("[ID@]HOST:PORT")
                    .value_delimiter(',')
                    .action(ArgAction::Append)
                    .help(
                        "A controller; repeat it for each, all are tried at once [env: PLIMSOLL_CONTROLLER] \
                         [default: those of the profile, else 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003]",
                    ),
            )
            .arg(Arg::new(PROFILE).long("profile").value_name("NAME").help(
                "Takes controllers and timeout from this profile; see `plimsoll profile` [env: PLIMSOLL_PROFILE]",
            ))
            .arg(
                Arg::new(TIMEOUT)
                    .long("timeout")
                    .value_name("TIME")
                    .env("PLIMSOLL_TIMEOUT")
                    .value_parser(given::time)
                    .help(
                        "How long each call may take, retries included, such as 500ms or 30s \
                         [default: that of the profile, else 30s]",
                    ),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Leaves the values in the matches, unlike what is derived: [`typed`] looks at them, too.
impl FromArgMatches for ConnectArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            controllers: matches.get_many(CONTROLLER).into_iter().flatten().cloned().collect(),
            profile: matches.get_one(PROFILE).cloned(),
            timeout: matches.get_one(TIMEOUT).copied(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags by which the cluster was named, to be typed again behind another command: with a space in front, or
/// empty. What the environment or the current profile says holds for that command by itself.
pub(crate) fn typed(matches: &ArgMatches) -> String {
    let flag = |id, flag: &str| {
        // Commands that talk to no cluster have no such flags.
        let given = matches.try_get_many::<String>(id).ok().flatten().into_iter().flatten();
        let given: Vec<&str> = given.map(String::as_str).collect();
        if given.is_empty() { String::new() } else { format!(" {flag} {}", quoted(&given.join(","))) }
    };
    flag(CONTROLLER, "--controller") + &flag(PROFILE, "--profile")
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) origin: String,
}

/// What [`ConnectArgs`] come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) controllers: Sourced<Vec<String>>,
    pub(crate) timeout: Sourced<Span>,
}

/// What stands in the environment.
#[derive(Clone, Debug, Default)]
struct Environment {
    controllers: Option<String>,
    profile: Option<String>,
}

impl ConnectArgs {
    /// Which controllers and how long, and why.
    ///
    /// # Errors
    /// Exit code 7: the profile is not there, or the file of profiles cannot be read.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let environment =
            Environment { controllers: given("PLIMSOLL_CONTROLLER"), profile: given("PLIMSOLL_PROFILE") };
        // A broken file of profiles must not be in the way of somebody who does not use it.
        if self.profile.is_none() && (!self.controllers.is_empty() || environment.controllers.is_some()) {
            return Ok(self.choose(&environment, None));
        }
        let name = self.profile.clone().or_else(|| environment.profile.clone());
        Ok(self.choose(&environment, profile::chosen(name.as_deref())?.as_ref()))
    }

    fn choose(&self, environment: &Environment, profile: Option<&(String, Profile)>) -> Target {
        let list = |text: &str| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        let from = |value, origin: &str| Sourced { value, origin: origin.to_owned() };
        let by_profile = |(name, profile): &(String, Profile)| Sourced {
            value: profile.controllers.clone(),
            origin: format!("profile {name}"),
        };
        let controllers = if !self.controllers.is_empty() {
            from(self.controllers.clone(), "--controller")
        } else if let (Some(_), Some(profile)) = (&self.profile, profile) {
            by_profile(profile)
        } else if let Some(text) = &environment.controllers {
            from(list(text), "PLIMSOLL_CONTROLLER")
        } else if let Some(profile) = profile {
            by_profile(profile)
        } else {
            from(list(CONTROLLERS_DEFAULT), "default")
        };
        let of_profile = profile.and_then(|(name, profile)| Some((name, profile.timeout?)));
        let timeout = match (self.timeout, of_profile) {
            (Some(given), _) => Sourced { value: given, origin: "--timeout or PLIMSOLL_TIMEOUT".to_owned() },
            (None, Some((name, timeout))) => Sourced { value: timeout, origin: format!("profile {name}") },
            (None, None) => Sourced { value: TIMEOUT_DEFAULT, origin: "default".to_owned() },
        };
        Target { controllers, timeout }
    }

    pub(crate) fn builder(&self, host: &Host) -> Result<ClientBuilder, Failure> {
        let Target { controllers, timeout } = self.target()?;
        Ok(Client::builder()
            .host(host.clone())
            .controllers(controllers.value)
            .connect_timeout(timeout.value.0.min(CONNECT_MAX))
            .refused_timeout(REFUSED_MAX)
            .no_quorum_timeout(NO_QUORUM_MAX)
            .call_timeout(timeout.value.0))
    }

    pub(crate) async fn connect(&self, host: &Host) -> Result<Client, Failure> {
        Ok(self.builder(host)?.build().await?)
    }

    /// To write or read records: an election is waited for as long as anything else.
    pub(crate) async fn connect_for_records(&self, host: &Host) -> Result<Client, Failure> {
        Ok(self.builder(host)?.no_quorum_timeout(Duration::MAX).build().await?)
    }

    /// As [`ConnectArgs::connect`], but waits `limit` at most for a controller.
    pub(crate) async fn connect_within(&self, host: &Host, limit: Duration) -> Result<Client, Failure> {
        let limit = limit.min(self.target()?.timeout.value.0);
        Ok(self.builder(host)?.connect_timeout(limit).build().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearer_to_the_hand_wins() {
        let profile = ("p".to_owned(), Profile { controllers: vec!["p:1".to_owned()], timeout: None });
        let environment =
            Environment { controllers: Some("e:1, e:2,".to_owned()), profile: Some("p".to_owned()) };
        let flag = ConnectArgs { controllers: vec!["f:1".to_owned()], ..Default::default() };
        let named = ConnectArgs { profile: Some("p".to_owned()), ..Default::default() };
        let nothing = ConnectArgs::default();
        let bare = Environment::default();
        for (args, environment, profile, controllers, origin) in [
            (&flag, &environment, Some(&profile), &["f:1"][..], "--controller"),
            (&named, &environment, Some(&profile), &["p:1"], "profile p"),
            (&nothing, &environment, Some(&profile), &["e:1", "e:2"], "PLIMSOLL_CONTROLLER"),
            (&nothing, &bare, Some(&profile), &["p:1"], "profile p"),
            (&nothing, &bare, None, &["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"], "default"),
        ] {
            let target = args.choose(environment, profile);
            assert_eq!(target.controllers.value, controllers, "{origin}");
            assert_eq!(target.controllers.origin, origin);
        }
    }

    #[test]
    fn the_time_of_a_profile_gives_way_to_what_is_said() {
        let timed = Profile { controllers: Vec::new(), timeout: Some(Span(Duration::from_secs(5))) };
        let profile = ("p".to_owned(), timed);
        let bare = Environment::default();
        let said = ConnectArgs { timeout: Some(Span(Duration::from_secs(1))), ..Default::default() };
        let seconds = |args: &ConnectArgs, profile| args.choose(&bare, profile).timeout.value.0.as_secs();
        assert_eq!(seconds(&said, Some(&profile)), 1);
        assert_eq!(seconds(&ConnectArgs::default(), Some(&profile)), 5);
        assert_eq!(seconds(&ConnectArgs::default(), None), 30);
    }
}
