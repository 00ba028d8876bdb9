//! Reads of consumers: never past the high watermark; who is at the end waits in here.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_proto::batch::iter_batches;
use plimsoll_proto::ids::{LeaderEpoch, Offset, PartitionId};
use plimsoll_proto::v1::{self, ErrorDetail};
use plimsoll_storage::log::LogView;
use tokio::sync::oneshot;

use super::job::{FetchFrom, FetchJob, Fetched, ListOffsetsJob};
use super::refusal;
use super::replica::{FetchWaiter, Role};
use super::work::Shared;
use super::worker::Worker;

/// Consumers that wait in one worker at most.
const WAITERS_MAX: usize = 8192;

/// What a replica may show to consumers.
#[derive(Clone, Copy, Debug)]
struct Readable {
    log: LogView,
    high_watermark: Offset,
    /// `None` while a new leader does not know it.
    latest: Option<Offset>,
    epoch: LeaderEpoch,
    leads: bool,
}

enum Outcome {
    Answer(Result<Fetched, ErrorDetail>),
    AtEnd { from: Offset, readable: Readable },
}

impl Worker {
    pub(super) fn on_fetch(
        &mut self,
        job: FetchJob,
        deadline: Duration,
        reply: oneshot::Sender<Result<Fetched, ErrorDetail>>,
    ) {
        match self.read(&job, None) {
            // A consumer that has gone needs no answer, here and below.
            Outcome::Answer(answer) => drop(reply.send(answer)),
            Outcome::AtEnd { from, readable } if deadline <= self.now() => {
                drop(reply.send(at_end(from, readable)));
            }
            Outcome::AtEnd { .. } if self.waiters >= WAITERS_MAX => {
                drop(reply.send(Err(refusal::busy("consumers wait on this volume"))));
            }
            Outcome::AtEnd { from, .. } => {
                if let Some(replica) = self.replicas.get_mut(&job.partition) {
                    self.waiters += 1;
                    self.waited_on.insert(job.partition);
                    replica.waiting_fetches.push(FetchWaiter { job, from, deadline, reply });
                }
            }
        }
    }

    fn read(&mut self, job: &FetchJob, resume: Option<Offset>) -> Outcome {
        let readable = match self.readable(&job.partition, job.any_replica, job.leader_epoch) {
            Ok(readable) => readable,
            Err(detail) => return Outcome::Answer(Err(detail)),
        };
        let from = match (resume, job.from) {
            (Some(from), _) | (None, FetchFrom::Offset(from)) => from,
            (None, FetchFrom::Earliest) => readable.log.log_start,
            (None, FetchFrom::Latest) => match readable.latest {
                Some(latest) => latest,
                None => return Outcome::Answer(Err(unconfirmed(readable))),
            },
        };
        if from < readable.log.log_start {
            let detail = refusal::trimmed(from, readable.log.log_start, readable.log.log_end);
            return Outcome::Answer(Err(detail));
        }
        if readable.leads && from > readable.log.log_end {
            let detail = refusal::not_available(
                from,
                readable.log.log_start,
                readable.log.log_end,
                "it is not written yet",
            );
            return Outcome::Answer(Err(detail));
        }
        if from >= readable.high_watermark {
            return Outcome::AtEnd { from, readable };
        }
        match self.volume.read(&job.partition, from, readable.high_watermark, job.bytes_max) {
            Ok(batches) => Outcome::Answer(Ok(Fetched {
                next_offset: end_of(&batches).unwrap_or(from),
                high_watermark: readable.high_watermark,
                log_start: readable.log.log_start,
                leader_epoch: readable.epoch,
                batches,
            })),
            Err(error) => {
                self.check_failed();
                Outcome::Answer(Err(self.place.read_error(&error, Some(readable.log))))
            }
        }
    }

