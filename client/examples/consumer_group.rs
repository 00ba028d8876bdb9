//! A member of a consumer group: shares the partitions of a topic with the other members, and commits what it has
//! dealt with. Start it several times and watch the partitions move.
//!
//! ```sh
//! plimsoll cluster start --local
//! plimsoll topic create flights --partitions 6 --replicas 3
//! cargo run -p plimsoll-client --example consumer_group -- billing flights 127.0.0.1:7001
//! ```

use std::error::Error;
use std::time::Duration;

use plimsoll_client::{Client, GroupEvent, StartAt};

/// Records between two commits.
const COMMIT_EVERY: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let group = arguments.next().unwrap_or_else(|| "billing".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "flights".to_owned());
    let controllers: Vec<String> = arguments.collect();
    let controllers = if controllers.is_empty() { vec!["127.0.0.1:7001".to_owned()] } else { controllers };
    let read = run(controllers, &group, &topic, u64::MAX).await?;
    println!("{read} records");
    Ok(())
}

/// Reads until `count` records were dealt with, or Ctrl-C; how many there were.
pub(crate) async fn run(
    controllers: Vec<String>,
    group: &str,
    topic: &str,
    count: u64,
) -> Result<u64, Box<dyn Error>> {
    let client = Client::builder().controllers(controllers).build().await?;
    let group = client.group(group);
    let settings = group.topics([topic]).start(StartAt::Earliest);
    // Commits are made here, after the work, and not by the clock.
    let settings = settings.auto_commit(None).session_timeout(Duration::from_secs(10));
    // When partitions go to others: each record is dealt with before the next is asked for, so what was delivered is
    // done. An application that works on several at once would say less.
    let mut member = settings.on_revoke(|delivered| async move { delivered }).build().await?;
    let mut events = member.events();
    let mut read = 0;
    while read < count {
        tokio::select! {
            record = member.next() => {
                let Some(record) = record else { break };
                deal_with(&record?);
                read += 1;
                if read % COMMIT_EVERY == 0 {
                    // On every in-sync copy's disk when it returns; works on a full disk too.
                    member.commit().await?;
                }
            }
            Ok(event) = events.recv() => match event {
                GroupEvent::Assigned(partitions) => eprintln!("reads {} more partitions", partitions.len()),
                GroupEvent::Revoked(partitions) => eprintln!("gave {} partitions up", partitions.len()),
                GroupEvent::Lost(partitions) => eprintln!("lost {} partitions", partitions.len()),
                GroupEvent::CommitFailed(error) => eprintln!("not committed: {error}"),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    // Commits the same way. The others have its partitions at once, and not only when its session ends.
    member.close().await?;
    Ok(read)
}

fn deal_with(record: &plimsoll_client::GroupRecord) {
    let (partition, offset) = (record.record.partition, record.record.offset);
    println!("{}/{partition}/{offset}: {:?}", record.topic, record.record.value);
}
