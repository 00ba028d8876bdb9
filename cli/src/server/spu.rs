//! `plimsoll spu run`.

use clap::Args;
use plimsoll_host::Host;
use plimsoll_spu::{Spu, SpuSettings, StartError};

use super::LogArgs;
use super::keys::{Key, KeyArgs, Keys, Kind, key};
use super::signals::Signals;
use crate::exit::{Failure, Outcome};

/// Flags of a storage node.
#[derive(Debug, Args)]
pub(crate) struct SpuRunArgs {
    #[command(flatten)]
    keys: KeyArgs<SpuSettings>,
    #[command(flatten)]
    log: LogArgs,
}

const KEYS: &[Key] = &[
    key(
        "id",
        Kind::Number,
        "1; required",
        "Number of this node in its cluster, never reused for another machine",
    ),
    key("data_dirs", Kind::Dirs, "one; required", "A data directory, one volume; repeat it for each disk")
        .flag("data-dir"),
    key("listen", Kind::Address, "", "Where to listen; port 0 takes a free one"),
    key("advertise", Kind::Address, "", "Where clients and other nodes reach this one").absent("listen"),
    key(
        "controllers",
        Kind::Controllers,
        "one; required",
        "A controller; repeat it for each, the same list everywhere",
    )
    .flag("controller"),
    key("rack", Kind::Text, "", "Failure domain for placement, such as a rack").absent("none"),
    key("join_token", Kind::Text, "", "What the cluster asks of storage nodes that register").absent("none"),
    key("byte_limit", Kind::Size, "16MiB", "Bytes that each volume may use, whatever its filesystem has")
        .absent("none"),
    key(
        "reclaim_percent",
        Kind::Percent,
        "above throttle_percent",
        "Free share of a volume below which pressure retention runs",
    ),
    key("reclaim_bytes_max", Kind::Size, "", "The same in bytes, which wins on large volumes"),
    key(
        "throttle_percent",
        Kind::Percent,
        "above read_only_percent",
        "Free share of a volume below which producers are delayed",
    ),
    key("throttle_bytes_max", Kind::Size, "", "The same in bytes, which wins on large volumes"),
    key("read_only_percent", Kind::Percent, "1", "Free share of a volume below which produce is refused"),
    key("read_only_bytes_max", Kind::Size, "", "The same in bytes, which wins on large volumes"),
    key("reserve", Kind::Size, "2MiB", "Bytes of each volume kept for what must go on when it is full")
        .absent("1 % of the volume, at least 2MiB"),
    key(
        "retention_check_interval",
        Kind::Span,
        "100ms; at most 1d",
        "How often retention looks at every log when there is no pressure",
    ),
    key(
        "offsets_retention",
        Kind::Span,
        "1s; at most 3650d",
        "How long offsets are kept of a consumer group without members and commits",
    ),
    key("heartbeat_interval", Kind::Span, "50ms; at most 1500ms", "Pause between two heartbeats"),
    key(
        "heartbeat_answer_wait_max",
        Kind::Span,
        "2 x heartbeat_interval; at most 3s",
        "A controller that answers no heartbeat for so long is left for the next",
    ),
    key(
        "hand_over_max",
        Kind::Span,
        "100ms; at most 9s",
        "How long a stopping node may take to hand over what it leads",
    ),
    key(
        "produce_in_flight_bytes_max",
        Kind::Size,
        "1MiB; at most 2GiB",
        "Produce on its way through the node at most; more is refused with MEMORY_PRESSURE",
    ),
    key(
        "stream_in_flight_bytes_max",
        Kind::Size,
        "1MiB; at most produce_in_flight_bytes_max",
        "Produce on its way through one stream at most; it is read no further then",
    ),
    key(
        "fetch_bytes_max",
        Kind::Size,
        "4KiB; at most 64MiB",
        "Batches in one message to a consumer at most; one larger batch is sent whole",
    ),
    key(
        "fetch_heartbeat_interval",
        Kind::Span,
        "50ms; at most 30s",
        "Pause after which a consumer without new records hears something",
    ),
];

impl Keys for SpuSettings {
    const KEYS: &'static [Key] = KEYS;
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

pub(crate) async fn run(args: SpuRunArgs, host: &Host) -> Outcome {
    args.log.init()?;
    let mut signals = Signals::install()?;
    let settings: SpuSettings = args.keys.settings()?;
    settings.validate()?;
    let disks = settings.open_disks()?;
    let spu = tokio::select! {
        started = Spu::start(host.clone(), settings, disks) => started?,
        // Nothing runs yet that would have to be stopped in order.
        () = signals.stop_asked() => return Ok(()),
    };
    let failed = tokio::select! {
        () = signals.stop_asked() => None,
        failed = spu.failed() => Some(failed),
    };
    spu.stop().await;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
