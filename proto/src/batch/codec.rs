//! Compression of the records of a batch.

use std::io::{Read, Write};

use super::error::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy in the framing of `snappy-java` ("xerial"), which Kafka's Java client reads and writes.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Greatest window that a zstd frame may ask for: 2^24 bytes. Producers' batches stay far below.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
const ZSTD_LEVEL: i32 = 3;
/// Source: `SnappyCodec.java` of snappy-java.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Compression {
    pub(super) fn from_bits(bits: i16) -> Result<Self, BatchError> {
        Ok(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return Err(BatchError::Header { field: "attributes", why: "name an unknown compression" }),
        })
    }

    pub(super) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The name as in configuration files: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The compression of that [name](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd].into_iter().find(|c| c.name() == name)
    }
}

/// Compresses; `Compression::None` copies.
pub(super) fn compress(codec: Compression, plain: &[u8]) -> Result<Vec<u8>, BatchError> {
    let failed = BatchError::Encode { why: "the compressor failed" };
    let out = match codec {
        Compression::None => Ok(plain.to_vec()),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        Compression::Snappy => return snappy_compress(plain).ok_or(failed),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).and_then(|()| encoder.finish().map_err(std::io::Error::other))
        }
        Compression::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL),
    };
    out.map_err(|_| failed)
}

/// Decompresses at most `bytes_max` bytes; what would become larger is refused before it is held.
pub(super) fn decompress(codec: Compression, packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    let failed = BatchError::Decompress { codec: codec.name() };
    match codec {
        Compression::None => Ok(packed.to_vec()),
        Compression::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(packed), bytes_max, failed),
        Compression::Snappy => snappy_decompress(packed, bytes_max, failed),
        Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(packed), bytes_max, failed),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|_| failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| failed)?;
            read_bounded(decoder, bytes_max, failed)
        }
    }
}

fn read_bounded(reader: impl Read, bytes_max: usize, failed: BatchError) -> Result<Vec<u8>, BatchError> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut plain = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut plain).map_err(|_| failed)?;
    if plain.len() > bytes_max { Err(too_large(plain.len(), bytes_max)) } else { Ok(plain) }
}

fn too_large(bytes: usize, limit: usize) -> BatchError {
    let wide = |n| u64::try_from(n).unwrap_or(u64::MAX);
    BatchError::TooLarge { bytes: wide(bytes), limit: wide(limit) }
}

fn snappy_compress(plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + plain.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).ok()?;
        out.extend_from_slice(&i32::try_from(packed.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Some(out)
}

/// Xerial framing, also several streams one behind the other; anything else is taken as one raw block, as
/// some clients write it.
fn snappy_decompress(packed: &[u8], bytes_max: usize, failed: BatchError) -> Result<Vec<u8>, BatchError> {
    let mut plain = Vec::new();
    if !packed.starts_with(&XERIAL_MAGIC) {
        snappy_block(packed, &mut plain, bytes_max, failed)?;
        return Ok(plain);
    }
    let mut rest = packed;
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_BYTES..).ok_or(failed)?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk().ok_or(failed)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| failed)?;
        let (block, behind) = behind.split_at_checked(length).ok_or(failed)?;
        snappy_block(block, &mut plain, bytes_max, failed)?;
        rest = behind;
    }
    Ok(plain)
}

fn snappy_block(
    block: &[u8],
    plain: &mut Vec<u8>,
    bytes_max: usize,
    failed: BatchError,
) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(|_| failed)?;
    let total = plain.len().saturating_add(length);
    if total > bytes_max {
        return Err(too_large(total, bytes_max));
    }
    // A snappy block can't grow by more than 64/3 (a 3-byte copy of 64 bytes), so a length that the block
    // could never reach allocates nothing.
    if length / 22 > block.len() {
        return Err(failed);
    }
    let start = plain.len();
    plain.resize(total, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut plain[start..]).map_err(|_| failed)?;
    if written == length { Ok(()) } else { Err(failed) }
}
