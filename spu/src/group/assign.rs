//! Who shall read which partition: balanced, and moving as little as possible. Pure.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_proto::ids::PartitionId;

/// A member as the assignment sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Partitions of the topics that it reads.
    pub(super) wanted: BTreeSet<PartitionId>,
    /// What it has now.
    pub(super) owned: BTreeSet<PartitionId>,
}

/// Partitions of each member.
pub(super) type Assignment = BTreeMap<String, BTreeSet<PartitionId>>;

/// Every wanted partition goes to one member that wants it. Members keep what they have; what nobody has goes to who
/// has least; then partitions move, one at a time, from who has most to who has least, until no move makes two members
/// more alike. Members that want the same end within one partition of each other, and no partition moves that need not.
pub(super) fn assign(candidates: &BTreeMap<String, Candidate>) -> Assignment {
    let mut assignment: Assignment =
        candidates.keys().map(|member| (member.clone(), BTreeSet::new())).collect();
    let mut taken = BTreeSet::new();
    for (member, candidate) in candidates {
        for partition in candidate.owned.intersection(&candidate.wanted) {
            if taken.insert(*partition) {
                give(&mut assignment, member, *partition);
            }
        }
    }
    let all: BTreeSet<PartitionId> =
        candidates.values().flat_map(|candidate| candidate.wanted.iter().copied()).collect();
    for partition in all.difference(&taken) {
        let poorest = candidates
            .iter()
            .filter(|(_, candidate)| candidate.wanted.contains(partition))
            .min_by_key(|(member, _)| (count(&assignment, member), *member));
        if let Some((member, _)) = poorest {
            give(&mut assignment, member, *partition);
        }
    }
    while let Some((from, to, partition)) = next_move(candidates, &assignment) {
        if let Some(partitions) = assignment.get_mut(&from) {
            partitions.remove(&partition);
        }
        give(&mut assignment, &to, partition);
    }
    assignment
}

fn give(assignment: &mut Assignment, member: &str, partition: PartitionId) {
    if let Some(partitions) = assignment.get_mut(member) {
        partitions.insert(partition);
    }
}

fn count(assignment: &Assignment, member: &str) -> usize {
    assignment.get(member).map_or(0, BTreeSet::len)
}

