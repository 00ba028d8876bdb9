//! The operating system's network.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::net::{TcpListener, TcpStream};

use super::{Accept, Io, NetFuture, Provider, happy_eyeballs};

/// Hosts whose address family is remembered; when there are more, all are forgotten.
const FAMILIES_MAX: usize = 1024;

/// TCP over the operating system.
#[derive(Clone, Debug, Default)]
pub(super) struct Real {
    /// Whether IPv6 answered first last time, by host.
    v6_first: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Real {
    /// Connects to whichever address of `host` answers first.
    async fn connect_any(&self, host: &str, addresses: Vec<SocketAddr>) -> io::Result<Io> {
        let both = addresses.iter().any(SocketAddr::is_ipv4) && addresses.iter().any(SocketAddr::is_ipv6);
        let order = happy_eyeballs::interleave(addresses, self.v6_first(host));
        let (stream, peer) = happy_eyeballs::race(order, dial).await?;
        if both {
            self.remember(host, peer.is_ipv6());
        }
        Ok(Io::new(stream, Some(peer)))
    }

    /// IPv6 comes first until it was slower once (RFC 8305 section 4).
    fn v6_first(&self, host: &str) -> bool {
        self.v6_first.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied().unwrap_or(true)
    }

    fn remember(&self, host: &str, v6: bool) {
        let mut known = self.v6_first.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= FAMILIES_MAX {
            known.clear();
        }
        known.insert(host.to_owned(), v6);
    }
}

impl Provider for Real {
    fn connect(&self, host: String, port: u16) -> NetFuture<io::Result<Io>> {
        let this = self.clone();
        Box::pin(async move {
            happy_eyeballs::in_time(async {
                // Anew each time: a name may have moved since the last connection.
                let resolved = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
                this.connect_any(&host, resolved).await
            })
            .await
        })
    }

    fn bind(&self, address: String) -> NetFuture<io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let listener = listen(&address).await?;
            Ok(Box::new(RealListener { listener }) as Box<dyn Accept>)
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one connector")]
async fn dial(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok((stream, address))
}

#[expect(clippy::disallowed_methods, reason = "this is the one listener")]
async fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

struct RealListener {
    listener: TcpListener,
}

impl Accept for RealListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Io>> {
        let (stream, peer) = ready!(self.listener.poll_accept(cx))?;
        stream.set_nodelay(true)?;
        Poll::Ready(Ok(Io::new(stream, Some(peer))))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use futures::stream::FuturesUnordered;
    use plimsoll_proto::v1::ListTopicsRequest;
    use plimsoll_proto::v1::admin_client::AdminClient;
    use tokio::net::TcpSocket;

    use super::*;
    use crate::net::{ChannelOptions, Network};
    use crate::{Clock, Tasks};

    /// An address that leads nowhere: its accept queue is full, so the kernel drops every further SYN, as a router
    /// without a way does.
    struct BlackHole {
        address: SocketAddr,
        _listener: TcpListener,
        _queued: Vec<TcpStream>,
    }

    impl BlackHole {
        /// `None` on a machine without IPv6.
        async fn open() -> Option<Self> {
            let socket = TcpSocket::new_v6().ok()?;
            socket.bind(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).ok()?;
            let listener = socket.listen(1).ok()?;
            let address = listener.local_addr().ok()?;
            let mut queued = Vec::new();
            loop {
                let one = TcpSocket::new_v6().ok()?.connect(address);
                match Clock::real().timeout(Duration::from_millis(200), one).await {
                    Ok(connected) => queued.push(connected.ok()?),
                    Err(_) => return Some(Self { address, _listener: listener, _queued: queued }),
                }
            }
        }
    }

    /// How long each of so many connections took, sorted.
    async fn times(count: usize, connect: impl AsyncFn() -> io::Result<Io>) -> Vec<Duration> {
        let clock = Clock::real();
        let timed = || async {
            let began = clock.now();
            connect().await.expect("IPv4 answers");
            clock.now().saturating_sub(began)
        };
        let mut times: Vec<_> = (0..count).map(|_| timed()).collect::<FuturesUnordered<_>>().collect().await;
        times.sort_unstable();
        times
    }

