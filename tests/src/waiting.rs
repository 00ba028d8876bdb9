//! Waiting for conditions.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use plimsoll_host::Clock;

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until `check` gives a value.
///
/// # Errors
/// After `limit`, with the name of what was waited for and the last reason why it was not there.
pub async fn eventually<T, F, C>(limit: Duration, what: &str, mut check: C) -> anyhow::Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = anyhow::Result<T>>,
{
    let clock = Clock::real();
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(why) if clock.now() > limit => bail!("{what}: not within {limit:?}: {why:#}"),
            Err(_) => clock.sleep(PAUSE).await,
        }
    }
}
