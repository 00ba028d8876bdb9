//! What an election would cost: which committed offsets each replica may lack.

use std::cmp::Reverse;

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1;

use crate::cluster::{ClusterState, Partition, Replica};

/// The replicas of a partition with what each of them told, compared.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidates {
    /// End of what is known to be committed.
    pub high_watermark: u64,
    /// Every replica, the best one first.
    pub candidates: Vec<v1::ElectionCandidate>,
}

/// Compares the replicas by what is committed about them and by `standings`, their own words.
///
/// A replica that holds everything committed risks nothing. Another one risks what may be committed beyond its log;
/// where its last record is older than somebody's, its log may differ from there on down to its own high watermark, so
/// everything from there is at risk. How far the committed offsets may go is bounded by the log of any replica that holds
/// them all; when none of those answers, nobody can say, and the range is open.
pub fn candidates(
    state: &ClusterState,
    partition: &Partition,
    standings: &[v1::StandingResponse],
) -> Candidates {
    let told = |spu: SpuId| {
        let run = state.incarnation(spu)?;
        standings.iter().find(|s| s.spu_id == spu.0 && s.incarnation == run.0 && s.held)
    };
    let answers = || partition.replicas.iter().filter_map(|replica| told(replica.spu));
    let high_watermark = answers().map(|s| s.high_watermark.min(s.log_end)).max().unwrap_or(0);
    let newest = answers().map(|s| s.last_epoch).max().unwrap_or(0);
    let whole = |replica: &Replica| {
        let lost = replica.cache_lost.is_some() || told(replica.spu).is_some_and(|s| s.cache_lost);
        partition.is_complete(replica.spu) && !lost
    };
    let whole_ones = partition.replicas.iter().filter(|replica| whole(replica));
    let committed_max = whole_ones.filter_map(|replica| told(replica.spu)).map(|s| s.log_end).min();
    let to = committed_max.unwrap_or(high_watermark);
    let mut candidates: Vec<_> = partition
        .replicas
        .iter()
        .map(|replica| {
            let answer = told(replica.spu);
            let held = answer.cloned().unwrap_or_default();
            let from = match answer {
                _ if whole(replica) => to,
                Some(held) if held.last_epoch == newest => held.log_end.min(to),
                Some(held) => held.high_watermark.min(held.log_end).min(to),
                None => 0,
            };
            v1::ElectionCandidate {
                spu_id: replica.spu.0,
                in_sync: partition.in_sync.contains(&replica.spu),
                eligible: partition.eligible.contains(&replica.spu),
                cache_lost: replica.cache_lost.is_some() || held.cache_lost,
                answered: answer.is_some(),
                last_epoch: held.last_epoch,
                log_start: held.log_start,
                log_end: held.log_end,
                high_watermark: held.high_watermark,
                at_risk_from: from,
                at_risk_to: to,
                at_risk_open: !whole(replica) && committed_max.is_none(),
            }
        })
        .collect();
    // Stable: earlier replicas first among equals.
    candidates.sort_by_key(|c| {
        (Reverse(c.answered), Reverse(is_clean(c)), Reverse(c.last_epoch), Reverse(c.log_end))
    });
    Candidates { high_watermark, candidates }
}

/// Whether the candidate holds everything committed for sure.
pub fn is_clean(candidate: &v1::ElectionCandidate) -> bool {
    (candidate.in_sync || candidate.eligible) && !candidate.cache_lost
}

/// The committed offsets at risk, in words; the end is exclusive.
pub fn at_risk(candidate: &v1::ElectionCandidate) -> String {
    let (from, to) = (candidate.at_risk_from, candidate.at_risk_to);
    match candidate.at_risk_open {
        true => format!("{from} and on"),
        false if from < to => format!("{from} to {to}"),
        false => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::Cluster;

    fn standing(cluster: &Cluster, spu: u32, last_epoch: u32, log_end: u64, hw: u64) -> v1::StandingResponse {
        v1::StandingResponse {
            spu_id: spu,
            incarnation: cluster.incarnation(spu),
            held: true,
            last_epoch,
            log_end,
            high_watermark: hw,
            ..Default::default()
        }
    }

    fn shown(found: &Candidates) -> Vec<(u32, bool, String)> {
        found.candidates.iter().map(|c| (c.spu_id, is_clean(c), at_risk(c))).collect()
    }

    fn row(spu: u32, clean: bool, at_risk: &str) -> (u32, bool, String) {
        (spu, clean, at_risk.to_owned())
    }

    #[test]
    fn members_risk_nothing_and_others_what_they_lack() {
        let mut cluster = Cluster::with_topic();
        cluster.fill(3);
        assert_eq!(cluster.set(), [1, 2]);
        let standings = [
            standing(&cluster, 1, 4, 90, 80),
            standing(&cluster, 2, 4, 85, 70),
            standing(&cluster, 3, 4, 60, 55),
        ];
        let found = candidates(&cluster.state, cluster.p(), &standings);
        assert_eq!(found.high_watermark, 80);
        // More than 80 may be committed by now, more than the shortest log of a member can't.
        assert_eq!(shown(&found), [row(1, true, "none"), row(2, true, "none"), row(3, false, "60 to 85")]);

        // An older last record: the log may differ from its own high watermark on.
        let old = [standings[0], standing(&cluster, 3, 3, 75, 55)];
        let found = candidates(&cluster.state, cluster.p(), &old);
        assert_eq!(shown(&found), [row(1, true, "none"), row(3, false, "55 to 90"), row(2, true, "none")]);
        assert!(!found.candidates[2].answered, "who does not answer comes last");

        // A member that has not heard yet how much is committed.
        let behind = [standing(&cluster, 2, 4, 85, 60), standing(&cluster, 3, 4, 60, 60)];
        let found = candidates(&cluster.state, cluster.p(), &behind);
        assert_eq!(shown(&found), [row(2, true, "none"), row(3, false, "60 to 85"), row(1, true, "none")]);
    }

    #[test]
    fn without_an_answer_of_a_member_nobody_knows_how_much_is_at_risk() {
        let mut cluster = Cluster::with_topic();
        cluster.fill(3);
        let found = candidates(&cluster.state, cluster.p(), &[standing(&cluster, 3, 4, 60, 60)]);
        assert_eq!(
            shown(&found),
            [row(3, false, "60 and on"), row(1, true, "none"), row(2, true, "none")],
            "what it has itself says nothing about what the members have"
        );
        let nobody = candidates(&cluster.state, cluster.p(), &[]);
        assert_eq!(shown(&nobody)[2], row(3, false, "0 and on"));
    }

    #[test]
    fn who_lost_its_page_cache_may_lack_what_it_had() {
        let mut cluster = Cluster::with_topic();
        cluster.fill(3);
        let lost = v1::StandingResponse { cache_lost: true, ..standing(&cluster, 2, 4, 70, 70) };
        let found = candidates(&cluster.state, cluster.p(), &[lost, standing(&cluster, 3, 4, 75, 72)]);
        assert_eq!(
            shown(&found),
            [row(3, false, "72 and on"), row(2, false, "70 and on"), row(1, true, "none")]
        );
        // The word of an earlier run counts for nothing.
        let stale = v1::StandingResponse { incarnation: 1, ..standing(&cluster, 1, 9, 99, 99) };
        assert_eq!(candidates(&cluster.state, cluster.p(), &[stale]).high_watermark, 0);
    }
}