    #[tokio::test]
    async fn an_aaaa_that_leads_nowhere_costs_little_once_and_nothing_again() {
        let Some(hole) = BlackHole::open().await else {
            println!("SKIPPED an_aaaa_that_leads_nowhere: no IPv6 on the loopback interface");
            return;
        };
        let listener = listen("127.0.0.1:0").await.expect("a free port");
        let addresses = vec![hole.address, listener.local_addr().expect("bound")];

        // Nothing is remembered: every one of them waits for IPv6 first.
        let fresh = times(100, async || Real::default().connect_any("node", addresses.clone()).await).await;
        assert!(fresh[0] >= Duration::from_millis(240), "the hole is none: {:?}", fresh[0]);
        assert!(fresh[98] <= Duration::from_millis(400), "p99 {:?}", fresh[98]);

        // The family that worked comes first from then on, for this host only.
        let real = Real::default();
        times(1, async || real.connect_any("node", addresses.clone()).await).await;
        assert!(!real.v6_first("node") && real.v6_first("another"));
        let known = times(20, async || real.connect_any("node", addresses.clone()).await).await;
        assert!(known[18] < Duration::from_millis(200), "{known:?}");
    }

    #[tokio::test]
    async fn the_family_that_worked_is_forgotten_rather_than_kept_without_bound() {
        let real = Real::default();
        for host in 0..=FAMILIES_MAX {
            real.remember(&host.to_string(), false);
        }
        assert!(real.v6_first("0"), "forgotten");
        assert!(!real.v6_first(&FAMILIES_MAX.to_string()));
    }

    /// Set in the process that has an `/etc/hosts` of its own.
    const INSIDE: &str = "PLIMSOLL_TEST_MOVING_NAME";
    const MOVING: &str = "net::real::tests::a_name_that_moved_is_found_when_the_connection_is_lost";
    const NAME: &str = "plimsoll-moving.test";

    /// Runs a line of shell with the name and this address as `$0` and `$1`.
    fn name_is_at(address: &str) {
        let line = r#"printf '127.0.0.1 localhost\n%s %s\n' "$1" "$0" > /etc/hosts"#;
        let done = std::process::Command::new("sh").args(["-c", line, NAME, address]).status();
        assert!(done.expect("a shell").success());
    }

    /// Runs the test of the moving name again where `/etc/hosts` is a file that nobody else sees; `None` where that
    /// can't be.
    fn again_with_own_hosts() -> Option<std::process::Output> {
        use std::process::Command;
        let probe = Command::new("unshare").args(["-m", "true"]).output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            return None;
        }
        let line =
            r#"f=$(mktemp) && mount --bind "$f" /etc/hosts && rm "$f" && exec "$0" --exact --nocapture "$1""#;
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", line]).arg(program).arg(MOVING).env(INSIDE, "1");
        Some(command.output().expect("unshare runs"))
    }

    #[tokio::test]
    async fn a_name_that_moved_is_found_when_the_connection_is_lost() {
        if std::env::var_os(INSIDE).is_none() {
            let Some(output) = again_with_own_hosts() else {
                println!("SKIPPED a_name_that_moved: no mount namespace (needs root)");
                return;
            };
            let said = String::from_utf8_lossy(&output.stdout);
            let ran = output.status.success() && said.contains("1 passed");
            assert!(ran, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        name_is_at("127.0.0.1");
        let network = Network::real();
        let first = network.bind("127.0.0.1:0").await.expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let second = network.bind(&format!("127.0.0.2:{port}")).await.expect("the same port");
        let authority = format!("{NAME}:{port}");
        let channel = network.channel(&authority, &ChannelOptions::default()).expect("an authority");
        let mut admin = AdminClient::new(channel);
        // Whoever is reached never answers: a call ends when its connection is closed, and the next one dials.
        let _calls = Tasks::threads().spawn("calls", async move {
            loop {
                drop(admin.list_topics(ListTopicsRequest {}).await);
                tokio::task::yield_now().await;
            }
        });
        let (mut first, mut second) = (first.into_incoming(), second.into_incoming());
        let before = Clock::real().timeout(Duration::from_secs(30), first.next()).await;
        let before = before.expect("in time").expect("it never ends").expect("accepted");
        name_is_at("127.0.0.2");
        drop(before);
        Clock::real()
            .timeout(Duration::from_secs(30), second.next())
            .await
            .expect("the new address is dialled");
    }
}
