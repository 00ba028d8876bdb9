//! One connection for each node, shared by everything of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_host::{ChannelOptions, Network};
use plimsoll_proto::invalid::Invalid;
use plimsoll_proto::v1::admin_client::AdminClient;
use plimsoll_proto::v1::group_client::GroupClient;
use plimsoll_proto::v1::metadata_client::MetadataClient;
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::volumes_client::VolumesClient;
use tonic::transport::Channel;

/// Greatest message taken from a server: a batch larger than the credit comes whole.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Channels by `host:port`. They connect on first use and again by themselves.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    network: Network,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Connections {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, channels: Arc::default() }
    }

    fn channel(&self, authority: &str) -> Result<Channel, Invalid> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(authority) {
            return Ok(channel.clone());
        }
        let channel = self.network.channel(authority, &ChannelOptions::default())?;
        channels.insert(authority.to_owned(), channel.clone());
        Ok(channel)
    }

    pub(crate) fn spu(&self, authority: &str) -> Result<SpuClient<Channel>, Invalid> {
        Ok(SpuClient::new(self.channel(authority)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(crate) fn volumes(&self, authority: &str) -> Result<VolumesClient<Channel>, Invalid> {
        Ok(VolumesClient::new(self.channel(authority)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(crate) fn group(&self, authority: &str) -> Result<GroupClient<Channel>, Invalid> {
        Ok(GroupClient::new(self.channel(authority)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(crate) fn admin(&self, authority: &str) -> Result<AdminClient<Channel>, Invalid> {
        Ok(AdminClient::new(self.channel(authority)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(crate) fn metadata(&self, authority: &str) -> Result<MetadataClient<Channel>, Invalid> {
        Ok(MetadataClient::new(self.channel(authority)?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}
