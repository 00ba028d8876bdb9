//! The finite list of what can be wrong with a cluster. `docs/health.md` has the same; a test compares them.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Worth knowing; does not change the verdict.
    Note,
    /// Everything is served, with less protection or more delay than configured.
    Degraded,
    /// Something is not served, or acknowledged records are one fault away from being lost.
    Critical,
}

macro_rules! codes {
    ($( $variant:ident $name:literal $severity:ident cause $cause:literal effect $effect:literal
        remedy $remedy:literal next $next:literal; )*) => {
        /// One thing that can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code { $($variant),* }

        /// All there are, in the order in which they are told.
        pub(crate) const CODES: &[Code] = &[$(Code::$variant),*];

        impl Code {
            /// As printed and muted.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What people should know about it.
            pub(crate) fn page(self) -> Page {
                match self {
                    $(Self::$variant => Page {
                        code: $name, severity: Severity::$severity, cause: $cause, effect: $effect,
                        remedy: $remedy, next: $next,
                    }),*
                }
            }
        }
    };
}

/// What is told about a code.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// What has happened.
    pub(crate) cause: &'static str,
    /// What it means for those who use the cluster.
    pub(crate) effect: &'static str,
    /// What to do.
    pub(crate) remedy: &'static str,
    /// The command to type next.
    pub(crate) next: &'static str,
}

impl Code {
    /// The code of this name, in upper or lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        CODES.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name))
    }
}

