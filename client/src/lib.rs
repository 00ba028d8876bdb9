//! The SDK of Plimsoll: produce, consume, administer.
//!
//! It does not store anything, and it holds no state of the cluster but a copy of the metadata that every
//! [`Client`] keeps up to date in the background.
//!
//! Start at [`Client::builder`]; then [`Client::producer`], [`Client::consumer`] and [`Client::admin`].
//!
//! ```no_run
//! use futures::StreamExt;
//! use plimsoll_client::{Client, Record, StartAt, TopicConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // All controllers are tried at once; any one that answers is enough.
//! let client = Client::builder().controllers(["127.0.0.1:7001", "127.0.0.1:7002"]).build().await?;
//! let config = TopicConfig { partitions: 3, replicas: 3, min_in_sync: 2, ..Default::default() };
//! client.admin().create_topic("flights", config).await?;
//!
//! // The defaults: acks of the whole in-sync set, and idempotence.
//! let producer = client.producer("flights").build().await?;
//! let delivery = producer.send(Record::new("EWR-IAH").key("N14228")).await?; // accepted
//! let delivered = delivery.await?; // acknowledged
//! println!("partition {} offset {:?}", delivered.partition, delivered.offset);
//! producer.close().await;
//!
//! let mut consumer = client.consumer("flights").start(StartAt::Earliest).until_end().build().await?;
//! while let Some(record) = consumer.next().await {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When a disk fills
//! A producer with the default [`OnFull::Reroute`] follows its partition to a leader with room, or waits until
//! there is one: woken by the metadata, not only by the clock. What servers refused meanwhile is told by
//! [`Producer::events`], and is inside the error when the delivery deadline passes:
//! [`ProduceError::disk`] says which disk of which node, [`ProduceError::outcome`] whether the record may have
//! been written all the same.

mod admin;
mod client;
mod connections;
mod consumer;
mod elections;
mod error;
mod group;
mod health;
mod metadata;
#[cfg(test)]
mod mock;
mod node;
mod operations;
mod producer;
mod quorum;
mod raw;
mod record;
mod refusal;
mod retry;
#[cfg(feature = "testkit")]
pub mod testkit;
mod trace;
mod words;

pub use admin::Admin;
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, ConsumerBuilder, ConsumerEvent, OnTrimmed, StartAt};
pub use error::{AdminError, ConnectError, ConsumeError, LastCause, ProduceError, ProduceErrorKind};
pub use error::{ControllerAttempt, ControllerFailure};
pub use group::{Group, GroupBuilder, GroupConsumer, GroupError, GroupEvent, GroupRecord};
pub use health::{ClusterHealth, HealthWatch, VolumeHealth};
pub use node::{Node, NodeError};
pub use producer::{
    AckMeaning, Acks, Delivered, Delivery, OnFull, Producer, ProducerBuilder, ProducerEvent, ProducerSink,
    ProducerStats, partition_of_key,
};
pub use raw::{RawProducer, RawReport};
pub use record::{ConsumedRecord, Record};
pub use refusal::{Outcome, Refusal};
pub use retry::{RetryAdvice, Space};
pub use trace::{InvalidTraceContext, TraceContext};

pub use words::cluster::{
    Alert, ClusterEvent, ClusterStatusResponse, ControllerStatus, EventCount, MetadataImage, MetricsResponse,
    SpuDuty, SpuInfo, SpuState, SpuStatus,
};
pub use words::disks::{
    BorrowRequest, BorrowResponse, DiskCause, DiskDetail, DiskLevel, DrillRequest, DrillResponse,
    PlanReclaimResponse, ReclaimOfLog, ReclaimReason, VolumeFacts, VolumeInfo, VolumeState,
};
pub use words::errors::{ErrorDetail, LeaderHint, OutOfSync, Reason};
pub use words::groups::{CommittedOffset, DescribeGroupResponse, GroupInfo, GroupMember, TopicPartitions};
pub use words::ids::{
    ClusterId, Compression, ControllerId, Host, Invalid, LeaderEpoch, MetadataVersion, Offset, PartitionId,
    SpuId, TopicId, VolumeId,
};
pub use words::topics::{
    AlterTopicRequest, ElectLeaderResponse, ElectionCandidate, FlushPolicy, ListOffsetsResponse, MoveCause,
    OnPressure, PartitionInfo, PartitionMove, Reassignment, ReplicaAssignment, TopicConfig, TopicInfo,
};
