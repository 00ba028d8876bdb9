//! Lines from standard input or a file, and the records that they are.

use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use clap::ValueEnum;
use plimsoll_client::Record;
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::exit::{Code, Failure};
use crate::files;

/// Longest line; longer ones are refused rather than cut in two.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// A value, with a key in front of the separator if one is given
    #[default]
    Lines,
    /// A JSON object with key, value, headers, partition and timestamp_ms, as `consume -f json` prints it;
    /// --partition wins over its partition
    Json,
}

/// A JSON line; what `consume` adds is read over.
#[derive(Deserialize)]
struct JsonRecord {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    headers: Vec<(String, Option<String>)>,
    #[serde(default)]
    timestamp_ms: Option<i64>,
    #[serde(default)]
    partition: Option<u32>,
}

/// `KEY=VALUE`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Where lines come from.
pub(super) struct Input {
    name: String,
    lines: Pin<Box<dyn AsyncBufRead + Send>>,
    number: u64,
    line: Vec<u8>,
}

/// One line, without its end.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    bytes: &'a [u8],
}

impl Input {
    pub(super) fn open(file: Option<&Path>) -> Result<Self, Failure> {
        const BUFFER: usize = 256 * 1024;
        let (name, lines): (_, Pin<Box<dyn AsyncBufRead + Send>>) = match file {
            None => {
                let stdin = BufReader::with_capacity(BUFFER, tokio::io::stdin());
                ("standard input".to_owned(), Box::pin(stdin))
            }
            Some(path) => {
                let wrong = |why: String| Failure::new(Code::Failed, format!("{}: {why}", path.display()));
                let file = files::open(path).map_err(|error| wrong(error.to_string()))?;
                if file.metadata().map_err(|error| wrong(error.to_string()))?.is_dir() {
                    return Err(wrong("is a directory; name a file with one record a line".to_owned()));
                }
                let file = BufReader::with_capacity(BUFFER, tokio::fs::File::from_std(file));
                (path.display().to_string(), Box::pin(file))
            }
        };
        Ok(Self { name, lines, number: 0, line: Vec::new() })
    }

    /// The next line; `None` at the end.
    pub(super) async fn next_line(&mut self) -> Result<Option<Line<'_>>, Failure> {
        self.line.clear();
        let read = (&mut self.lines).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut self.line).await;
        let read = read.map_err(|error| {
            let sent = self.number;
            let why = format!("{}: {error}; {sent} lines were read before", self.name);
            Failure::new(Code::Failed, why)
        })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if u64::try_from(read).unwrap_or(u64::MAX) > LINE_BYTES_MAX {
            let why = format!(
                "{}: line {} is longer than {LINE_BYTES_MAX} bytes; the {} lines before it were sent, none after",
                self.name,
                self.number,
                self.number - 1
            );
            return Err(Failure::new(Code::Failed, why));
        }
        Ok(Some(Line { number: self.number, bytes: &self.line }))
    }
}

impl Line<'_> {
    /// The record that it is, or why it is none.
    pub(super) fn record(
        &self,
        shape: Shape,
        separator: Option<&str>,
        partition: Option<u32>,
        headers: &[(String, String)],
    ) -> Result<Record, String> {
        let mut record = match shape {
            Shape::Lines => of_line(self.bytes, separator),
            Shape::Json => of_json(self.bytes)?,
        };
        record.partition = partition.or(record.partition);
        for (key, value) in headers {
            record = record.header(key.clone(), Bytes::copy_from_slice(value.as_bytes()));
        }
        Ok(record)
    }
}

fn of_line(line: &[u8], separator: Option<&str>) -> Record {
    let at = separator.filter(|text| !text.is_empty()).and_then(|text| {
        let text = text.as_bytes();
        line.windows(text.len()).position(|window| window == text).map(|at| (at, at + text.len()))
    });
    match at {
        Some((end, start)) => {
            Record::new(Bytes::copy_from_slice(&line[start..])).key(Bytes::copy_from_slice(&line[..end]))
        }
        None => Record::new(Bytes::copy_from_slice(line)),
    }
}

fn of_json(line: &[u8]) -> Result<Record, String> {
    // An array of its fields in their order would pass for it.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON record: it is no object, such as {\"value\":\"x\"}".to_owned());
    }
    let json: JsonRecord =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON record: {}", what(&error)))?;
    if json.key.is_none() && json.value.is_none() {
        return Err("not a JSON record: it has neither key nor value".to_owned());
    }
    Ok(Record {
        key: json.key.map(Bytes::from),
        value: json.value.map(Bytes::from),
        headers: json.headers.into_iter().map(|(key, value)| (key, value.map(Bytes::from))).collect(),
        timestamp_ms: json.timestamp_ms,
        partition: json.partition,
    })
}

/// Which line it is, is known better here: the parser sees one only.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or(text.clone(), |what| format!("{what}, at column {}", error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &[u8], separator: Option<&str>, partition: Option<u32>) -> Record {
        let line = Line { number: 1, bytes: line };
        line.record(Shape::Lines, separator, partition, &[]).expect("any line is a record")
    }

    #[test]
    fn a_separator_splits_off_the_key() {
        assert_eq!(record(b"k:v:w", Some(":"), None), Record::new("v:w").key("k"));
        assert_eq!(record(b"no key", Some(":"), None), Record::new("no key"));
        assert_eq!(record(b"k:v", None, Some(2)), Record::new("k:v").partition(2));
        assert_eq!(record(b"k:v", Some(""), None), Record::new("k:v"));
        assert_eq!(record(b"k=>v", Some("=>"), None), Record::new("v").key("k"));
    }

    #[test]
    fn json_lines_are_records_and_others_are_told_apart() {
        let good =
            of_json(br#"{"version":1,"offset":7,"key":"k","value":"v","headers":[["h","x"],["n",null]]}"#);
        let expected = Record {
            headers: vec![("h".to_owned(), Some("x".into())), ("n".to_owned(), None)],
            ..Record::new("v").key("k")
        };
        assert_eq!(good.expect("JSON"), expected);
        assert_eq!(of_json(br#"{"key":"k","value":null}"#).expect("JSON"), Record::tombstone("k"));
        for bad in [
            &b"{"[..],
            b"",
            b"[]",
            b"{}",
            br#"{"value":7}"#,
            b"\xff\xfe",
            br#"{"headers":[["x"]],"value":""}"#,
            br#"["k","v"]"#,
            br#"{"value":"x","partition":-1}"#,
            br#"{"value":"x","partition":"1"}"#,
        ] {
            let why = of_json(bad).expect_err("not a record");
            assert!(why.starts_with("not a JSON record") && !why.contains("line 1"), "{why}");
        }
    }

    #[test]
    fn a_json_line_names_its_partition_unless_all_go_to_one() {
        let line = Line { number: 1, bytes: br#" {"value":"v","partition":3}"# };
        let record = |partition| line.record(Shape::Json, None, partition, &[]).expect("JSON");
        assert_eq!(record(None), Record::new("v").partition(3));
        assert_eq!(record(Some(0)), Record::new("v").partition(0));
        assert_eq!(of_json(br#"{"value":"v"}"#).expect("JSON").partition, None);
    }

    #[test]
    fn headers_have_a_key() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        assert!(header("=b").is_err() && header("a").is_err());
    }
}
