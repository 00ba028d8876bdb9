//! From what controllers and storage nodes report to findings and a verdict. Pure: the time is an argument.

use std::collections::BTreeMap;

use plimsoll_client::{ClusterEvent, ClusterStatusResponse, DiskCause, DiskLevel, TopicInfo, VolumeFacts};
use plimsoll_host::config::ByteSize;
use plimsoll_proto::v1::{PartitionInfo, SpuDuty, SpuState, SpuStatus, VolumeInfo, VolumeState};
use serde::Serialize;

use super::codes::{CODES, Code, Severity};
use crate::words;

/// Everything that is judged.
pub(crate) struct Picture<'a> {
    pub(crate) status: &'a ClusterStatusResponse,
    pub(crate) topics: &'a [TopicInfo],
    /// For since when; may be empty.
    pub(crate) events: &'a [ClusterEvent],
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// Something that is wrong, with everyone whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// One line.
    pub(crate) summary: String,
    pub(crate) members: Vec<Member>,
    /// Of the longest, milliseconds since 1970.
    pub(crate) since_ms: Option<u64>,
    /// The command to type next.
    pub(crate) next: String,
    /// Until when it is muted, milliseconds since 1970: it does not count then.
    pub(crate) muted_until_ms: Option<u64>,
}

/// Whom a finding concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    /// Such as "spu 1 /data" or "orders/3".
    pub(crate) name: String,
    /// What is to be said about this one.
    pub(crate) detail: String,
    pub(crate) since_ms: Option<u64>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Verdict {
    Ok,
    Degraded,
    Critical,
}

/// A node that was not heard of for so long has figures that are old.
const STALE_MS: u64 = 5_000;
/// Full within so long is soon.
const SOON_MS: u64 = 600_000;

