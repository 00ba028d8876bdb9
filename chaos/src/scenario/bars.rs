//! What is held against every scenario. Each bar is measured, or the scenario says why it cannot apply.

/// A bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bar {
    /// From the mark crossed to the first typed refusal, or the committed entry.
    Detect,
    /// From there to acknowledgements of the new leader.
    Reroute,
    /// From space that is back to a writable volume.
    Recover,
    /// Of one node in one episode.
    LogLines,
    /// From a request to its refusal, at the client.
    RefusalP99,
    /// Refused requests of a producer that waits, for each partition.
    RefusedWhileWaiting,
    /// Changes of one volume's level in ten minutes, as its node logs them, or committed ones if these are more.
    LevelChanges,
    /// Deleted files that are still open in the end.
    DeletedButOpen,
    /// Bytes of the disk that they hold.
    DeletedButOpenBytes,
    /// Open files more than in the beginning.
    OpenFiles,
    /// Sockets and the like more than in the beginning.
    OtherDescriptors,
    /// Nodes declared dead that were not.
    Liveness,
    /// What partitions without a replica on the disk get acknowledged, and how late.
    Unaffected,
}

impl Bar {
    pub(super) const ALL: [Self; 13] = [
        Self::Detect,
        Self::Reroute,
        Self::Recover,
        Self::LogLines,
        Self::RefusalP99,
        Self::RefusedWhileWaiting,
        Self::LevelChanges,
        Self::DeletedButOpen,
        Self::DeletedButOpenBytes,
        Self::OpenFiles,
        Self::OtherDescriptors,
        Self::Liveness,
        Self::Unaffected,
    ];

    /// The figure that is held against it.
    pub(super) fn figure(self) -> &'static str {
        match self {
            Self::Detect => "detect_ms",
            Self::Reroute => "reroute_ms",
            Self::Recover => "recover_ms",
            Self::LogLines => "log_lines",
            Self::RefusalP99 => "refusal_p99_ms",
            Self::RefusedWhileWaiting => "refused_per_100_waits_s",
            Self::LevelChanges => "level_changes",
            Self::DeletedButOpen => "deleted_but_open_files",
            Self::DeletedButOpenBytes => "deleted_but_open_bytes",
            Self::OpenFiles => "open_files_more",
            Self::OtherDescriptors => "other_descriptors_more",
            Self::Liveness => "liveness_faults",
            Self::Unaffected => "unaffected_missing_per_mille",
        }
    }

    /// The greatest value that is fine.
    pub(super) fn at_most(self) -> u64 {
        match self {
            Self::Detect => 1_000,
            Self::Reroute | Self::Recover => 2_000,
            Self::LogLines => 10,
            Self::RefusalP99 => 50,
            Self::RefusedWhileWaiting | Self::LevelChanges => 20,
            Self::DeletedButOpen | Self::DeletedButOpenBytes | Self::Liveness => 0,
            // Segments roll while a scenario plays; other clients come.
            Self::OpenFiles | Self::OtherDescriptors => 32,
            Self::Unaffected => 10,
        }
    }
}

/// Bars that do not apply, and why.
pub(super) type Without = &'static [(Bar, &'static str)];

/// Three nodes and three replicas.
pub(super) const EVERY_PARTITION: (Bar, &str) =
    (Bar::Unaffected, "every partition has a replica on every node; see unaffected-partitions");
/// Where no leader has to move.
pub(super) const NO_REROUTE: (Bar, &str) = (Bar::Reroute, "no replica with room is there to lead");

/// For scenarios in which no disk fills.
pub(super) const NOTHING_FILLS: Without = &[
    (Bar::Detect, "no disk fills"),
    (Bar::Reroute, "no disk fills"),
    (Bar::Recover, "no disk fills"),
    (Bar::LogLines, "no disk fills, so there is no episode"),
    EVERY_PARTITION,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_a_figure_of_its_own() {
        let names: std::collections::BTreeSet<_> = Bar::ALL.iter().map(|bar| bar.figure()).collect();
        assert_eq!(names.len(), Bar::ALL.len());
    }
}
