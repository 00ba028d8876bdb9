//! Counts what each server writes to its log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Event, Level, Metadata, Subscriber};

/// The span that the simulator enters before it runs a host, and its field.
const HOST_SPAN: &str = "node";
const HOST_NAME: &str = "name";

/// Lines by host. It takes the place of other subscribers in this thread, and prints nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct LogLines {
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Names of hosts; a span is known by its place here, from 1.
    hosts: Vec<String>,
    lines: BTreeMap<String, u64>,
    running: Option<String>,
}

impl LogLines {
    /// Runs `work`. Where logs are printed because somebody asked for them, nothing is counted.
    pub(super) fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        if !tracing::dispatcher::get_default(|current| current.is::<NoSubscriber>()) {
            return work();
        }
        tracing::subscriber::with_default(self.clone(), work)
    }

    /// Lines of each host so far.
    pub(super) fn by_host(&self) -> BTreeMap<String, u64> {
        self.counted().lines.clone()
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for LogLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.name() == HOST_SPAN && metadata.target().starts_with("turmoil");
        }
        // What a server logs unless it is told otherwise.
        *metadata.level() <= Level::INFO && metadata.target().starts_with("plimsoll")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = HostName(String::new());
        span.record(&mut name);
        let mut counted = self.counted();
        let place = counted.hosts.iter().position(|host| *host == name.0).unwrap_or_else(|| {
            counted.hosts.push(name.0);
            counted.hosts.len() - 1
        });
        Id::from_u64(u64::try_from(place).unwrap_or(0) + 1)
    }

    fn enter(&self, span: &Id) {
        let mut counted = self.counted();
        let place = usize::try_from(span.into_u64() - 1).unwrap_or(usize::MAX);
        counted.running = counted.hosts.get(place).cloned();
    }

    fn exit(&self, _span: &Id) {
        self.counted().running = None;
    }

    fn event(&self, _event: &Event<'_>) {
        let mut counted = self.counted();
        if let Some(host) = counted.running.clone() {
            *counted.lines.entry(host).or_default() += 1;
        }
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
}

struct HostName(String);

impl Visit for HostName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == HOST_NAME {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}
