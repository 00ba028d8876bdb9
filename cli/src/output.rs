//! Printing: tables for people, versioned JSON for programs. A reader that closes the pipe is no error.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};

/// Version of every JSON document that is printed; raised when a field changes its meaning or goes away.
const JSON_VERSION: u32 = 1;

/// How data are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; has a field `version`.
    Json,
}

/// `-o`, on every command that prints data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How data are printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t, env = "PLIMSOLL_OUTPUT")]
    pub(crate) output: Format,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    document: &'a T,
}

/// Prints a document as JSON, or with `table` as a table.
pub(crate) fn print<T: Serialize>(
    args: OutputArgs,
    document: &T,
    table: impl FnOnce(&T) -> String,
) -> Outcome {
    let text = match args.output {
        Format::Table => table(document),
        Format::Json => {
            let versioned = Versioned { version: JSON_VERSION, document };
            let json = serde_json::to_string_pretty(&versioned)
                .map_err(|error| Failure::new(Code::Failed, format!("JSON: {error}")))?;
            json + "\n"
        }
    };
    write_out(text.as_bytes())
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
    fn json_documents_are_versioned() {
        #[derive(Serialize)]
        struct Document {
            topics: u32,
        }
        let versioned = Versioned { version: JSON_VERSION, document: &Document { topics: 3 } };
        assert_eq!(serde_json::to_string(&versioned).expect("plain data"), r#"{"version":1,"topics":3}"#);
    }
}