    fn readable(
        &self,
        partition: &PartitionId,
        any_replica: bool,
        leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Readable, ErrorDetail> {
        let image = self.shared.image();
        let hint = || Shared::hint(&image, partition);
        let not_leader = || refusal::not_leader(partition, hint(), self.shared.spu);
        let replica = self.replicas.get(partition).ok_or_else(not_leader)?;
        let log = self.volume.log(partition).ok_or_else(not_leader)?;
        match &replica.role {
            Role::Leads(leader) => {
                let epoch = leader.term().epoch;
                if let Some(given) = leader_epoch.filter(|given| *given != epoch && !any_replica) {
                    return Err(refusal::stale_epoch(given.0, epoch.0, hint()));
                }
                let high_watermark = leader.high_watermark();
                Ok(Readable { log, high_watermark, latest: leader.latest(), epoch, leads: true })
            }
            Role::Follows(_) | Role::Idle if any_replica => {
                let high_watermark = log.high_watermark;
                Ok(Readable {
                    log,
                    high_watermark,
                    latest: Some(high_watermark),
                    epoch: replica.epoch,
                    leads: false,
                })
            }
            Role::Follows(_) | Role::Idle => Err(not_leader()),
        }
    }

    /// Ends of a partition for clients.
    pub(super) fn list_offsets(
        &mut self,
        job: &ListOffsetsJob,
    ) -> Result<v1::ListOffsetsResponse, ErrorDetail> {
        let readable = self.readable(&job.partition, job.any_replica, None)?;
        let latest = readable.latest.ok_or_else(|| unconfirmed(readable))?;
        let at_time = match job.timestamp_ms {
            None => None,
            Some(time) => {
                let found = self.volume.offset_at(&job.partition, time);
                found.map_err(|error| self.place.read_error(&error, Some(readable.log)))?
            }
        };
        Ok(v1::ListOffsetsResponse {
            log_start: readable.log.log_start.get(),
            high_watermark: latest.get(),
            log_end: readable.log.log_end.get(),
            durable_end: readable.log.durable_end.get(),
            leader_epoch: readable.epoch.0,
            offset_at_timestamp: at_time.filter(|at| *at < latest).map(Offset::get),
            spu_id: self.shared.spu.0,
            incarnation: self.shared.incarnation().map_or(0, |incarnation| incarnation.0),
        })
    }

    /// The high watermark moved, or the role changed: answers who can be answered.
    pub(super) fn serve_waiting_fetches(&mut self, partition: &PartitionId) {
        let Some(replica) = self.replicas.get_mut(partition) else { return };
        for waiter in std::mem::take(&mut replica.waiting_fetches) {
            match self.read(&waiter.job, Some(waiter.from)) {
                Outcome::Answer(answer) => {
                    self.waiters -= 1;
                    drop(waiter.reply.send(answer));
                }
                Outcome::AtEnd { .. } => {
                    if let Some(replica) = self.replicas.get_mut(partition) {
                        replica.waiting_fetches.push(waiter);
                    }
                }
            }
        }
    }

    /// Answers consumers whose time is up with nothing, and forgets those that have gone.
    pub(super) fn answer_late_fetches(&mut self, now: Duration) {
        let late = |waiter: &FetchWaiter| waiter.deadline <= now || waiter.reply.is_closed();
        let due: Vec<PartitionId> = self
            .waited_on
            .iter()
            .filter(|partition| {
                self.replicas.get(partition).is_some_and(|replica| replica.waiting_fetches.iter().any(late))
            })
            .copied()
            .collect();
        for partition in due {
            let Some(replica) = self.replicas.get_mut(&partition) else { continue };
            let (over, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut replica.waiting_fetches).into_iter().partition(late);
            replica.waiting_fetches = waiting;
            for waiter in over {
                self.waiters -= 1;
                let answer = match self.read(&waiter.job, Some(waiter.from)) {
                    Outcome::Answer(answer) => answer,
                    Outcome::AtEnd { from, readable } => at_end(from, readable),
                };
                drop(waiter.reply.send(answer));
            }
        }
    }
}

/// Nothing new. A consumer beyond what a new leader can confirm is told so, rather than that it is at the end.
fn at_end(from: Offset, readable: Readable) -> Result<Fetched, ErrorDetail> {
    if readable.leads && readable.latest.is_none() && from > readable.high_watermark {
        return Err(unconfirmed(readable));
    }
    Ok(Fetched {
        batches: Bytes::new(),
        high_watermark: readable.high_watermark,
        log_start: readable.log.log_start,
        next_offset: from,
        leader_epoch: readable.epoch,
    })
}

fn unconfirmed(readable: Readable) -> ErrorDetail {
    let why = "the new leader has not confirmed its high watermark yet";
    refusal::not_available(readable.high_watermark, readable.log.log_start, readable.log.log_end, why)
}

/// Offset behind the last of whole batches.
fn end_of(batches: &Bytes) -> Option<Offset> {
    iter_batches(batches).filter_map(Result::ok).last().map(|(header, _)| header.end_offset())
}
