//! The record batch: unit of append, checksum, compression and replication.
//!
//! Byte for byte an Apache Kafka RecordBatch v2 (source: "Record Batch" in Kafka's protocol documentation,
//! and `DefaultRecordBatch.java`). All integers are big-endian.
//!
//! ```text
//!  0        8       12      16 17      21   23       27          35           43          51    53     57     61
//!  +--------+-------+-------+--+-------+----+--------+-----------+------------+-----------+-----+------+------+----
//!  | base   | batch |leader |2 |CRC-32C|attr| last   | base      | max        | producer  |prod.| base |record| records
//!  | offset | length|epoch  |  |       |    | offset | timestamp | timestamp  | id        |epoch| seq. |count |
//!  |        |       |       |  |       |    | delta  |           |            |           |     |      |      |
//!  +--------+-------+-------+--+-------+----+--------+-----------+------------+-----------+-----+------+------+----
//!           |<- counted by batch length ...         |<- covered by the CRC ...
//!  |<- stamp ->|    |stamp|
//! ```
//!
//! The base offset and the leader epoch lie outside the CRC, so the leader stamps them in place and nothing
//! is encoded again between producer, disk, follower and consumer.
//!
//! Everything here takes hostile bytes: nothing panics, nothing is allocated by an unchecked length, and
//! decompression is bounded in size and in ratio.

mod build;
mod codec;
mod error;
mod header;
mod record;
mod split;
mod varint;
mod verify;

pub use build::{BatchBuilder, NewRecord};
pub use codec::Compression;
pub use error::BatchError;
pub use header::{BatchHeader, HEADER_BYTES, ProducerSequence, Sequence};
pub use record::{Record, RecordHeader, Records, records};
pub use split::{Batches, first_batch, iter_batches};
pub use verify::{Limits, stamp, verify};
