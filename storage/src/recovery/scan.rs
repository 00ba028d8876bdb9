//! Finding the end of what is good in one segment.

use std::ops::ControlFlow;

use plimsoll_proto::batch::BatchHeader;
use plimsoll_proto::ids::Offset;

use super::FIRST_EPOCH;
use crate::fs::{DiskError, DiskFile};
use crate::segment::{Expect, SparseIndex, WalkEnd, verify_from, walk_headers};

/// How a visited batch is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It lies below the trusted end; only its header was read.
    Trusted,
    /// It was read whole and its CRC fits.
    Verified,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scanned {
    /// Good up to here; bytes behind it, if any, are a torn tail.
    Good(Expect),
    /// Bad before the trusted end.
    Damaged(Expect),
}

/// Walks from the index entry nearest to `trusted_end` up to there by headers, then verifies whole batches up
/// to the end of the file, visiting those.
pub(super) fn scan_segment(
    file: &dyn DiskFile,
    base_offset: Offset,
    index: &SparseIndex,
    trusted_end: Offset,
    visit: &mut dyn FnMut(&BatchHeader, Trust),
) -> Result<Scanned, DiskError> {
    let size = file.len()?;
    let begin = Expect { position: 0, offset: base_offset, epoch: FIRST_EPOCH };
    if trusted_end <= base_offset {
        return verify(file, begin, size, visit);
    }
    // An entry for the trusted end itself would be believed without a batch before it that shows that it is true.
    let near = index.floor(trusted_end.get() - 1).filter(|&(_, position)| position < size);
    let near = near.and_then(|(offset, position)| {
        Some(Expect { position, offset: Offset::new(offset).ok()?, epoch: FIRST_EPOCH })
    });
    let mut reached = reach(file, near.unwrap_or(begin), size, trusted_end, visit)?;
    if matches!(reached, Scanned::Damaged(_)) && near.is_some() {
        // The index may lie; the log decides.
        reached = reach(file, begin, size, trusted_end, visit)?;
    }
    match reached {
        Scanned::Good(at) => verify(file, at, size, visit),
        damaged @ Scanned::Damaged(_) => Ok(damaged),
    }
}

fn reach(
    file: &dyn DiskFile,
    start: Expect,
    size: u64,
    to: Offset,
    visit: &mut dyn FnMut(&BatchHeader, Trust),
) -> Result<Scanned, DiskError> {
    let end = walk_headers(file, start, size, |found| {
        if found.header.end_offset() > to {
            return ControlFlow::Break(());
        }
        visit(&found.header, Trust::Trusted);
        ControlFlow::Continue(())
    })?;
    let (WalkEnd::Good(at) | WalkEnd::Bad(at)) = end;
    Ok(if at.offset >= to { Scanned::Good(at) } else { Scanned::Damaged(at) })
}

fn verify(
    file: &dyn DiskFile,
    start: Expect,
    size: u64,
    visit: &mut dyn FnMut(&BatchHeader, Trust),
) -> Result<Scanned, DiskError> {
    let end = verify_from(file, start, size, |found| visit(&found.header, Trust::Verified))?;
    let (WalkEnd::Good(at) | WalkEnd::Bad(at)) = end;
    Ok(Scanned::Good(at))
}
