//! `plimsoll produce --dry-run`: every line is read and looked at, none is sent.

use plimsoll_client::{MetadataImage, ProduceErrorKind, Record};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use plimsoll_proto::batch::{HEADER_BYTES, NewRecord};
use serde::Serialize;

use super::ProduceArgs;
use super::input::Input;
use crate::change::Change;
use crate::exit::{Code, Failure, Outcome};

/// What would be sent.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Checked {
    topic: String,
    /// Records that can be sent.
    records: u64,
    /// Of their keys and values.
    bytes: u64,
    /// Lines that cannot.
    failed: u64,
    /// With the number of its line.
    first_error: Option<String>,
}

/// What records have to keep to.
pub(crate) struct Limits {
    partitions: u32,
    batch_bytes_max: usize,
}

/// Why a record cannot be sent.
pub(crate) struct Wrong {
    pub(crate) code: Code,
    pub(crate) why: String,
}

impl Limits {
    pub(crate) fn of(image: &MetadataImage, topic: &str) -> Result<Self, Failure> {
        let unknown = || {
            let why = ProduceErrorKind::UnknownTopic(topic.to_owned());
            Failure::new(Code::NotFound, format!("{why}\nsee which there are with `plimsoll topic list`"))
        };
        let topic = image.topic_by_name(topic).ok_or_else(unknown)?;
        let bytes = topic.config.as_ref().map_or(0, |config| config.batch_bytes_max);
        Ok(Self {
            partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
            // Controllers fill it in for every topic.
            batch_bytes_max: usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(usize::MAX),
        })
    }

    pub(crate) fn check(&self, record: &Record) -> Result<(), Wrong> {
        let wrong = |code, kind: ProduceErrorKind| Err(Wrong { code, why: kind.to_string() });
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let encoded = NewRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms.unwrap_or(0),
        };
        let (bytes, limit) = (encoded.bytes_max().saturating_add(HEADER_BYTES), self.batch_bytes_max);
        if bytes > limit {
            return wrong(Code::Failed, ProduceErrorKind::RecordTooLarge { bytes, limit });
        }
        let partitions = self.partitions;
        match record.partition.filter(|partition| *partition >= partitions) {
            Some(partition) => {
                wrong(Code::NotFound, ProduceErrorKind::UnknownPartition { partition, partitions })
            }
            None => Ok(()),
        }
    }
}

pub(super) async fn run(args: &ProduceArgs, host: &Host, input: &mut Input) -> Outcome {
    let client = args.connect.connect(host).await?;
    let limits = Limits::of(&client.metadata(), &args.topic)?;
    let mut checked = Checked { topic: args.topic.clone(), ..Checked::default() };
    let mut first_code = None;
    while let Some(line) = input.next_line().await? {
        let number = line.number;
        let record = args.record(&line).map_err(|why| Wrong { code: Code::Failed, why });
        match record.and_then(|record| limits.check(&record).map(|()| record)) {
            Ok(record) => {
                let bytes =
                    record.key.map_or(0, |key| key.len()) + record.value.map_or(0, |value| value.len());
                checked.records += 1;
                checked.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
            }
            Err(Wrong { code, why }) => {
                checked.failed += 1;
                first_code.get_or_insert(code);
                checked.first_error.get_or_insert_with(|| format!("line {number}: {why}"));
            }
        }
    }
    let failed = checked.failed;
    let first_error = checked.first_error.clone().unwrap_or_default();
    let would = format!(
        "send {} records of {} to topic {}, and {failed} lines cannot be sent",
        checked.records,
        ByteSize(checked.bytes),
        checked.topic
    );
    Change::with(args.change, would, "", checked).print(args.change)?;
    first_code.map_or(Ok(()), |code| Err(Failure::new(code, first_error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_partition_are_what_the_producer_looks_at() {
        let limits = Limits { partitions: 2, batch_bytes_max: 200 };
        let why = |record: Record| limits.check(&record).map_err(|wrong| (wrong.code, wrong.why));
        assert_eq!(why(Record::new("v").key("k").partition(1)), Ok(()));
        let (code, partition) = why(Record::new("v").partition(2)).expect_err("there are two");
        assert_eq!(code, Code::NotFound);
        assert!(partition.contains("there is no partition 2, the topic has 2"), "{partition}");
        let (code, large) = why(Record::new(vec![b'x'; 200])).expect_err("no room for what is around it");
        assert_eq!(code, Code::Failed);
        assert!(large.starts_with("RECORD_TOO_LARGE") && large.contains("200"), "{large}");
        let headers = Record::new("").header("h", vec![b'x'; 200]);
        assert!(why(headers).is_err(), "headers count");
    }

    #[test]
    fn a_topic_that_is_not_there_is_code_4() {
        let refused = Limits::of(&MetadataImage::empty(), "t").err().expect("no topic");
        assert_eq!(refused.code, 4);
    }
}
