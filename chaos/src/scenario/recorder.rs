//! Looks at a run a few times a second: for the live display, and for the report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_client::Client;
use plimsoll_host::{Host, Task};
use plimsoll_proto::v1::{ClusterEvent, TopicInfo, VolumeFacts};

use super::run::{TOPIC, millis};
use super::timeline::{Moment, Sample, Timeline, Volume};
use crate::rig::{Disk, share};
use crate::screen::{Screen, gauge};
use crate::workload::{Load, Reader};

const INTERVAL: Duration = Duration::from_millis(200);
/// More than any scenario needs; a soak keeps the latest.
const SAMPLES_MAX: usize = 8_000;

type Count<T> = Box<dyn Fn() -> T + Send + Sync>;

/// A volume that is looked at.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Whose it is.
    pub(super) spu: u32,
    /// For people.
    pub(super) name: String,
    /// Where its node has it.
    pub(super) path: String,
    /// Where it lies on this machine; elsewhere its node's word is taken for how full it is.
    pub(super) disk: Option<Disk>,
}

impl Watched {
    /// A disk of this machine.
    pub(super) fn disk(spu: u32, disk: &Disk) -> Self {
        let path = disk.data().display().to_string();
        Self { spu, name: disk.name().to_owned(), path, disk: Some(disk.clone()) }
    }

    /// What its node says of it.
    fn facts<'a>(&self, all: &'a BTreeMap<(u32, String), VolumeFacts>) -> Option<&'a VolumeFacts> {
        let of_node = all.iter().filter(|((spu, _), _)| *spu == self.spu);
        of_node.map(|(_, facts)| facts).find(|facts| self.path.starts_with(&facts.path))
    }

    /// Its free bytes and its size.
    fn space(&self, facts: Option<&VolumeFacts>) -> Option<(u64, u64)> {
        match &self.disk {
            Some(disk) => disk.space().ok().map(|space| (space.free_bytes, space.capacity_bytes)),
            None => facts.map(|facts| (facts.free_bytes, facts.capacity_bytes)),
        }
    }
}

/// The running observer. It stops when dropped.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    _tasks: Vec<Task>,
}

struct Shared {
    host: Host,
    client: Client,
    screen: Arc<Screen>,
    name: String,
    began: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    volumes: Vec<Watched>,
    loads: Vec<Count<(u64, u64)>>,
    readers: Vec<Count<u64>>,
    /// By node and path.
    facts: BTreeMap<(u32, String), VolumeFacts>,
    marks: BTreeMap<String, [f64; 4]>,
    /// Volumes whose recovery is held back against flapping, and how often one began to be.
    held: BTreeMap<(u32, String), bool>,
    held_recoveries: u64,
    /// Until when, on the run's clock.
    held_until: Option<Duration>,
    /// Since when every partition of the judged topic has its full set; `None` while one has not.
    full_since: Option<Duration>,
    samples: Vec<Sample>,
    story: Vec<Moment>,
    phase: String,
}

impl Recorder {
    pub(super) fn start(
        host: &Host,
        client: &Client,
        screen: &Arc<Screen>,
        name: &str,
        volumes: Vec<Watched>,
    ) -> Self {
        let shared = Arc::new(Shared {
            host: host.clone(),
            client: client.clone(),
            screen: Arc::clone(screen),
            name: name.to_owned(),
            began: host.clock.now(),
            state: Mutex::new(State { volumes, phase: "starting".to_owned(), ..State::default() }),
        });
        let tasks = vec![
            host.tasks.spawn("recorder-facts", Arc::clone(&shared).ask()),
            host.tasks.spawn("recorder", Arc::clone(&shared).look()),
        ];
        Self { shared, _tasks: tasks }
    }

    pub(super) fn add_load(&self, load: &Load) {
        self.shared.state().loads.push(Box::new(load.counters()));
    }

    pub(super) fn add_reader(&self, reader: &Reader) {
        self.shared.state().readers.push(Box::new(reader.counter()));
    }

    pub(super) fn add_disks(&self, spu: u32, disks: &[Disk]) {
        self.shared.state().volumes.extend(disks.iter().map(|disk| Watched::disk(spu, disk)));
    }

    /// The scenario enters another phase, or tells something.
    pub(super) fn say(&self, text: &str) {
        let ms = self.shared.ms(self.shared.host.clock.now());
        let mut state = self.shared.state();
        state.phase = text.to_owned();
        state.story.push(Moment { ms, who: String::new(), what: text.to_owned() });
    }

    /// A time of the run's clock, since the run began.
    pub(super) fn ms(&self, at: Duration) -> u64 {
        self.shared.ms(at)
    }

    /// A time of the wall clock, since the run began.
    fn wall_ms(&self, wall_ms: u64) -> u64 {
        let age = self.shared.host.clock.wall_ms().saturating_sub(wall_ms);
        self.ms(self.shared.host.clock.now()).saturating_sub(age)
    }

    /// What the cluster committed, on the time axis of the run.
    pub(super) fn transitions(&self, events: &[ClusterEvent]) -> Vec<Moment> {
        let moment = |event: &ClusterEvent| Moment {
            ms: self.wall_ms(event.time_ms),
            who: if event.spu_id == 0 { String::new() } else { format!("spu-{}", event.spu_id) },
            what: format!("{} {} -> {} {}", event.kind, event.from, event.to, event.reason).trim().to_owned(),
        };
        events.iter().map(moment).collect()
    }

    /// How often a volume's recovery was held back against flapping.
    pub(super) fn held_recoveries(&self) -> u64 {
        self.shared.state().held_recoveries
    }

