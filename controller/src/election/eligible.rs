//! Who stays eligible outside of the in-sync set.

use crate::cluster::Partition;

/// Keeps in `next` who left the set since `before` and holds everything committed all the same.
///
/// A set below its minimum commits nothing (the leader's high watermark stands still), so whoever is in the set
/// when it falls below has everything that is committed for as long as it stays below. Once the set has its minimum
/// again, records are committed without those outside, and nobody outside is eligible any more.
///
/// ```text
///   minimum 2    set {1,2,3} --3 full--> {1,2} --1 offline--> {2} eligible {1} --1 rejoins--> {1,2}
///                                        3 is forgotten        1 is remembered
/// ```
/// Without a leader nothing is committed either, whatever the minimum: one that is lowered then makes nobody forgotten.
///
/// A replica that lost its page cache is not eligible: what it had may be gone. Where all others are gone too, what
/// it reported decides.
pub fn remember_eligible(min_in_sync: u32, before: &Partition, next: &mut Partition) {
    let minimum = usize::try_from(min_in_sync).unwrap_or(usize::MAX);
    if next.in_sync.len() >= minimum && next.leader.is_some() {
        next.eligible.clear();
        return;
    }
    let mut eligible: std::collections::BTreeSet<_> =
        before.in_sync.union(&next.eligible).copied().filter(|spu| !next.in_sync.contains(spu)).collect();
    eligible.retain(|spu| next.replica(*spu).is_some_and(|replica| replica.cache_lost.is_none()));
    next.eligible = eligible;
}
