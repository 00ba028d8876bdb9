//! The loop around a node: one event at a time, several before each write to the journal.

use std::time::Duration;

use tokio::sync::mpsc;

use super::handle::Command;
use super::node::Node;
use super::peers::PeerEvent;
use super::service::Incoming;

/// Events of one kind taken before the journal is written: they share one sync.
const BATCH: usize = 256;
/// How long the metadata store may take to finish at the end.
const FINISH: Duration = Duration::from_secs(5);

/// Where events come from.
pub(super) struct Events {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) messages: mpsc::Receiver<Incoming>,
    pub(super) peers: mpsc::Receiver<PeerEvent>,
}

#[expect(clippy::large_enum_variant, reason = "one lives at a time, for one turn of the loop")]
enum Event {
    Tick,
    Command(Command),
    Message(Incoming),
    Peer(PeerEvent),
    /// Every handle is gone.
    Orphaned,
}

/// Runs until told to stop, or until every handle is gone.
pub(super) async fn run(mut node: Node, mut events: Events) {
    let clock = node.host.clock.clone();
    let tick = node.settings.tick;
    let mut next_tick = clock.now().saturating_add(tick);
    loop {
        let event = tokio::select! {
            () = clock.sleep_until(next_tick) => Event::Tick,
            command = events.commands.recv() => command.map_or(Event::Orphaned, Event::Command),
            Some(message) = events.messages.recv() => Event::Message(message),
            Some(event) = events.peers.recv() => Event::Peer(event),
        };
        let now = clock.now();
        if matches!(event, Event::Tick) {
            next_tick = next_tick.saturating_add(tick).max(now.saturating_add(tick / 2));
        }
        let go_on = take(&mut node, event, now) && take_waiting(&mut node, &mut events, now);
        node.drive(now);
        if !go_on {
            break;
        }
    }
    stop(node).await;
}

fn take(node: &mut Node, event: Event, now: Duration) -> bool {
    match event {
        Event::Tick => node.tick(now),
        Event::Command(command) => return node.command(command, now),
        Event::Message(message) => node.step(message, now),
        Event::Peer(event) => node.peer_event(event),
        Event::Orphaned => return false,
    }
    true
}

fn take_waiting(node: &mut Node, events: &mut Events, now: Duration) -> bool {
    for _ in 0..BATCH {
        let Ok(message) = events.messages.try_recv() else { break };
        node.step(message, now);
    }
    for _ in 0..BATCH {
        let Ok(event) = events.peers.try_recv() else { break };
        node.peer_event(event);
    }
    for _ in 0..BATCH {
        let Ok(command) = events.commands.try_recv() else { break };
        if !node.command(command, now) {
            return false;
        }
    }
    true
}

/// What is acknowledged is in the journal already; the metadata store gets what it does not have yet. The data
/// directory's lock ends last.
async fn stop(mut node: Node) {
    node.settle();
    let Node { host, mut feed, state, applied, raw, identity, .. } = node;
    feed.finish(&state, applied, host.clock.now());
    let lane = feed.close();
    if host.clock.timeout(FINISH, lane).await.is_err() {
        tracing::warn!("the metadata store did not finish in time; its state is rebuilt from the journal");
    }
    drop(raw);
    drop(identity);
}