    /// Until when volumes were held back, as far as nodes have told by now.
    pub(super) fn held_until(&self) -> Option<Duration> {
        self.shared.state().held_until
    }

    /// Since when every partition of the judged topic has its full set without a break.
    pub(super) fn full_since(&self) -> Option<Duration> {
        self.shared.state().full_since
    }

    /// What was recorded; transitions and log lines are the caller's to add.
    pub(super) fn timeline(&self) -> Timeline {
        let state = self.shared.state();
        let volume = |watched: &Watched| Volume {
            name: watched.name.clone(),
            marks_percent: state.marks.get(&watched.name).copied().unwrap_or_default(),
        };
        Timeline {
            volumes: state.volumes.iter().map(volume).collect(),
            samples: state.samples.clone(),
            story: state.story.clone(),
            ..Timeline::default()
        }
    }
}

/// Whether every partition has all of its copies in sync, and none is on its way.
fn is_full(topic: &TopicInfo) -> bool {
    topic.partitions.iter().all(|found| {
        found.in_sync.len() == found.replicas.len() && found.reassignment.is_none() && found.leader != 0
    })
}

impl State {
    fn count_held(&mut self, now: Duration) {
        let longest = self.facts.values().map(|facts| facts.hold_ms).max().filter(|hold_ms| *hold_ms > 0);
        self.held_until = self.held_until.max(longest.map(|hold_ms| now + Duration::from_millis(hold_ms)));
        for (place, facts) in &self.facts {
            let held = facts.hold_ms > 0;
            let before = self.held.insert(place.clone(), held).unwrap_or(false);
            self.held_recoveries += u64::from(held && !before);
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Duration) -> u64 {
        millis(at.saturating_sub(self.began))
    }

    /// Keeps the facts of the volumes fresh, as the controllers know them.
    async fn ask(self: Arc<Self>) {
        const PATIENCE: Duration = Duration::from_secs(1);
        loop {
            if let Ok(status) = self.client.admin().timeout(PATIENCE).cluster_status().await {
                let facts = status.spus.into_iter().flat_map(|spu| {
                    let id = spu.info.map_or(0, |info| info.spu_id);
                    spu.volumes.into_iter().map(move |facts| ((id, facts.path.clone()), facts))
                });
                let mut state = self.state();
                state.facts = facts.collect();
                state.count_held(self.host.clock.now());
            }
            self.host.clock.sleep(INTERVAL * 2).await;
        }
    }

    async fn look(self: Arc<Self>) {
        loop {
            self.sample();
            self.host.clock.sleep(INTERVAL).await;
        }
    }

    fn sample(&self) {
        let image = self.client.metadata();
        let now = self.host.clock.now();
        let ms = self.ms(now);
        let mut state = self.state();
        state.full_since =
            image.topic_by_name(TOPIC).filter(|topic| is_full(topic)).and(state.full_since.or(Some(now)));
        let mut sample = Sample { ms, ..Sample::default() };
        for (acked, refused) in state.loads.iter().map(|counters| counters()) {
            sample.acked += acked;
            sample.refused += refused;
        }
        sample.read = state.readers.iter().map(|read| read()).sum();
        let mut lines = Vec::new();
        let mut marks = Vec::new();
        for watched in &state.volumes {
            let facts = watched.facts(&state.facts);
            let Some((free, capacity)) = watched.space(facts) else {
                // Nobody has said yet how full it is.
                sample.free_percent.push(100.0);
                sample.level.push(0);
                continue;
            };
            sample.free_percent.push(share(free, capacity) * 100.0);
            sample.level.push(facts.map_or(0, |facts| facts.level));
            if let Some(facts) = facts.filter(|facts| facts.capacity_bytes > 0) {
                let percent = |bytes| share(bytes, facts.capacity_bytes) * 100.0;
                marks.push((
                    watched.name.clone(),
                    [
                        percent(facts.reclaim_enter_bytes),
                        percent(facts.throttle_enter_bytes),
                        percent(facts.read_only_enter_bytes),
                        percent(facts.read_only_exit_bytes),
                    ],
                ));
            }
            lines.push(format!(
                "  spu {} {:<10} {} {:>5.1} % free  {}",
                watched.spu,
                watched.name,
                gauge(capacity.saturating_sub(free), 0, capacity, 30),
                share(free, capacity) * 100.0,
                facts.map_or("", |facts| level_name(facts.level))
            ));
        }
        state.marks.extend(marks);
        let spus = state.volumes.iter().map(|watched| watched.spu).max().unwrap_or(0);
        let led = |spu: u32| {
            let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
            u32::try_from(partitions.filter(|partition| partition.leader == spu).count()).unwrap_or(u32::MAX)
        };
        sample.leaders = (1..=spus).map(led).collect();
        let head = format!(
            "  {}: {}   acked {}  refused {}  read {}",
            self.name, state.phase, sample.acked, sample.refused, sample.read
        );
        if state.samples.len() < SAMPLES_MAX {
            state.samples.push(sample);
        }
        drop(state);
        lines.insert(0, head);
        self.screen.panel(&lines);
    }
}

/// For people.
pub(super) fn level_name(level: i32) -> &'static str {
    use plimsoll_proto::v1::DiskLevel;
    match DiskLevel::try_from(level).unwrap_or(DiskLevel::Unspecified) {
        DiskLevel::Unspecified => "",
        DiskLevel::Normal => "Normal",
        DiskLevel::Reclaim => "Reclaim",
        DiskLevel::Throttle => "Throttle",
        DiskLevel::ReadOnly => "ReadOnly",
        DiskLevel::Failed => "Failed",
    }
}
