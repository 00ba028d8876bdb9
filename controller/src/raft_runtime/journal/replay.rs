//! From the bytes of a journal file back to what it holds. Pure; the bytes are not trusted.

use prost_raft::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::Recovered;
use super::header::BODY;
use super::record::{self, Chain, Kind, Record};

/// What a file of one generation holds, and where the next record goes.
#[derive(Debug, PartialEq)]
pub(super) struct Replayed {
    pub(super) contents: Recovered,
    pub(super) chain: Chain,
    /// End of the last good record.
    pub(super) end: u64,
}

/// Why a file can't be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) at: u64,
    pub(super) why: &'static str,
}

/// Reads all records of `generation`, of which those before `synced_end` must be there. A torn tail behind it, which
/// nothing can depend on, is left out together with what the same call wrote before it; damage before data that was
/// synced is an error.
pub(super) fn replay(bytes: &[u8], generation: u64, synced_end: u64) -> Result<Replayed, Damage> {
    let mut at = usize::try_from(BODY).unwrap_or(usize::MAX);
    let mut chain = Chain::new(generation);
    let mut contents = None;
    while let Some(call) = next_call(bytes, at, chain) {
        let first = contents.is_none();
        for found in call {
            apply(&mut contents, &found).map_err(|why| Damage { at: offset(at), why })?;
            at += found.bytes;
            chain = Chain { synced_end: found.synced_end, ..chain.behind(&found) };
        }
        // A generation becomes current only after its first call was synced.
        if first {
            chain.synced_end = offset(at);
        }
    }
    if offset(at) < synced_end || record::find_rot_witness(bytes, at, generation).is_some() {
        return Err(Damage { at: offset(at), why: "a record that had been synced is unreadable" });
    }
    let contents = contents.ok_or(Damage { at: BODY, why: "the snapshot record is unreadable" })?;
    let kept_upto = contents.last_index();
    if contents.hard_state.commit > kept_upto || contents.snapshot.get_metadata().index > kept_upto {
        return Err(Damage { at: offset(at), why: "entries that had been committed are unreadable" });
    }
    Ok(Replayed { contents, chain, end: offset(at) })
}

/// Takes one record. The error says what it must not be.
fn apply(contents: &mut Option<Recovered>, found: &Record<'_>) -> Result<(), &'static str> {
    match (contents, found.kind) {
        (empty @ None, Kind::Base) => {
            *empty = Some(decode_base(found.payload).ok_or("the snapshot record does not parse")?);
        }
        (None, _) => return Err("the file does not begin with a snapshot record"),
        (Some(_), Kind::Base) => return Err("a second snapshot record"),
        (Some(contents), Kind::HardState) => {
            contents.hard_state =
                HardState::decode(found.payload).map_err(|_| "a vote record does not parse")?;
        }
        (Some(contents), Kind::Entry) => {
            let entry = Entry::decode(found.payload).map_err(|_| "an entry record does not parse")?;
            if !contents.put(entry) {
                return Err("an entry leaves a gap");
            }
        }
    }
    Ok(())
}

/// The records of the next call. `None` when not all of them are there.
fn next_call(bytes: &[u8], mut at: usize, mut chain: Chain) -> Option<Vec<Record<'_>>> {
    let mut call: Vec<Record<'_>> = Vec::new();
    loop {
        let found = record::decode(bytes, at, chain.generation)?;
        let follows = found.sequence == chain.sequence + 1 && found.previous_crc == chain.crc;
        let counted_down = call.last().is_none_or(|before| before.more == found.more.saturating_add(1));
        if !follows || !counted_down {
            return None;
        }
        at += found.bytes;
        chain = chain.behind(&found);
        call.push(found);
        if found.more == 0 {
            return Some(call);
        }
    }
}

fn offset(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// Payload of a base record: index and term before the first kept entry, then the snapshot.
pub(super) fn encode_base(contents: &Recovered) -> Vec<u8> {
    let mut payload = Vec::with_capacity(16 + contents.snapshot.encoded_len());
    payload.extend_from_slice(&contents.truncated.0.to_le_bytes());
    payload.extend_from_slice(&contents.truncated.1.to_le_bytes());
    payload.extend_from_slice(&contents.snapshot.encode_to_vec());
    payload
}

fn decode_base(payload: &[u8]) -> Option<Recovered> {
    let truncated = (record::u64_at(payload, 0)?, record::u64_at(payload, 8)?);
    let snapshot = Snapshot::decode(payload.get(16..)?).ok()?;
    let index = snapshot.get_metadata().index;
    if truncated.0 > index || index == u64::MAX {
        return None;
    }
    Some(Recovered { snapshot, truncated, ..Recovered::default() })
}
