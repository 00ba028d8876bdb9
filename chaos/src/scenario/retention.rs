//! Space that comes back because data expire.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::Scenario;
use super::bars::{Bar, EVERY_PARTITION, NO_REROUTE, Without};
use super::many_full::{fill, refused_for_good};
use super::run::{Run, millis, records_in};

const BY_TIME: Without = &[
    (Bar::Detect, "several disks fill at once; see leader-full"),
    NO_REROUTE,
    (Bar::Recover, "space comes back when data expire; expired_to_writable_ms counts from there"),
    EVERY_PARTITION,
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "expired-data-free-full-disks",
            "all disks are full until data expire; nothing writes",
            |run| {
                let config = TopicConfig { partitions: 1, segment_bytes: 1 << 20, ..TopicConfig::default() };
                Box::pin(expire(run, config, 24 << 20))
            },
        )
        .without(BY_TIME),
        Scenario::new("only-active-segments-expired", "what expires lies in active segments only", |run| {
            let config = TopicConfig { partitions: 12, ..TopicConfig::default() };
            Box::pin(expire(run, config, 2 << 20))
        })
        .without(BY_TIME),
    ]
}

/// Writes `bytes` to each partition of a topic that keeps them for some seconds only, and fills all disks.
async fn expire(run: &mut Run, config: TopicConfig, bytes: u64) -> anyhow::Result<()> {
    const KEPT: Duration = Duration::from_secs(16);
    let config = TopicConfig { retention_ms: millis(KEPT), ..config };
    run.plain_topic("expiring", config).await?;
    let began = run.now();
    run.write("expiring", bytes).await?;
    let written = run.now();
    run.flowing(3, 500, 512).await?;
    let from = run.now();
    let fillers = fill(run, &[1, 2, 3]).await?;
    refused_for_good(run, from).await;
    let may_trim_below = |now| if now < began + KEPT { 0 } else { records_in(bytes) };
    run.judge_starts("expiring", may_trim_below).await?;
    run.expect(run.now() < written + KEPT, || "the data expired before the disks were full".to_owned());
    let expired = written + KEPT;
    let again = run.until(Duration::from_secs(40), |run| run.first_ack(expired, |_| true).is_some()).await;
    let again = again.map(|at| millis(at.saturating_sub(expired)));
    run.figure("expired_to_writable_ms", again, Some(5_000));
    drop(fillers);
    run.lifted(run.now());
    for spu in 1..=3 {
        run.end_episode(spu, from).await?;
    }
    run.judge_starts("expiring", may_trim_below).await
}
