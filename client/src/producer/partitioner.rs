//! Which partition a record goes to.

use plimsoll_host::Random;

/// Chooses partitions for records without a key: the same partition until a batch of it was closed, then another by
/// chance.
#[derive(Debug)]
pub(crate) struct Partitioner {
    partitions: u32,
    sticky: u32,
    random: Random,
}

impl Partitioner {
    /// `partitions` must not be 0.
    pub(crate) fn new(partitions: u32, random: Random) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        let mut partitioner = Self { partitions, sticky: 0, random };
        partitioner.sticky = partitioner.any();
        partitioner
    }

    /// There are so many partitions now; never fewer than before.
    pub(crate) fn grow_to(&mut self, partitions: u32) {
        self.partitions = self.partitions.max(partitions);
    }

    /// For a record without a key. `takes` says whether a partition takes records now.
    pub(crate) fn sticky(&mut self, takes: impl Fn(u32) -> bool) -> u32 {
        if !takes(self.sticky) {
            let start = self.any();
            let other = (0..self.partitions).map(|i| (start + i) % self.partitions).find(|p| takes(*p));
            // When none takes any, the record waits where it is.
            self.sticky = other.unwrap_or(self.sticky);
        }
        self.sticky
    }

    /// A batch of `partition` was closed: keyless records go elsewhere from now on.
    pub(crate) fn batch_closed(&mut self, partition: u32) {
        if self.sticky == partition && self.partitions > 1 {
            let step = 1 + u32::try_from(self.random.below(u64::from(self.partitions - 1))).unwrap_or(0);
            self.sticky = (self.sticky + step) % self.partitions;
        }
    }

    fn any(&self) -> u32 {
        u32::try_from(self.random.below(u64::from(self.partitions))).unwrap_or(0)
    }
}

/// The partition, of so many, that a record with this key goes to unless it or the producer's settings say otherwise:
/// the same as with Kafka's clients.
///
/// ```
/// use plimsoll_client::partition_of_key;
///
/// assert_eq!(partition_of_key(b"foobar", 5), 1);
/// ```
///
/// # Panics
/// With 0 partitions.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2 with Kafka's seed (source: `Utils.murmur2` of Apache Kafka).
pub(crate) fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(bytes.len() % (1 << 32)).unwrap_or(0);
    let mut h = SEED ^ length;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn murmur2_is_that_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        assert_eq!(murmur2(b"abc").cast_signed(), 479_470_107);
    }

    #[test]
    fn keyless_records_stay_until_a_batch_is_closed() {
        let mut partitioner = Partitioner::new(5, Random::seeded(3));
        let first = partitioner.sticky(|_| true);
        assert_eq!(partitioner.sticky(|_| true), first);
        partitioner.batch_closed((first + 1) % 5);
        assert_eq!(partitioner.sticky(|_| true), first);
        partitioner.batch_closed(first);
        assert_ne!(partitioner.sticky(|_| true), first);
    }

    #[test]
    fn partitions_that_are_added_get_their_share() {
        let mut partitioner = Partitioner::new(1, Random::seeded(3));
        partitioner.batch_closed(0);
        assert_eq!(partitioner.sticky(|_| true), 0);
        partitioner.grow_to(4);
        partitioner.grow_to(2);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let partition = partitioner.sticky(|_| true);
            seen.insert(partition);
            partitioner.batch_closed(partition);
        }
        assert_eq!(seen, (0..4).collect());
    }

    #[test]
    fn keyless_records_avoid_partitions_that_take_none() {
        let mut partitioner = Partitioner::new(3, Random::seeded(3));
        for _ in 0..20 {
            let partition = partitioner.sticky(|p| p == 2);
            assert_eq!(partition, 2);
            partitioner.batch_closed(partition);
        }
        let stuck = partitioner.sticky(|_| false);
        assert!(stuck < 3);
    }
}
