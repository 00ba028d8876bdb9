//! The metadata watch: a list and what changes, from whichever controller answers.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::retry::Backoff;
use plimsoll_proto::image::{Changed, MetadataImage};
use plimsoll_proto::v1;
use plimsoll_proto::v1::metadata_client::MetadataClient;
use tokio::sync::watch;

use super::controllers::{ALL, Controllers, describe};
use super::link::ControlSettings;
use crate::runtime::NodeHandle;

/// Bookmarks come every second; a watch that is silent for longer than this is lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A controller that knows no leader for so long may be cut off, or its disk takes nothing; another may know more.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);
const KIND: &str = "metadata watch is lost";

/// Keeps the node's image up to date for as long as the task lives.
pub(super) async fn run(
    controllers: Controllers,
    node: NodeHandle,
    settings: ControlSettings,
    images: watch::Sender<Arc<MetadataImage>>,
) {
    let host = controllers.host().clone();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), &host.random);
    let mut image = MetadataImage::empty();
    // Nodes start at different controllers, so that one does not carry all watches.
    let mut next = host.random.next_u64();
    loop {
        let addresses = controllers.in_order();
        let count = u64::try_from(addresses.len()).unwrap_or(u64::MAX).max(1);
        let Some(address) = usize::try_from(next % count).ok().and_then(|at| addresses.get(at)) else {
            return;
        };
        let mut follower = Follower {
            controllers: &controllers,
            node: &node,
            images: &images,
            image: &mut image,
            good: false,
        };
        let why = follower.follow(address, &settings).await;
        if follower.good {
            backoff.reset();
        }
        controllers.trouble(ALL, KIND, &format!("{address}: {why}"));
        next = next.wrapping_add(1);
        host.clock.sleep(backoff.next_pause()).await;
    }
}

struct Follower<'a> {
    controllers: &'a Controllers,
    node: &'a NodeHandle,
    images: &'a watch::Sender<Arc<MetadataImage>>,
    image: &'a mut MetadataImage,
    good: bool,
}

impl Follower<'_> {
    /// Follows one controller until that fails; says why.
    async fn follow(&mut self, address: &str, settings: &ControlSettings) -> String {
        let clock = &self.controllers.host().clock;
        let channel = match self.controllers.channel(address) {
            Ok(channel) => channel,
            Err(status) => return describe(&status),
        };
        let request = v1::WatchRequest { cluster_id: settings.cluster_id.to_bytes() };
        let mut client = MetadataClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut updates = match clock.timeout(SILENCE_MAX, client.watch(request)).await {
            Ok(Ok(updates)) => updates.into_inner(),
            Ok(Err(status)) => return describe(&status),
            Err(_) => return "it does not answer in time".to_owned(),
        };
        let mut led_at = clock.now();
        loop {
            let update = match clock.timeout(SILENCE_MAX, updates.message()).await {
                Ok(Ok(Some(update))) => update,
                Ok(Ok(None)) => return "it ended the watch".to_owned(),
                Ok(Err(status)) => return describe(&status),
                Err(_) => return "it fell silent".to_owned(),
            };
            let leads = update.controller_leader != 0;
            if let Err(why) = self.apply(update) {
                return why;
            }
            if leads {
                led_at = clock.now();
            } else if clock.now().saturating_sub(led_at) > LEADERLESS_MAX
                && self.controllers.in_order().len() > 1
            {
                return "it knows no leader".to_owned();
            }
        }
    }

    fn apply(&mut self, update: v1::MetadataUpdate) -> Result<(), String> {
        let leader = update.controller_leader_address.clone();
        match self.image.apply(update) {
            Ok(changed) => {
                if !self.good {
                    self.good = true;
                    self.controllers.works_again(ALL, KIND);
                }
                self.controllers.leads(&leader);
                if changed == Changed::Yes {
                    let image = Arc::new(self.image.clone());
                    self.node.apply_metadata(image.clone());
                    self.images.send_replace(image);
                }
                Ok(())
            }
            // After a digest that differs nothing in the image can be trusted; the next one starts anew.
            Err(gap @ plimsoll_proto::image::ImageGap::Digest { .. }) => {
                *self.image = MetadataImage::empty();
                Err(gap.to_string())
            }
            Err(gap) => Err(gap.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "behind_tests.rs"]
mod behind_tests;
