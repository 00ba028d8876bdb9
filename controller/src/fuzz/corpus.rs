//! What fuzzing begins with.

use plimsoll_proto::ids::{ClusterId, ControllerId};
use plimsoll_proto::v1::{self, entry::Change};
use prost::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::directory::{BODY, CONTROLLER, FILES, new_disk, read_whole, settings, used};
use super::forms::{RECORD_HEAD_BYTES, SLOT_BYTES, SNAPSHOT_HEAD};
use crate::cluster::{ClusterState, RULES_VERSION};
use crate::raft_runtime::journal::{FileJournal, Journal as _, Recovered};
use crate::raft_runtime::{DataDir, Identity as _};

/// Inputs of this target that are read: files as a controller leaves them, in every form. None for another name.
///
/// # Panics
/// When a journal on a memory disk with room does not take a few entries.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    match target {
        "journal" => journals(),
        "identity" => identities(),
        _ => Vec::new(),
    }
}

fn with_form(form: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[form], parts.concat().as_slice()].concat()
}

/// The head of a file without the zeros between its slots.
fn slots_of(file: &[u8]) -> [&[u8]; 2] {
    [&file[..SLOT_BYTES], &file[4096..4096 + SLOT_BYTES]]
}

fn journals() -> Vec<Vec<u8>> {
    let state = state();
    let mut found = vec![with_form(6, &[&state.encode_snapshot()[SNAPSHOT_HEAD.len() + 4..]])];
    for files in histories(&state) {
        let [first, second] = &files;
        let mut both = Vec::new();
        for file in &files {
            let records = &file[BODY..];
            both.extend(slots_of(file).concat());
            both.extend(u16::try_from(records.len()).expect("few").to_be_bytes());
            both.extend(records);
        }
        found.extend([2, 3].map(|form| with_form(form, &[&both])));
        // The first file alone: only where it is the one that counts.
        if second.len() == BODY {
            found.push(with_form(1, &[first]));
            found.push(with_form(4, &[&first[BODY..]]));
            found.push(with_form(5, &[&payloads(&first[BODY..])]));
        } else {
            found.push(with_form(5, &[&payloads(&second[BODY..])]));
        }
    }
    found
}

/// Records without what a checksum is made of.
fn payloads(mut records: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while records.len() >= RECORD_HEAD_BYTES && u32_at(records, 0) != 0 {
        let number = |at: usize| usize::try_from(u32_at(records, at)).expect("small");
        let (kind, length, more) = (number(36), number(40), number(44));
        let synced = if u32_at(records, 24) > 0 { 128 } else { 0 };
        found.push(u8::try_from(kind).expect("few") | synced);
        found.push(u8::try_from(more).expect("few"));
        found.extend(u16::try_from(length).expect("short").to_be_bytes());
        found.extend(&records[RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length]);
        records = &records[(RECORD_HEAD_BYTES + length).next_multiple_of(8).min(records.len())..];
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The files of a journal that is new, that has votes and entries, and that was compacted.
fn histories(state: &ClusterState) -> Vec<[Vec<u8>; 2]> {
    let disk = new_disk();
    FileJournal::create(&disk, &settings(), CONTROLLER, &Recovered::fresh([1, 2, 3])).expect("room");
    let image = || FILES.map(|path| used(read_whole(&disk, path)));
    let entries = |indexes: std::ops::RangeInclusive<u64>, term| -> Vec<Entry> {
        indexes.map(|index| Entry { index, term, data: change(index), ..Entry::default() }).collect()
    };
    let vote = |term, commit| HardState { term, vote: 1 + term % 3, commit };
    let mut found = vec![image()];
    let mut journal = FileJournal::open(&disk, &settings(), CONTROLLER).expect("made");
    let mut contents = journal.load().expect("made");
    journal.append(&entries(1..=4, 1)).expect("room");
    journal.set_hard_state(&vote(1, 2)).expect("room");
    journal.sync().expect("works");
    found.push(image());
    journal.append(&entries(4..=6, 2)).expect("room");
    journal.set_hard_state(&vote(2, 4)).expect("room");
    journal.sync().expect("works");
    found.push(image());
    let mut snapshot = Snapshot { data: state.encode_snapshot(), ..Snapshot::default() };
    let voters = contents.snapshot.get_metadata().get_conf_state().clone();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (4, 2);
    metadata.set_conf_state(voters);
    contents = Recovered { hard_state: vote(2, 4), snapshot, truncated: (3, 1), entries: entries(4..=6, 2) };
    journal.replace(&contents).expect("room");
    journal.append(&entries(7..=8, 2)).expect("room");
    journal.sync().expect("works");
    found.push(image());
    found
}

fn change(index: u64) -> Vec<u8> {
    let change = match index % 3 {
        0 => Change::Bootstrap(v1::BootstrapCluster { cluster_id: vec![7; 16].into(), ..Default::default() }),
        1 => Change::RegisterSpu(v1::RegisterSpu {
            spu_id: 1,
            start_nonce: vec![1; 16].into(),
            address: "node1:9000".to_owned(),
            volumes: vec![v1::VolumeDeclared { volume_id: vec![1; 16].into(), path: "/d1".to_owned() }],
            ..Default::default()
        }),
        _ => Change::CreateTopic(v1::CreateTopicEntry {
            topic_id: vec![0xaa; 16].into(),
            name: "t".to_owned(),
            config: Some(v1::TopicConfig {
                partitions: 1,
                replicas: 1,
                min_in_sync: 1,
                ..Default::default()
            }),
            partitions: vec![v1::PartitionPlacement {
                replicas: vec![v1::ReplicaAssignment { spu_id: 1, volume_id: vec![1; 16].into() }],
            }],
        }),
    };
    let time_ms = index * 1000;
    v1::Entry { rules: RULES_VERSION, time_ms, change: Some(change), ..Default::default() }.encode_to_vec()
}

/// A cluster with a node, a topic and events.
fn state() -> ClusterState {
    let mut state = ClusterState::empty();
    for index in 0..6 {
        let entry = v1::Entry::decode(change(index).as_slice()).expect("just encoded");
        state.apply(index + 1, &entry);
    }
    state
}

/// The identity of a directory that is ready, that knows its cluster, of which a slot is older, and while it is made.
fn identities() -> Vec<Vec<u8>> {
    let disk = new_disk();
    let voters = || [1, 2, 3].map(ControllerId);
    let open = || DataDir::open(&disk, ControllerId(CONTROLLER), true, voters(), &settings());
    let image = || used(read_whole(&disk, "controller.id"));
    let (mut dir, _) = open().expect("empty");
    let ready = image();
    dir.set_cluster_id(ClusterId([7; 16])).expect("room");
    let named = image();
    let older = [&ready[..4096], &named[4096..]].concat();
    let mut making = ready[..SLOT_BYTES].to_vec();
    making[24] = 1;
    let mut found = vec![with_form(2, &[&making])];
    for file in [ready, named, older] {
        found.push(with_form(0, &[&file]));
        found.extend([1, 2].map(|form| with_form(form, &slots_of(&file))));
    }
    found
}
