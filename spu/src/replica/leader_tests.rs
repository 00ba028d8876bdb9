use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_proto::disk::DiskLevel;
use plimsoll_proto::ids::{Incarnation, LeaderEpoch, Offset, PartitionEpoch, SpuId};
use plimsoll_proto::v1::Acks;

use super::{Leader, LogEnds, Peer, ProduceRefusal, ProposalOutcome, ReportedPosition, Term};

fn at(offset: u64) -> Offset {
    Offset::new(offset).expect("a small offset")
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ends(log_end: u64) -> LogEnds {
    LogEnds { log_end: at(log_end), durable_end: at(log_end) }
}

fn set(members: &[u32]) -> BTreeSet<SpuId> {
    members.iter().map(|spu| SpuId(*spu)).collect()
}

fn term(partition_epoch: u32, in_sync: &[u32], min_in_sync: usize) -> Term {
    let peer = Peer { incarnation: Some(Incarnation(5)), writable: true };
    Term {
        me: SpuId(1),
        epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(partition_epoch),
        in_sync: set(in_sync),
        peers: BTreeMap::from([(SpuId(2), peer), (SpuId(3), peer)]),
        min_in_sync,
        flush_ack: false,
        in_reserve: false,
    }
}

fn leader(in_sync: &[u32], min_in_sync: usize) -> Leader {
    Leader::new(term(1, in_sync, min_in_sync), ends(10), at(6), s(3), s(0))
}

fn fetch(leader: &mut Leader, spu: u32, log_end: u64, level: DiskLevel, now: Duration) -> bool {
    let position = ReportedPosition { incarnation: Incarnation(5), ends: ends(log_end), level };
    leader.on_fetch(SpuId(spu), position, now).expect("a fetch of the present incarnation")
}

/// Ticks once a second until something is proposed.
fn proposed(leader: &mut Leader, from: u64, to: u64) -> Option<(u64, BTreeSet<SpuId>)> {
    (from..=to).find_map(|second| {
        let halves = [s(second), s(second) + Duration::from_millis(500)];
        halves.into_iter().find_map(|now| leader.tick(now)).map(|proposal| (second, proposal.in_sync))
    })
}

#[test]
fn the_high_watermark_is_the_least_of_the_set_and_latest_waits_for_the_epoch() {
    let mut leader = leader(&[1, 2, 3], 2);
    assert_eq!((leader.high_watermark(), leader.latest()), (at(6), None));
    assert!(!fetch(&mut leader, 2, 10, DiskLevel::Normal, s(1)));
    assert!(fetch(&mut leader, 3, 8, DiskLevel::Normal, s(1)));
    assert_eq!((leader.high_watermark(), leader.latest()), (at(8), None));
    assert!(fetch(&mut leader, 3, 10, DiskLevel::Normal, s(1)));
    assert_eq!(leader.latest(), Some(at(10)));
    // A follower that reports less, after it started again, moves nothing back.
    assert!(!fetch(&mut leader, 3, 2, DiskLevel::Normal, s(2)));
    assert_eq!((leader.high_watermark(), leader.copies(at(10)), leader.copies(at(2))), (at(10), 2, 3));
}

#[test]
fn with_flush_ack_only_synced_records_count() {
    let mut flushed =
        Leader::new(Term { flush_ack: true, ..term(1, &[1, 2], 1) }, ends(10), at(0), s(3), s(0));
    let unsynced = LogEnds { log_end: at(10), durable_end: at(4) };
    let position = ReportedPosition { incarnation: Incarnation(5), ends: unsynced, level: DiskLevel::Normal };
    assert_eq!(flushed.on_fetch(SpuId(2), position, s(0)), Ok(true));
    assert_eq!(flushed.high_watermark(), at(4));
    flushed.on_own_log(LogEnds { log_end: at(12), durable_end: at(10) });
    fetch(&mut flushed, 2, 12, DiskLevel::Normal, s(0));
    assert_eq!(flushed.high_watermark(), at(10));
}

#[test]
fn a_member_that_lags_is_proposed_for_removal_unless_the_leader_itself_slept() {
    let mut leading = leader(&[1, 2, 3], 2);
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(0));
    fetch(&mut leading, 3, 4, DiskLevel::Normal, s(0));
    assert_eq!(proposed(&mut leading, 0, 5), Some((3, set(&[1, 2]))));
    // Until the committed set shows it, the old one counts; then 3 no longer holds anybody up.
    assert_eq!(leading.high_watermark(), at(6));
    assert!(leading.on_term(term(2, &[1, 2], 2), s(4)));
    assert_eq!(leading.high_watermark(), at(10));

    let mut slept = leader(&[1, 2, 3], 2);
    fetch(&mut slept, 2, 10, DiskLevel::Normal, s(0));
    assert_eq!(slept.tick(s(60)), None, "a leader that was paused can't tell");
}

