//! Which topics were deleted is part of the state: nodes delete nothing else.

use plimsoll_proto::ids::TopicId;
use plimsoll_proto::image::DELETED_TOPICS_MAX;
use plimsoll_proto::v1::{self, entry::Change};

use crate::cluster::testing::{Cluster, TOPIC};
use crate::cluster::{ClusterState, Mismatch, Touched};

fn delete(id: TopicId) -> Change {
    Change::DeleteTopic(v1::DeleteTopicEntry { topic_id: id.to_bytes() })
}

#[test]
fn only_an_applied_deletion_names_a_topic_as_deleted() {
    let mut cluster = Cluster::with_topic();
    assert_eq!(cluster.refused(delete(TopicId([1; 16]))), Mismatch::UnknownPartition);
    assert_eq!(cluster.state.deleted_topics().count(), 0);
    cluster.done(delete(TOPIC));
    cluster.refused(delete(TOPIC));
    assert_eq!(cluster.state.deleted_topics().collect::<Vec<_>>(), [TOPIC]);
}

#[test]
fn deletions_are_remembered_up_to_a_limit_in_the_state_and_in_its_records() {
    let mut cluster = Cluster::of(1);
    let mut stored: std::collections::BTreeMap<Vec<u8>, Vec<u8>> =
        cluster.state.to_records().into_iter().collect();
    let mut touched = Touched::default();
    let id = |n: usize| TopicId((n as u128 + 1).to_be_bytes());
    for n in 0..DELETED_TOPICS_MAX + 2 {
        cluster.create_topic("t", id(n), &[&[1]], 1);
        touched.merge(cluster.apply(delete(id(n))).touched);
        if n == DELETED_TOPICS_MAX / 2 || n == DELETED_TOPICS_MAX + 1 {
            for (key, value) in cluster.state.changed_records(&std::mem::take(&mut touched)) {
                match value {
                    Some(value) => drop(stored.insert(key, value)),
                    None => drop(stored.remove(&key)),
                }
            }
        }
    }
    let remembered: Vec<_> = cluster.state.deleted_topics().collect();
    assert_eq!(remembered.len(), DELETED_TOPICS_MAX);
    assert_eq!((remembered[0], remembered.last()), (id(2), Some(&id(DELETED_TOPICS_MAX + 1))));
    let deletions = stored.keys().filter(|key| key.first() == Some(&b'd')).count();
    assert_eq!(deletions, DELETED_TOPICS_MAX, "what made room is deleted from the store as well");
    let copied = ClusterState::decode_snapshot(&cluster.state.encode_snapshot()).unwrap();
    assert_eq!(copied, cluster.state);
}
