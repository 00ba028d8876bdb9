//! One volume as the last heartbeat and the metadata describe it.

use plimsoll_client::VolumeFacts;
use plimsoll_proto::v1::{SpuStatus, VolumeInfo};
use serde::Serialize;

use crate::words::{self, span};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Volume {
    pub(crate) spu: u32,
    pub(crate) volume_id: String,
    pub(crate) path: String,
    /// What the node itself enforces; absent when it was not heard of.
    pub(crate) level: Option<&'static str>,
    pub(crate) cause: Option<&'static str>,
    /// What the cluster has committed.
    pub(crate) volume_state: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) capacity_inodes: u64,
    pub(crate) free_inodes: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) preallocated_unused_bytes: u64,
    pub(crate) time_to_full_ms: Option<u64>,
    pub(crate) fill_bytes_per_s: i64,
    pub(crate) unreserved: bool,
    pub(crate) unknown: bool,
    pub(crate) hold_ms: Option<u64>,
    pub(crate) leaders: u32,
    pub(crate) replicas: u32,
    pub(crate) refused_total: u64,
    /// How often a replica here stopped because its history is not its leader's, since the node started.
    pub(crate) replica_stops_total: u64,
    /// A drill runs for so much longer: the free bytes are pretended.
    pub(crate) drill_ms: Option<u64>,
    pub(crate) borrowed_bytes: u64,
    pub(crate) borrow_ms: Option<u64>,
    pub(crate) reclaim_missing_bytes: u64,
    pub(crate) since_ms: u64,
    pub(crate) marks: Marks,
    /// Age of these figures; absent when the leading controller never heard of the node.
    pub(crate) heartbeat_age_ms: Option<u64>,
}

/// Free bytes at which levels are entered, and read-only is left.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Marks {
    pub(crate) reclaim_enter_bytes: u64,
    pub(crate) throttle_enter_bytes: u64,
    // Named so that a search for the level "read-only" in the output finds levels alone.
    #[serde(rename = "readonly_enter_bytes")]
    pub(crate) read_only_enter_bytes: u64,
    #[serde(rename = "readonly_exit_bytes")]
    pub(crate) read_only_exit_bytes: u64,
}

/// The volumes of a node: those that it reports, and those that only the metadata know.
pub(crate) fn volumes_of(spu: &SpuStatus) -> Vec<Volume> {
    let info = spu.info.clone().unwrap_or_default();
    let heard = spu.heartbeat_age_ms > 0 || !spu.volumes.is_empty();
    let age = heard.then_some(spu.heartbeat_age_ms);
    let mut volumes: Vec<Volume> = spu
        .volumes
        .iter()
        .map(|facts| {
            let known = info.volumes.iter().find(|known| known.volume_id == facts.volume_id);
            from_facts(info.spu_id, facts, known, age)
        })
        .collect();
    for known in &info.volumes {
        if !spu.volumes.iter().any(|facts| facts.volume_id == known.volume_id) {
            let facts = VolumeFacts {
                volume_id: known.volume_id.clone(),
                path: known.path.clone(),
                ..Default::default()
            };
            volumes.push(Volume { level: None, ..from_facts(info.spu_id, &facts, Some(known), age) });
        }
    }
    volumes.sort_by(|a, b| a.path.cmp(&b.path));
    volumes
}

fn from_facts(spu: u32, facts: &VolumeFacts, known: Option<&VolumeInfo>, age: Option<u64>) -> Volume {
    let some = |value: u64| (value > 0).then_some(value);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Volume {
        spu,
        volume_id: words::hex(&facts.volume_id),
        path: facts.path.clone(),
        level: Some(words::level(facts.level())),
        cause: words::cause(facts.cause()),
        volume_state: known.map_or("unknown", |known| words::volume_state(known.state())),
        reason: text(&facts.failure).or_else(|| known.and_then(|known| text(&known.reason))),
        capacity_bytes: facts.capacity_bytes,
        free_bytes: facts.free_bytes,
        used_bytes: facts.used_bytes,
        capacity_inodes: facts.capacity_inodes,
        free_inodes: facts.free_inodes,
        pending_bytes: facts.pending_bytes,
        preallocated_unused_bytes: facts.preallocated_unused_bytes,
        time_to_full_ms: some(facts.time_to_full_ms),
        fill_bytes_per_s: facts.fill_bytes_per_s,
        unreserved: facts.unreserved,
        unknown: facts.unknown,
        hold_ms: some(facts.hold_ms),
        leaders: facts.leaders,
        replicas: facts.replicas,
        refused_total: facts.refused_total,
        replica_stops_total: facts.replica_stops_total,
        drill_ms: some(facts.drill_ms),
        borrowed_bytes: facts.borrowed_bytes,
        borrow_ms: some(facts.borrow_ms),
        reclaim_missing_bytes: facts.reclaim_missing_bytes,
        since_ms: facts.since_ms,
        marks: Marks {
            reclaim_enter_bytes: facts.reclaim_enter_bytes,
            throttle_enter_bytes: facts.throttle_enter_bytes,
            read_only_enter_bytes: facts.read_only_enter_bytes,
            read_only_exit_bytes: facts.read_only_exit_bytes,
        },
        heartbeat_age_ms: age,
    }
}

