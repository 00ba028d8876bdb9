//! A node that stands still.

use std::time::Duration;

use super::Part;
use super::part;
use crate::scenario::run::{Run, TOPIC};

/// Below the 6 s after which silence makes a node suspect.
const SHORT: f64 = 4.7;
const LONG: f64 = 15.0;

pub(super) fn parts() -> Vec<Part> {
    vec![
        part("stops", "each node in turn stands still for 4.7 s, a hundred times", 1, |run| {
            Box::pin(async move {
                run.flowing(3, 100, 256).await?;
                for_less_than_the_deadline(run, 100).await
            })
        }),
        part("long-stops", "a leader stands still for 15 s", 5, |run| {
            Box::pin(async move {
                run.flowing(3, 100, 256).await?;
                for_longer_than_the_deadline(run, 2).await
            })
        }),
    ]
}

/// Nobody is declared offline for it.
pub(super) async fn for_less_than_the_deadline(run: &mut Run, times: u32) -> anyhow::Result<()> {
    for number in 0..run.times(times) {
        let spu = number % 3 + 1;
        let case = run.begin_case(&format!("spu {spu} stands still for {SHORT} s")).await?;
        run.cluster.spu(spu).pause();
        run.pause(SHORT).await;
        let went_on = run.now();
        run.cluster.spu(spu).go_on();
        let in_sync = run.in_sync_ms(spu, went_on).await;
        run.sample("short_stop_in_sync_ms", in_sync, 0..=20_000);
        run.expect_never_offline(spu, &case).await?;
        run.end_case(&case);
    }
    Ok(())
}

/// It is declared offline once, and finds its run over when it goes on.
async fn for_longer_than_the_deadline(run: &mut Run, times: u32) -> anyhow::Result<()> {
    // Always the same node, and twice at most: a second one within a minute would be one of many, which are given more
    // time; and the third return of a node is held.
    let mut spu = run.a_leader()?;
    for _ in 0..run.times(times) {
        spu = run.leading_again(spu).await?;
        run.silence(spu);
        let led = run.led_by(TOPIC, spu);
        let before = run.incarnation(spu);
        let case = run.begin_case(&format!("spu {spu} stands still for {LONG} s")).await?;
        let (stopped, wall_ms) = (run.now(), run.host.clock.wall_ms());
        run.cluster.spu(spu).pause();
        let moved = run.moved_ms(&led, spu, stopped, Duration::from_secs(14)).await;
        run.sample("silent_replaced_ms", moved, 6_000..=10_000);
        let left = LONG - run.now().saturating_sub(stopped).as_secs_f64();
        run.pause(left.max(0.0)).await;
        let went_on = run.now();
        run.cluster.spu(spu).go_on();
        let again = |run: &Run| run.incarnation(spu) > before && run.online(spu);
        let again = run.until(Duration::from_secs(20), again).await;
        run.expect(again.is_some(), || format!("spu {spu} is not online again, as a new run"));
        let refused = run.has_logged(spu, went_on, "incarnation is stale");
        run.expect(refused, || format!("the old run of spu {spu} was not told that it is over"));
        let in_sync = run.in_sync_ms(spu, went_on).await;
        run.sample("long_stop_in_sync_ms", in_sync, 0..=30_000);
        let offline = run.expect_offline_once(spu, &case, "silent", wall_ms).await?;
        run.sample("silent_offline_ms", offline, 6_000..=10_000);
        run.end_case(&case);
    }
    Ok(())
}
