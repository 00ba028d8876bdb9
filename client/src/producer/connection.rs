//! One Produce stream of one partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use plimsoll_host::{Task, Tasks};
use plimsoll_proto::v1::spu_client::SpuClient;
use plimsoll_proto::v1::{ProduceRequest, ProduceResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::metadata::why;

/// What comes in on a connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    Answer(Box<ProduceResponse>),
    Lost(Lost),
}

/// A connection that broke, or was never made.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Which.
    pub(crate) number: u64,
    pub(crate) why: String,
    /// Whether any request may have left: none has where the node could not be reached.
    pub(crate) sent: bool,
}

/// An open stream; closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    requests: mpsc::Sender<ProduceRequest>,
    sent: Arc<AtomicBool>,
    _task: Task,
}

impl Connection {
    /// Opens a stream for at most `in_flight_max` requests without an answer.
    pub(crate) fn open(
        tasks: &Tasks,
        client: SpuClient<Channel>,
        number: u64,
        in_flight_max: usize,
        incoming: mpsc::Sender<Incoming>,
    ) -> Self {
        let (requests, outgoing) = mpsc::channel(in_flight_max.max(1));
        let sent = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn("produce", run(client, outgoing, number, Arc::clone(&sent), incoming));
        Self { number, requests, sent, _task: task }
    }

    /// Whether any request may have left.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// Hands a request over; false when the stream is gone or takes no more.
    pub(crate) fn send(&self, request: ProduceRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }
}

async fn run(
    mut client: SpuClient<Channel>,
    outgoing: mpsc::Receiver<ProduceRequest>,
    number: u64,
    sent: Arc<AtomicBool>,
    incoming: mpsc::Sender<Incoming>,
) {
    // The transport asks for requests once it has a connection.
    let taken = Arc::clone(&sent);
    let requests = ReceiverStream::new(outgoing).inspect(move |_| taken.store(true, Ordering::Release));
    let why = match client.produce(requests).await {
        Err(status) => why(&status),
        Ok(answer) => {
            let mut answers = answer.into_inner();
            loop {
                match answers.next().await {
                    Some(Ok(answer)) => {
                        if incoming.send(Incoming::Answer(Box::new(answer))).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(status)) => break why(&status),
                    None => break "the server closed the stream".to_owned(),
                }
            }
        }
    };
    // An error means that nobody is interested any more.
    let lost = Lost { number, why, sent: sent.load(Ordering::Acquire) };
    drop(incoming.send(Incoming::Lost(lost)).await);
}
