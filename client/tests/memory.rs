//! Memory of producers and consumers, counted: it stays within 20 % of what their settings say.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_client::testkit::{TestCluster, TestkitError};
use plimsoll_client::{Compression, Record, TopicConfig};
use plimsoll_host::Host;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes above `before`, at the most since then.
fn peak_above(before: usize) -> usize {
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

fn start_counting() -> usize {
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    live
}

async fn cluster() -> Option<TestCluster> {
    match TestCluster::builder().byte_limit(1 << 30).start().await {
        Ok(cluster) => Some(cluster),
        Err(error @ TestkitError::NoBinary) => {
            println!("SKIPPED {}: {error}", std::thread::current().name().unwrap_or_default());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const BUFFER: usize = 16 << 20;

// One test: what another one allocates meanwhile would be counted too.
#[tokio::test]
async fn memory_is_bounded_by_the_settings() {
    let Some(mut cluster) = cluster().await else { return };
    let client = cluster.client().clone();
    let config = TopicConfig { partitions: 4, replicas: 1, min_in_sync: 1, ..Default::default() };
    client.admin().create_topic("t", config).await.expect("a topic");
    let led = client.wait_metadata(Duration::from_secs(30), |image| {
        image.topic_by_name("t").is_some_and(|topic| topic.partitions.iter().all(|p| p.leader != 0))
    });
    assert!(led.await, "every partition has a leader");
    let clock = Host::real().clock;

    for (value_bytes, compression) in [
        (10, Compression::None),
        (100, Compression::None),
        (100, Compression::Lz4),
        (1000, Compression::None),
        (10_000, Compression::None),
        (150_000, Compression::None),
    ] {
        let settings = client.producer("t").buffer_bytes(BUFFER).compression(compression);
        let producer = settings.build().await.expect("a producer");
        // Connected, and then without an answer.
        producer.send(Record::new("first")).await.expect("accepted").await.expect("acknowledged");
        cluster.spu(1).pause();
        let before = start_counting();
        let mut accepted = 0u64;
        let value = bytes::Bytes::from(vec![b'x'; value_bytes]);
        while let Ok(sent) =
            clock.timeout(Duration::from_millis(500), producer.send(Record::new(value.clone()))).await
        {
            drop(sent.expect("accepted"));
            accepted += 1;
        }
        let peak = peak_above(before);
        let share = peak * 100 / BUFFER;
        println!("{value_bytes} bytes, {}: {accepted} accepted, peak {share} %", compression.name());
        cluster.spu(1).resume();
        producer.close().await;
        assert_eq!(producer.stats().acked_records, accepted + 1);
        assert!(share <= 120, "{value_bytes} bytes take {share} % of the buffer");
    }

    // A consumer that nobody asks for records reads ahead as far as it may.
    for (prefetch, record_bytes) in [(8usize << 20, 100), (8 << 20, 10_000)] {
        let producer = client.producer("t").build().await.expect("a producer");
        for _ in 0..(4 * prefetch / record_bytes) {
            drop(producer.send(Record::new(vec![b'y'; record_bytes])).await.expect("accepted"));
        }
        producer.close().await;
        drop(producer);
        let before = start_counting();
        let consumer = client.consumer("t").prefetch_bytes(prefetch).build().await.expect("a consumer");
        let mut known = 0;
        loop {
            clock.sleep(Duration::from_millis(300)).await;
            let peak = peak_above(before);
            if peak == known {
                break;
            }
            known = peak;
        }
        drop(consumer);
        let share = known * 100 / prefetch;
        println!("prefetch of {record_bytes}-byte records: peak {share} %");
        // What the transport has read already when the credit is used up comes on top.
        assert!(share <= 135, "{record_bytes}: {share} % of the prefetch");
    }
}
