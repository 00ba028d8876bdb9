//! One Produce stream of one partition.

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
    /// It broke; with its number.
    Lost(u64, String),
}

/// An open stream; closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    requests: mpsc::Sender<ProduceRequest>,
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
        let task = tasks.spawn("produce", run(client, outgoing, number, incoming));
        Self { number, requests, _task: task }
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
    incoming: mpsc::Sender<Incoming>,
) {
    let lost = match client.produce(ReceiverStream::new(outgoing)).await {
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
    drop(incoming.send(Incoming::Lost(number, lost)).await);
}
