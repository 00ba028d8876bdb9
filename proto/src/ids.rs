//! Domain newtypes: identities, epochs and offsets, with their limits.

use std::fmt;
use std::str::FromStr;

use crate::invalid::Invalid;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the id from exactly 16 bytes as they travel on the wire.
            ///
            /// # Errors
            /// [`Invalid`] when the length is not 16.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
                <[u8; 16]>::try_from(bytes)
                    .map(Self)
                    .map_err(|_| Invalid::new(stringify!($name), "is not 16 bytes long"))
            }

            /// The 16 bytes as they travel on the wire.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let wrong = || Invalid::new(stringify!($name), "is not 32 hexadecimal digits");
                if text.len() != 32 || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0u8; 16];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    let pair = text.get(2 * i..2 * i + 2).ok_or_else(wrong)?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id128!(
    /// Identity of a cluster, made once at bootstrap. Every data directory and every request between
    /// servers carries it.
    ClusterId
);
id128!(
    /// Identity of a topic; directories are named by it, so that a topic deleted and created again
    /// under the same name is another topic.
    TopicId
);
id128!(
    /// Identity of one data directory of an SPU, made when the directory is first opened.
    VolumeId
);

number!(
    /// A storage node (SPU) as configured by its operator.
    SpuId(u32)
);
number!(
    /// A controller process; the id it has as a Raft peer. Never 0.
    ControllerId(u64)
);
number!(
    /// One run of an SPU: the Raft index of its accepted registration. A higher one fences a lower one.
    Incarnation(u64)
);
number!(
    /// Term of a partition's leader; raised by every election, fences former leaders.
    LeaderEpoch(u32)
);
number!(
    /// Version of a partition's assignment, in-sync set and leader; raised by every committed change.
    PartitionEpoch(u32)
);
number!(
    /// Version of cluster metadata: the Raft index of the last entry that it reflects.
    MetadataVersion(u64)
);
number!(
    /// Identity of an idempotent producer, as in the record batch header; `-1` there means none.
    ProducerId(i64)
);
number!(
    /// Generation of a producer id, as in the record batch header.
    ProducerEpoch(i16)
);

/// Position of a record in a partition, at most `i64::MAX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// The greatest offset that disk and wire can hold.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// # Errors
    /// [`Invalid`] beyond [`Offset::MAX`].
    pub fn new(value: u64) -> Result<Self, Invalid> {
        if value <= Self::MAX.0 { Ok(Self(value)) } else { Err(Invalid::new("offset", "is beyond i64::MAX")) }
    }

    /// Reads the signed field of a record batch header.
    ///
    /// # Errors
    /// [`Invalid`] for a negative value.
    pub fn from_i64(value: i64) -> Result<Self, Invalid> {
        u64::try_from(value).map(Self).map_err(|_| Invalid::new("offset", "is negative"))
    }

    /// The offset as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset as the record batch header stores it.
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).expect("an Offset never exceeds i64::MAX")
    }

    /// The offset `count` records further, or `None` beyond [`Offset::MAX`].
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).and_then(|v| Self::new(v).ok())
    }

    /// Records from `earlier` up to here; 0 when `earlier` is not earlier.
    pub fn distance_from(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Name of a topic: 1 to 200 bytes of ASCII letters, digits, `.`, `_` and `-`; not `.` or `..`, and `..`
/// nowhere inside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 200;

    /// # Errors
    /// [`Invalid`] says which rule the name breaks.
    pub fn new(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        let wrong = |why| Err(Invalid::new("topic name", why));
        if name.is_empty() {
            return wrong("is empty");
        }
        if name.len() > Self::BYTES_MAX {
            return wrong("is longer than 200 bytes");
        }
        if name == "." || name.contains("..") {
            return wrong("is '.' or contains '..'");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return wrong("has a character other than ASCII letters, digits, '.', '_' and '-'");
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({})", self.0)
    }
}

/// One partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The topic.
    pub topic_id: TopicId,
    /// Position within the topic, from 0.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.index)
    }
}

impl FromStr for PartitionId {
    type Err = Invalid;

    /// Reads the form that directories are named by, `TOPIC_ID-INDEX`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("partition", "is not TOPIC_ID-INDEX");
        let (topic, index) = text.split_once('-').ok_or_else(wrong)?;
        let partition = Self { topic_id: topic.parse()?, index: index.parse().map_err(|_| wrong())? };
        if partition.to_string() == text { Ok(partition) } else { Err(wrong()) }
    }
}

/// One copy of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId {
    /// The partition.
    pub partition: PartitionId,
    /// The SPU that holds the copy.
    pub spu: SpuId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_keep_to_the_rules() {
        for good in ["a", "flights", "a.b-c_D9", &"x".repeat(200)] {
            assert!(TopicName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a..b", "a/b", "a\0b", "ü", "a b", &"x".repeat(201)] {
            assert!(TopicName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn offsets_end_at_i64_max() {
        assert!(Offset::new(i64::MAX as u64).is_ok());
        assert!(Offset::new(i64::MAX as u64 + 1).is_err());
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert!(Offset::from_i64(-1).is_err());
        assert_eq!(Offset::MAX.to_i64(), i64::MAX);
    }

    #[test]
    fn ids_travel_as_text() {
        let id = TopicId([0xab; 16]);
        assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        assert!("zz".parse::<TopicId>().is_err());
        let partition = PartitionId { topic_id: id, index: 7 };
        assert_eq!(partition.to_string().parse::<PartitionId>(), Ok(partition));
        assert!(format!("{id}-07").parse::<PartitionId>().is_err());
    }
}
