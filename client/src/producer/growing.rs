//! Partitions that are added to the topic while a producer writes to it.

use std::sync::{Arc, PoisonError};

use plimsoll_proto::ids::{ProducerEpoch, ProducerId};
use tracing::Instrument as _;

use super::Workers;
use super::core::Core;
use super::worker::Worker;

/// Who the producer is, with idempotence. Every partition counts its own sequences.
pub(super) type Identity = Option<(ProducerId, ProducerEpoch)>;

/// Brings the producer up to so many partitions, each with a worker.
pub(super) fn grow_to(core: &Arc<Core>, workers: &Workers, identity: Identity, partitions: u32) {
    // Under the lock, so that no worker is missing of a partition that is there.
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, queue) in core.grow_to(partitions) {
        let span = tracing::debug_span!("produce", topic = %core.topic, partition = index);
        let worker = Worker::new(Arc::clone(core), queue, index, identity);
        workers.push(core.client.shared.host.tasks.spawn("producer", worker.run().instrument(span)));
    }
}

/// Follows the metadata for as long as the producer lives.
pub(super) async fn follow(core: Arc<Core>, workers: Workers, identity: Identity) {
    let mut images = core.client.watch_metadata();
    loop {
        let count = {
            let image = images.borrow_and_update();
            image.topics.get(&core.topic_id).map_or(0, |topic| topic.partitions.len())
        };
        grow_to(&core, &workers, identity, u32::try_from(count).unwrap_or(u32::MAX));
        if images.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_host::Host;

    use crate::mock::MockCluster;
    use crate::{ProduceErrorKind, Record, partition_of_key};

    #[tokio::test]
    async fn a_producer_uses_partitions_that_are_added_while_it_runs() {
        let cluster = MockCluster::start(&["t"]).await;
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let seen = std::sync::Arc::clone(&asked);
        let choose = move |_: &Record, partitions| {
            seen.store(partitions, std::sync::atomic::Ordering::Relaxed);
            None
        };
        let builder = cluster.client.producer("t").idempotent(false).partitioner(choose);
        let producer = builder.build().await.expect("a producer");
        assert_eq!(producer.partitions(), 1);
        let nowhere = producer.send(Record::new("x").partition(2)).await.expect_err("there is one");
        assert!(matches!(nowhere.kind, ProduceErrorKind::UnknownPartition { partition: 2, partitions: 1 }));

        cluster.grow(3);
        let clock = Host::real().clock;
        let until = clock.now() + Duration::from_secs(60);
        while producer.partitions() < 3 {
            assert!(clock.now() < until, "the metadata tell");
            clock.sleep(Duration::from_millis(5)).await;
        }
        for key in ["a", "b", "c", "d", "e", "f"] {
            let sent = producer.send(Record::new("x").key(key)).await.expect("accepted");
            assert_eq!(sent.await.expect("acknowledged").partition, partition_of_key(key.as_bytes(), 3));
        }
        assert_eq!(
            asked.load(std::sync::atomic::Ordering::Relaxed),
            3,
            "the caller's choice is of all of them"
        );
        let sent = producer.send(Record::new("x").partition(2)).await.expect("accepted");
        assert_eq!(sent.await.expect("acknowledged").partition, 2);
        let mut used = std::collections::BTreeSet::new();
        while used.len() < 3 {
            assert!(clock.now() < until, "keyless records use all of them: {used:?}");
            let sent = producer.send(Record::new(vec![b'x'; 300_000])).await.expect("accepted");
            used.insert(sent.await.expect("acknowledged").partition);
        }
        producer.close().await;
        assert_eq!(producer.stats().acked_records, producer.stats().accepted_records);
    }
}
