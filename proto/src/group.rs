//! What nodes and clients must agree on about consumer groups.

use crate::invalid::Invalid;

/// The internal topic that holds offsets; its partitions' leaders coordinate groups.
pub const OFFSETS_TOPIC: &str = "__offsets";
/// Names of topics that begin so are the system's own.
pub const INTERNAL_PREFIX: &str = "__";
/// Longest name of a group in bytes.
pub const GROUP_BYTES_MAX: usize = 200;

/// Whether the name of a topic is reserved.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with(INTERNAL_PREFIX)
}

/// The partition of [`OFFSETS_TOPIC`] that a group belongs to, of so many: FNV-1a over the name.
pub fn coordinator_partition(group: &str, partitions: u32) -> u32 {
    let hash =
        group.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % partitions.max(1)
}

/// Checks the name of a group: 1 to 200 bytes without control characters.
///
/// # Errors
/// [`Invalid`] says which rule the name breaks.
pub fn check_name(group: &str) -> Result<(), Invalid> {
    if group.is_empty() {
        return Err(Invalid::new("group name", "is empty"));
    }
    if group.len() > GROUP_BYTES_MAX {
        return Err(Invalid::new("group name", "is longer than 200 bytes"));
    }
    if group.chars().any(char::is_control) {
        return Err(Invalid::new("group name", "has a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_spread_and_stay() {
        // Reference values of FNV-1a, 32 bits: a change would move every group to another coordinator.
        assert_eq!(coordinator_partition("", u32::MAX), 0x811c_9dc5);
        assert_eq!(coordinator_partition("a", u32::MAX), 0xe40c_292c);
        assert_eq!(coordinator_partition("foobar", u32::MAX), 0xbf9c_f968);
        assert_eq!(coordinator_partition("any", 0), 0);
        let mut groups = [0; 4];
        for n in 0..1000 {
            let partition = coordinator_partition(&format!("group-{n}"), 4);
            groups[usize::try_from(partition).expect("below 4")] += 1;
        }
        assert!(groups.iter().all(|groups| *groups > 150), "{groups:?}");
    }

    #[test]
    fn names_keep_to_the_rules() {
        for good in ["g", "a group", "gr\u{fc}n", &"x".repeat(200)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\0", &"x".repeat(201)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
