//! Printing: tables for people, versioned JSON and YAML for programs. A reader that closes the pipe is no error.

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use plimsoll_host::config::Span;
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};
use crate::yaml;

/// Version of every document that is printed; raised when a field changes its meaning or goes away.
const DOCUMENT_VERSION: u32 = 1;

/// How data are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For programs; has a field `version`
    Json,
    /// The same as JSON, as YAML
    Yaml,
}

/// `-o`, on every command that prints data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How data are printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t, env = "PLIMSOLL_OUTPUT")]
    pub(crate) output: Format,
}

/// `-o` and `--watch`, on every command that only shows something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Shows it again and again, every 2s or as often as said with --watch=TIME
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s")]
    pub(crate) watch: Option<Span>,
}

impl From<ShowArgs> for OutputArgs {
    fn from(show: ShowArgs) -> Self {
        show.output
    }
}

impl OutputArgs {
    /// Whether people read it.
    pub(crate) fn for_people(self) -> bool {
        matches!(self.output, Format::Table | Format::Wide)
    }
}

/// A document with its field `version`.
#[derive(Serialize)]
pub(crate) struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    document: &'a T,
}

impl<'a, T> Versioned<'a, T> {
    pub(crate) fn of(document: &'a T) -> Self {
        Self { version: DOCUMENT_VERSION, document }
    }
}

/// Prints a document as JSON or YAML, or with `table` as a table.
pub(crate) fn print<T: Serialize>(
    args: impl Into<OutputArgs>,
    document: &T,
    table: impl FnOnce(&T) -> String,
) -> Outcome {
    print_wide(args, document, |document, _| table(document))
}

/// As [`print`], where the table has further columns with `-o wide`.
pub(crate) fn print_wide<T: Serialize>(
    args: impl Into<OutputArgs>,
    document: &T,
    table: impl FnOnce(&T, bool) -> String,
) -> Outcome {
    let format = args.into().output;
    let text = match format {
        Format::Table | Format::Wide => table(document, format == Format::Wide),
        Format::Json => {
            let versioned = Versioned::of(document);
            serde_json::to_string_pretty(&versioned).map_err(unprintable)? + "\n"
        }
        Format::Yaml => {
            let versioned = Versioned::of(document);
            yaml::document(&serde_json::to_value(&versioned).map_err(unprintable)?)
        }
    };
    write_out(text.as_bytes())
}

/// One document of a stream of them: JSON on one line, or a YAML document.
pub(crate) fn one_line<T: Serialize>(format: Format, document: &T) -> Result<String, Failure> {
    let versioned = Versioned::of(document);
    match format {
        Format::Yaml => Ok(yaml::document(&serde_json::to_value(&versioned).map_err(unprintable)?)),
        Format::Table | Format::Wide | Format::Json => {
            Ok(serde_json::to_string(&versioned).map_err(unprintable)? + "\n")
        }
    }
}

fn unprintable(error: serde_json::Error) -> Failure {
    Failure::new(Code::Failed, format!("the answer cannot be printed: {error}"))
}

/// Writes to standard output and flushes.
pub(crate) fn write_out(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    quiet_pipe(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Whoever read standard output has seen enough: end without a word, as other tools do.
pub(crate) fn quiet_pipe<T>(result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure { code: 0, message: String::new() },
        _ => Failure::new(Code::Failed, format!("standard output: {error}")),
    })
}

/// Says something on standard error; a closed one is nobody's concern.
pub(crate) fn say(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    drop(writeln!(err, "{}", text.as_ref()));
}

/// Colours of words that people look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
}

/// The text in a colour, where standard output is a terminal that has them and NO_COLOR is not set
/// (<https://no-color.org>).
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if set("NO_COLOR") || dumb || !io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Columns as wide as their widest cell, two spaces between them.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["wide".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["id", "what"], &rows), "id    what\na     long cell\nwide  x\n");
    }

    #[test]
    fn documents_are_versioned() {
        #[derive(Serialize)]
        struct Document {
            topics: u32,
        }
        let versioned = Versioned::of(&Document { topics: 3 });
        assert_eq!(serde_json::to_string(&versioned).expect("plain data"), r#"{"version":1,"topics":3}"#);
        let line = |format| one_line(format, &Document { topics: 3 }).map_err(|failure| failure.message);
        assert_eq!(line(Format::Json), Ok("{\"version\":1,\"topics\":3}\n".to_owned()));
        let yaml = line(Format::Yaml).expect("plain data");
        assert!(yaml.starts_with("---\n") && yaml.contains("version: 1\n"), "{yaml}");
    }
}