/// Cells of a gauge.
const CELLS: u64 = 30;

/// A bar of what is not free, with the marks of reclaim, throttle and read-only where they are:
/// `[##########....r.t.o]`; the capital letter stands where the bar has passed a mark.
pub(crate) fn gauge(volume: &Volume) -> String {
    gauge_of(volume, CELLS)
}

/// The same with so many cells.
pub(crate) fn gauge_of(volume: &Volume, cells: u64) -> String {
    if volume.capacity_bytes == 0 {
        return format!("[{}]", "?".repeat(usize::try_from(cells).unwrap_or(0)));
    }
    let capacity = u128::from(volume.capacity_bytes);
    let cell_of = |free: u64| {
        let taken = capacity.saturating_sub(u128::from(free));
        u64::try_from(taken * u128::from(cells) / capacity).unwrap_or(cells)
    };
    let filled = cell_of(volume.free_bytes);
    let marks = [
        (volume.marks.read_only_enter_bytes, 'o', 'O'),
        (volume.marks.throttle_enter_bytes, 't', 'T'),
        (volume.marks.reclaim_enter_bytes, 'r', 'R'),
    ];
    let shown: String = (0..cells)
        .map(|cell| {
            let taken = cell < filled;
            let mark = marks
                .iter()
                .find(|(free, _, _)| *free > 0 && cell_of(*free).min(cells.saturating_sub(1)) == cell);
            match (mark, taken) {
                (Some((_, open, _)), false) => *open,
                (Some((_, _, passed)), true) => *passed,
                (None, true) => '#',
                (None, false) => '.',
            }
        })
        .collect();
    format!("[{shown}]")
}

/// Figures older than this are told with their age: heartbeats come every half second.
const STALE_MS: u64 = 3_000;

/// Why the volume is at its level, in words; when it will be full is a column of its own.
pub(crate) fn why(volume: &Volume) -> String {
    let mut parts = Vec::new();
    match volume.heartbeat_age_ms {
        _ if volume.level.is_none() => parts.push("not heard of".to_owned()),
        Some(age) if age > STALE_MS => parts.push(format!("not heard of for {}", span(age))),
        _ => {}
    }
    if volume.unknown {
        parts.push("the sensor has no fresh answer".to_owned());
    }
    if let Some(ms) = volume.drill_ms {
        parts.push(format!("DRILL for {} more", span(ms)));
    }
    if let Some(ms) = volume.borrow_ms {
        let bytes = plimsoll_host::config::ByteSize(volume.borrowed_bytes);
        parts.push(format!("mark lowered by {bytes} for {} more", span(ms)));
    }
    match (&volume.reason, volume.cause) {
        (Some(reason), _) => parts.push(reason.clone()),
        (None, Some(cause)) => parts.push(cause.to_owned()),
        (None, None) => {}
    }
    if let Some(ms) = volume.hold_ms {
        parts.push(format!("held {}.{} s more", ms / 1000, ms % 1000 / 100));
    }
    if volume.volume_state != "writable" {
        parts.push(format!("{} in the cluster", volume.volume_state));
    }
    if volume.unreserved {
        parts.push("allocation does not reserve here".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn volume(free: u64) -> Volume {
        let facts = VolumeFacts {
            capacity_bytes: 300,
            free_bytes: free,
            reclaim_enter_bytes: 45,
            throttle_enter_bytes: 30,
            read_only_enter_bytes: 15,
            ..Default::default()
        };
        from_facts(1, &facts, None, Some(1))
    }

    #[test]
    fn gauges_show_what_is_taken_and_where_the_marks_are() {
        for (free, expected) in [
            (300, "[.........................r.to.]"),
            (150, "[###############..........r.to.]"),
            (20, "[#########################R#To.]"),
            (0, "[#########################R#TO#]"),
        ] {
            let shown = gauge(&volume(free));
            assert_eq!(shown.len(), 32);
            assert_eq!(shown, expected, "{free}");
        }
        assert_eq!(gauge(&Volume { capacity_bytes: 0, ..volume(0) }).matches('?').count(), 30);
    }

    #[test]
    fn the_reason_is_told_once_and_old_figures_with_their_age() {
        let full = Volume {
            level: Some("read-only"),
            cause: Some("bytes"),
            reason: Some("disk full: bytes".to_owned()),
            volume_state: "write_offline",
            time_to_full_ms: Some(1),
            ..volume(0)
        };
        assert_eq!(why(&full), "disk full: bytes, write_offline in the cluster");
        let healthy = |age| {
            let volume_state = "writable";
            why(&Volume { heartbeat_age_ms: Some(age), volume_state, ..volume(150) })
        };
        assert_eq!(healthy(400), "");
        assert_eq!(healthy(75_000), "not heard of for 1 min 15 s");
    }
}
