//! A copy of the cluster's metadata as nodes and clients keep it: a list, then changes on top of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::{ClusterId, ControllerId, MetadataVersion, PartitionId, SpuId, TopicId, VolumeId};
use crate::v1;

/// How many deleted topics are remembered, by controllers and by copies of their metadata; the oldest make room.
pub const DELETED_TOPICS_MAX: usize = 10_000;

/// Metadata of the cluster at one version. Only [`MetadataImage::apply`] moves it, and only forward.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataImage {
    /// The cluster; all zero before the first update.
    pub cluster_id: ClusterId,
    /// Index of the last entry reflected.
    pub version: MetadataVersion,
    /// Registered storage nodes.
    pub spus: BTreeMap<SpuId, v1::SpuInfo>,
    /// Topics by id.
    pub topics: BTreeMap<TopicId, v1::TopicInfo>,
    /// Topics that were deleted, oldest first, at most [`DELETED_TOPICS_MAX`]. A topic that is neither here nor in
    /// `topics` is one that the source does not know, not one that may be deleted.
    pub deleted: Arc<VecDeque<TopicId>>,
    /// The leading controller and its address, as far as the source knew.
    pub controller_leader: Option<(ControllerId, String)>,
}

/// An update does not continue this image: subscribe again and take a full one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageGap {
    /// Updates are missing in between.
    #[error("the update goes on from version {expected}, the image is at {have}")]
    Missing {
        /// What the update goes on from.
        expected: u64,
        /// What the image has.
        have: u64,
    },
    /// The update is of another cluster.
    #[error("the update is of another cluster")]
    OtherCluster,
    /// The update cannot be read.
    #[error("the update is malformed: {0}")]
    Malformed(#[from] crate::invalid::Invalid),
    /// After the update the image differs from its source.
    #[error("the digest at version {version} differs")]
    Digest {
        /// The version at which it was compared.
        version: u64,
    },
}

/// Whether an update changed the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// A bookmark, or older than the image.
    No,
}

impl MetadataImage {
    /// An image that knows nothing, at version 0.
    pub fn empty() -> Self {
        Self {
            cluster_id: ClusterId([0; 16]),
            version: MetadataVersion(0),
            spus: BTreeMap::new(),
            topics: BTreeMap::new(),
            deleted: Arc::default(),
            controller_leader: None,
        }
    }

    /// Applies one update of a watch. An update that is older than the image is ignored: a late message is
    /// not a change of state.
    ///
    /// # Errors
    /// [`ImageGap`]; the image is as it was, except after `Digest`. Subscribe again.
    pub fn apply(&mut self, update: v1::MetadataUpdate) -> Result<Changed, ImageGap> {
        let cluster_id = ClusterId::from_slice(&update.cluster_id)?;
        if self.version.0 > 0 && cluster_id != self.cluster_id {
            return Err(ImageGap::OtherCluster);
        }
        if update.version < self.version.0 {
            return Ok(Changed::No);
        }
        if !update.full && update.previous_version != self.version.0 {
            return Err(ImageGap::Missing { expected: update.previous_version, have: self.version.0 });
        }
        let removed = ids(&update.removed_topic_ids)?;
        let deleted = ids(&update.deleted_topic_ids)?;
        let topics = update
            .topics
            .into_iter()
            .map(|topic| Ok((TopicId::from_slice(&topic.topic_id)?, topic)))
            .collect::<Result<Vec<_>, crate::invalid::Invalid>>()?;

        let before = self.version;
        let nothing = topics.is_empty() && removed.is_empty() && update.spus.is_empty();
        if update.full {
            self.spus.clear();
            self.topics.clear();
            self.deleted = Arc::default();
        }
        self.remember_deleted(deleted.iter().chain(&removed));
        self.cluster_id = cluster_id;
        self.version = MetadataVersion(update.version);
        self.topics.extend(topics);
        for id in removed {
            self.topics.remove(&id);
        }
        self.spus.extend(update.spus.into_iter().map(|spu| (SpuId(spu.spu_id), spu)));
        let leader = (update.controller_leader != 0)
            .then_some((ControllerId(update.controller_leader), update.controller_leader_address));
        let leader_changed = leader != self.controller_leader;
        self.controller_leader = leader;
        if update.digest != 0 && update.digest != self.digest() {
            return Err(ImageGap::Digest { version: update.version });
        }
        let changed = !nothing || leader_changed || (update.full && before != self.version);
        Ok(if changed { Changed::Yes } else { Changed::No })
    }

