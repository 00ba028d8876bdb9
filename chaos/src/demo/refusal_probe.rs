//! A plain client that produces little by little, and notes the first refusal for a full disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_host::{Host, Task};
use plimsoll_proto::v1::{ErrorDetail, Reason};

use crate::plain::{Answer, Hammered, PlainProducer, Target, batch_of};

/// A first refusal.
#[derive(Clone, Debug)]
pub(super) struct First {
    pub(super) at: Duration,
    pub(super) detail: ErrorDetail,
}

/// The probing client; it stops when dropped.
#[derive(Debug)]
pub(super) struct RefusalProbe {
    found: Arc<Mutex<Found>>,
    _task: Task,
}

#[derive(Debug, Default)]
struct Found {
    first: Option<First>,
    told: Hammered,
}

/// Pause between two produces.
const PAUSE: Duration = Duration::from_millis(5);

impl RefusalProbe {
    /// Starts to produce records of a few bytes to `target`. Those that are accepted stay there, so it should
    /// not be a partition whose content matters.
    pub(super) fn start(host: &Host, target: Target) -> Self {
        let found = Arc::new(Mutex::new(Found::default()));
        let task = host.tasks.spawn("probe", run(host.clone(), target, Arc::clone(&found)));
        Self { found, _task: task }
    }

    /// The first refusal for a full disk, if there was one.
    pub(super) fn first(&self) -> Option<First> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).first.clone()
    }

    /// What the client was told so far.
    pub(super) fn told(&self) -> Hammered {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).told.clone()
    }
}

async fn run(host: Host, target: Target, found: Arc<Mutex<Found>>) {
    let Ok(batch) = batch_of(b"probe", host.clock.wall_ms()) else { return };
    loop {
        let Ok(mut stream) = PlainProducer::open(&host, target.clone()).await else {
            host.clock.sleep(PAUSE).await;
            continue;
        };
        loop {
            let answer = stream.produce(&batch).await;
            let at = host.clock.now();
            let broken = matches!(answer, Answer::Broken(_));
            note(&found, at, answer);
            host.clock.sleep(PAUSE).await;
            if broken {
                break;
            }
        }
    }
}

fn note(found: &Mutex<Found>, at: Duration, answer: Answer) {
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    found.told.count(&answer);
    if let Answer::Refused(detail) = answer
        && detail.reason() == Reason::DiskFull
        && found.first.is_none()
    {
        found.first = Some(First { at, detail: *detail });
    }
}

/// A refusal as a plain client gets it, field by field.
pub(super) fn in_full(detail: &ErrorDetail) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "reason = {}  outcome = {}  retry_after = {} ms\nmessage = {:?}",
        plimsoll_proto::status::reason_name(detail.reason()),
        detail.outcome().as_str_name().trim_start_matches("OUTCOME_"),
        detail.retry_after_ms,
        detail.message
    );
    if let Some(disk) = &detail.disk {
        let _infallible = write!(
            text,
            "\ndisk: spu = {}  path = {}  cause = {}  level = {}\n      free = {} bytes  needed = {} bytes  capacity = {} bytes",
            disk.spu_id,
            disk.path,
            disk.cause().as_str_name().trim_start_matches("DISK_CAUSE_"),
            disk.level().as_str_name().trim_start_matches("DISK_LEVEL_"),
            disk.free_bytes,
            disk.needed_bytes,
            disk.capacity_bytes
        );
    }
    if let Some(leader) = detail.leader.as_ref().filter(|leader| leader.spu_id != 0) {
        let _infallible = write!(
            text,
            "\nleader: spu = {}  address = {}  epoch = {}",
            leader.spu_id, leader.address, leader.leader_epoch
        );
    }
    text
}
