//! Identities and positions, and the seams to the outside.

/// What [`ClientBuilder::cluster_id`](crate::ClientBuilder::cluster_id) takes.
///
/// ```
/// use plimsoll_client::{Client, ClusterId};
///
/// let id: ClusterId = "00112233445566778899aabbccddeeff".parse()?;
/// assert_eq!(id.short(), "00112233");
/// let settings = Client::builder().cluster_id(id); // any other cluster is refused
/// # drop(settings);
/// # Ok::<(), plimsoll_client::Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::ClusterId;

/// Names a controller in [`Admin::transfer_controller`](crate::Admin::transfer_controller) and its neighbours.
///
/// ```no_run
/// use plimsoll_client::{Client, ControllerId};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let leads = client.admin().transfer_controller(ControllerId(2)).await?;
/// assert_eq!(leads, ControllerId(2));
/// # Ok(())
/// # }
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::ControllerId;

/// Part of every [`ConsumedRecord`](crate::ConsumedRecord).
///
/// ```
/// use plimsoll_client::{ConsumedRecord, LeaderEpoch};
///
/// /// Whether another leader appended the second one.
/// fn leader_changed(first: &ConsumedRecord, second: &ConsumedRecord) -> bool {
///     second.leader_epoch > first.leader_epoch
/// }
/// assert!(LeaderEpoch(8) > LeaderEpoch(7));
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::LeaderEpoch;

/// How new a [`MetadataImage`](crate::MetadataImage) is.
///
/// ```
/// use plimsoll_client::{MetadataImage, MetadataVersion};
///
/// assert_eq!(MetadataImage::empty().version, MetadataVersion(0));
/// assert!(MetadataVersion(42) > MetadataVersion(41)); // the newer one
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::MetadataVersion;

/// Where a record is, and where consumers start: [`StartAt::Offset`](crate::StartAt::Offset).
///
/// ```
/// use plimsoll_client::Offset;
///
/// let ten = Offset::new(10)?;
/// assert_eq!(ten.checked_add(5).map(Offset::get), Some(15));
/// assert_eq!(ten.distance_from(Offset::ZERO), 10);
/// assert_eq!(Offset::MAX.checked_add(1), None);
/// # Ok::<(), plimsoll_client::Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::Offset;

/// What groups commit for, and what [`Node::offsets`](crate::Node::offsets) asks about.
///
/// ```
/// use plimsoll_client::{PartitionId, TopicId};
///
/// let topic_id: TopicId = "00112233445566778899aabbccddeeff".parse()?;
/// let partition = PartitionId { topic_id, index: 2 };
/// assert_eq!(partition.to_string(), "00112233445566778899aabbccddeeff-2");
/// assert_eq!(partition.to_string().parse(), Ok(partition));
/// # Ok::<(), plimsoll_client::Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::PartitionId;

/// Names a storage node in [`Client::node`](crate::Client::node) and in what errors tell.
///
/// ```
/// use plimsoll_client::SpuId;
///
/// assert_eq!(SpuId(3).to_string(), "3");
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::SpuId;

/// What [`Admin::create_topic`](crate::Admin::create_topic) gives and [`Client::topic_id`](crate::Client::topic_id)
/// finds by name.
///
/// ```
/// use plimsoll_client::TopicId;
///
/// let id: TopicId = "00112233445566778899aabbccddeeff".parse()?;
/// assert_eq!(TopicId::from_slice(&id.to_bytes())?, id); // as answers carry it
/// assert!(TopicId::from_slice(b"flights").is_err());
/// # Ok::<(), plimsoll_client::Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::TopicId;

/// Names a volume in [`MetadataImage::volume_state`](crate::MetadataImage::volume_state).
///
/// ```
/// use plimsoll_client::{MetadataImage, SpuId, VolumeId, VolumeState};
///
/// let volume = VolumeId::from_slice(&[7; 16])?;
/// // Nobody has told of it yet.
/// assert_eq!(MetadataImage::empty().volume_state(SpuId(1), volume), VolumeState::Unspecified);
/// # Ok::<(), plimsoll_client::Invalid>(())
/// ```
#[doc(inline)]
pub use plimsoll_proto::ids::VolumeId;

/// The error of identities and offsets that are made of text or numbers.
///
/// ```
/// use plimsoll_client::{Invalid, Offset, TopicId};
///
/// let wrong: Invalid = "flights".parse::<TopicId>().expect_err("a name is no id");
/// assert_eq!(wrong.to_string(), "TopicId is not 32 hexadecimal digits");
/// assert!(Offset::new(u64::MAX).is_err());
/// ```
#[doc(inline)]
pub use plimsoll_proto::invalid::Invalid;

/// What a producer's [`compression`](crate::ProducerBuilder::compression) takes; consumers need no setting.
///
/// ```
/// use plimsoll_client::Compression;
///
/// assert_eq!(Compression::from_name("zstd"), Some(Compression::Zstd));
/// assert_eq!(Compression::Lz4.name(), "lz4");
/// ```
#[doc(inline)]
pub use plimsoll_proto::batch::Compression;

/// What [`ClientBuilder::host`](crate::ClientBuilder::host) takes. Simulations pass in seams of their own, which
/// they make with `plimsoll-host`.
///
/// ```
/// use plimsoll_client::{Client, Host};
///
/// let settings = Client::builder().host(Host::real()); // as without this call
/// # drop(settings);
/// ```
#[doc(inline)]
pub use plimsoll_host::Host;
