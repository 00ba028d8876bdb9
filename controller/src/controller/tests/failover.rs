//! What happened is told once, also when the leading controller is lost in the middle of it.

use super::*;

const ROUNDS: usize = 12;
/// In this round the leader ends without a word, in all others it hands over.
const CRASH: usize = 7;

type Change = (VolumeState, VolumeState);

struct World {
    host: Host,
    ids: Vec<ControllerId>,
    controllers: Vec<Controller>,
    cluster_id: bytes::Bytes,
    incarnation: u64,
    /// Events as somebody saw them who asks for what is new, now here and now there.
    seen: Vec<v1::ClusterEvent>,
}

impl World {
    async fn new() -> Self {
        let host = Host::real();
        // Nobody beats here, and nobody is to be missed.
        let hour = Duration::from_secs(3600);
        let liveness = LivenessSettings { suspect_after: hour, mass_window: hour * 2, ..Default::default() };
        let session = SessionSettings { liveness, ..Default::default() };
        let controllers = controllers_with(&host, 3, session).await;
        let led = leader(&host, &controllers).await;
        let mut control = ControlClient::new(channel(&host, &controllers[led]));
        let registered = register(&host, &mut control, registration(1)).await;
        Self {
            host,
            ids: (1..=3).map(ControllerId).collect(),
            controllers,
            cluster_id: registered.cluster_id,
            incarnation: registered.incarnation,
            seen: Vec::new(),
        }
    }

    /// Asks once, as a node does; whatever the answer.
    async fn ask(&self, channel: Channel, (expected, wanted): Change) -> Option<VolumeState> {
        let request = v1::ChangeVolumeRequest {
            cluster_id: self.cluster_id.clone(),
            spu_id: 1,
            incarnation: self.incarnation,
            volume_id: volume(1).to_bytes(),
            expected: expected.into(),
            wanted: wanted.into(),
            reason: "bytes".to_owned(),
        };
        let answer = ControlClient::new(channel).change_volume(request).await;
        answer.ok().map(|answer| answer.into_inner().current())
    }

    /// Asks whoever leads, until the volume is as wanted.
    async fn ask_until_done(&self, change: Change) {
        let asking = async {
            loop {
                let led = leader(&self.host, &self.controllers).await;
                let channel = channel(&self.host, &self.controllers[led]);
                if self.ask(channel, change).await == Some(change.1) {
                    return;
                }
            }
        };
        self.host.clock.timeout(PATIENCE, asking).await.unwrap();
    }

    async fn events(&self, at: usize, after_index: u64, limit: u32) -> Vec<v1::ClusterEvent> {
        let mut admin = AdminClient::new(channel(&self.host, &self.controllers[at]));
        let asking = async {
            loop {
                let request = v1::ListEventsRequest { after_index, limit };
                if let Ok(answer) = admin.list_events(request).await {
                    return answer.into_inner().events;
                }
            }
        };
        self.host.clock.timeout(PATIENCE, asking).await.unwrap()
    }

    async fn metrics(&self, at: usize) -> v1::MetricsResponse {
        let mut admin = AdminClient::new(channel(&self.host, &self.controllers[at]));
        let asking = async {
            loop {
                if let Ok(answer) = admin.metrics(v1::MetricsRequest {}).await {
                    return answer.into_inner();
                }
            }
        };
        self.host.clock.timeout(PATIENCE, asking).await.unwrap()
    }