/// What stands for each word in capitals of a next command.
type Names = Vec<(&'static str, String)>;

#[derive(Default)]
struct Found(BTreeMap<Code, Vec<(Member, Names)>>);

impl Found {
    /// `names` replace the words in capitals of the next command.
    fn add(&mut self, code: Code, member: Member, names: Names) {
        self.0.entry(code).or_default().push((member, names));
    }
}

/// The worst of what is not muted.
pub(crate) fn verdict(findings: &[Finding]) -> Verdict {
    let counted = findings.iter().filter(|finding| finding.muted_until_ms.is_none());
    let verdicts = counted.map(|finding| match finding.severity {
        Severity::Note => Verdict::Ok,
        Severity::Degraded => Verdict::Degraded,
        Severity::Critical => Verdict::Critical,
    });
    verdicts.max().unwrap_or(Verdict::Ok)
}

/// What is wrong, the worst first.
pub(crate) fn evaluate(picture: &Picture<'_>) -> Vec<Finding> {
    let mut found = Found::default();
    controllers(picture, &mut found);
    for spu in &picture.status.spus {
        node(picture, spu, &mut found);
        let info = spu.info.clone().unwrap_or_default();
        for known in &info.volumes {
            let facts = spu.volumes.iter().find(|facts| facts.volume_id == known.volume_id);
            volume(picture, spu, known, facts, &mut found);
            if let Some(facts) = facts {
                stopped_replicas(picture, spu, facts, &mut found);
            }
        }
    }
    partitions(picture, &mut found);
    headroom(picture, &mut found);
    let mut findings: Vec<Finding> = CODES
        .iter()
        .filter_map(|code| Some((*code, found.0.remove(code)?)))
        .map(|(code, members)| finding(code, members))
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn finding(code: Code, members: Vec<(Member, Names)>) -> Finding {
    let page = code.page();
    let names = members.first().map(|(_, names)| names.clone()).unwrap_or_default();
    let next = names.iter().fold(page.next.to_owned(), |next, (word, name)| next.replace(word, name));
    let members: Vec<Member> = members.into_iter().map(|(member, _)| member).collect();
    let summary = match members.as_slice() {
        [one] => format!("{}: {}", one.name, one.detail),
        [first, ..] => format!("{} and {} more: {}", first.name, members.len() - 1, first.detail),
        [] => page.cause.to_owned(),
    };
    Finding {
        code: page.code,
        severity: page.severity,
        summary,
        since_ms: members.iter().filter_map(|member| member.since_ms).min(),
        members,
        next,
        muted_until_ms: None,
    }
}

fn controllers(picture: &Picture<'_>, found: &mut Found) {
    let status = picture.status;
    let member = |name: String, detail: &str| Member { name, detail: detail.to_owned(), since_ms: None };
    if status.leader == 0 || status.no_quorum {
        let all = status.controllers.len();
        let name = format!("{all} controllers");
        found.add(Code::ControllerNoQuorum, member(name, "none of them leads"), Vec::new());
    }
    for controller in &status.controllers {
        let name = format!("controller {} at {}", controller.controller_id, controller.address);
        // Without a leader nobody can say who is heard of.
        if !controller.reachable && status.leader != 0 {
            found.add(Code::ControllerDown, member(name.clone(), "not heard of"), Vec::new());
        }
        if controller.disk_full {
            found.add(Code::ControllerDisk, member(name, "its disk has too little room"), Vec::new());
        }
    }
}

/// When the last event of this kind about it happened.
fn since(picture: &Picture<'_>, concerns: impl Fn(&ClusterEvent) -> bool) -> Option<u64> {
    picture.events.iter().rev().find(|event| concerns(event)).map(|event| event.time_ms)
}

fn node(picture: &Picture<'_>, spu: &SpuStatus, found: &mut Found) {
    let info = spu.info.clone().unwrap_or_default();
    let id = info.spu_id;
    let member = |detail: String| Member {
        name: format!("spu {id} at {}", info.address),
        detail,
        since_ms: since(picture, |event| {
            event.spu_id == id && ["spu_state", "spu_duty", "spu_registered"].contains(&event.kind.as_str())
        }),
    };
    let names = || vec![("SPU", id.to_string())];
    let out_of_service = match info.duty() {
        SpuDuty::Serving => None,
        SpuDuty::Cordoned => Some("cordoned"),
        SpuDuty::Draining => Some("draining"),
        SpuDuty::Offline => Some("taken out of service"),
    };
    if let Some(duty) = out_of_service {
        found.add(Code::SpuOutOfService, member(duty.to_owned()), names());
    }
    match info.state() {
        SpuState::Offline if info.duty() != SpuDuty::Offline => {
            found.add(Code::SpuOffline, member("offline".to_owned()), names());
        }
        SpuState::Suspect => found.add(Code::SpuSuspect, member("silent".to_owned()), names()),
        SpuState::Online | SpuState::Draining => {
            let stalled = !info.volumes.is_empty()
                && info.volumes.iter().all(|volume| volume.state() == VolumeState::Stalled);
            if stalled {
                found.add(Code::SpuStalled, member("no data path moves".to_owned()), names());
            } else if spu.heartbeat_age_ms > STALE_MS {
                let detail = format!("not heard of for {} s", spu.heartbeat_age_ms / 1000);
                found.add(Code::DiskUnknown, member(detail), names());
            }
        }
        SpuState::Offline | SpuState::Joining | SpuState::Unspecified => {}
    }
}

fn volume(
    picture: &Picture<'_>,
    spu: &SpuStatus,
    known: &VolumeInfo,
    facts: Option<&VolumeFacts>,
    found: &mut Found,
) {
    let id = spu.info.as_ref().map_or(0, |info| info.spu_id);
    let live = spu.info.as_ref().is_some_and(|info| info.state() != SpuState::Offline);
    let by_event = since(picture, |event| {
        event.spu_id == id && event.volume_id == known.volume_id && event.kind == "volume_state"
    });
    let since_ms = facts.filter(|facts| facts.since_ms > 0);
    let since_ms = since_ms.map(|facts| picture.now_ms.saturating_sub(facts.since_ms)).or(by_event);
    let mut add = |code, detail: String| {
        let member = Member { name: format!("spu {id} {}", known.path), detail, since_ms };
        found.add(code, member, vec![("SPU", id.to_string())]);
    };
    match known.state() {
        VolumeState::Failed => {
            let why = if known.reason.is_empty() { "failed" } else { &known.reason };
            return add(Code::VolumeFailed, why.to_owned());
        }
        VolumeState::Stalled => add(Code::VolumeStalled, "its data path does not move".to_owned()),
        VolumeState::Writable | VolumeState::WriteOffline | VolumeState::Unspecified => {}
    }
    // What a dead node said last says nothing about now.
    let Some(facts) = facts.filter(|_| live) else { return };
    if facts.unknown {
        add(Code::DiskUnknown, "the sensor has no fresh answer".to_owned());
    }
    let room = format!("{} of {} free", ByteSize(facts.free_bytes), ByteSize(facts.capacity_bytes));
    let rate = match facts.time_to_full_ms {
        0 => String::new(),
        ms => format!(", full in {}", words::span(ms)),
    };
    if facts.drill_ms > 0 {
        let (level, left) = (words::level(facts.level()), words::span(facts.drill_ms));
        return add(Code::DiskDrill, format!("drill at {level}, {left} more"));
    }
    if facts.borrowed_bytes > 0 {
        let (bytes, left) = (ByteSize(facts.borrowed_bytes), words::span(facts.borrow_ms));
        add(Code::DiskBorrowed, format!("mark lowered by {bytes}, {left} more"));
    }
    match (facts.level(), facts.cause()) {
        (DiskLevel::ReadOnly, DiskCause::Hold) => {
            add(Code::DiskHeld, format!("{room}, held {} more", words::span(facts.hold_ms)));
        }
        (DiskLevel::Reclaim | DiskLevel::Throttle | DiskLevel::ReadOnly, DiskCause::Inodes) => {
            let inodes = format!("{} of {} inodes free", facts.free_inodes, facts.capacity_inodes);
            add(Code::DiskInodes, inodes);
        }
        (DiskLevel::ReadOnly, _) => add(Code::DiskFull, room.clone()),
        (DiskLevel::Reclaim | DiskLevel::Throttle, _) => {
            add(Code::DiskNearFull, format!("{}, {room}{rate}", words::level(facts.level())));
        }
        (DiskLevel::Failed, _) => add(Code::VolumeFailed, facts.failure.clone()),
        (DiskLevel::Normal | DiskLevel::Unspecified, _) => {}
    }
    let pressed = matches!(facts.level(), DiskLevel::Reclaim | DiskLevel::Throttle | DiskLevel::ReadOnly);
    if pressed && facts.reclaim_missing_bytes > 0 {
        let missing = ByteSize(facts.reclaim_missing_bytes);
        add(Code::ReclaimBlocked, format!("{missing} more are wanted than may be deleted"));
    } else if pressed && facts.level() != DiskLevel::ReadOnly && (1..SOON_MS).contains(&facts.time_to_full_ms)
    {
        add(Code::ReclaimCannotKeepUp, format!("{room}{rate}"));
    }
}

/// They stay stopped until somebody else leads, or they are moved or deleted.
fn stopped_replicas(picture: &Picture<'_>, spu: &SpuStatus, facts: &VolumeFacts, found: &mut Found) {
    let info = spu.info.clone().unwrap_or_default();
    if info.state() == SpuState::Offline {
        // What a dead node said last says nothing about now.
        return;
    }
    let id = info.spu_id;
    for stopped in &facts.stopped_replicas {
        // Its node has not heard yet that the topic is gone.
        let Some(topic) = picture.topics.iter().find(|topic| topic.topic_id == stopped.topic_id) else {
            continue;
        };
        let partition = format!("{}/{}", topic.name, stopped.partition);
        let detail = format!(
            "stopped in epoch {}: leader spu {} would cut it to {}, committed is all below {}",
            stopped.leader_epoch, stopped.leader, stopped.cut_to, stopped.high_watermark
        );
        let since_ms = Some(picture.now_ms.saturating_sub(stopped.stopped_ms));
        let member = Member { name: format!("{partition} on spu {id}"), detail, since_ms };
        found.add(Code::ReplicaStopped, member, vec![("SPU", id.to_string()), ("PARTITION", partition)]);
    }
    let named = u32::try_from(facts.stopped_replicas.len()).unwrap_or(u32::MAX);
    if facts.replicas_stopped > named {
        let name = format!("spu {id} {}", facts.path);
        let detail = format!("{} more are stopped", facts.replicas_stopped - named);
        let names = vec![("SPU", id.to_string())];
        found.add(Code::ReplicaStopped, Member { name, detail, since_ms: None }, names);
    }
}

fn partitions(picture: &Picture<'_>, found: &mut Found) {
    for topic in picture.topics {
        let config = topic.config.unwrap_or_default();
        for partition in &topic.partitions {
            let Some((code, detail)) = partition_fault(partition, config.min_in_sync) else { continue };
            let since_ms = since(picture, |event| {
                event.topic_id == topic.topic_id
                    && event.partition == partition.index
                    && ["in_sync_changed", "leader_changed"].contains(&event.kind.as_str())
            });
            let name = format!("{}/{}", topic.name, partition.index);
            found.add(code, Member { name, detail, since_ms }, vec![("TOPIC", topic.name.clone())]);
        }
    }
}

/// The worst that is wrong with a partition: one fault is one finding.
fn partition_fault(partition: &PartitionInfo, min_in_sync: u32) -> Option<(Code, String)> {
    let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let (have, all) = (partition.in_sync.len(), partition.replicas.len());
    let detail = format!("{have} of {all} replicas in sync (spu {})", ids(&partition.in_sync));
    if partition.leader == 0 {
        Some((Code::PartitionNoLeader, format!("no leader; in sync: spu {}", ids(&partition.in_sync))))
    } else if have < usize::try_from(min_in_sync).unwrap_or(usize::MAX) {
        Some((Code::PartitionBelowMinInSync, format!("{detail}, {min_in_sync} must be")))
    } else if have < all {
        Some((Code::PartitionUnderReplicated, detail))
    } else {
        None
    }
}

fn headroom(picture: &Picture<'_>, found: &mut Found) {
    let normal = |facts: &VolumeFacts| facts.level() == DiskLevel::Normal;
    if !picture.status.spus.iter().flat_map(|spu| &spu.volumes).all(normal) {
        // Told already, and nearer.
        return;
    }
    let online = picture.status.spus.iter().filter(|spu| {
        let info = spu.info.clone().unwrap_or_default();
        info.state() == SpuState::Online && spu.volumes.iter().all(|facts| facts.capacity_bytes > 0)
    });
    // (id, bytes of records, bytes free above the throttle marks)
    let nodes: Vec<(u32, u64, u64)> = online
        .map(|spu| {
            let used = spu.volumes.iter().map(|facts| facts.used_bytes).sum();
            let spare = |facts: &VolumeFacts| facts.free_bytes.saturating_sub(facts.throttle_enter_bytes);
            let spare = spu.volumes.iter().map(spare).sum();
            (spu.info.as_ref().map_or(0, |info| info.spu_id), used, spare)
        })
        .collect();
    if nodes.len() < 2 {
        return;
    }
    let Some((id, used, own)) = nodes.iter().max_by_key(|(_, used, _)| *used) else { return };
    let all: u64 = nodes.iter().map(|(_, _, spare)| *spare).sum();
    let others = all.saturating_sub(*own);
    if *used > others {
        let detail = format!("holds {}, the others have room for {}", ByteSize(*used), ByteSize(others));
        let member = Member { name: format!("spu {id}"), detail, since_ms: None };
        found.add(Code::ClusterHeadroom, member, vec![("SPU", id.to_string())]);
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
