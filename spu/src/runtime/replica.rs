//! One replica as its worker holds it: the pure state, and who waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId, SpuId};
use plimsoll_proto::v1;
use plimsoll_storage::log::{FlushPolicy, LogSettings, OnPressure};
use plimsoll_storage::volume::Volume;
use tokio::sync::{Notify, oneshot};

use super::job::{FetchJob, Fetched, ProduceResult};
use crate::replica::{EpochEnd, Follower, Leader, StopReason, WaitingAcks};

/// What this replica is to its partition.
#[derive(Debug)]
pub(super) enum Role {
    /// Nobody leads, or the metadata has not arrived.
    Idle,
    Leads(Box<Leader>),
    Follows(Follower),
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) role: Role,
    /// Leader epoch of the metadata that made the role.
    pub(super) epoch: LeaderEpoch,
    pub(super) settings: LogSettings,
    pub(super) waiting_acks: WaitingAcks<AckToken>,
    pub(super) waiting_fetches: Vec<FetchWaiter>,
    /// acks=leader with `flush = ack`: until the sync at the end of the turn.
    pub(super) waiting_syncs: Vec<AckToken>,
    /// Followers' long polls that end when the log grows: the latest of each node, so that there are never more than
    /// replicas.
    pub(super) waiting_followers: BTreeMap<SpuId, Arc<Notify>>,
    /// A follower asks for nothing before this: its leader or its volume refused.
    pub(super) fetch_not_before: Duration,
    /// Its volume took nothing at the last try; positions say so until then.
    pub(super) paused_until: Duration,
    /// When it stopped last; it is stopped now while its follower says why.
    pub(super) stopped_at: Duration,
}

/// An append that waits for the in-sync set.
#[derive(Debug)]
pub(super) struct AckToken {
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) duplicate: bool,
    pub(super) reply: oneshot::Sender<ProduceResult>,
}

/// A consumer at the end of the log.
#[derive(Debug)]
pub(super) struct FetchWaiter {
    pub(super) job: FetchJob,
    pub(super) from: Offset,
    pub(super) deadline: Duration,
    pub(super) reply: oneshot::Sender<Result<Fetched, v1::ErrorDetail>>,
}

impl Replica {
    pub(super) fn new(settings: LogSettings) -> Self {
        Self {
            role: Role::Idle,
            epoch: LeaderEpoch(0),
            settings,
            waiting_acks: WaitingAcks::default(),
            waiting_fetches: Vec::new(),
            waiting_syncs: Vec::new(),
            waiting_followers: BTreeMap::new(),
            fetch_not_before: Duration::ZERO,
            paused_until: Duration::ZERO,
            stopped_at: Duration::ZERO,
        }
    }

    pub(super) fn flush_ack(&self) -> bool {
        self.settings.flush == FlushPolicy::Ack
    }

    /// Whom it followed when it stopped and why, if it is stopped.
    pub(super) fn stopped(&self) -> Option<(&Follower, &StopReason)> {
        let Role::Follows(follower) = &self.role else { return None };
        follower.stopped.as_ref().map(|why| (follower, why))
    }

    pub(super) fn is_waited_on(&self) -> bool {
        !(self.waiting_acks.is_empty() && self.waiting_fetches.is_empty())
    }

    pub(super) fn wake_followers(&mut self) {
        for follower in std::mem::take(&mut self.waiting_followers).into_values() {
            follower.notify_one();
        }
    }
}

/// The log settings that a topic asks for; 0 takes the default where the field says so.
pub(super) fn log_settings(config: &v1::TopicConfig) -> LogSettings {
    let defaults = LogSettings::default();
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    LogSettings {
        flush: match config.flush() {
            v1::FlushPolicy::Unspecified | v1::FlushPolicy::Os => FlushPolicy::Os,
            v1::FlushPolicy::Interval => {
                FlushPolicy::Interval(Duration::from_millis(or(config.flush_interval_ms, 1000)))
            }
            v1::FlushPolicy::Ack => FlushPolicy::Ack,
        },
        segment_bytes_max: or(config.segment_bytes, defaults.segment_bytes_max),
        batch_bytes_max: usize::try_from(config.batch_bytes_max)
            .ok()
            .filter(|bytes| *bytes > 0)
            .unwrap_or(defaults.batch_bytes_max),
        retention_bytes_max: (config.retention_bytes > 0).then_some(config.retention_bytes),
        retention_age_max: (config.retention_ms > 0).then(|| Duration::from_millis(config.retention_ms)),
        min_retention: Duration::from_millis(config.min_retention_ms),
        on_pressure: match config.on_pressure() {
            v1::OnPressure::Unspecified | v1::OnPressure::Refuse => OnPressure::Refuse,
            v1::OnPressure::Trim => OnPressure::Trim,
            v1::OnPressure::TrimPastGroups => OnPressure::TrimPastActiveGroups,
        },
        offsets_area_bytes: (config.offsets_area_bytes > 0).then_some(config.offsets_area_bytes),
        ..defaults
    }
}

/// Looks epochs of one log up.
pub(super) fn epoch_lookup<'a>(
    volume: &'a Volume,
    partition: &'a PartitionId,
) -> impl Fn(LeaderEpoch) -> Option<EpochEnd> + 'a {
    move |epoch| volume.epoch_end(partition, epoch).map(|(epoch, end)| EpochEnd { epoch, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pressure_may_do_is_as_the_topic_says() {
        for (said, meant) in [
            (v1::OnPressure::Unspecified, OnPressure::Refuse),
            (v1::OnPressure::Refuse, OnPressure::Refuse),
            (v1::OnPressure::Trim, OnPressure::Trim),
            (v1::OnPressure::TrimPastGroups, OnPressure::TrimPastActiveGroups),
        ] {
            let config = v1::TopicConfig { on_pressure: said.into(), ..Default::default() };
            assert_eq!(log_settings(&config).on_pressure, meant, "{said:?}");
        }
        // Of a controller that is younger than this node: the careful one.
        let config = v1::TopicConfig { on_pressure: 99, ..Default::default() };
        assert_eq!(log_settings(&config).on_pressure, OnPressure::Refuse);
    }
}
