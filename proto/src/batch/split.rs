//! Cutting a run of bytes into whole batches.

use bytes::Bytes;

use super::error::BatchError;
use super::header::{BatchHeader, HEADER_BYTES};

/// Header of the whole batch in front of `bytes`, more may follow.
///
/// # Errors
/// As [`BatchHeader::parse`], and [`BatchError::Truncated`] when the batch is not there whole.
pub fn first_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if bytes.len() < header.size_bytes {
        return Err(BatchError::Truncated { have: bytes.len(), need: header.size_bytes });
    }
    Ok(header)
}

/// Splits bytes, as a fetch answers them, into whole batches without copying. CRCs are not looked at.
pub fn iter_batches(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone() }
}

/// See [`iter_batches`]. An error is the last item; [`Batches::rest`] then starts at the bad place.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// Bytes not yet split.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match first_batch(&self.rest) {
            Ok(header) => {
                debug_assert!(header.size_bytes >= HEADER_BYTES);
                Some(Ok((header, self.rest.split_to(header.size_bytes))))
            }
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}
