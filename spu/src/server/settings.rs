//! Settings of a storage node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_host::config::{ByteSize, Secret, Span};
use plimsoll_storage::fs::SharedDisk;
use plimsoll_storage::fs::real::RealDisk;
use plimsoll_storage::space::MarkSettings;
use plimsoll_storage::space::marks::Mark;
use serde::{Deserialize, Serialize};

use super::error::StartError;
use super::unopened::UnopenedDisk;
use crate::control::{HeartbeatTimings, controller_authority};
use crate::runtime::VolumeTuning;
use crate::session::{BudgetLimits, SessionSettings};

/// Silence after which a controller suspects a node.
const SUSPECT_AFTER: Duration = Duration::from_secs(6);
/// How long a lease lasts from the sending of the last answered heartbeat.
const LEASE: Duration = Duration::from_secs(9);

/// Everything that can be set on a storage node. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpuSettings {
    /// Number of this node in its cluster, unique and never reused for another machine. Minimum 1. Required.
    pub id: u32,
    /// Data directories, one volume each; best on filesystems of their own. At least one. Required.
    pub data_dirs: Vec<PathBuf>,
    /// Where it listens, `HOST:PORT`; port 0 takes a free one. Default "127.0.0.1:7011".
    pub listen: String,
    /// Where clients and other nodes reach it, `HOST:PORT`. Default: where it listens, which must then not be a
    /// wildcard address.
    pub advertise: Option<String>,
    /// Controllers as `[ID@]HOST:PORT`; the same list on every node. At least one. Required.
    pub controllers: Vec<String>,
    /// Failure domain for placement, such as a rack or a zone. Default none.
    pub rack: String,
    /// What the cluster asks of storage nodes that register. Default none.
    pub join_token: Option<Secret>,
    /// Bytes that each volume may use, whatever its filesystem has. Default none; minimum "16MiB". A file
    /// `byte-limit` in a data directory wins for that volume, and is read again while the node runs.
    pub byte_limit: Option<ByteSize>,
    /// Free share of a volume, in percent, below which pressure retention runs. Default 15; more than
    /// `throttle_percent`.
    pub reclaim_percent: u64,
    /// The same in bytes, which wins on large volumes. Default "100GiB".
    pub reclaim_bytes_max: ByteSize,
    /// Free share of a volume, in percent, below which producers are delayed. Default 10; more than
    /// `read_only_percent`.
    pub throttle_percent: u64,
    /// The same in bytes, which wins on large volumes. Default "50GiB".
    pub throttle_bytes_max: ByteSize,
    /// Free share of a volume, in percent, below which produce is refused. Default 5; minimum 1.
    pub read_only_percent: u64,
    /// The same in bytes, which wins on large volumes. Default "20GiB".
    pub read_only_bytes_max: ByteSize,
    /// Bytes of each volume kept for what must go on when it is full. Default: 1 % of it, at least "2MiB".
    pub reserve: Option<ByteSize>,
    /// How often retention looks at every log when there is no pressure. Default "5min"; minimum "100ms".
    pub retention_check_interval: Span,
    /// How long offsets are kept of a group without members and commits. Default "7d"; minimum "1s", maximum "3650d".
    pub offsets_retention: Span,
    /// Pause between two heartbeats. Default "500ms"; minimum "50ms".
    pub heartbeat_interval: Span,
    /// A controller that answers no heartbeat for this long is left for the next. Default "2s"; at least two
    /// heartbeat intervals, and two of it must pass before a controller suspects this node (6 s).
    pub heartbeat_answer_wait_max: Span,
    /// How long a stopping node may take to hand over what it leads. Default "5s"; less than the lease (9 s).
    pub hand_over_max: Span,
    /// Produce on its way through the node at most; more is refused with MEMORY_PRESSURE. Default "256MiB";
    /// minimum "1MiB", maximum "2GiB".
    pub produce_in_flight_bytes_max: ByteSize,
    /// Produce on its way through one stream at most; a stream at its limit is read no further. Default "32MiB";
    /// minimum "1MiB", maximum that of the node.
    pub stream_in_flight_bytes_max: ByteSize,
    /// Batches in one message to a consumer at most; one larger batch is sent whole. Default "1MiB"; minimum
    /// "4KiB", maximum "64MiB".
    pub fetch_bytes_max: ByteSize,
    /// Pause after which a consumer without new records is sent an empty message. Default "1s"; minimum "50ms",
    /// maximum "30s".
    pub fetch_heartbeat_interval: Span,
}

