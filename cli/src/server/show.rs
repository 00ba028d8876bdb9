//! `plimsoll config`: what a server or a client would run with, and where each value comes from.

use clap::{Args, Subcommand};
use plimsoll_spu::SpuSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::controller::ControllerFile;
use super::keys::{KeyArgs, Keys};
use super::standalone::StandaloneFile;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::given;
use crate::output::{OutputArgs, ShowArgs, print, table};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows every value and where it comes from: flag, environment, file or default
    #[command(subcommand)]
    View(Box<Subject>),
    /// Checks a configuration as a start would; exit code 7 and the reason when it cannot be used
    #[command(subcommand)]
    Check(Box<Subject>),
}

/// Whose configuration; flags and variables are those of its `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Subject {
    /// Of a controller
    Controller(ServerArgs<ControllerFile>),
    /// Of a storage node
    Spu(ServerArgs<SpuSettings>),
    /// Of both in one process
    Standalone(ServerArgs<StandaloneFile>),
    /// Of the commands themselves
    Client(ClientArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs<K: Keys + Clone + Send + Sync + 'static> {
    #[command(flatten)]
    keys: KeyArgs<K>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct View {
    subject: &'static str,
    values: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    value: Value,
    origin: String,
}

#[derive(Serialize)]
struct Checked {
    subject: &'static str,
    ok: bool,
}

pub(crate) fn run(command: ConfigCommand) -> Outcome {
    let (check, subject) = match command {
        ConfigCommand::View(subject) => (false, subject),
        ConfigCommand::Check(subject) => (true, subject),
    };
    match *subject {
        Subject::Controller(args) => {
            server(check, "controller", args, |file: &ControllerFile| file.plan().map(drop))
        }
        Subject::Spu(args) => server(check, "spu", args, |settings: &SpuSettings| Ok(settings.validate()?)),
        Subject::Standalone(args) => server(check, "standalone", args, StandaloneFile::check),
        Subject::Client(args) => {
            let target = args.connect.target()?;
            if check {
                given::controllers(&target.controllers.value).map_err(|why| {
                    let origin = &target.controllers.origin;
                    Failure::new(Code::Configuration, format!("controllers, from {origin}: {why}"))
                })?;
            }
            let row = |key: &str, value: Value, origin: String| Row { key: key.to_owned(), value, origin };
            let controllers = target.controllers.value.into_iter().map(Value::String).collect();
            let values = vec![
                row("controllers", Value::Array(controllers), target.controllers.origin),
                row("timeout", Value::String(target.timeout.value.to_string()), target.timeout.origin),
            ];
            if check { checked("client", args.show) } else { show("client", values, args.show) }
        }
    }
}

fn server<T>(
    check: bool,
    subject: &'static str,
    args: ServerArgs<T>,
    valid: impl FnOnce(&T) -> Result<(), Failure>,
) -> Outcome
where
    T: Keys + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let origins = args.keys.origins()?;
    let settings: T = args.keys.settings()?;
    if check {
        valid(&settings)?;
        return checked(subject, args.show);
    }
    let values = Table::try_from(&settings)
        .map_err(|error| Failure::new(Code::Failed, format!("configuration: {error}")))?;
    let rows = T::KEYS.iter().map(|key| Row {
        key: key.name.to_owned(),
        // Absent is a value of its own: what stands for it is in the reference.
        value: values.get(key.name).cloned().unwrap_or_else(|| Value::String(String::new())),
        origin: origins.get(key.name).cloned().unwrap_or_else(|| "default".to_owned()),
    });
    show(subject, rows.collect(), args.show)
}

fn checked(subject: &'static str, output: impl Into<OutputArgs>) -> Outcome {
    print(output, &Checked { subject, ok: true }, |checked| {
        format!("the configuration of the {} can be used\n", checked.subject)
    })
}

fn show(subject: &'static str, values: Vec<Row>, output: impl Into<OutputArgs>) -> Outcome {
    print(output, &View { subject, values }, |view| {
        let rows: Vec<Vec<String>> = view
            .values
            .iter()
            .map(|row| {
                let value = match &row.value {
                    Value::String(text) if text.is_empty() => "-".to_owned(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                vec![row.key.clone(), value, row.origin.clone()]
            })
            .collect();
        table(&["key", "value", "from"], &rows)
    })
}