/// A move from a richer to a poorer member with a difference of at least two, the greatest difference first. What its
/// owner does not have yet moves before what it has.
fn next_move(
    candidates: &BTreeMap<String, Candidate>,
    assignment: &Assignment,
) -> Option<(String, String, PartitionId)> {
    let mut by_count: Vec<(usize, &String)> =
        assignment.iter().map(|(member, partitions)| (partitions.len(), member)).collect();
    by_count.sort_unstable();
    for (most, rich) in by_count.iter().rev() {
        for (least, poor) in &by_count {
            if *least + 2 > *most {
                break;
            }
            let (Some(wanted), Some(partitions)) =
                (candidates.get(*poor).map(|c| &c.wanted), assignment.get(*rich))
            else {
                continue;
            };
            let owned = candidates.get(*rich).map(|candidate| &candidate.owned);
            let movable = partitions.intersection(wanted);
            let chosen = movable.max_by_key(|p| (owned.is_none_or(|owned| !owned.contains(p)), **p));
            if let Some(partition) = chosen {
                return Some(((*rich).clone(), (*poor).clone(), *partition));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_proto::ids::TopicId;
    use proptest::prelude::*;

    fn partition(topic: u8, index: u32) -> PartitionId {
        PartitionId { topic_id: TopicId([topic; 16]), index }
    }

    fn alike(owned: &[&[u32]], partitions: u32) -> BTreeMap<String, Candidate> {
        let wanted: BTreeSet<_> = (0..partitions).map(|index| partition(1, index)).collect();
        let owned = owned.iter().map(|owned| owned.iter().map(|index| partition(1, *index)).collect());
        let candidate = |owned| Candidate { wanted: wanted.clone(), owned };
        owned.enumerate().map(|(n, owned)| (format!("m{n}"), candidate(owned))).collect()
    }

    fn moved(candidates: &BTreeMap<String, Candidate>, assignment: &Assignment) -> usize {
        let kept = |(member, candidate): (&String, &Candidate)| {
            candidate.owned.difference(assignment.get(member).unwrap_or(&BTreeSet::new())).count()
        };
        candidates.iter().map(kept).sum()
    }

    #[test]
    fn a_new_member_takes_its_part_and_nothing_else_moves() {
        let candidates = alike(&[&[0, 1, 2, 3, 4], &[5, 6, 7, 8, 9], &[]], 10);
        let assignment = assign(&candidates);
        assert_eq!(assignment.values().map(BTreeSet::len).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(moved(&candidates, &assignment), 3);
    }

    #[test]
    fn who_wants_other_topics_is_left_alone() {
        let mut candidates = alike(&[&[], &[]], 4);
        let own: BTreeSet<_> = (0..7).map(|index| partition(2, index)).collect();
        candidates.insert("z".to_owned(), Candidate { wanted: own.clone(), owned: BTreeSet::new() });
        let assignment = assign(&candidates);
        assert_eq!(assignment["z"], own);
        assert_eq!((assignment["m0"].len(), assignment["m1"].len()), (2, 2));
        assert!(assign(&BTreeMap::new()).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_whole_balanced_and_moves_as_little_as_possible(
            partitions in 0..40u32,
            owners in proptest::collection::vec(0..12usize, 40),
            members in 1..9usize,
        ) {
            let mut owned: Vec<Vec<u32>> = vec![Vec::new(); members];
            for index in 0..partitions {
                // Beyond the members: nobody has it.
                if let Some(owned) = owned.get_mut(owners[index as usize]) {
                    owned.push(index);
                }
            }
            let slices: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
            let candidates = alike(&slices, partitions);
            let assignment = assign(&candidates);
            let mut counts: Vec<usize> = assignment.values().map(BTreeSet::len).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), partitions as usize);
            let all: BTreeSet<_> = assignment.values().flatten().copied().collect();
            prop_assert_eq!(all.len(), partitions as usize);
            counts.sort_unstable();
            prop_assert!(counts[members - 1] - counts[0] <= 1);
            // The least that must move: what is above the quota, the higher quotas given to who has most.
            let (quota, extra) = (partitions as usize / members, partitions as usize % members);
            let mut had: Vec<usize> = owned.iter().map(Vec::len).collect();
            had.sort_unstable_by(|a, b| b.cmp(a));
            let quota_of = |n: usize| if n < extra { quota + 1 } else { quota };
            let least: usize = had.iter().enumerate().map(|(n, had)| had.saturating_sub(quota_of(n))).sum();
            prop_assert_eq!(moved(&candidates, &assignment), least);
        }

        #[test]
        fn whatever_members_want_no_move_would_make_two_more_alike(
            wants in proptest::collection::vec(proptest::collection::btree_set(0..4u8, 1..4), 1..7),
        ) {
            let candidates: BTreeMap<String, Candidate> = wants.iter().enumerate().map(|(n, topics)| {
                let wanted = topics.iter().flat_map(|t| (0..5).map(|i| partition(*t, i))).collect();
                (format!("m{n}"), Candidate { wanted, owned: BTreeSet::new() })
            }).collect();
            let assignment = assign(&candidates);
            prop_assert!(next_move(&candidates, &assignment).is_none());
            let all: BTreeSet<_> = candidates.values().flat_map(|c| c.wanted.iter().copied()).collect();
            let given: Vec<_> = assignment.values().flatten().copied().collect();
            prop_assert_eq!(given.len(), all.len());
            for (member, partitions) in &assignment {
                prop_assert!(partitions.is_subset(&candidates[member].wanted));
            }
        }
    }
}
