//! Messages of the consensus library as they travel, and the checks before one from outside reaches it.
//!
//! The library trusts its peers: an index beyond the log ends it with a panic. A message that could do that is dropped
//! here.

use plimsoll_proto::ids::ControllerId;
use prost_raft::Message as _;
use raft::eraftpb::{Message, MessageType};

use crate::cluster::ClusterState;

/// Largest message between controllers: entries, or a part of a snapshot.
pub(super) const MESSAGE_BYTES_MAX: usize = if cfg!(test) { 4 << 20 } else { 64 << 20 };

/// Bytes of a message.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it does not parse")]
    Malformed,
    #[error("its sender or receiver is not who it should be")]
    WrongPeer,
    #[error("its kind does not travel")]
    LocalKind,
    #[error("its entries are not in order")]
    Entries,
    #[error("its snapshot is not readable")]
    Snapshot,
    /// A controller that joins begins with a snapshot: the entries alone don't say who belonged to the cluster.
    #[error("a controller that joins begins with a snapshot")]
    Joining,
    #[error("it contradicts what is committed here")]
    Contradiction,
    /// The leader believes that this controller holds entries it does not hold.
    #[error("it claims that this controller had stored more than it has")]
    LostData,
}

/// What of the local log a message is checked against.
pub(super) trait LocalLog {
    fn last_index(&self) -> u64;
    fn committed(&self) -> u64;
    /// Term of an entry still kept.
    fn term(&self, index: u64) -> Option<u64>;
    fn is_leader(&self) -> bool;
    fn current_term(&self) -> u64;
    /// Whether nothing is known here yet of who belongs to the cluster.
    fn is_joining(&self) -> bool;
}

/// Reads a message and checks what does not depend on the log.
pub(super) fn decode(
    bytes: &[u8],
    from: u64,
    own: ControllerId,
    is_peer: impl Fn(ControllerId) -> bool,
) -> Result<Message, Refused> {
    let message = Message::decode(bytes).map_err(|_| Refused::Malformed)?;
    let known = is_peer(ControllerId(message.from)) && message.from != own.0;
    if !known || message.from != from || message.to != own.0 {
        return Err(Refused::WrongPeer);
    }
    check_shape(&message)?;
    Ok(message)
}

fn check_shape(message: &Message) -> Result<(), Refused> {
    let kind = MessageType::from_i32(message.msg_type).ok_or(Refused::Malformed)?;
    match kind {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        // Proposals are made at the leader only.
        | MessageType::MsgPropose => Err(Refused::LocalKind),
        MessageType::MsgAppend => check_entries(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() == 1 { Ok(()) } else { Err(Refused::Entries) }
        }
        MessageType::MsgSnapshot => check_snapshot(message),
        MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => {
            if message.entries.is_empty() { Ok(()) } else { Err(Refused::Entries) }
        }
    }
}

fn check_entries(message: &Message) -> Result<(), Refused> {
    let mut term = message.log_term;
    for (entry, index) in message.entries.iter().zip(1u64..) {
        let follows = message.index.checked_add(index) == Some(entry.index);
        if !follows || entry.term < term || entry.term > message.term {
            return Err(Refused::Entries);
        }
        term = entry.term;
    }
    Ok(())
}

fn check_snapshot(message: &Message) -> Result<(), Refused> {
    let snapshot = message.get_snapshot();
    let metadata = snapshot.get_metadata();
    let conf_state = metadata.get_conf_state();
    let plain = !conf_state.voters.is_empty()
        && !conf_state.voters.contains(&0)
        && conf_state.learners.is_empty()
        && conf_state.voters_outgoing.is_empty()
        && conf_state.learners_next.is_empty()
        && !conf_state.auto_leave;
    let readable = ClusterState::decode_snapshot(&snapshot.data).is_ok();
    let positioned = metadata.index > 0 && metadata.term > 0 && metadata.term <= message.term;
    if plain && readable && positioned { Ok(()) } else { Err(Refused::Snapshot) }
}

