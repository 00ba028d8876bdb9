//! A copy of the metadata that silently differs is found by the next digest of a watch that goes on.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_the_digest_again_and_again_and_a_copy_that_differs_is_found() {
    let host = Host::real();
    let session = SessionSettings {
        bookmark_interval: Duration::from_millis(20),
        digest_interval: Duration::from_millis(100),
        ..SessionSettings::default()
    };
    let controllers = controllers_with(&host, 1, session).await;
    let led = leader(&host, &controllers).await;
    let node = Node::start(&host, &controllers[led], 1).await;
    let mut metadata = MetadataClient::new(channel(&host, &controllers[led]));
    let mut updates = metadata.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let (mut image, mut digests) = (MetadataImage::empty(), 0);
    let found = async {
        loop {
            let update = updates.message().await.unwrap().unwrap();
            digests += u32::from(!update.full && update.digest != 0);
            if let Err(gap) = image.apply(update) {
                return gap;
            }
            if digests == 3 {
                // As if an event had been lost on its way.
                image.spus.clear();
            }
        }
    };
    let gap = host.clock.timeout(PATIENCE, found).await.unwrap();
    assert!(matches!(gap, plimsoll_proto::image::ImageGap::Digest { .. }), "{gap}");
    // Everything again is what the controller has.
    let again = watch_metadata(&mut metadata, |image| image.spus.len() == 1).await;
    assert_eq!(again.cluster_id.to_bytes(), node.cluster_id);
}

/// Whoever was away while a topic was deleted is told by name that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_deleted_is_named_to_who_asks_for_everything_later() {
    let host = Host::real();
    let controllers = controllers(&host, 1).await;
    let led = leader(&host, &controllers).await;
    let _node = Node::start(&host, &controllers[led], 1).await;
    let mut admin = AdminClient::new(channel(&host, &controllers[led]));
    let created = admin.create_topic(create("gone", v1::TopicConfig::default())).await.unwrap().into_inner();
    let id = TopicId::from_slice(&created.topic_id).unwrap();
    let mut metadata = MetadataClient::new(channel(&host, &controllers[led]));
    let before = watch_metadata(&mut metadata, |image| image.topics.contains_key(&id)).await;
    assert!(before.deleted.is_empty());
    admin.delete_topic(v1::DeleteTopicRequest { name: "gone".to_owned() }).await.unwrap();
    let after = watch_metadata(&mut metadata, |image| !image.topics.contains_key(&id)).await;
    assert_eq!(*after.deleted, [id]);
}