#[test]
fn for_fullness_a_member_leaves_only_while_enough_remain() {
    let mut enough = leader(&[1, 2, 3], 2);
    fetch(&mut enough, 2, 10, DiskLevel::Normal, s(0));
    fetch(&mut enough, 3, 9, DiskLevel::ReadOnly, s(0));
    assert_eq!(enough.admit(Acks::All, true), Ok(()));
    assert_eq!(proposed(&mut enough, 0, 5).map(|(_, set)| set), Some(set(&[1, 2])));

    let mut too_few = leader(&[1, 2], 2);
    fetch(&mut too_few, 2, 9, DiskLevel::ReadOnly, s(0));
    assert_eq!(proposed(&mut too_few, 0, 5), None);
    for acks in [Acks::All, Acks::Leader, Acks::None] {
        let Err(ProduceRefusal::NotEnoughInSync { in_sync, out, .. }) = too_few.admit(acks, true) else {
            panic!("{acks:?} was admitted");
        };
        assert_eq!(in_sync, [SpuId(1), SpuId(2)]);
        assert!(out.iter().any(|(spu, why)| *spu == SpuId(2) && why.contains("read-only")), "{out:?}");
    }
    fetch(&mut too_few, 2, 9, DiskLevel::Throttle, s(6));
    assert_eq!(too_few.admit(Acks::All, true), Ok(()));
}

#[test]
fn below_the_minimum_all_is_refused_and_without_a_lease_the_others_are() {
    let small = leader(&[1], 2);
    assert!(matches!(small.admit(Acks::All, true), Err(ProduceRefusal::NotEnoughInSync { .. })));
    assert_eq!(small.admit(Acks::Leader, true), Ok(()));
    assert!(!small.acknowledges());
    let full = leader(&[1, 2, 3], 2);
    assert_eq!(full.admit(Acks::All, false), Ok(()));
    assert_eq!(full.admit(Acks::Leader, false), Err(ProduceRefusal::LeaseRanOut));
    assert_eq!(full.admit(Acks::None, false), Err(ProduceRefusal::LeaseRanOut));
}

#[test]
fn who_has_caught_up_joins_and_counts_from_the_proposal_on() {
    let mut leading = leader(&[1, 2], 1);
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(0));
    fetch(&mut leading, 3, 9, DiskLevel::Normal, s(0));
    assert_eq!(leading.tick(s(0)), None);
    fetch(&mut leading, 3, 10, DiskLevel::ReadOnly, s(0));
    assert_eq!(leading.tick(s(0)), None, "a full one does not join");
    fetch(&mut leading, 3, 10, DiskLevel::Normal, s(0));
    let proposal = leading.tick(s(0)).expect("it has caught up");
    assert_eq!(proposal.in_sync, set(&[1, 2, 3]));

    leading.on_own_log(ends(12));
    assert!(!fetch(&mut leading, 2, 12, DiskLevel::Normal, s(0)), "the proposed member counts already");
    // No answer: it may be committed, so it keeps counting and is sent again.
    leading.on_proposal(proposal.partition_epoch, ProposalOutcome::Unknown, s(0));
    assert_eq!((leading.high_watermark(), leading.tick(s(0))), (at(10), None));
    assert_eq!(leading.tick(s(1)), Some(proposal.clone()));

    // Turned down where it could still be committed by a late copy: it keeps counting and is sent again.
    let expected = proposal.partition_epoch;
    leading.on_proposal(expected, ProposalOutcome::Rejected { partition_epoch: expected }, s(1));
    assert_eq!(leading.tick(s(2)), Some(proposal.clone()));
    // Turned down for good, or applied by an earlier copy: the metadata will tell which.
    let beyond = PartitionEpoch(expected.0 + 1);
    leading.on_proposal(expected, ProposalOutcome::Rejected { partition_epoch: beyond }, s(2));
    assert_eq!((leading.high_watermark(), leading.tick(s(9))), (at(10), None));
    let shown = Term { partition_epoch: beyond, ..leading.term().clone() };
    assert!(leading.on_term(shown, s(9)));
    assert_eq!(leading.high_watermark(), at(12));
}

#[test]
fn who_joins_has_reached_the_high_watermark_and_not_only_the_start_of_the_epoch() {
    let mut leading = leader(&[1, 2], 1);
    leading.on_own_log(ends(20));
    fetch(&mut leading, 3, 20, DiskLevel::Normal, s(0));
    fetch(&mut leading, 2, 20, DiskLevel::Normal, s(0));
    assert_eq!((leading.high_watermark(), leading.latest()), (at(20), Some(at(20))));
    // It started again and lost its tail: late enough to lack committed records, not to be out of time.
    fetch(&mut leading, 3, 15, DiskLevel::Normal, s(0));
    assert_eq!(
        leading.tick(s(0)),
        None,
        "15 is beyond the start of the epoch, 10, and below what is committed"
    );
    leading.on_own_log(ends(21));
    fetch(&mut leading, 3, 19, DiskLevel::Normal, s(0));
    assert_eq!(leading.tick(s(0)), None);
    fetch(&mut leading, 3, 20, DiskLevel::Normal, s(0));
    assert_eq!(leading.tick(s(0)).map(|proposal| proposal.in_sync), Some(set(&[1, 2, 3])));
}

