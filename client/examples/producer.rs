//! A producer: accepts records quickly, learns of each one's fate, and ends with nothing left behind.
//!
//! ```sh
//! plimsoll cluster start --local
//! plimsoll topic create flights --partitions 3 --replicas 3
//! cargo run -p plimsoll-client --example producer -- flights 1000 127.0.0.1:7001
//! ```

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plimsoll_client::{Client, Compression, Outcome, Record, RetryAdvice};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "flights".to_owned());
    let count = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let controllers: Vec<String> = arguments.collect();
    let controllers = if controllers.is_empty() { vec!["127.0.0.1:7001".to_owned()] } else { controllers };
    let acknowledged = run(controllers, &topic, count).await?;
    println!("{acknowledged} of {count} records acknowledged");
    Ok(())
}

/// Produces `count` records; how many were acknowledged.
pub(crate) async fn run(controllers: Vec<String>, topic: &str, count: u64) -> Result<u64, Box<dyn Error>> {
    // Every controller is tried at once; one that answers is enough.
    let client = Client::builder().controllers(controllers).build().await?;
    let producer = client
        .producer(topic)
        // What is left at the defaults: acks of the whole in-sync set, idempotence, following a partition away from a
        // full disk.
        .linger(Duration::from_millis(5))
        .compression(Compression::Lz4)
        .buffer_bytes(16 << 20)
        .deadline(Duration::from_secs(30))
        .build()
        .await?;

    let mut deliveries = FuturesUnordered::new();
    let mut acknowledged = 0;
    for number in 0..count {
        let record =
            Record::new(format!("flight {number}")).key(format!("N{}", number % 100)).header("origin", "EWR");
        // Resolves when the record is in a batch. It waits only while 16 MiB are under way: that is the backpressure.
        deliveries.push(producer.send(record).await?);
        // Look at what was answered meanwhile, so that no more than a thousand promises are kept.
        while deliveries.len() >= 1000 {
            acknowledged += u64::from(settled(deliveries.next().await));
        }
    }
    // Takes no more, and waits until everything is acknowledged or has failed.
    producer.close().await;
    while let Some(delivery) = deliveries.next().await {
        acknowledged += u64::from(settled(Some(delivery)));
    }
    Ok(acknowledged)
}

type Answer = Result<plimsoll_client::Delivered, plimsoll_client::ProduceError>;

/// Whether the record is safe; if not, says what became of it.
fn settled(answer: Option<Answer>) -> bool {
    let Some(Err(error)) = answer else { return true };
    match (error.outcome(), error.retry_advice()) {
        (Outcome::Unknown, _) => eprintln!("may or may not be there: {error}"),
        (Outcome::NotWritten, RetryAdvice::Never) => eprintln!("refused for good: {error}"),
        (Outcome::NotWritten, advice) => eprintln!("not written, {advice}: {error}"),
    }
    false
}