    /// Takes what is new since the last time, a little at once.
    async fn look(&mut self, at: usize) {
        loop {
            let after = self.seen.last().map_or(0, |event| event.index);
            let new = self.events(at % self.controllers.len(), after, 2).await;
            if new.is_empty() {
                return;
            }
            assert!(new[0].index > after);
            self.seen.extend(new);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_is_one_event_whoever_leads_meanwhile() {
    let mut world = World::new().await;
    let mut change = (VolumeState::Writable, VolumeState::WriteOffline);
    let mut alerts = Vec::new();
    for round in 0..ROUNDS {
        let led = leader(&world.host, &world.controllers).await;
        let asked = channel(&world.host, &world.controllers[led]);
        if round == CRASH {
            world.ids.remove(led);
            let crashing = world.controllers.remove(led);
            tokio::join!(world.ask(asked, change), crashing.stop(Duration::ZERO));
        } else {
            let heir = world.ids[(led + 1) % world.ids.len()];
            let leading = world.controllers[led].raft();
            tokio::join!(world.ask(asked, change), leading.transfer_leader(heir, Duration::from_secs(2)));
        }
        world.ask_until_done(change).await;
        // Asking again changes nothing.
        world.ask_until_done(change).await;
        world.look(round).await;
        let raised = world.metrics(round % world.controllers.len()).await.alerts;
        assert_eq!(raised.len(), usize::from(change.1 == VolumeState::WriteOffline), "{raised:?}");
        alerts.extend(raised);
        change = (change.1, change.0);
    }

    let listed = world.events(0, 0, 0).await;
    assert_eq!(listed, world.events(1, 0, 0).await, "every controller tells the same");
    assert_eq!(listed, world.seen, "who asks for what is new misses nothing and gets nothing twice");
    let ids: Vec<(u64, u32)> = listed.iter().map(|event| (event.index, event.ordinal)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids are unique: {ids:?}");
    let states: Vec<(&str, &str)> = listed
        .iter()
        .filter(|event| event.kind == "volume_state")
        .map(|event| (event.from.as_str(), event.to.as_str()))
        .collect();
    let one_each: Vec<_> = [("writable", "write_offline"), ("write_offline", "writable")]
        .into_iter()
        .cycle()
        .take(ROUNDS)
        .collect();
    assert_eq!(states, one_each, "one for each fault, one for each recovery");
    let metrics = world.metrics(0).await;
    assert_eq!(metrics.events, world.metrics(1).await.events, "every controller counts the same");
    assert_eq!(total(&metrics, "volume_state"), ROUNDS as u64);
    let raised_by: Vec<u64> = alerts.iter().map(|alert| alert.index).collect();
    let faults = listed.iter().filter(|event| event.to == "write_offline").map(|event| event.index);
    assert_eq!(raised_by, faults.collect::<Vec<_>>(), "one alert for each fault");
    for controller in world.controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}

fn total(metrics: &v1::MetricsResponse, kind: &str) -> u64 {
    metrics.events.iter().find(|count| count.kind == kind).map_or(0, |count| count.total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_outlives_the_controller_that_raised_it() {
    let mut world = World::new().await;
    world.ask_until_done((VolumeState::Writable, VolumeState::WriteOffline)).await;
    let led = leader(&world.host, &world.controllers).await;
    let before = world.metrics(led).await;
    let [alert] = before.alerts.as_slice() else { panic!("{before:?}") };
    assert_eq!((alert.code.as_str(), alert.subject.as_str()), ("DISK_FULL", "spu 1 /d1"));
    assert!(alert.id.ends_with(&alert.index.to_string()) && alert.since_ms > 0, "{alert:?}");
    world.controllers.remove(led).stop(Duration::ZERO).await;
    // Whoever leads now is asked for the same once more: the fault is one fault still.
    world.ask_until_done((VolumeState::Writable, VolumeState::WriteOffline)).await;
    for at in 0..world.controllers.len() {
        let after = world.metrics(at).await;
        assert_eq!((&after.alerts, &after.events), (&before.alerts, &before.events));
    }
    world.ask_until_done((VolumeState::WriteOffline, VolumeState::Writable)).await;
    world.ask_until_done((VolumeState::Writable, VolumeState::WriteOffline)).await;
    let again = world.metrics(0).await;
    assert_eq!((again.alerts.len(), total(&again, "volume_state")), (1, 3));
    assert_ne!(again.alerts[0].id, alert.id, "another fault is another alert");
    for controller in world.controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}