codes! {
    ControllerNoQuorum "CONTROLLER_NO_QUORUM" Critical
        cause "No controller leads: fewer than half of them run and reach each other."
        effect "Leaders stay where they are and serve on for as long as their lease (9 s) and their in-sync set allow; nothing is elected, created or deleted, and what is shown may be old."
        remedy "Start the controllers that are down, or repair the network between them."
        next "plimsoll cluster status";
    ControllerDown "CONTROLLER_DOWN" Degraded
        cause "The leading controller has not heard from another one for two seconds."
        effect "Nothing yet; the quorum has less to lose."
        remedy "Start that controller, or repair its network."
        next "plimsoll cluster status";
    ControllerDisk "CONTROLLER_DISK" Degraded
        cause "The disk of a controller has too little room."
        effect "No topics are created or altered while it leads; votes, elections, deletes and volume states go on."
        remedy "Make room on the disk of that controller; it is noticed by itself."
        next "plimsoll cluster status";
    SpuOffline "SPU_OFFLINE" Critical
        cause "A storage node was not heard of for longer than the verdict takes, or its port refuses."
        effect "Its leaderships have moved to in-sync replicas; its partitions have one copy less."
        remedy "Start the node again, or move its replicas elsewhere when it will not come back."
        next "plimsoll spu list";
    SpuOutOfService "SPU_OUT_OF_SERVICE" Note
        cause "An operator took a storage node out of service, drains it or has cordoned it."
        effect "It gets no new replicas; as far as it is drained or offline its partitions are served by others."
        remedy "Bring it back when the work on it is done."
        next "plimsoll spu online SPU";
    SpuSuspect "SPU_SUSPECT" Degraded
        cause "A storage node is silent; it is being asked in other ways before a verdict."
        effect "What it leads may be slow or stand still until it answers or is replaced."
        remedy "Wait for the verdict (seconds), then look at the node."
        next "plimsoll cluster health";
    SpuStalled "SPU_STALLED" Critical
        cause "A storage node sends heartbeats, but no data path of it moves."
        effect "It serves nothing; its leaderships move."
        remedy "Look for hung mounts and stuck IO on that node (dmesg, iostat)."
        next "plimsoll disk --spu SPU";
    VolumeFailed "VOLUME_FAILED" Critical
        cause "A disk answered with an IO error, a failed fsync, or is gone. Failed is not full."
        effect "Out of service for writes; the partitions there have one copy less."
        remedy "It comes back by itself when its disk works again. If it stays drain the node (`plimsoll spu drain SPU`): other nodes take its replicas from the other copies. Then replace the disk, start the node with an empty directory and bring it back (`plimsoll spu online SPU`). Without a node to spare start the new disk as another node first."
        next "plimsoll disk --spu SPU";
    VolumeStalled "VOLUME_STALLED" Critical
        cause "The data path of a volume has not moved for seconds while the node itself answers."
        effect "Its leaderships move and its replicas leave the in-sync sets."
        remedy "Look for stuck IO on that device (dmesg, iostat)."
        next "plimsoll disk --spu SPU";
    DiskFull "DISK_FULL" Critical
        cause "A volume has less free than its read-only mark, or met a real ENOSPC."
        effect "It refuses produce with DISK_FULL; reads, deletes and control go on. Partitions with an in-sync copy elsewhere are led there."
        remedy "Make room: delete what does not belong there, shorten retention, delete a topic, grow the filesystem. It recovers by itself within 2 s."
        next "plimsoll disk plan --spu SPU";
    DiskInodes "DISK_INODES" Critical
        cause "A volume is out of inodes, or close to it."
        effect "Below the read-only mark it refuses produce although bytes are free."
        remedy "Delete small files that do not belong there, or use fewer and larger segments."
        next "plimsoll disk --spu SPU";
    DiskNearFull "DISK_NEARFULL" Degraded
        cause "A volume has passed its mark for reclaim or throttle, or will be full soon at the present rate."
        effect "Reclaim runs; from throttle on producers are delayed and leaders move away."
        remedy "Plan for room before the read-only mark is reached."
        next "plimsoll disk plan --spu SPU";
    ReclaimBlocked "RECLAIM_BLOCKED" Degraded
        cause "A volume is under pressure, and what retention and the topics allow to be deleted is not enough."
        effect "It goes on filling until produce is refused."
        remedy "Shorten retention, allow trimming (--on-pressure trim), delete a topic, or make room."
        next "plimsoll disk plan --spu SPU";
    ReclaimCannotKeepUp "RECLAIM_CANNOT_KEEP_UP" Degraded
        cause "A volume under pressure fills faster than reclaim frees: it will be full within 10 minutes."
        effect "Producers are delayed, and refused once it is full."
        remedy "Slow the writers down, add a node, or make room."
        next "plimsoll top";
    DiskHeld "DISK_HELD" Degraded
        cause "A volume has room again but recovered too often lately: it is held back against flapping."
        effect "It refuses produce until the hold ends."
        remedy "Wait for the end of the hold; find out why free space goes up and down."
        next "plimsoll disk --spu SPU";
    DiskUnknown "DISK_UNKNOWN" Degraded
        cause "The space sensor of a volume has no fresh answer, or a node was not heard of for seconds."
        effect "The figures are old; unknown is never taken as plenty."
        remedy "Look whether the mount hangs, and whether the node runs."
        next "plimsoll disk --spu SPU";
    DiskBorrowed "DISK_BORROWED" Note
        cause "An operator has lowered the read-only mark of a volume for a while."
        effect "It takes produce with less room in reserve; the mark comes back by itself."
        remedy "Make room before it ends."
        next "plimsoll disk --spu SPU";
    DiskDrill "DISK_DRILL" Note
        cause "A drill runs: a volume behaves as if it were short of space."
        effect "As for a volume at that level; no space is used and nothing is deleted. It ends by itself."
        remedy "Wait, or end it with `plimsoll disk drill --end`."
        next "plimsoll disk";
    PartitionNoLeader "PARTITION_NO_LEADER" Critical
        cause "No in-sync replica of a partition is on a live node."
        effect "It can be neither produced to nor read at its end."
        remedy "Bring back the nodes that hold its in-sync replicas."
        next "plimsoll topic describe TOPIC";
    PartitionBelowMinInSync "PARTITION_BELOW_MIN_IN_SYNC" Critical
        cause "A partition has fewer in-sync replicas than its topic asks for."
        effect "Produce with acks=all is refused with NOT_ENOUGH_IN_SYNC."
        remedy "Bring back the nodes and disks that its replicas are on."
        next "plimsoll topic describe TOPIC";
    PartitionUnderReplicated "PARTITION_UNDER_REPLICATED" Degraded
        cause "A partition has fewer in-sync replicas than replicas."
        effect "Served as always, with fewer copies than configured."
        remedy "Bring back the nodes and disks that its replicas are on; they catch up by themselves."
        next "plimsoll topic describe TOPIC";
    ReplicaStopped "REPLICA_STOPPED" Critical
        cause "A replica takes nothing more from its leader: the leader's log lacks records that are committed here."
        effect "The partition has one copy less, and nobody reads what the leader lacks; the stopped replica keeps it."
        remedy "Look which replica has what. To keep the records of the stopped one elect its node with --unclean; to give them up move the replica elsewhere with `plimsoll partition reassign`."
        next "plimsoll partition elect PARTITION --to SPU --dry-run";
    ClusterHeadroom "CLUSTER_HEADROOM" Degraded
        cause "If the fullest storage node were lost, the others could not take its records and stay above their throttle marks."
        effect "None now; after the loss of a node there is no room to copy."
        remedy "Add a node or disks, or shorten retention."
        next "plimsoll disk";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_are_alone() {
        for code in CODES {
            assert_eq!(Code::named(&code.name().to_lowercase()), Some(*code));
            assert_eq!(CODES.iter().filter(|other| other.name() == code.name()).count(), 1);
            assert!(code.page().next.starts_with("plimsoll "), "{code:?}");
        }
        assert_eq!(Code::named("DISK"), None);
    }

    #[test]
    fn the_page_of_the_documentation_has_every_code_and_every_word() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/health.md"))
            .expect("docs/health.md");
        for code in CODES {
            let Page { code, cause, effect, remedy, next, .. } = code.page();
            for text in [&format!("## {code}")[..], cause, effect, remedy, next] {
                assert!(page.contains(text), "docs/health.md lacks, of {code}: {text}");
            }
        }
        let headings = page.lines().filter(|line| line.starts_with("## ")).count();
        assert_eq!(headings, CODES.len(), "docs/health.md has a code that is gone");
    }
}
