//! What an election would cost: which committed offsets each replica may lack.

use std::cmp::Reverse;

use plimsoll_proto::ids::SpuId;
use plimsoll_proto::v1;

use crate::cluster::{ClusterState, Partition};

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
/// A replica that holds everything committed risks nothing. Another one risks what is known to be committed beyond
/// its log; where its last record is older than somebody's, its log may differ from there on down to its own high
/// watermark, so everything from there is at risk. What only replicas hold that did not answer is not known.
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
    let mut candidates: Vec<_> = partition
        .replicas
        .iter()
        .map(|replica| {
            let answer = told(replica.spu);
            let held = answer.cloned().unwrap_or_default();
            let cache_lost = replica.cache_lost.is_some() || held.cache_lost;
            let whole = partition.is_complete(replica.spu) && !cache_lost;
            let from = match answer {
                _ if whole => high_watermark,
                Some(held) if held.last_epoch == newest => held.log_end.min(high_watermark),
                Some(held) => held.high_watermark.min(held.log_end).min(high_watermark),
                None => 0,
            };
            v1::ElectionCandidate {
                spu_id: replica.spu.0,
                in_sync: partition.in_sync.contains(&replica.spu),
                eligible: partition.eligible.contains(&replica.spu),
                cache_lost,
                answered: answer.is_some(),
                last_epoch: held.last_epoch,
                log_start: held.log_start,
                log_end: held.log_end,
                high_watermark: held.high_watermark,
                at_risk_from: from,
                at_risk_to: high_watermark,
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

    fn shown(found: &Candidates) -> Vec<(u32, bool, u64, u64)> {
        found.candidates.iter().map(|c| (c.spu_id, is_clean(c), c.at_risk_from, c.at_risk_to)).collect()
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
        assert_eq!(shown(&found), [(1, true, 80, 80), (2, true, 80, 80), (3, false, 60, 80)]);

        // An older last record: the log may differ from its own high watermark on.
        let old = [standings[0], standing(&cluster, 3, 3, 75, 55)];
        let found = candidates(&cluster.state, cluster.p(), &old);
        assert_eq!(shown(&found), [(1, true, 80, 80), (3, false, 55, 80), (2, true, 80, 80)]);
        assert!(!found.candidates[2].answered, "who does not answer comes last");
    }

    #[test]
    fn who_lost_its_page_cache_may_lack_what_it_had() {
        let mut cluster = Cluster::with_topic();
        cluster.fill(3);
        let lost = v1::StandingResponse { cache_lost: true, ..standing(&cluster, 2, 4, 70, 70) };
        let found = candidates(&cluster.state, cluster.p(), &[lost, standing(&cluster, 3, 4, 75, 72)]);
        assert_eq!(shown(&found), [(3, false, 72, 72), (2, false, 70, 72), (1, true, 72, 72)]);
        // The word of an earlier run counts for nothing.
        let stale = v1::StandingResponse { incarnation: 1, ..standing(&cluster, 1, 9, 99, 99) };
        assert_eq!(candidates(&cluster.state, cluster.p(), &[stale]).high_watermark, 0);
    }
}
