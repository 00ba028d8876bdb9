//! Text logs through `tracing-subscriber`, which never block the process and never fill a data volume:
//! they go to standard error, and what cannot be taken at once is dropped and counted.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines waiting to be written at most.
const QUEUE_LINES_MAX: usize = 4096;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// What waits for the writer.
enum Entry {
    Line(Vec<u8>),
    /// Everything before it is written when the sender is dropped.
    Flush(SyncSender<()>),
}

/// Waits until the lines so far are written, at most `limit`; for the end of a process. Blocks.
pub fn flush(limit: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let (written, done) = sync_channel(0);
    if queue.try_send(Entry::Flush(written)).is_ok() {
        // Dropped or late: the process ends in either case.
        let _ended = done.recv_timeout(limit);
    }
}

/// Lines dropped so far because standard error did not take them.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Starts logging to standard error. `filter` is like `info` or `plimsoll_spu=debug`; the environment variable
/// `PLIMSOLL_LOG` overrides it. A second call does nothing.
///
/// # Errors
/// The filter, when it cannot be read.
pub fn init(filter: &str, format: Format) -> Result<(), crate::config::ConfigError> {
    let filter = std::env::var("PLIMSOLL_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| crate::config::ConfigError::Invalid(format!("log filter '{filter}': {error}")))?;
    let (queue, lines) = sync_channel::<Entry>(QUEUE_LINES_MAX);
    let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        while let Ok(entry) = lines.recv() {
            match entry {
                // Standard error may be gone; there is nobody to tell.
                Entry::Line(line) => drop(std::io::stderr().write_all(&line)),
                Entry::Flush(written) => drop(written),
            }
        }
    });
    if writer.is_err() {
        return Err(crate::config::ConfigError::Invalid("no thread for the log".to_owned()));
    }
    // An error means that a former call has a queue already.
    drop(QUEUE.set(queue.clone()));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Queue { queue }).with_ansi(false);
    // An error means that a subscriber is set already.
    drop(match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    });
    Ok(())
}

#[derive(Clone)]
struct Queue {
    queue: SyncSender<Entry>,
}

struct Line {
    bytes: Vec<u8>,
    queue: SyncSender<Entry>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bytes: Vec::new(), queue: self.queue.clone() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(std::mem::take(&mut self.bytes)))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}