    fn remember_deleted<'a>(&mut self, ids: impl Iterator<Item = &'a TopicId>) {
        let mut ids = ids.peekable();
        if ids.peek().is_none() {
            return;
        }
        let deleted = Arc::make_mut(&mut self.deleted);
        deleted.extend(ids);
        while deleted.len() > DELETED_TOPICS_MAX {
            deleted.pop_front();
        }
    }

    /// The topic of that name.
    pub fn topic_by_name(&self, name: &str) -> Option<&v1::TopicInfo> {
        self.topics.values().find(|topic| topic.name == name)
    }

    /// One partition.
    pub fn partition(&self, id: &PartitionId) -> Option<&v1::PartitionInfo> {
        self.topics.get(&id.topic_id)?.partitions.iter().find(|partition| partition.index == id.index)
    }

    /// Where a storage node is reached.
    pub fn address(&self, spu: SpuId) -> Option<&str> {
        self.spus.get(&spu).map(|info| info.address.as_str()).filter(|address| !address.is_empty())
    }

    /// The state of one volume; `Unspecified` when it is not known.
    pub fn volume_state(&self, spu: SpuId, volume: VolumeId) -> v1::VolumeState {
        self.spus
            .get(&spu)
            .and_then(|info| info.volumes.iter().find(|v| v.volume_id.as_ref() == volume.0.as_slice()))
            .map_or(v1::VolumeState::Unspecified, v1::VolumeInfo::state)
    }

    /// Checksum over nodes and topics, never 0. Source and copy compute it the same way.
    pub fn digest(&self) -> u64 {
        use prost::Message as _;
        let mut low = 0u32;
        let mut high = 0x9e37_79b9u32;
        let mut add = |bytes: &[u8]| {
            low = crc32c::crc32c_append(low, bytes);
            high = crc32c::crc32c_append(high.rotate_left(7), bytes);
        };
        self.spus.values().for_each(|spu| add(&spu.encode_to_vec()));
        self.topics.values().for_each(|topic| add(&topic.encode_to_vec()));
        ((u64::from(high) << 32) | u64::from(low)).max(1)
    }
}

fn ids(bytes: &[bytes::Bytes]) -> Result<Vec<TopicId>, crate::invalid::Invalid> {
    bytes.iter().map(|id| TopicId::from_slice(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u8) -> v1::TopicInfo {
        v1::TopicInfo { topic_id: vec![id; 16].into(), name: format!("t{id}"), ..Default::default() }
    }

    fn update(version: u64, previous: Option<u64>) -> v1::MetadataUpdate {
        v1::MetadataUpdate {
            cluster_id: vec![1; 16].into(),
            version,
            previous_version: previous.unwrap_or(0),
            full: previous.is_none(),
            ..Default::default()
        }
    }

    #[test]
    fn changes_go_on_from_the_version_they_name() {
        let mut image = MetadataImage::empty();
        let full = v1::MetadataUpdate { topics: vec![topic(1), topic(2)], ..update(5, None) };
        assert_eq!(image.apply(full.clone()), Ok(Changed::Yes));
        let delta = v1::MetadataUpdate {
            topics: vec![topic(3)],
            removed_topic_ids: vec![vec![1; 16].into()],
            ..update(8, Some(5))
        };
        assert_eq!(image.apply(delta.clone()), Ok(Changed::Yes));
        assert_eq!(image.topics.len(), 2);
        assert!(image.topic_by_name("t3").is_some());

        // The same delta again is a gap (it goes on from 5), an older full one is late.
        assert_eq!(image.apply(delta), Err(ImageGap::Missing { expected: 5, have: 8 }));
        assert_eq!(image.apply(full), Ok(Changed::No));
        assert_eq!(image.version, MetadataVersion(8));
    }

    #[test]
    fn what_was_deleted_is_named_and_remembered_up_to_a_limit() {
        let mut image = MetadataImage::empty();
        image
            .apply(v1::MetadataUpdate { topics: vec![topic(1), topic(2)], ..update(5, None) })
            .expect("full");
        assert!(image.deleted.is_empty());
        let removed =
            v1::MetadataUpdate { removed_topic_ids: vec![vec![1; 16].into()], ..update(8, Some(5)) };
        image.apply(removed).expect("it goes on");
        assert_eq!(*image.deleted, [TopicId([1; 16])]);
        // A full one that merely does not mention a topic says nothing about it.
        let named = vec![vec![3; 16].into()];
        image.apply(v1::MetadataUpdate { deleted_topic_ids: named, ..update(9, None) }).expect("full");
        assert!(image.topics.is_empty());
        assert_eq!(*image.deleted, [TopicId([3; 16])]);

        let id = |n: u16| [vec![9; 14], n.to_be_bytes().to_vec()].concat();
        let many = (0..=10_000).map(|n| id(n).into()).collect();
        image
            .apply(v1::MetadataUpdate { removed_topic_ids: many, ..update(10, Some(9)) })
            .expect("it goes on");
        assert_eq!(image.deleted.len(), DELETED_TOPICS_MAX);
        assert_eq!(image.deleted.back().map(|id| id.0.to_vec()), Some(id(10_000)), "the oldest made room");
    }

    #[test]
    fn another_cluster_and_a_wrong_digest_are_told() {
        let mut image = MetadataImage::empty();
        image.apply(update(1, None)).expect("a first update is always fine");
        let other = v1::MetadataUpdate { cluster_id: vec![2; 16].into(), ..update(2, Some(1)) };
        assert_eq!(image.apply(other), Err(ImageGap::OtherCluster));
        let wrong = v1::MetadataUpdate { digest: 7, ..update(2, Some(1)) };
        assert_eq!(image.apply(wrong), Err(ImageGap::Digest { version: 2 }));
        let right = v1::MetadataUpdate { digest: image.digest(), ..update(3, Some(2)) };
        assert_eq!(image.apply(right), Ok(Changed::No));
    }
}
