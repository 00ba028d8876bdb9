//! Who reads a log of `tracing` sees which partition, group or controller a line is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use plimsoll_client::{Record, SpuId, StartAt, TopicConfig};
use plimsoll_host::Host;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

use super::{LIMIT, cluster, next};

/// Remembers the spans of the SDK in which work was done, with their fields.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Spans>>);

#[derive(Debug, Default)]
struct Spans {
    made: BTreeMap<u64, String>,
    entered: BTreeSet<String>,
}

impl Recorder {
    fn spans(&self) -> std::sync::MutexGuard<'_, Spans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("plimsoll_client")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = Text(attributes.metadata().name().to_owned());
        attributes.record(&mut text);
        let mut spans = self.spans();
        let id = u64::try_from(spans.made.len() + 1).expect("few");
        spans.made.insert(id, text.0);
        Id::from_u64(id)
    }

    fn enter(&self, id: &Id) {
        let mut spans = self.spans();
        let entered = spans.made.get(&id.into_u64()).cloned();
        spans.entered.extend(entered);
    }

    fn exit(&self, _id: &Id) {}
    fn record(&self, _id: &Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _id: &Id, _follows: &Id) {}
    fn event(&self, _event: &Event<'_>) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes everything");
    }
}

#[tokio::test]
async fn work_is_done_in_a_span_that_names_what_it_is_about() {
    let Some((cluster, client)) = cluster(1, 1).await else { return };
    // For all threads: whether a span is recorded is decided for all by the one that gets there first. The tests beside
    // this one have other topics and controllers.
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(recorder.clone()).expect("the only one");
    let topic = "traced";
    let config = TopicConfig { partitions: 1, replicas: 1, min_in_sync: 1, ..Default::default() };
    client.admin().create_topic(topic, config).await.expect("a topic");
    let producer = client.producer(topic).build().await.expect("a producer");
    producer.send(Record::new("on time")).await.expect("accepted").await.expect("acknowledged");
    let mut consumer = client.consumer(topic).start(StartAt::Earliest).build().await.expect("built");
    assert_eq!(next(&mut consumer).await, "on time");
    let mut member = client.group("traced").topics([topic]).auto_commit(None).build().await.expect("joined");
    let record = Host::real().clock.timeout(LIMIT, member.next()).await.expect("in time");
    record.expect("more to come").expect("no error");
    member.commit().await.expect("committed");
    let health = Host::real().clock.timeout(LIMIT, client.watch_health().next()).await;
    assert!(health.expect("in time").expect("it never ends").reachable);
    let member_id = member.member_id().to_owned();
    let coordinator = client.spu_address(SpuId(1)).expect("the only node");

    let spans = recorder.spans();
    for expected in [
        format!("admin controller={}", cluster.controller_addresses()[0]),
        format!("produce topic={topic} partition=0"),
        format!("consume topic={topic} partition=0"),
        "join group=traced".to_owned(),
        format!("member group=traced member={member_id}"),
        format!("heartbeat group=traced coordinator={coordinator}"),
        "rebalance group=traced assigned=1".to_owned(),
        "commit group=traced partitions=1".to_owned(),
        "health".to_owned(),
    ] {
        assert!(spans.entered.contains(&expected), "{expected}: {:?}", spans.entered);
    }
}
