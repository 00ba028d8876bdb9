//! The demo: three storage nodes, real disks that fill, and a client that loses nothing.
//!
//! ```text
//! act 1   normal: flights flow, a consumer checks each one
//! act 2   one disk is filled by something else, to ENOSPC
//! act 3   the foreign file is gone
//! act 4   all three disks are full; `scratch` is deleted
//! end     every flight is read back from every replica
//! ```

mod act_all_full;
mod act_normal;
mod act_one_full;
mod act_recovery;
mod audit;
mod board;
mod evidence;
mod figures;
mod read_back;
mod refusal_probe;
mod replay;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use plimsoll_host::Host;

use crate::cluster::{Cluster, Topology};
use crate::flights;
use crate::rig::{DiskKind, Privilege, Rig, VolumeSpec};
use crate::screen::{Colour, Screen};
use board::Board;
pub use figures::{Figures, Verdict};
use replay::Replay;

/// How the demo is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The result as one JSON object on standard output; the story goes to standard error.
    pub json: bool,
    /// Colours on a terminal.
    pub colour: bool,
    /// Leave disks and logs in place at the end; the next run removes them.
    pub keep: bool,
    /// Flights per second as a multiple of the default pace.
    pub speed: f64,
    /// What this process may do.
    pub privilege: Privilege,
    /// What the disks shall be.
    pub disks: DiskKind,
}

/// Size of each node's disk.
const DISK_BYTES: u64 = 256 << 20;
/// Nodes of each kind.
const NODES: u32 = 3;

/// Flights a second at speed 1.
const PACE_PER_S: f64 = 5_000.0;
/// Flights that are kept for the time after act 4.
const KEPT_FOR_THE_END: u64 = 30_000;
/// A run that takes longer is stuck.
const RUN_LIMIT: Duration = Duration::from_secs(220);

/// Everything the acts share.
struct Story {
    host: Host,
    board: Arc<Board>,
    cluster: Cluster,
    figures: Figures,
    /// From the fill to Normal again, for each node: one episode each.
    episodes: Vec<Episode>,
    /// Spans of act 4.
    act_four: Vec<(Duration, Duration)>,
}

/// One node's way from Normal back to Normal.
#[derive(Clone, Copy, Debug)]
struct Episode {
    spu: u32,
    from: Duration,
    to: Duration,
}

/// Plays the story; prints it, the result last. Dropping the future undoes everything.
pub async fn run(options: Options) -> Verdict {
    let host = Host::real();
    let screen = Screen::new(host.clock.clone(), options.colour, options.json);
    let mut figures = Figures::default();
    let played = Box::pin(play(&host, &screen, options, &mut figures)).await;
    screen.end();
    if let Err(error) = played {
        figures.failures.push(format!("{error:#}"));
    }
    if figures.disks == "simulated" && options.privilege == Privilege::Root {
        figures.failures.push("the disks are simulated although this is root".to_owned());
    }
    figures.seconds = host.clock.now().as_secs();
    let verdict = figures.judge();
    for failure in &figures.failures {
        screen.say(&screen.paint(Colour::Red, &format!("contradicts PASS: {failure}")));
    }
    println!("{}", if options.json { figures.json(verdict) } else { figures.line(verdict) });
    verdict
}

async fn play(host: &Host, screen: &Screen, options: Options, figures: &mut Figures) -> anyhow::Result<()> {
    let flights = Arc::new(flights::load()?);
    screen.say(&format!("{} departures from New York City in 2013 (nycflights13, CC0)", flights.len()));
    let rig = Rig::create(options.keep, options.disks)?;
    let mut cluster = Cluster::start(rig, &Topology::three_nodes(VolumeSpec::of_bytes(DISK_BYTES)))?;
    figures.disks = cluster.disk_kind().describe();
    let client = cluster.connect(host).await?;
    let replay = Replay::new(host.clone(), flights.len());
    let own_screen = Screen::new(host.clock.clone(), options.colour, options.json);
    let board = Board::new(host.clone(), own_screen, client, replay, &cluster, Arc::clone(&flights));
    let mut story = Story {
        host: host.clone(),
        board: Arc::clone(&board),
        cluster,
        figures: std::mem::take(figures),
        episodes: Vec::new(),
        act_four: Vec::new(),
    };
    let rate = pace(options.speed);
    let played = match host.clock.timeout(RUN_LIMIT, Box::pin(story.acts(&flights, rate))).await {
        Ok(played) => played,
        Err(_) => Err(anyhow::anyhow!("the run did not end within {} s", RUN_LIMIT.as_secs())),
    };
    story.summarise();
    board.screen.end();
    if let Err(error) = story.cluster.check_alive() {
        story.figures.failures.push(format!("{error:#}"));
    }
    if options.keep {
        screen.say(&format!("disks and logs stay in {}", story.cluster.root().display()));
    } else if played.is_err() {
        keep_logs(&story, screen);
    }
    let _ = std::mem::replace(figures, std::mem::take(&mut story.figures));
    if played.is_ok() {
        say_what_to_try(&story, screen);
    }
    played
}

