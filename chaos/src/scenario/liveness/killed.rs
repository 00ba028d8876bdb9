//! Processes that are killed: their ports refuse.

use std::time::Duration;

use plimsoll_client::TopicConfig;

use super::{Part, part};
use crate::scenario::run::{Run, TOPIC, millis};

pub(super) fn parts() -> Vec<Part> {
    vec![
        part("killed-node", "a leader is killed and started again", 2, |run| {
            Box::pin(async move {
                run.flowing(3, 150, 256).await?;
                node(run, 5).await
            })
        }),
        part("killed-controller", "the leading controller is killed and started again", 1, |run| {
            Box::pin(async move {
                run.flowing(3, 100, 256).await?;
                controller(run, 10).await
            })
        }),
    ]
}

/// A node whose port refuses is replaced at once.
pub(super) async fn node(run: &mut Run, times: u32) -> anyhow::Result<()> {
    for number in 0..run.times(times) {
        let spu = run.leading_again(number % 3 + 1).await?;
        let led = run.led_by(TOPIC, spu);
        let before = run.incarnation(spu);
        let case = run.begin_case(&format!("spu {spu} is killed")).await?;
        let (killed, wall_ms) = (run.now(), run.host.clock.wall_ms());
        run.kill(spu);
        let moved = run.moved_ms(&led, spu, killed, Duration::from_secs(20)).await;
        run.sample("refusing_replaced_ms", moved, 0..=2_000);
        let offline = run.expect_offline_once(spu, &case, "port refuses", wall_ms).await?;
        run.sample("refusing_offline_ms", offline, 0..=2_000);
        let started = run.now();
        run.start_again(spu)?;
        let again = |run: &Run| run.incarnation(spu) > before && run.online(spu);
        let again = run.until(Duration::from_secs(30), again).await;
        run.sample("started_online_ms", again.map(|at| millis(at.saturating_sub(started))), 0..=20_000);
        let in_sync = run.in_sync_ms(spu, started).await;
        run.sample("started_in_sync_ms", in_sync, 0..=30_000);
        run.end_case(&case);
    }
    Ok(())
}

/// Metadata are written again soon; nodes stay online all the while.
pub(super) async fn controller(run: &mut Run, times: u32) -> anyhow::Result<()> {
    for number in 0..run.times(times) {
        let leader = run.leading_controller().await?;
        let case = run.begin_case(&format!("controller {leader} leads and is killed")).await?;
        let killed = run.now();
        run.cluster.controller(leader).kill();
        let config = TopicConfig { partitions: 1, replicas: 3, min_in_sync: 2, ..TopicConfig::default() };
        let admin = run.client.admin().timeout(Duration::from_secs(20));
        let created = admin.create_topic(format!("after-{number}"), config).await;
        let took = millis(run.now().saturating_sub(killed));
        run.expect(created.is_ok(), || format!("no topic is created: {created:?}"));
        run.sample("metadata_written_ms", Some(took), 0..=3_000);
        run.cluster.controller(leader).start()?;
        run.expect_flow("after the leading controller was killed").await;
        run.pause(2.0).await;
        for spu in 1..=3 {
            run.expect_never_offline(spu, &case).await?;
        }
        run.end_case(&case);
    }
    Ok(())
}
