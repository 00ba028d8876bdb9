//! A whole node on a disk in memory, between a fake controller and real clients over the loopback.

mod fake_controller;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake_controller::{Asked, CLUSTER, FakeController, PARTITION, TOPIC};
use plimsoll_host::config::Span;
use plimsoll_host::{ChannelOptions, Host};
use plimsoll_proto::batch::{self, BatchBuilder, Compression, Limits, NewRecord};
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::{self, ErrorDetail, Outcome, Reason, fetch_response, produce_response};
use plimsoll_spu::{Spu, SpuSettings, StartError};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::memory::{MemoryDisk, MemoryDiskSettings};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LIMIT: Duration = Duration::from_secs(10);

struct Setup {
    host: Host,
    disk: Arc<MemoryDisk>,
    controller: FakeController,
    controller_address: String,
    _controller: plimsoll_host::Task,
}

impl Setup {
    async fn new() -> Self {
        let host = Host::real();
        let (controller, controller_address, task) = FakeController::start(&host).await;
        let disk = Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(256 << 20)));
        Self { host, disk, controller, controller_address, _controller: task }
    }

    fn settings(&self) -> SpuSettings {
        SpuSettings {
            id: 1,
            data_dirs: vec!["memory".into()],
            listen: "127.0.0.1:0".to_owned(),
            controllers: vec![format!("1@{}", self.controller_address)],
            fetch_heartbeat_interval: Span(Duration::from_millis(50)),
            hand_over_max: Span(Duration::from_secs(2)),
            ..SpuSettings::default()
        }
    }

    fn disks(&self) -> Vec<SharedDisk> {
        vec![self.disk.clone()]
    }

    async fn start(&self) -> Spu {
        let spu = Spu::start(self.host.clone(), self.settings(), self.disks()).await.expect("it starts");
        self.in_time(spu.registered()).await;
        spu
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        self.host.clock.timeout(LIMIT, future).await.expect("in time")
    }

    /// Asks again and again until it is so.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let started = self.host.clock.now();
        while !holds().await {
            assert!(self.host.clock.now() - started < LIMIT, "{what}");
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    fn channel(&self, spu: &Spu) -> Channel {
        let address = spu.address().to_string();
        self.host.network.channel(&address, &ChannelOptions::default()).expect("an address")
    }

    /// A produce stream once the partition is led here.
    async fn producer(&self, spu: &Spu) -> Producer {
        let mut images = spu.images();
        let led = images.wait_for(|image| image.partition(&PARTITION).is_some_and(|p| p.leader == 1));
        self.in_time(led).await.expect("the watch goes on");
        let (out, outgoing) = mpsc::channel(64);
        let mut client = SpuClient::new(self.channel(spu));
        let answers = self.in_time(client.produce(ReceiverStream::new(outgoing))).await.expect("a stream");
        let epoch = spu.node().metadata().partition(&PARTITION).map_or(0, |p| p.leader_epoch);
        Producer { host: self.host.clone(), out, answers: answers.into_inner(), epoch, next: 0 }
    }
}

struct Producer {
    host: Host,
    out: mpsc::Sender<v1::ProduceRequest>,
    answers: tonic::Streaming<v1::ProduceResponse>,
    epoch: u32,
    next: u64,
}

fn batch_of(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(value), ..NewRecord::default() }).expect("a record");
    builder.build_shared().expect("a batch")
}

impl Producer {
    fn request(&mut self, batch: Bytes) -> v1::ProduceRequest {
        self.next += 1;
        v1::ProduceRequest {
            request_id: self.next,
            topic_id: TOPIC.to_bytes(),
            partition: 0,
            leader_epoch: self.epoch,
            acks: v1::Acks::All.into(),
            timeout_ms: 5000,
            batch,
        }
    }

    async fn send(&self, request: v1::ProduceRequest) {
        self.out.send(request).await.expect("the stream takes it");
    }

    async fn answer(&mut self) -> v1::ProduceResponse {
        let answer = self.host.clock.timeout(LIMIT, self.answers.message()).await.expect("in time");
        answer.expect("the stream goes on").expect("an answer")
    }

    async fn produce(&mut self, value: &[u8]) -> Result<v1::ProduceAck, ErrorDetail> {
        let request = self.request(batch_of(value));
        self.send(request).await;
        match self.answer().await.result.expect("a result") {
            produce_response::Result::Ack(ack) => Ok(ack),
            produce_response::Result::Error(detail) => Err(detail),
        }
    }