#[test]
fn nobody_joins_whose_volume_is_out_of_service_for_writes() {
    let mut leading = leader(&[1, 2], 1);
    let mut offline = term(1, &[1, 2], 1);
    offline.peers.insert(SpuId(3), Peer { incarnation: Some(Incarnation(5)), writable: false });
    leading.on_term(offline, s(0));
    // Its own figures say that there is room; the committed state does not yet.
    fetch(&mut leading, 3, 10, DiskLevel::Normal, s(0));
    assert_eq!(leading.tick(s(0)), None);
    leading.on_term(term(1, &[1, 2], 1), s(0));
    assert_eq!(leading.tick(s(0)).map(|proposal| proposal.in_sync), Some(set(&[1, 2, 3])));
}

#[test]
fn who_fetches_no_more_leaves_once_and_is_not_taken_back() {
    let mut leading = leader(&[1, 2], 2);
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(0));
    leading.on_own_log(ends(12));
    assert_eq!(proposed(&mut leading, 0, 5), Some((3, set(&[1]))));
    leading.on_term(term(2, &[1], 2), s(5));
    // Nothing is committed any more: it has reached the high watermark, and will have for ever.
    assert_eq!((leading.high_watermark(), proposed(&mut leading, 5, 60)), (at(10), None));
    // It fetches again from where it was, then has all.
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(61));
    assert_eq!(leading.tick(s(61)), None);
    fetch(&mut leading, 2, 12, DiskLevel::Normal, s(62));
    assert_eq!(leading.tick(s(62)).map(|proposal| proposal.in_sync), Some(set(&[1, 2])));

    // The same of one that had everything when it was heard last.
    let mut even = leader(&[1], 2);
    fetch(&mut even, 2, 10, DiskLevel::Normal, s(0));
    assert_eq!(even.tick(s(0)).map(|proposal| proposal.in_sync), Some(set(&[1, 2])));
    let mut even = leader(&[1], 2);
    fetch(&mut even, 2, 10, DiskLevel::Normal, s(0));
    assert_eq!(even.tick(s(4)), None, "not heard for four seconds");
}

#[test]
fn a_smaller_set_counts_only_once_it_is_committed() {
    let mut leading = leader(&[1, 2, 3], 2);
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(0));
    fetch(&mut leading, 3, 4, DiskLevel::Normal, s(0));
    assert_eq!(proposed(&mut leading, 0, 5), Some((3, set(&[1, 2]))));
    // Everything that makes a leader count: its own log, a fetch, metadata without the change.
    leading.on_own_log(ends(12));
    fetch(&mut leading, 2, 12, DiskLevel::Normal, s(4));
    leading.on_term(term(1, &[1, 2, 3], 2), s(4));
    assert_eq!(leading.high_watermark(), at(6), "3 is a member until the change is committed");
    assert!(leading.on_term(term(2, &[1, 2], 2), s(4)));
    assert_eq!(leading.high_watermark(), at(12));
}

#[test]
fn a_set_below_its_minimum_commits_nothing() {
    let mut small = leader(&[1], 2);
    small.on_own_log(ends(20));
    assert_eq!(
        (small.high_watermark(), small.latest()),
        (at(6), None),
        "who left the set has no more than that"
    );
    fetch(&mut small, 2, 20, DiskLevel::Normal, s(0));
    assert_eq!(small.tick(s(0)).map(|proposal| proposal.in_sync), Some(set(&[1, 2])));
    small.on_own_log(ends(21));
    fetch(&mut small, 2, 21, DiskLevel::Normal, s(0));
    assert_eq!(small.high_watermark(), at(6), "a set that is only proposed has no minimum");
    assert!(small.on_term(term(2, &[1, 2], 2), s(1)));
    assert_eq!(small.high_watermark(), at(21));
    assert!(small.acknowledges());
}

#[test]
fn only_the_registered_run_of_a_node_is_proposed_as_a_member() {
    let mut leading = leader(&[1, 2], 1);
    fetch(&mut leading, 2, 10, DiskLevel::Normal, s(0));
    let newer = ReportedPosition { incarnation: Incarnation(6), ends: ends(10), level: DiskLevel::Normal };
    assert_eq!(leading.on_fetch(SpuId(3), newer, s(0)), Ok(false));
    assert_eq!(leading.tick(s(0)), None, "the metadata still know an earlier run");
    let mut known = term(1, &[1, 2], 1);
    known.peers.insert(SpuId(3), Peer { incarnation: Some(Incarnation(6)), writable: true });
    leading.on_term(known, s(0));
    assert_eq!(leading.tick(s(1)).map(|proposal| proposal.in_sync), Some(set(&[1, 2, 3])));
}

#[test]
fn an_old_incarnation_and_a_stranger_count_for_nothing() {
    let mut leading = leader(&[1, 2], 1);
    let old = ReportedPosition { incarnation: Incarnation(4), ends: ends(10), level: DiskLevel::Normal };
    assert!(leading.on_fetch(SpuId(2), old, s(0)).is_err());
    assert!(leading.on_fetch(SpuId(9), old, s(0)).is_err());
    assert_eq!(leading.high_watermark(), at(6));
}
