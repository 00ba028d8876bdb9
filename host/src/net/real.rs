//! The operating system's network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::net::{TcpListener, TcpStream};

use super::{Accept, Io, NetFuture, Provider, happy_eyeballs};

/// TCP over the operating system. Remembers which address family answered first last time.
#[derive(Debug)]
pub(super) struct Real {
    prefer_v6: Arc<AtomicBool>,
}

impl Default for Real {
    fn default() -> Self {
        Self { prefer_v6: Arc::new(AtomicBool::new(true)) }
    }
}

impl Provider for Real {
    fn connect(&self, host: String, port: u16) -> NetFuture<io::Result<Io>> {
        let prefer_v6 = Arc::clone(&self.prefer_v6);
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            let order = happy_eyeballs::interleave(resolved, prefer_v6.load(Ordering::Relaxed));
            let both = order.iter().any(SocketAddr::is_ipv4) && order.iter().any(SocketAddr::is_ipv6);
            let (stream, peer) = happy_eyeballs::race(order, dial).await?;
            if both {
                prefer_v6.store(peer.is_ipv6(), Ordering::Relaxed);
            }
            Ok(Io::new(stream, Some(peer)))
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
