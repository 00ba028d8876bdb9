//! Keys of the servers' settings: each is a key of the configuration file, a flag and an environment variable.
//!
//! One table for each server says which there are; flags, environment, overlay and `docs/configuration.md` follow
//! from it, and a test holds it against the settings themselves.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use plimsoll_host::config::{ByteSize, Span};
use serde::de::DeserializeOwned;
use toml::Value;

use super::settings::overlaid;
use crate::exit::Failure;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text of any kind.
    Text,
    /// A folder.
    Dir,
    /// Folders; the flag is repeated, the variable separates them by commas.
    Dirs,
    /// `HOST:PORT`.
    Address,
    /// `[ID@]HOST:PORT`; repeated like folders.
    Controllers,
    /// A whole number.
    Number,
    /// Whole numbers; repeated like folders.
    Numbers,
    /// Whole percent.
    Percent,
    /// Bytes, as "64MiB".
    Size,
    /// A length of time, as "500ms".
    Span,
    /// True when the flag is there.
    Switch,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// As in the file.
    pub(super) name: &'static str,
    /// The flag, without its dashes, where it is not the name.
    pub(super) flag: Option<&'static str>,
    pub(super) kind: Kind,
    /// The least value, or the relation that it must keep; empty when any will do.
    pub(super) minimum: &'static str,
    /// What stands for an absent value; empty when there is a default or none is needed.
    pub(super) absent: &'static str,
    /// One line for people.
    pub(super) about: &'static str,
}

/// A key without peculiarities.
pub(super) const fn key(name: &'static str, kind: Kind, minimum: &'static str, about: &'static str) -> Key {
    Key { name, flag: None, kind, minimum, absent: "", about }
}

impl Key {
    /// Another flag than the name.
    pub(super) const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// What stands for an absent value.
    pub(super) const fn absent(self, absent: &'static str) -> Self {
        Self { absent, ..self }
    }

    pub(super) fn flag_name(&self) -> String {
        self.flag.map_or_else(|| self.name.replace('_', "-"), str::to_owned)
    }

    pub(super) fn variable(&self) -> String {
        format!("PLIMSOLL_{}", self.flag_name().replace('-', "_").to_uppercase())
    }

    fn argument(&self) -> Arg {
        let mut about = self.about.to_owned();
        for (what, text) in [("default", self.absent), ("minimum", self.minimum)] {
            if !text.is_empty() {
                about.push_str(&format!(" [{what}: {text}]"));
            }
        }
        let argument = Arg::new(self.name).long(self.flag_name()).env(self.variable()).help(about);
        let value = |shown: &'static str, parser: ValueParser| {
            argument.clone().value_name(shown).value_parser(parser).action(ArgAction::Set)
        };
        let list = |shown| value(shown, value_parser!(String)).action(ArgAction::Append).value_delimiter(',');
        match self.kind {
            Kind::Text => value("TEXT", value_parser!(String)),
            Kind::Dir => value("DIR", value_parser!(String)),
            Kind::Dirs => list("DIR"),
            Kind::Address => value("HOST:PORT", value_parser!(String)),
            Kind::Controllers => list("[ID@]HOST:PORT"),
            Kind::Number => value("NUMBER", value_parser!(u32).into()),
            Kind::Numbers => {
                value("NUMBER", value_parser!(u32).into()).action(ArgAction::Append).value_delimiter(',')
            }
            Kind::Percent => value("PERCENT", value_parser!(u32).into()),
            Kind::Size => value("SIZE", checked::<ByteSize>.into()),
            Kind::Span => value("TIME", checked::<Span>.into()),
            Kind::Switch => argument.action(ArgAction::SetTrue),
        }
    }

    fn value(&self, matches: &ArgMatches) -> Option<Value> {
        match self.kind {
            Kind::Text | Kind::Dir | Kind::Address | Kind::Size | Kind::Span => {
                matches.get_one::<String>(self.name).cloned().map(Value::String)
            }
            Kind::Dirs | Kind::Controllers => {
                let values = matches.get_many::<String>(self.name)?;
                Some(Value::Array(values.cloned().map(Value::String).collect()))
            }
            Kind::Number | Kind::Percent => {
                matches.get_one::<u32>(self.name).map(|number| Value::Integer((*number).into()))
            }
            Kind::Numbers => {
                let values = matches.get_many::<u32>(self.name)?;
                Some(Value::Array(values.map(|number| Value::Integer((*number).into())).collect()))
            }
            Kind::Switch => matches.get_flag(self.name).then_some(Value::Boolean(true)),
        }
    }
}

/// Whether the text can be read; it is kept as it is.
fn checked<T: std::str::FromStr<Err = String>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned())
}

/// Which keys a server has.
pub(crate) trait Keys {
    const KEYS: &'static [Key];
}

/// `--config` and a flag for each key.
#[derive(Clone, Debug)]
pub(crate) struct KeyArgs<K> {
    config: Option<PathBuf>,
    given: toml::Table,
    /// Which flag or variable each given value came from.
    sources: BTreeMap<String, String>,
    keys: PhantomData<K>,
}

impl<K> KeyArgs<K> {
    /// The settings: defaults, below the file, below what flags and environment say.
    pub(super) fn settings<T: DeserializeOwned>(self) -> Result<T, Failure> {
        overlaid(self.config.as_deref(), self.given)
    }

    /// Where each value comes from that is not a default.
    pub(super) fn origins(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut origins = BTreeMap::new();
        if let Some(path) = &self.config {
            let file: toml::Table = plimsoll_host::config::load_toml(path)?;
            origins.extend(file.keys().map(|key| (key.clone(), path.display().to_string())));
        }
        origins.extend(self.sources.clone());
        Ok(origins)
    }
}

impl<K: Keys> Args for KeyArgs<K> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .env("PLIMSOLL_CONFIG")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file in TOML; flags and environment override it, unknown keys are errors");
        command.arg(config).args(K::KEYS.iter().map(Key::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<K: Keys> FromArgMatches for KeyArgs<K> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = K::KEYS.iter().filter_map(|key| Some((key.name.to_owned(), key.value(matches)?)));
        let source = |key: &Key| match matches.value_source(key.name)? {
            ValueSource::CommandLine => Some((key.name.to_owned(), format!("--{}", key.flag_name()))),
            ValueSource::EnvVariable => Some((key.name.to_owned(), key.variable())),
            _ => None,
        };
        Ok(Self {
            config: matches.get_one("config").cloned(),
            given: given.collect(),
            sources: K::KEYS.iter().filter_map(source).collect(),
            keys: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
