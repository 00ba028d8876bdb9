//! An application that goes on when a disk fills.
//!
//! It has orders, which must not be lost, and samples, which may be left out. Orders follow their partition to a node
//! with room, or wait until there is one. Samples are refused at once where there is no room, and left out until the
//! cluster has room again. Which disk it is, and how much is missing, is said once.
//!
//! ```sh
//! plimsoll cluster start --local
//! plimsoll topic create orders --partitions 3 --replicas 3
//! cargo run -p plimsoll-client --example full_disk -- orders 1000 127.0.0.1:7001
//! ```

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plimsoll_client::{Client, ClusterHealth, OnFull, ProduceError, Producer, Reason, Record};

/// Pause between two orders.
const PACE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let orders = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let controllers: Vec<String> = arguments.collect();
    let controllers = if controllers.is_empty() { vec!["127.0.0.1:7001".to_owned()] } else { controllers };
    let report = run(controllers, &topic, orders).await?;
    println!("{report:?}");
    Ok(())
}

/// What became of everything.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Orders acknowledged.
    pub(crate) orders: u64,
    /// Samples acknowledged.
    pub(crate) samples: u64,
    /// Samples left out because there was no room.
    pub(crate) left_out: u64,
    /// Times that a disk was found full.
    pub(crate) alarms: u64,
}

/// Sends so many orders, and a sample with each.
pub(crate) async fn run(
    controllers: Vec<String>,
    topic: &str,
    orders: u64,
) -> Result<Report, Box<dyn Error>> {
    let client = Client::builder().controllers(controllers).build().await?;
    // Reroute is the default: the same partition at its new leader, else wait, until the deadline.
    let important = client.producer(topic).deadline(Duration::from_secs(120)).build().await?;
    let optional = client.producer(topic).on_full(OnFull::Fail).build().await?;
    // Tells of a full disk within a second, also to an application that sends nothing at the moment.
    let mut changes = client.watch_health();

    let mut report = Report::default();
    let (mut room, mut alarmed) = (true, false);
    let mut waiting = FuturesUnordered::new();
    let mut sampled = FuturesUnordered::new();
    let mut tick = tokio::time::interval(PACE);
    let mut sent = 0;
    while sent < orders || !waiting.is_empty() || !sampled.is_empty() {
        tokio::select! {
            _ = tick.tick(), if sent < orders => {
                // Accepted as long as the buffer has room: an order is never dropped here.
                waiting.push(important.send(Record::new(format!("order {sent}")).key("customer 7")).await?);
                sent += 1;
                if room {
                    sampled.push(sample(&optional, sent).await?);
                } else {
                    report.left_out += 1;
                }
            }
            Some(order) = waiting.next() => {
                order?;
                report.orders += 1;
            }
            Some(answer) = sampled.next() => match answer {
                Ok(_) => report.samples += 1,
                Err(error) => {
                    // A refusal comes before the news of the cluster's health.
                    report.left_out += 1;
                    tell(&error)?;
                }
            },
            Some(health) = changes.next() => {
                let full = health.full_volumes().count() > 0;
                if full && !alarmed {
                    report.alarms += 1;
                    say(&health);
                }
                alarmed = full;
                room = !full && health.takes_writes();
            }
        }
    }
    important.close().await;
    optional.close().await;
    Ok(report)
}

async fn sample(producer: &Producer, number: u64) -> Result<plimsoll_client::Delivery, ProduceError> {
    producer.send(Record::new(format!("sample {number}"))).await
}

/// Says why a sample was refused; any other reason than a lack of room is an error of the application.
fn tell(error: &ProduceError) -> Result<(), Box<dyn Error>> {
    match (error.reason(), error.space()) {
        (Some(Reason::DiskFull), Some(space)) => {
            let (free, needed) = (space.free_bytes, space.needed_bytes);
            eprintln!(
                "{free} of {} bytes free, {needed} needed: {}",
                space.capacity_bytes,
                error.retry_advice()
            );
            Ok(())
        }
        (Some(Reason::NotEnoughInSync | Reason::Throttled), _) => Ok(()),
        _ => Err(error.clone().into()),
    }
}

fn say(health: &ClusterHealth) {
    for volume in health.full_volumes() {
        eprintln!("{} of spu {} is full: {} bytes free", volume.path, volume.spu, volume.free_bytes);
    }
}
