//! Racing several addresses of one name, RFC 8305: the families alternate, each try starts 250 ms after the one
//! before it (or at once when that one failed), the first connection wins.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

/// Pause before the next address is tried beside the ones under way (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// For finding the addresses and all tries together.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Orders addresses so that families alternate, `first_v6` saying which comes first.
pub(super) fn interleave(addresses: Vec<SocketAddr>, first_v6: bool) -> Vec<SocketAddr> {
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|a| a.is_ipv6() == first_v6);
    first.reverse();
    second.reverse();
    let mut order = Vec::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        order.extend(first.pop());
        order.extend(second.pop());
    }
    order
}

/// Connects to the first address that answers.
pub(super) async fn race<T, F, Fut>(addresses: Vec<SocketAddr>, connect: F) -> io::Result<T>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => running.push(connect(address)),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some(result) = running.next() => match result {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

/// Ends what takes longer than any connection may.
pub(super) async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no address answered within 3 s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 1))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, last], 1))
    }

    #[test]
    fn families_alternate() {
        let order = interleave(vec![v4(1), v4(2), v6(1)], true);
        assert_eq!(order, [v6(1), v4(1), v4(2)]);
        assert_eq!(interleave(vec![v6(1), v4(1)], false), [v4(1), v6(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_leads_nowhere_costs_a_quarter_of_a_second() {
        let clock = crate::Clock::real();
        let reached = race(vec![v6(1), v4(1)], |address| async move {
            if address.is_ipv6() {
                std::future::pending::<()>().await;
            }
            Ok(address)
        })
        .await;
        assert_eq!(reached.ok(), Some(v4(1)));
        assert!(clock.now() <= Duration::from_millis(400));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_answers_ends_after_three_seconds() {
        let clock = crate::Clock::real();
        let began = clock.now();
        let result = in_time(race(vec![v4(1), v6(1)], |_| std::future::pending::<io::Result<()>>())).await;
        assert_eq!(result.expect_err("nobody answers").kind(), io::ErrorKind::TimedOut);
        let waited = clock.now().saturating_sub(began);
        assert!(waited >= Duration::from_secs(3) && waited < Duration::from_millis(3_100), "{waited:?}");
        let none = race(Vec::new(), |_| std::future::pending::<io::Result<()>>()).await;
        assert_eq!(none.expect_err("no address").kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_moves_on_at_once() {
        let result = race(vec![v6(1), v4(1)], |address| async move {
            if address.is_ipv6() { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(address) }
        })
        .await;
        assert_eq!(result.ok(), Some(v4(1)));
    }
}
