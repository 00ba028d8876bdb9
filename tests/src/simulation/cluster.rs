//! Building the simulated hosts and stepping them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_history::{Event, History, LIVE_WITHIN, Regained, check};
use plimsoll_host::Random;
use plimsoll_spu::runtime::NodeHandle;

use super::faults::{LAST, Node, Plan, full_follower, plan};
use super::injector::{Injector, LATENCY_MAX};
use super::log_lines::LogLines;
use super::machine_clock::MachineClock;
use super::observer::Problem;
use super::told::{Phase, Shared, Told};
use super::{digest, groups, network, observer, panics, producers, reader, servers};

/// A run that takes longer than this in simulated time hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// Lines that a server may write to its log in a run, whatever is asked of it: for itself, and for each fault, its own or
/// another's. Refusals, of which there are hundreds, cost none.
const LOG_LINES: u64 = 30;
const LOG_LINES_PER_FAULT: u64 = 2;

/// Time between two looks at which volumes are held back.
const LOOK_EVERY_STEPS: u64 = 50;

/// Task numbers are counted for the whole process, so runs must not overlap.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// A power of two that is at least the number of lists that tokio spreads the tasks of a runtime over (4 for one
/// thread, `runtime/task/list.rs`).
const TASK_LISTS: u64 = 64;

/// When a host is killed, tokio drops its tasks list by list, and which list a task is in depends on its number.
/// Every run therefore starts at a number that is a multiple of the lists.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing from the system");
    let number = || {
        let id = runtime.handle().spawn(async {}).id().to_string();
        id.parse::<u64>().expect("a task id shows as a number")
    };
    while number() % TASK_LISTS != TASK_LISTS - 1 {}
}

/// In the line of a committed event: a move that came to its end, because a volume was short of room.
const MOVED: &str = " reassignment_finished ";
const SHORT: &str = "(its volume is short of room)";
/// And one that somebody called off.
const CANCELLED: &str = " reassignment_cancelled ";
const CALLED_OFF: &str = "(called off)";

/// What a run showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed it came from.
    pub seed: u64,
    /// Everything that happened, a line each with its simulated time: the same seed gives the same lines.
    pub lines: Vec<String>,
    /// Promises that were broken, hangs included; empty in a good run.
    pub violations: Vec<String>,
    /// Records acknowledged.
    pub acked: u64,
    /// When the producers were told so, in simulated time, and how long after they sent the record.
    pub took: Vec<(Duration, Duration)>,
    /// Records of which nobody can say whether they were written.
    pub unknown: u64,
    /// Records of which the producer was told that they were not written, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Moves of replicas off volumes short of room that came to their end.
    pub relieved: usize,
    /// Such moves that were called off while they were under way.
    pub called_off: usize,
    /// Faults that were injected.
    pub faults: u64,
    /// Steps of the simulation, a millisecond each.
    pub steps: u64,
    /// From the end of the last fault until every partition was whole and acknowledged again.
    pub healed_after: Duration,
    /// Whether that would have been too long, had the design not held back a volume or a node that came back too often.
    pub excused: bool,
    /// Events that the history checker judged, by kind.
    pub judged: BTreeMap<String, u64>,
    /// Of all of them but the lines that were logged.
    pub events_digest: u64,
    /// Of every byte that the run left on its disks.
    pub disks_digest: u64,
    /// Of every byte that went over its network.
    pub network_digest: u64,
}

/// Runs one seed to its end.
pub fn run(seed: u64) -> Report {
    run_and(seed, plan, false, false)
}

/// Runs a seed in which the disk of one follower fills, and nothing else goes wrong.
pub fn run_with_full_follower(seed: u64) -> Report {
    run_and(seed, |_, _| full_follower(), false, false)
}

/// The same, but a task of a server panics: what tells of a failed run is told of this one.
pub fn run_with_panic(seed: u64) -> Report {
    run_and(seed, plan, false, true)
}

/// The same, and prints what happens when it happens, so that also a run that hangs is told up to there.
pub fn run_aloud(seed: u64) -> Report {
    let report = run_and(seed, plan, true, false);
    report.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
    report
}

