//! Why bytes are not an acceptable record batch.

/// What is wrong with a record batch. None of these gets better by retrying the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header says.
    #[error("batch is cut off: {have} bytes of {need}")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes that a whole batch needs.
        need: usize,
    },
    /// More bytes than the one batch that was expected.
    #[error("{extra} bytes follow the batch")]
    TrailingBytes {
        /// Bytes behind the batch.
        extra: usize,
    },
    /// The length field can't be that of a batch.
    #[error("batch length {length} is impossible")]
    Length {
        /// The field as found.
        length: i32,
    },
    /// Larger than allowed.
    #[error("batch of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of the batch, or of its records when decompressed.
        bytes: u64,
        /// The limit that it breaks.
        limit: u64,
    },
    /// Not RecordBatch version 2.
    #[error("magic is {magic}, not 2")]
    Magic {
        /// The byte as found.
        magic: i8,
    },
    /// The checksum does not match.
    #[error("checksum is {found:08x}, the header says {expected:08x}")]
    Checksum {
        /// In the header.
        expected: u32,
        /// Of the bytes.
        found: u32,
    },
    /// A header field has an impossible or forbidden value.
    #[error("header field {field} {why}")]
    Header {
        /// The field in the words of the format.
        field: &'static str,
        /// The rest of the sentence.
        why: &'static str,
    },
    /// A record breaks the format.
    #[error("record {index}: {why}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// The compressed records can't be read.
    #[error("{codec} data can't be decompressed")]
    Decompress {
        /// Name of the codec.
        codec: &'static str,
    },
    /// The records can't be compressed or don't fit into a batch.
    #[error("records can't be encoded: {why}")]
    Encode {
        /// What stands in the way.
        why: &'static str,
    },
}