    /// Produces again and again until it is acknowledged: right after a start the replica is still being made.
    async fn produce_at_last(&mut self, value: &[u8]) -> v1::ProduceAck {
        let started = self.host.clock.now();
        loop {
            match self.produce(value).await {
                Ok(ack) => return ack,
                Err(detail) => assert!(self.host.clock.now() - started < LIMIT, "{detail:?}"),
            }
            self.host.clock.sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Fetch {
    host: Host,
    out: mpsc::Sender<v1::FetchRequest>,
    answers: tonic::Streaming<v1::FetchResponse>,
}

impl Fetch {
    async fn open(setup: &Setup, spu: &Spu, open: v1::FetchOpen) -> Self {
        let (out, outgoing) = mpsc::channel(16);
        let first = v1::FetchRequest { request: Some(v1::fetch_request::Request::Open(open)) };
        out.send(first).await.expect("room");
        let mut client = SpuClient::new(setup.channel(spu));
        let answers = setup.in_time(client.fetch(ReceiverStream::new(outgoing))).await.expect("a stream");
        Self { host: setup.host.clone(), out, answers: answers.into_inner() }
    }

    async fn credit(&self, bytes: u64) {
        let more = v1::FetchRequest { request: Some(v1::fetch_request::Request::CreditBytes(bytes)) };
        self.out.send(more).await.expect("the stream takes it");
    }

    async fn next(&mut self) -> Result<v1::FetchBatches, ErrorDetail> {
        let answer = self.host.clock.timeout(LIMIT, self.answers.message()).await.expect("in time");
        match answer.expect("the stream goes on").expect("a message").result.expect("a result") {
            fetch_response::Result::Batches(batches) => Ok(batches),
            fetch_response::Result::Error(detail) => Err(detail),
        }
    }

    /// The values of the next message that has records.
    async fn values(&mut self) -> Vec<Bytes> {
        loop {
            let batches = self.next().await.expect("records");
            if !batches.batches.is_empty() {
                return values(&batches.batches);
            }
        }
    }
}

fn values(batches: &Bytes) -> Vec<Bytes> {
    batch::iter_batches(batches)
        .flat_map(|batch| {
            let (_, bytes) = batch.expect("whole batches");
            batch::verify(&bytes, &Limits::REPLICA).expect("a good batch");
            batch::records(&bytes, &Limits::REPLICA).expect("records").collect::<Vec<_>>()
        })
        .map(|record| record.expect("a record").value.expect("a value"))
        .collect()
}

fn earliest(credit_bytes: u64) -> v1::FetchOpen {
    v1::FetchOpen {
        topic_id: TOPIC.to_bytes(),
        start_at: v1::StartAt::Earliest.into(),
        credit_bytes,
        ..v1::FetchOpen::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_fetched_live_and_within_the_credit() {
    let setup = Setup::new().await;
    let spu = setup.start().await;
    let mut producer = setup.producer(&spu).await;
    assert_eq!(producer.produce_at_last(b"one").await.base_offset, 0);

    let mut fetch = Fetch::open(&setup, &spu, earliest(1)).await;
    assert_eq!(fetch.values().await, ["one"], "a batch larger than the credit comes whole");
    producer.produce_at_last(b"two").await;
    for _ in 0..3 {
        let beat = fetch.next().await.expect("a heartbeat");
        assert!(beat.batches.is_empty(), "the credit is used up");
        assert_eq!(beat.next_offset, 1);
    }
    fetch.credit(1 << 20).await;
    assert_eq!(fetch.values().await, ["two"]);
    producer.produce_at_last(b"three").await;
    assert_eq!(fetch.values().await, ["three"]);
    let beat = fetch.next().await.expect("a heartbeat");
    assert_eq!((beat.batches.len(), beat.high_watermark, beat.next_offset), (0, 3, 3));
    setup.in_time(spu.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_carry_who_answered_and_a_refusal_does_not_end_the_stream() {
    let setup = Setup::new().await;
    let spu = setup.start().await;
    let mut producer = setup.producer(&spu).await;
    producer.produce_at_last(b"one").await;
    let mut corrupt = batch_of(b"x").to_vec();
    corrupt[20] ^= 1;
    let requests = [
        producer.request(corrupt.into()),
        producer.request(batch_of(b"two")),
        v1::ProduceRequest { partition: 7, ..producer.request(batch_of(b"x")) },
        producer.request(batch_of(b"three")),
    ];
    for request in &requests {
        producer.send(request.clone()).await;
    }
    let mut answers = std::collections::BTreeMap::new();
    for _ in &requests {
        let answer = producer.answer().await;
        assert_eq!((answer.spu_id, answer.incarnation), (1, 1));
        answers.insert(answer.request_id, answer);
    }
    let results: Vec<_> = answers.values().map(|answer| answer.result.clone().expect("a result")).collect();
    match &results[..] {
        [
            produce_response::Result::Error(corrupt),
            produce_response::Result::Ack(two),
            produce_response::Result::Error(unknown),
            produce_response::Result::Ack(three),
        ] => {
            assert_eq!(corrupt.reason(), Reason::CorruptBatch);
            assert_eq!(unknown.reason(), Reason::UnknownPartition);
            assert_eq!((two.base_offset, three.base_offset), (1, 2), "appended in the order of the stream");
        }
        other => panic!("{other:?}"),
    }
    let good = answers.values().last().expect("four answers");
    assert_eq!((good.level(), good.leader_epoch), (v1::DiskLevel::Normal, producer.epoch));
    setup.in_time(spu.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_is_told_serves_reads_and_comes_back() {
    let setup = Setup::new().await;
    let spu = setup.start().await;
    let mut producer = setup.producer(&spu).await;
    producer.produce_at_last(b"one").await;
    setup.disk.take_all_bytes();
    let mut refusal = None;
    setup
        .until("produce is refused", async || {
            refusal = producer.produce(&[7; 1000]).await.err();
            refusal.as_ref().is_some_and(|detail| detail.reason() == Reason::DiskFull)
        })
        .await;
    let refusal = refusal.expect("refused");
    assert_eq!(refusal.outcome(), Outcome::NotWritten);
    assert!(refusal.retry_after_ms > 0, "{refusal:?}");
    assert_eq!(refusal.disk.as_ref().map(|disk| disk.spu_id), Some(1));
    let offline = Asked::ChangeVolume { wanted: v1::VolumeState::WriteOffline };
    setup.until("the controller is asked", async || setup.controller.asked().contains(&offline)).await;
    let mut health = HealthClient::new(setup.channel(&spu));
    let mut serving = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.expect("an answer").into_inner().status == 1
    };
    setup.until("no volume is writable", async || !serving("plimsoll.produce").await).await;
    assert!(serving("plimsoll.fetch").await);
    let mut fetch = Fetch::open(&setup, &spu, earliest(1 << 20)).await;
    assert_eq!(fetch.values().await[0], "one");

    setup.disk.release();
    producer.produce_at_last(b"again").await;
    setup.until("produce is healthy again", async || serving("plimsoll.produce").await).await;
    setup.in_time(spu.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_incarnation_registers_anew() {
    let setup = Setup::new().await;
    let spu = setup.start().await;
    setup.controller.declare_stale();
    setup.until("a second incarnation", async || spu.node().identity().1.0 == 2).await;
    let nonces: Vec<Bytes> = setup
        .controller
        .asked()
        .into_iter()
        .filter_map(|asked| match asked {
            Asked::Register { nonce, address } => {
                assert_eq!(address, spu.address().to_string());
                Some(nonce)
            }
            Asked::ChangeVolume { .. } | Asked::HandOver => None,
        })
        .collect();
    assert_eq!(nonces.len(), 2);
    assert_ne!(nonces[0], nonces[1], "a new registration is a new start");
    let mut producer = setup.producer(&spu).await;
    producer.produce_at_last(b"one").await;
    setup.in_time(spu.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_hands_over_and_a_start_without_controllers_serves_reads() {
    let mut setup = Setup::new().await;
    let spu = setup.start().await;
    assert_eq!(spu.cluster_id(), CLUSTER);
    let mut producer = setup.producer(&spu).await;
    producer.produce_at_last(b"one").await;
    let mut open = Fetch::open(&setup, &spu, earliest(1 << 20)).await;
    assert_eq!(open.values().await, ["one"]);
    setup.in_time(spu.stop()).await;
    assert!(setup.controller.asked().contains(&Asked::HandOver));

    // Nothing listens where the controller should be.
    let unused = setup.host.network.bind("127.0.0.1:0").await.expect("a free port");
    setup.controller_address = unused.local_addr().expect("bound").to_string();
    drop(unused);
    let starting = Spu::start(setup.host.clone(), setup.settings(), setup.disks());
    let spu = setup.in_time(starting).await.expect("it starts alone");
    let mut fetch = Fetch::open(&setup, &spu, v1::FetchOpen { any_replica: true, ..earliest(1 << 20) }).await;
    assert_eq!(fetch.values().await, ["one"]);
    setup.in_time(spu.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_or_cluster_or_in_use_is_refused() {
    let setup = Setup::new().await;
    let spu = setup.start().await;
    let again = Spu::start(setup.host.clone(), setup.settings(), setup.disks()).await;
    assert!(matches!(again.err(), Some(StartError::Locked { .. })));
    let same_port = SpuSettings { listen: spu.address().to_string(), ..setup.settings() };
    let again = Spu::start(setup.host.clone(), same_port.clone(), setup.disks()).await;
    assert!(
        matches!(again.err(), Some(StartError::Locked { .. })),
        "the other process matters more than its port"
    );
    let fresh: Vec<SharedDisk> = vec![Arc::new(MemoryDisk::new(MemoryDiskSettings::plain(256 << 20)))];
    let elsewhere = Spu::start(setup.host.clone(), same_port, fresh).await;
    assert!(matches!(elsewhere.err(), Some(StartError::PortInUse { .. })));
    setup.in_time(spu.stop()).await;
    let other_id = SpuSettings { id: 2, ..setup.settings() };
    let error = Spu::start(setup.host.clone(), other_id, setup.disks()).await.err().expect("refused");
    assert!(matches!(error, StartError::OtherIdentity(_)), "{error}");
}
