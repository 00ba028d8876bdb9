//! Ports for servers of tests. The tests of the command line take this file as it is.

use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many ports below those of connections are used.
const COUNT: u32 = 20_000;
/// The first port of connections where nothing says it.
const CONNECTIONS_DEFAULT: u32 = 32_768;
/// Ports below belong to the system (RFC 6335, section 6).
const SYSTEM_END: u32 = 1024;

/// Ports of the loopback interface that the kernel gives to no connection (ip(7), `ip_local_port_range`): one of those
/// may be some client's by the time a server listens there.
fn beyond_connections() -> Range<u32> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    below(text.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(CONNECTIONS_DEFAULT))
}

/// The ports below the first that connections have; where they leave nothing, all that are not the system's.
fn below(connections: u32) -> Range<u32> {
    let end = connections.min(65_536);
    if end <= SYSTEM_END { SYSTEM_END..65_536 } else { end.saturating_sub(COUNT).max(SYSTEM_END)..end }
}

/// A port of the loopback interface that was free a moment ago, with as many free ones behind it as `followers` says.
/// None of them comes again in this process before all others had their turn.
pub(super) fn free_port(followers: u16) -> io::Result<u16> {
    /// So far apart do processes begin that were started one after the other.
    const APART: u32 = 7_919;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let ports = beyond_connections();
    let size = u32::from(followers) + 1;
    let count = ports.end - ports.start;
    for _ in 0..count.div_ceil(size) {
        let taken = TAKEN.fetch_add(size, Ordering::Relaxed);
        let first = ports.start + std::process::id().wrapping_mul(APART).wrapping_add(taken) % count;
        if first + size <= ports.end
            && are_free(first..first + size)
            && let Ok(port) = u16::try_from(first)
        {
            return Ok(port);
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}

/// Whether nothing listens at any of them, as seen by listening there.
fn are_free(mut ports: Range<u32>) -> bool {
    let bind = |port| TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok();
    ports.all(|port| bind(port).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_connections_and_come_once() {
        assert_eq!(below(32_768), 12_768..32_768);
        assert_eq!(below(10_000), 1024..10_000);
        assert_eq!(below(1024), 1024..65_536, "connections leave nothing");
        let kernel = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("ip(7)");
        let connections: Vec<u32> = kernel.split_whitespace().filter_map(|end| end.parse().ok()).collect();
        let ours = |port| connections[0] <= SYSTEM_END || port < connections[0];
        let mut given = std::collections::BTreeSet::new();
        for followers in [0, 0, 11, 0] {
            let first = u32::from(free_port(followers).expect("some are free"));
            for port in first..=first + u32::from(followers) {
                assert!(ours(port), "{port} is a connection's: {connections:?}");
                assert!(given.insert(port), "{port} came twice");
            }
        }
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let first = free_port(2).expect("some are free");
        let _taken = TcpListener::bind(("127.0.0.1", first + 1)).expect("it is free");
        let first = u32::from(first);
        assert!(are_free(first..first + 1) && are_free(first + 2..first + 3));
        assert!(!are_free(first..first + 3) && !are_free(first + 1..first + 2));
    }
}
