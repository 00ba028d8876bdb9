//! What goes wrong in a run, and when: drawn from the seed before it starts.

use std::time::Duration;

use plimsoll_host::Random;

/// One thing that happens to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Somebody else takes every byte of a storage node's disk, and every byte that is given back.
    Fill(usize),
    /// The foreign bytes are gone again.
    Free(usize),
    /// A storage node's process is killed.
    KillSpu(usize),
    /// It is started again.
    StartSpu(usize),
    /// A controller's process is killed.
    KillController(usize),
    /// It is started again.
    StartController(usize),
    /// Nothing passes between two storage nodes.
    Cut(usize, usize),
    /// It passes again.
    Heal(usize, usize),
}

/// Faults begin after this long: the cluster has formed by then.
const FIRST: Duration = Duration::from_secs(8);
/// All faults are over after this long.
pub(super) const LAST: Duration = Duration::from_secs(24);

/// A schedule: each fault is undone, at most one storage node and one controller suffer at a time.
pub(super) fn schedule(random: &Random) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    let pick = || usize::try_from(random.below(3)).unwrap_or(0);
    let mut at = FIRST;
    while at + Duration::from_secs(5) < LAST {
        let begin = at + random.jitter(Duration::from_secs(1));
        let end = begin + Duration::from_secs(1) + random.jitter(Duration::from_secs(2));
        let spu = pick();
        let (bad, good) = match random.below(3) {
            0 => (Fault::Fill(spu), Fault::Free(spu)),
            1 => (Fault::KillSpu(spu), Fault::StartSpu(spu)),
            _ => (Fault::Cut(spu, (spu + 1) % 3), Fault::Heal(spu, (spu + 1) % 3)),
        };
        faults.push((begin, bad));
        faults.push((end, good));
        if random.below(2) == 0 {
            let controller = pick();
            faults.push((begin, Fault::KillController(controller)));
            faults.push((end, Fault::StartController(controller)));
        }
        at = end + Duration::from_secs(1);
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