fn run_and(seed: u64, plan: fn(u64, &Random) -> Plan, aloud: bool, plant_panic: bool) -> Report {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // In a thread of its own: what libraries keep for a thread, such as the date of the last answer, ends with the run.
    let run = || run_here(seed, plan, aloud, plant_panic);
    let ended = std::thread::scope(|threads| threads.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run_here(seed: u64, plan: fn(u64, &Random) -> Plan, aloud: bool, plant_panic: bool) -> Report {
    align_task_ids();
    let random = Random::seeded(seed);
    let plan = plan(seed, &random);
    let told: Shared = Rc::new(RefCell::new(Told::default()));
    let mut steps = 0;
    {
        let mut told = told.borrow_mut();
        told.aloud = aloud;
        told.operated = plan.operated;
        told.relieved = plan.relieved;
        told.grouped = plan.grouped;
        told.copy_on_write = plan.copy_on_write;
        told.plant_panic = plant_panic;
        told.line(Duration::ZERO, format!("seed {seed}: {plan:?}"));
    }
    let logged = LogLines::default();
    network::begin();
    // A panic of any task of any host ends a step; what was told until then is told all the same.
    let run = || logged.count(|| simulate(seed, &random, &plan, &told, &mut steps));
    let hang = panics::caught(run).map_or_else(|panic| Some(format!("panic: {panic}")), Result::err);
    let network_digest = network::sent_digest();
    let mut told = told.take();
    // Where logs are printed, lines are not counted; the run is the same.
    let (events_digest, disks_digest) =
        (digest::of_events(&told.events), digest::of_disks(told.truth.disks()));
    told.events.extend(bounds(&told, &plan, &logged));
    let late = told.whole_at.zip(told.healed_at).is_some_and(|(whole, healed)| whole > healed + LIVE_WITHIN);
    let excused = late && told.held_until.is_some();
    told.line(Duration::from_millis(steps), format!("lines logged: {:?}", logged.by_host()));
    let judged = digest::by_kind(&told.events);
    let mut lines = told.lines;
    let history: History = told.events.into_iter().collect();
    let told_of =
        |kind, reason| lines.iter().filter(|line| line.contains(kind) && line.contains(reason)).count();
    let (relieved, called_off) = (told_of(MOVED, SHORT), told_of(CANCELLED, CALLED_OFF));
    let mut violations = told.broken;
    // What the history says is only complete when the run came to its end.
    match hang {
        Some(error) => violations.push(error),
        None => violations.extend(check(&history).iter().map(ToString::to_string)),
    }
    lines.extend(violations.iter().map(|violation| format!("VIOLATION {violation}")));
    Report {
        seed,
        lines,
        violations,
        acked: told.acked,
        took: told.took,
        unknown: told.unknown,
        refused: told.refused,
        relieved,
        called_off,
        faults: u64::try_from(plan.faults.len()).unwrap_or(u64::MAX),
        steps,
        healed_after: told.healed_after,
        excused,
        judged,
        events_digest,
        disks_digest,
        network_digest,
    }
}

/// What was counted over the whole run, for the history checker.
fn bounds(told: &Told, plan: &Plan, logged: &LogLines) -> Vec<Event> {
    let held = told.held_until.into_iter().flat_map(|until| {
        told.partitions().map(move |partition| Event::HeldBack { partition, from: Regained::FullSet, until })
    });
    let budget = LOG_LINES + LOG_LINES_PER_FAULT * u64::try_from(plan.faults.len()).unwrap_or(u64::MAX);
    let servers = Node::SERVERS.map(|node| node.to_string());
    let lines = logged.by_host().into_iter().filter(|(host, _)| servers.contains(host));
    held.chain(lines.map(|(who, lines)| Event::Logged { who, lines, budget })).collect()
}

/// With a member of the consumer group on the same host, where there is one.
async fn beside_a_member(
    work: impl Future<Output = Result<(), Problem>>,
    seed: u64,
    told: Shared,
) -> Result<(), Problem> {
    if !told.borrow().grouped {
        return work.await;
    }
    tokio::try_join!(work, groups::take_part(servers::host(seed), told)).map(drop)
}

fn simulate(seed: u64, random: &Random, plan: &Plan, told: &Shared, steps: &mut u64) -> Result<(), String> {
    let machine = MachineClock::stopped();
    let mut sim = turmoil::Builder::new()
        .simulation_duration(LIMIT)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(LATENCY_MAX)
        .repair_rate(0.2)
        .tcp_capacity(4096)
        .rng_seed(seed)
        .build();
    let mut injector = Injector::new(plan.flush, Rc::clone(told));
    for node in Node::SERVERS {
        let disk = servers::disk(plan, node);
        injector.disks.insert(node, disk.clone());
        told.borrow_mut().truth.add_disk(node, disk.clone());
        let (host_seed, told) = (random.next_u64(), Rc::clone(told));
        sim.host(node.to_string(), move || servers::run(node, host_seed, disk.clone(), Rc::clone(&told)));
    }
    let client_seed = random.next_u64();
    let of_client = Rc::clone(told);
    sim.client(Node::Producers.to_string(), async move {
        let producing = producers::produce(servers::host(client_seed), Rc::clone(&of_client));
        beside_a_member(producing, client_seed.rotate_left(3), of_client).await
    });
    let of_client = Rc::clone(told);
    sim.client(Node::Reader.to_string(), async move {
        let reading = reader::read(servers::host(client_seed.rotate_left(1)), Rc::clone(&of_client));
        beside_a_member(reading, client_seed.rotate_left(4), of_client).await
    });
    let of_client = Rc::clone(told);
    let (flush, segment_bytes) = (plan.flush, plan.segment_bytes);
    sim.client("observer", async move {
        let host = servers::host(client_seed.rotate_left(2));
        Box::pin(observer::observe(host, of_client, flush, segment_bytes)).await
    });

    let mut due = plan.faults.iter().peekable();
    loop {
        while let Some((_, fault)) = due.next_if(|(at, _)| *at <= sim.elapsed()) {
            injector.inject(&mut sim, *fault);
        }
        if told.borrow().phase == Phase::Safety && sim.elapsed() > LAST {
            injector.heal(&mut sim);
            let mut told = told.borrow_mut();
            told.phase = Phase::Liveness;
            told.healed(sim.elapsed());
        }
        if steps.is_multiple_of(LOOK_EVERY_STEPS) {
            look_at_holds(&mut told.borrow_mut(), sim.elapsed());
        }
        *steps += 1;
        machine.set(sim.elapsed());
        match sim.step() {
            Ok(true) => return Ok(()),
            Ok(false) if sim.elapsed() >= LIMIT => {
                return Err(format!("not done after {LIMIT:?} of simulated time"));
            }
            Ok(false) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// After the faults: until when volumes are held back because they were short of room too often.
fn look_at_holds(told: &mut Told, now: Duration) {
    if told.phase < Phase::Liveness || told.whole_at.is_some() {
        return;
    }
    let facts = told.nodes.values().flat_map(NodeHandle::volume_facts);
    if let Some(hold_ms) = facts.map(|facts| facts.hold_ms).max().filter(|hold_ms| *hold_ms > 0) {
        told.held_back(now + Duration::from_millis(hold_ms));
    }
}