fn pace(speed: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a positive range"
    )]
    let rate = (PACE_PER_S * speed).clamp(100.0, 1e6) as u64;
    rate
}

impl Story {
    async fn acts(&mut self, flights: &Arc<Vec<flights::Flight>>, rate: u64) -> anyhow::Result<()> {
        let all = u64::try_from(flights.len()).context("the number of flights")?;
        self.prepare().await.context("before act 1")?;
        self.board.replay.pace(rate, all - KEPT_FOR_THE_END);
        let board = &self.board;
        let _replay = board.replay.start(&board.client, Arc::clone(flights), &board.evidence).await?;
        let _watching = self.board.watch();
        self.act_normal().await.context("act 1")?;
        self.figures.acts = 1;
        let full = self.act_one_full().await.context("act 2")?;
        self.figures.acts = 2;
        self.act_recovery(full).await.context("act 3")?;
        self.figures.acts = 3;
        self.act_all_full().await.context("act 4")?;
        self.figures.acts = 4;
        self.read_back(flights).await.context("reading back")
    }

    fn say(&self, text: &str) {
        self.board.screen.say(text);
    }

    fn now(&self) -> Duration {
        self.host.clock.now()
    }

    /// Takes the figures that are counted over the whole run.
    fn summarise(&mut self) {
        let replay = &self.board.replay;
        self.figures.acked = replay.acked();
        if self.figures.acts < 4 {
            self.figures.read = u64::try_from(self.board.with_audit(|audit| audit.read)).unwrap_or(0);
        }
        let (stall, refused, rerouted, failed) = replay.with_log(|log| {
            let refused = u64::try_from(log.refused.len()).unwrap_or(u64::MAX);
            (log.longest_stall(&self.act_four), refused, log.rerouted, log.failed.clone())
        });
        self.figures.longest_stall_ms = stall.map(millis);
        self.figures.refused += refused;
        self.figures.rerouted = rerouted;
        self.figures.failures.extend(failed);
        self.figures
            .failures
            .extend(self.board.consumer_failed().map(|why| format!("the consumer ended: {why}")));
        let mut worst: Option<(Episode, Vec<String>)> = None;
        for episode in &self.episodes {
            let lines = self.board.log_lines(episode.spu, episode.from, episode.to);
            if worst.as_ref().is_none_or(|(_, most)| lines.len() > most.len()) {
                worst = Some((*episode, lines));
            }
        }
        if let Some((episode, lines)) = worst {
            self.figures.log_lines = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            self.say(&format!(
                "the most talkative disk of an episode was that of spu {} with {} lines:",
                episode.spu,
                lines.len()
            ));
            let shown: Vec<String> =
                lines.iter().take(24).map(|line| line.chars().take(180).collect()).collect();
            self.board.screen.detail(&shown.join("\n"));
        }
    }
}

/// A run that failed leaves its logs where they can be read.
fn keep_logs(story: &Story, screen: &Screen) {
    let kept = story.cluster.root().with_file_name("last-failure");
    drop(std::fs::remove_dir_all(&kept));
    if rustix::fs::rename(story.cluster.root().join("logs"), &kept).is_ok() {
        screen.say(&format!("logs of the servers: {}", kept.display()));
    }
}

fn say_what_to_try(story: &Story, screen: &Screen) {
    screen.heading(&format!("The binary is {}. Try:", story.cluster.binary().display()));
    for command in [
        "scripts/plimsoll cluster start --local --spus 3",
        "scripts/plimsoll topic create demo --partitions 3 --replicas 3",
        "date | scripts/plimsoll produce demo",
        "scripts/plimsoll disk",
    ] {
        screen.detail(command);
    }
}

/// Whole milliseconds.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
