//! `plimsoll profile`: clusters by name, so that nobody types addresses.
//!
//! They are kept in `$XDG_CONFIG_HOME/plimsoll/profiles.toml`, else `~/.config/plimsoll/profiles.toml`:
//!
//! ```toml
//! current = "prod"
//!
//! [profiles.prod]
//! controllers = ["c1:7001", "c2:7001", "c3:7001"]
//! timeout = "10s"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use plimsoll_host::config::Span;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::change::{Change, ChangeArgs, quoted};
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::given;
use crate::output::{ShowArgs, print, table};

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Lists the profiles; the current one is marked
    List(ShowArgs),
    /// Makes a profile or changes it
    Set(SetArgs),
    /// Makes a profile the one that is used when nothing else is said
    Use(NameArgs),
    /// Deletes a profile
    Delete(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// 1 to 64 letters, digits, '.', '_' and '-'
    name: String,
    /// A controller; repeat it for each
    #[arg(long = "controller", value_name = "[ID@]HOST:PORT", value_delimiter = ',', required = true)]
    controllers: Vec<String>,
    /// How long each call may take
    #[arg(long, value_name = "TIME", value_parser = given::time)]
    timeout: Option<Span>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    name: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) controllers: Vec<String>,
    #[serde(default, deserialize_with = "timeout", skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Span>,
}

/// As it may be typed.
fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    given::time(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

#[derive(Serialize)]
struct Listed {
    file: String,
    current: Option<String>,
    profiles: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    controllers: Vec<String>,
    timeout: Option<Span>,
}

/// Where profiles are kept.
fn file() -> Result<PathBuf, Failure> {
    Ok(files::config_dir()?.join("profiles.toml"))
}

impl Profiles {
    fn load(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let text = format!("profiles file {}: {why}\ncorrect it or delete it", path.display());
            Failure::new(Code::Configuration, text)
        };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(&error.to_string())),
        }
    }

    fn save(&self, path: &Path) -> Outcome {
        let text = toml::to_string(self)
            .map_err(|error| Failure::new(Code::Failed, format!("profiles: {error}")))?;
        files::replace(path, &text)
            .map_err(|error| Failure::new(Code::Failed, format!("{}: {error}", path.display())))
    }

    fn named(&self, name: &str) -> Result<&Profile, Failure> {
        self.profiles.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!(
                "there is no profile '{name}'; there are: {known}\nmake it with `plimsoll profile set {name} --controller HOST:PORT`"
            );
            Failure::new(Code::Configuration, text)
        })
    }
}

/// The profile of this name, else the current one if there is one.
///
/// # Errors
/// Exit code 7 when it is not there, or the file cannot be read.
pub(crate) fn chosen(name: Option<&str>) -> Result<Option<(String, Profile)>, Failure> {
    let path = match (file(), name) {
        (Ok(path), _) => path,
        // A service without a home has no profiles, and needs none.
        (Err(_), None) => return Ok(None),
        (Err(failure), Some(_)) => return Err(failure),
    };
    let profiles = Profiles::load(&path)?;
    let Some(name) = name.or(profiles.current.as_deref()) else { return Ok(None) };
    Ok(Some((name.to_owned(), profiles.named(name)?.clone())))
}