impl Default for SpuSettings {
    fn default() -> Self {
        let marks = MarkSettings::default();
        Self {
            id: 0,
            data_dirs: Vec::new(),
            listen: "127.0.0.1:7011".to_owned(),
            advertise: None,
            controllers: Vec::new(),
            rack: String::new(),
            join_token: None,
            byte_limit: None,
            reclaim_percent: marks.reclaim.percent,
            reclaim_bytes_max: ByteSize(marks.reclaim.bytes_max),
            throttle_percent: marks.throttle.percent,
            throttle_bytes_max: ByteSize(marks.throttle.bytes_max),
            read_only_percent: marks.read_only.percent,
            read_only_bytes_max: ByteSize(marks.read_only.bytes_max),
            reserve: None,
            retention_check_interval: Span(VolumeTuning::default().retention_interval),
            offsets_retention: Span(Duration::from_secs(7 * 24 * 3600)),
            heartbeat_interval: Span(Duration::from_millis(500)),
            heartbeat_answer_wait_max: Span(Duration::from_secs(2)),
            hand_over_max: Span(Duration::from_secs(5)),
            produce_in_flight_bytes_max: ByteSize(u64::from(BudgetLimits::NODE.bytes_max)),
            stream_in_flight_bytes_max: ByteSize(u64::from(BudgetLimits::STREAM.bytes_max)),
            fetch_bytes_max: ByteSize(1 << 20),
            fetch_heartbeat_interval: Span(Duration::from_secs(1)),
        }
    }
}

impl SpuSettings {
    /// Checks every value and every relation between two.
    ///
    /// # Errors
    /// [`StartError::Configuration`] names the keys that are wrong.
    pub fn validate(&self) -> Result<(), StartError> {
        self.validate_identity().and_then(|()| self.validate_limits()).map_err(StartError::Configuration)
    }

    fn validate_identity(&self) -> Result<(), String> {
        need(self.id > 0, || "id must be given, from 1 (--id)".to_owned())?;
        need(!self.data_dirs.is_empty(), || {
            "data_dirs must name at least one directory (--data-dir)".to_owned()
        })?;
        for (at, dir) in self.data_dirs.iter().enumerate() {
            need(!self.data_dirs[..at].contains(dir), || {
                format!("data_dirs names {} twice; each volume needs a directory of its own", dir.display())
            })?;
        }
        need(!self.controllers.is_empty(), || {
            "controllers must name at least one (--controller)".to_owned()
        })?;
        for controller in &self.controllers {
            controller_authority(controller)
                .map_err(|error| format!("controllers: '{controller}': {error}"))?;
        }
        let (host, _) = host_and_port(&self.listen)
            .ok_or_else(|| format!("listen '{}' is not HOST:PORT", self.listen))?;
        match &self.advertise {
            Some(advertise) => match host_and_port(advertise) {
                Some((host, port)) if port > 0 && !is_wildcard(host) => Ok(()),
                _ => Err(format!("advertise '{advertise}' is not a HOST:PORT that others can reach")),
            },
            None => need(!is_wildcard(host), || {
                format!(
                    "listen '{}' is a wildcard address, so advertise must say where others reach this node",
                    self.listen
                )
            }),
        }
    }

    fn validate_limits(&self) -> Result<(), String> {
        let bytes = |key, value: Option<ByteSize>, min: u64, max: u64| match value {
            Some(given) => need((min..=max).contains(&given.0), || {
                format!("{key} is {given}, it must be from {} to {}", ByteSize(min), ByteSize(max))
            }),
            None => Ok(()),
        };
        let span = |key, given: Span, min: Duration, max: Duration| {
            need((min..=max).contains(&given.0), || {
                format!("{key} is {given}, it must be from {} to {}", Span(min), Span(max))
            })
        };
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        bytes("byte_limit", self.byte_limit, 16 << 20, u64::MAX)?;
        bytes("produce_in_flight_bytes_max", Some(self.produce_in_flight_bytes_max), 1 << 20, 2 << 30)?;
        let node_max = self.produce_in_flight_bytes_max.0;
        bytes(
            "stream_in_flight_bytes_max (at most produce_in_flight_bytes_max)",
            Some(self.stream_in_flight_bytes_max),
            1 << 20,
            node_max,
        )?;
        bytes("fetch_bytes_max", Some(self.fetch_bytes_max), 4 << 10, 64 << 20)?;
        span("fetch_heartbeat_interval", self.fetch_heartbeat_interval, ms(50), s(30))?;
        bytes("reserve", self.reserve, 2 << 20, u64::MAX)?;
        span("retention_check_interval", self.retention_check_interval, ms(100), s(24 * 3600))?;
        span("offsets_retention", self.offsets_retention, s(1), s(3650 * 24 * 3600))?;
        self.tuning().marks.check().map_err(|error| {
            format!("{error} (reclaim_percent, throttle_percent, read_only_percent and their _bytes_max)")
        })?;
        span("heartbeat_interval", self.heartbeat_interval, ms(50), SUSPECT_AFTER / 4)?;
        span(
            "heartbeat_answer_wait_max (two of heartbeat_interval, half of the 6s to suspicion)",
            self.heartbeat_answer_wait_max,
            self.heartbeat_interval.0 * 2,
            SUSPECT_AFTER / 2,
        )?;
        span("hand_over_max", self.hand_over_max, ms(100), LEASE)
    }

