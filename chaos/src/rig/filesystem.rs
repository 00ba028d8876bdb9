//! Kinds of small filesystems.

/// What a volume lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filesystem {
    /// In memory. The quickest, and the one that needs nothing.
    #[default]
    Tmpfs,
    /// In an image. `f_bavail` leaves out the blocks reserved for another user.
    Ext4,
    /// In an image of at least 300 MiB, which is as small as mkfs.xfs makes them.
    Xfs,
    /// A subvolume with a limit: the filesystem has room, and the kernel answers EDQUOT.
    BtrfsQuota,
    /// ext4 in an image that promises more than the memory below it can hold: writes succeed, `fsync` fails.
    Thin,
}

impl Filesystem {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::BtrfsQuota => "btrfs with a quota",
            Self::Thin => "thin ext4",
        }
    }
}