/// Checks a message against the log, right before it is stepped.
pub(super) fn check_against(message: &Message, log: &impl LocalLog) -> Result<(), Refused> {
    if message.term != 0 && message.term < log.current_term() {
        // Stale; the library answers or ignores it without looking further.
        return Ok(());
    }
    match message.get_msg_type() {
        // FACT of raft 0.7: a heartbeat commits up to `commit`, which the leader bounds by what this peer had
        // acknowledged; beyond the log is a panic there, and means that acknowledged entries are gone.
        MessageType::MsgHeartbeat if message.commit > log.last_index() => Err(Refused::LostData),
        MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot
            if log.is_leader() && message.term == log.current_term() =>
        {
            // Two leaders of one term.
            Err(Refused::Contradiction)
        }
        MessageType::MsgAppend if log.is_joining() && message.index == 0 => Err(Refused::Joining),
        MessageType::MsgAppend => {
            let contradicts = message.entries.iter().any(|entry| {
                entry.index <= log.committed() && log.term(entry.index).is_some_and(|term| term != entry.term)
            });
            if contradicts { Err(Refused::Contradiction) } else { Ok(()) }
        }
        MessageType::MsgAppendResponse if !message.reject && message.index > log.last_index() => {
            Err(Refused::Contradiction)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    struct Log;

    impl LocalLog for Log {
        fn last_index(&self) -> u64 {
            10
        }
        fn committed(&self) -> u64 {
            8
        }
        fn term(&self, index: u64) -> Option<u64> {
            (3..=10).contains(&index).then_some(2)
        }
        fn is_leader(&self) -> bool {
            false
        }
        fn current_term(&self) -> u64 {
            2
        }
        fn is_joining(&self) -> bool {
            false
        }
    }

    fn message(kind: MessageType) -> Message {
        let mut message = Message { from: 2, to: 1, term: 2, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    fn is_peer(id: ControllerId) -> bool {
        (1..=3).contains(&id.0)
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    #[test]
    fn only_well_formed_messages_of_peers_pass() {
        let check = |message: &Message| decode(&encode(message), 2, ControllerId(1), is_peer).map(drop);
        assert_eq!(check(&message(MessageType::MsgHeartbeat)), Ok(()));
        assert_eq!(
            check(&Message { from: 9, ..message(MessageType::MsgHeartbeat) }),
            Err(Refused::WrongPeer)
        );
        assert_eq!(
            check(&Message { from: 3, ..message(MessageType::MsgHeartbeat) }),
            Err(Refused::WrongPeer)
        );
        assert_eq!(check(&Message { to: 3, ..message(MessageType::MsgHeartbeat) }), Err(Refused::WrongPeer));
        assert_eq!(check(&message(MessageType::MsgPropose)), Err(Refused::LocalKind));
        assert_eq!(check(&message(MessageType::MsgReadIndex)), Err(Refused::Entries));
        assert_eq!(check(&message(MessageType::MsgSnapshot)), Err(Refused::Snapshot));
        assert_eq!(check(&Message { msg_type: 77, ..message(MessageType::MsgHup) }), Err(Refused::Malformed));
        for (entries, expected) in [
            (vec![entry(6, 1), entry(7, 2)], Ok(())),
            (vec![entry(6, 2), entry(7, 1)], Err(Refused::Entries)),
            (vec![entry(7, 2)], Err(Refused::Entries)),
            (vec![entry(6, 3)], Err(Refused::Entries)),
        ] {
            let append = Message { index: 5, log_term: 1, entries, ..message(MessageType::MsgAppend) };
            assert_eq!(check(&append), expected);
        }
        assert_eq!(decode(&[0xff; 30], 2, ControllerId(1), is_peer), Err(Refused::Malformed));
    }

    #[test]
    fn what_would_end_the_library_is_dropped() {
        let heartbeat = |commit| Message { commit, ..message(MessageType::MsgHeartbeat) };
        assert_eq!(check_against(&heartbeat(10), &Log), Ok(()));
        assert_eq!(check_against(&heartbeat(11), &Log), Err(Refused::LostData));
        let append = |entries| Message { entries, ..message(MessageType::MsgAppend) };
        assert_eq!(check_against(&append(vec![entry(8, 2)]), &Log), Ok(()));
        assert_eq!(check_against(&append(vec![entry(8, 1)]), &Log), Err(Refused::Contradiction));
        assert_eq!(check_against(&append(vec![entry(9, 1)]), &Log), Ok(()));
        let answer = |index| Message { index, ..message(MessageType::MsgAppendResponse) };
        assert_eq!(check_against(&answer(11), &Log), Err(Refused::Contradiction));
    }
}