pub(crate) fn run(command: ProfileCommand) -> Outcome {
    let path = file()?;
    let mut profiles = Profiles::load(&path)?;
    match command {
        ProfileCommand::List(show) => list(&path, profiles, show),
        ProfileCommand::Set(args) => {
            check_name(&args.name)?;
            given::controllers(&args.controllers)
                .map_err(|why| Failure::new(Code::Usage, format!("--controller: {why}")))?;
            let profile = Profile { controllers: args.controllers, timeout: args.timeout };
            let before = profiles.profiles.insert(args.name.clone(), profile);
            // The only one is meant.
            if profiles.profiles.len() == 1 {
                profiles.current = Some(args.name.clone());
            }
            if !args.change.dry_run {
                profiles.save(&path)?;
            }
            let undo = match &before {
                None => format!("plimsoll profile delete {}", args.name),
                Some(before) => {
                    let controllers = quoted(&before.controllers.join(","));
                    let timeout = before.timeout.map(|span| format!(" --timeout {span}")).unwrap_or_default();
                    format!("plimsoll profile set {} --controller {controllers}{timeout}", args.name)
                }
            };
            let (would, done) = if before.is_some() { ("change", "changed") } else { ("make", "made") };
            let named = |verb: &str| format!("{verb} profile {}", args.name);
            Change::new(args.change, named(would), named(done)).undo(undo).print(args.change)
        }
        ProfileCommand::Use(args) => {
            profiles.named(&args.name)?;
            let before = profiles.current.replace(args.name.clone());
            if !args.change.dry_run {
                profiles.save(&path)?;
            }
            let change = Change::new(
                args.change,
                format!("use profile {}", args.name),
                format!("profile {} is used from now on", args.name),
            );
            match before {
                Some(before) => change.undo(format!("plimsoll profile use {before}")),
                None => change,
            }
            .print(args.change)
        }
        ProfileCommand::Delete(args) => {
            let before = profiles.named(&args.name)?.clone();
            profiles.profiles.remove(&args.name);
            profiles.current = profiles.current.filter(|current| *current != args.name);
            if !args.change.dry_run {
                profiles.save(&path)?;
            }
            let undo = format!(
                "plimsoll profile set {} --controller {}",
                args.name,
                quoted(&before.controllers.join(","))
            );
            let named = |verb: &str| format!("{verb} profile {}", args.name);
            Change::new(args.change, named("delete"), named("deleted")).undo(undo).print(args.change)
        }
    }
}

fn list(path: &Path, profiles: Profiles, show: ShowArgs) -> Outcome {
    let current = profiles.current;
    let rows = profiles.profiles.into_iter().map(|(name, profile)| Row {
        current: current.as_ref() == Some(&name),
        name,
        controllers: profile.controllers,
        timeout: profile.timeout,
    });
    let listed = Listed { file: path.display().to_string(), profiles: rows.collect(), current };
    print(show, &listed, |listed| {
        if listed.profiles.is_empty() {
            return "no profile; make one with `plimsoll profile set NAME --controller HOST:PORT`\n"
                .to_owned();
        }
        let rows: Vec<Vec<String>> = listed
            .profiles
            .iter()
            .map(|row| {
                let mark = if row.current { "*" } else { "" };
                let timeout = row.timeout.map_or_else(|| "-".to_owned(), |span| span.to_string());
                vec![mark.to_owned(), row.name.clone(), row.controllers.join(","), timeout]
            })
            .collect();
        table(&["", "profile", "controllers", "timeout"], &rows)
    })
}

fn check_name(name: &str) -> Outcome {
    let good = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !name.starts_with('-');
    if good {
        return Ok(());
    }
    let why = format!("'{name}' is no name for a profile: 1 to 64 letters, digits, '.', '_' and '-'");
    Err(Failure::new(Code::Usage, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_are_written() {
        let mut profiles = Profiles::default();
        let none = "[profiles.a]\ncontrollers = [\"h:1\"]\ntimeout = \"0s\"\n";
        assert!(toml::from_str::<Profiles>(none).is_err_and(|why| why.to_string().contains("too short")));
        let timeout = "10s".parse().ok();
        let controllers = vec!["1@a:7001".to_owned(), "b:7001".to_owned()];
        profiles.profiles.insert("x.y".to_owned(), Profile { controllers, timeout });
        profiles.current = Some("x.y".to_owned());
        let text = toml::to_string(&profiles).expect("plain data");
        assert_eq!(toml::from_str::<Profiles>(&text).expect("as written"), profiles);
        assert_eq!(profiles.named("z").expect_err("not there").code, 7);
        assert!(toml::from_str::<Profiles>("currant = 'x'").is_err());
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "prod.eu-1_x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "-a", "ä", "a/b"] {
            assert_eq!(check_name(bad).expect_err(bad).code, 2);
        }
    }
}
