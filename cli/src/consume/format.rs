//! How a record is printed: a named way, or a template as kcat has it.

use std::io::{self, Write};

use plimsoll_client::ConsumedRecord;
use serde::Serialize;

use crate::output::{Format, Versioned};
use crate::yaml;

/// How records are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordFormat {
    /// The value, one a line.
    Value,
    /// Key, separator, value.
    KeyValue,
    /// One JSON object a line.
    Json,
    /// One YAML document each.
    Yaml,
    /// As written, without a line end of its own.
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Topic,
    Partition,
    Offset,
    Key,
    KeyBytes,
    Value,
    ValueBytes,
    TimestampMs,
    Headers,
}

/// For `--help`, and for whoever got it wrong.
pub(super) const TOKENS: &str = "%t topic, %p partition, %o offset, %k key, %K bytes of the key (-1: none), %s value, %S bytes of the value (-1: none), %T milliseconds since 1970, %h headers, %% a percent sign; \\n, \\t, \\r, \\\\";

/// The template that `-o wide` stands for: what a value alone does not tell, in columns.
pub(super) const WIDE: &str = "%p\\t%o\\t%T\\t%k\\t%s\\n";

impl From<Format> for RecordFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Value,
            Format::Wide => parse(WIDE).expect("it is a template, as a test shows"),
            Format::Json => Self::Json,
            Format::Yaml => Self::Yaml,
        }
    }
}

/// Reads what `-f` says.
pub(super) fn parse(text: &str) -> Result<RecordFormat, String> {
    match text {
        "value" => return Ok(RecordFormat::Value),
        "key-value" => return Ok(RecordFormat::KeyValue),
        "json" => return Ok(RecordFormat::Json),
        "yaml" => return Ok(RecordFormat::Yaml),
        _ => {}
    }
    if !text.contains(['%', '\\']) {
        return Err(format!("value, key-value, json, yaml, or a template with {TOKENS}"));
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let piece = match letter {
            '%' => match letters.next() {
                Some('t') => Piece::Topic,
                Some('p') => Piece::Partition,
                Some('o') => Piece::Offset,
                Some('k') => Piece::Key,
                Some('K') => Piece::KeyBytes,
                Some('s') => Piece::Value,
                Some('S') => Piece::ValueBytes,
                Some('T') => Piece::TimestampMs,
                Some('h') => Piece::Headers,
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some(other) => return Err(format!("%{other} is nothing; there are {TOKENS}")),
                None => return Err(format!("a % at the end is nothing; there are {TOKENS}")),
            },
            '\\' => {
                plain.push(match letters.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some('\\') => '\\',
                    _ => return Err(format!("after \\ comes n, t, r or \\; there are {TOKENS}")),
                });
                continue;
            }
            letter => {
                plain.push(letter);
                continue;
            }
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(RecordFormat::Template(pieces))
}

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    leader_epoch: u32,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

/// Prints one record.
pub(super) fn write(
    out: &mut impl Write,
    topic: &str,
    record: &ConsumedRecord,
    format: &RecordFormat,
    separator: &str,
) -> io::Result<()> {
    match format {
        RecordFormat::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
        RecordFormat::KeyValue => {
            out.write_all(record.key.as_deref().unwrap_or_default())?;
            out.write_all(separator.as_bytes())?;
            out.write_all(record.value.as_deref().unwrap_or_default())?;
        }
        RecordFormat::Json => serde_json::to_writer(&mut *out, &Versioned::of(&line(topic, record)))?,
        RecordFormat::Yaml => {
            let document = serde_json::to_value(Versioned::of(&line(topic, record)))?;
            return out.write_all(yaml::document(&document).as_bytes());
        }
        RecordFormat::Template(pieces) => {
            return pieces.iter().try_for_each(|piece| write_piece(out, topic, record, piece));
        }
    }
    out.write_all(b"\n")
}

fn line<'a>(topic: &'a str, record: &ConsumedRecord) -> Line<'a> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Line {
        topic,
        partition: record.partition,
        offset: record.offset.get(),
        timestamp_ms: record.timestamp_ms,
        leader_epoch: record.leader_epoch.0,
        key: record.key.as_deref().map(text),
        value: record.value.as_deref().map(text),
        headers: record.headers.iter().map(|(key, value)| (text(key), value.as_deref().map(text))).collect(),
    }
}

fn write_piece(out: &mut impl Write, topic: &str, record: &ConsumedRecord, piece: &Piece) -> io::Result<()> {
    let length =
        |bytes: Option<&[u8]>| bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.len().to_string());
    match piece {
        Piece::Text(text) => out.write_all(text.as_bytes()),
        Piece::Topic => out.write_all(topic.as_bytes()),
        Piece::Partition => write!(out, "{}", record.partition),
        Piece::Offset => write!(out, "{}", record.offset),
        Piece::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
        Piece::KeyBytes => out.write_all(length(record.key.as_deref()).as_bytes()),
        Piece::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
        Piece::ValueBytes => out.write_all(length(record.value.as_deref()).as_bytes()),
        Piece::TimestampMs => write!(out, "{}", record.timestamp_ms),
        Piece::Headers => {
            for (at, (key, value)) in record.headers.iter().enumerate() {
                if at > 0 {
                    out.write_all(b",")?;
                }
                out.write_all(key)?;
                out.write_all(b"=")?;
                out.write_all(value.as_deref().unwrap_or(b"NULL"))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plimsoll_client::{LeaderEpoch, Offset};

    use super::*;

    fn printed(format: &str) -> String {
        printed_as(&parse(format).expect(format))
    }

    fn printed_as(format: &RecordFormat) -> String {
        let record = ConsumedRecord {
            partition: 3,
            offset: Offset::new(42).expect("small"),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"value")),
            headers: vec![("a".into(), Some("b".into())), ("n".into(), None)],
            timestamp_ms: 1_000,
            leader_epoch: LeaderEpoch(1),
        };
        let mut out = Vec::new();
        write(&mut out, "t", &record, format, ":").expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn records_are_printed_as_said() {
        for (format, expected) in [
            ("value", "value\n"),
            ("key-value", "k:value\n"),
            ("%t/%p@%o %k(%K)=%s(%S) %T [%h] 100%%\\n", "t/3@42 k(1)=value(5) 1000 [a=b,n=NULL] 100%\n"),
            ("%s", "value"),
            ("\\t%s\\\\", "\tvalue\\"),
        ] {
            assert_eq!(printed(format), expected, "{format}");
        }
        let json: serde_json::Value = serde_json::from_str(&printed("json")).expect("JSON");
        assert_eq!((&json["offset"], &json["topic"], &json["version"]), (&42.into(), &"t".into(), &1.into()));
    }

    #[test]
    fn the_formats_of_other_commands_are_formats_of_records() {
        let printed_as = |format: Format| printed_as(&format.into());
        assert_eq!(printed_as(Format::Table), printed("value"));
        assert_eq!(printed_as(Format::Wide), "3\t42\t1000\tk\tvalue\n");
        assert_eq!(printed_as(Format::Json), printed("json"));
        let yaml = printed_as(Format::Yaml);
        assert_eq!(yaml, printed("yaml"));
        assert!(yaml.starts_with("---\n") && yaml.contains("value: \"value\"\n"), "{yaml}");
        assert!(yaml.contains("version: 1\n"), "{yaml}");
    }

    #[test]
    fn nonsense_is_told_with_what_there_is() {
        for bad in ["values", "%", "%x", "%s\\q", "%s\\", ""] {
            assert!(parse(bad).expect_err(bad).contains("%s value"), "{bad}");
        }
    }
}