    /// The data directories, opened; those that are missing are made. In the place of one that can't be opened is
    /// a disk on which everything fails, so that its volume is a failed one.
    ///
    /// # Errors
    /// [`StartError::Directory`] names the first when none can be opened.
    pub fn open_disks(&self) -> Result<Vec<SharedDisk>, StartError> {
        let mut disks: Vec<SharedDisk> = Vec::new();
        let mut unopened = Vec::new();
        for path in &self.data_dirs {
            let label = path.display().to_string();
            match RealDisk::open(path) {
                Ok(disk) => disks.push(Arc::new(disk)),
                Err(error) => {
                    unopened.push(StartError::disk(&label, error.clone()));
                    disks.push(Arc::new(UnopenedDisk::new(label, error)));
                }
            }
        }
        match unopened.first() {
            Some(_) if unopened.len() == disks.len() => Err(unopened.swap_remove(0)),
            _ => Ok(disks),
        }
    }

    pub(super) fn controller_addresses(&self) -> Result<Vec<String>, StartError> {
        let address = |text: &String| {
            controller_authority(text).map_err(|error| StartError::Configuration(error.to_string()))
        };
        self.controllers.iter().map(address).collect()
    }

    pub(super) fn tuning(&self) -> VolumeTuning {
        let mark = |percent, bytes_max: ByteSize| Mark { percent, bytes_max: bytes_max.0 };
        VolumeTuning {
            marks: MarkSettings {
                reclaim: mark(self.reclaim_percent, self.reclaim_bytes_max),
                throttle: mark(self.throttle_percent, self.throttle_bytes_max),
                read_only: mark(self.read_only_percent, self.read_only_bytes_max),
                ..MarkSettings::default()
            },
            reserve_bytes: self.reserve.map(|reserve| reserve.0),
            retention_interval: self.retention_check_interval.0,
        }
    }

    pub(super) fn heartbeat(&self) -> HeartbeatTimings {
        HeartbeatTimings {
            interval: self.heartbeat_interval.0,
            answer_wait_max: self.heartbeat_answer_wait_max.0,
        }
    }

    pub(super) fn sessions(&self) -> SessionSettings {
        let bytes = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
        SessionSettings {
            node_budget: BudgetLimits {
                bytes_max: bytes(self.produce_in_flight_bytes_max),
                ..BudgetLimits::NODE
            },
            stream_budget: BudgetLimits {
                bytes_max: bytes(self.stream_in_flight_bytes_max),
                ..BudgetLimits::STREAM
            },
            fetch_bytes_max: usize::try_from(self.fetch_bytes_max.0).unwrap_or(usize::MAX),
            fetch_heartbeat: self.fetch_heartbeat_interval.0,
        }
    }
}

fn need(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && !host.contains(['/', '@', ' '])).then_some((host, port))
}

fn is_wildcard(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "[::]" | "::" | "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> SpuSettings {
        SpuSettings {
            id: 1,
            data_dirs: vec!["/d".into()],
            controllers: vec!["1@a:7".into()],
            ..SpuSettings::default()
        }
    }

    #[test]
    fn every_wrong_value_is_named() {
        assert!(good().validate().is_ok());
        type Change = fn(&mut SpuSettings);
        let cases: [(&str, Change); 21] = [
            ("id", |s| s.id = 0),
            ("data_dirs", |s| s.data_dirs.clear()),
            ("twice", |s| s.data_dirs.push("/d".into())),
            ("controllers", |s| s.controllers.clear()),
            ("controllers", |s| s.controllers.push("nowhere".into())),
            ("listen", |s| s.listen = "7301".into()),
            ("advertise", |s| s.listen = "0.0.0.0:7301".into()),
            ("advertise", |s| s.advertise = Some("0.0.0.0:7301".into())),
            ("advertise", |s| s.advertise = Some("a:0".into())),
            ("byte_limit", |s| s.byte_limit = Some(ByteSize(1))),
            ("produce_in_flight_bytes_max", |s| s.produce_in_flight_bytes_max = ByteSize(1)),
            ("produce_in_flight_bytes_max", |s| s.stream_in_flight_bytes_max = ByteSize(1 << 30)),
            ("fetch_bytes_max", |s| s.fetch_bytes_max = ByteSize(0)),
            ("fetch_heartbeat_interval", |s| s.fetch_heartbeat_interval = Span(Duration::ZERO)),
            ("reserve", |s| s.reserve = Some(ByteSize(1))),
            ("retention_check_interval", |s| s.retention_check_interval = Span(Duration::ZERO)),
            ("offsets_retention", |s| s.offsets_retention = Span(Duration::ZERO)),
            ("throttle", |s| s.throttle_percent = 20),
            ("heartbeat_interval", |s| s.heartbeat_interval = Span(Duration::from_secs(2))),
            ("heartbeat_answer_wait_max", |s| s.heartbeat_answer_wait_max = Span(Duration::from_millis(600))),
            ("hand_over_max", |s| s.hand_over_max = Span(Duration::from_secs(60))),
        ];
        for (named, change) in cases {
            let mut settings = good();
            change(&mut settings);
            let error = settings.validate().expect_err(named);
            assert!(error.to_string().contains(named), "{named}: {error}");
            assert_eq!(error.exit_code(), 7);
        }
    }
}
