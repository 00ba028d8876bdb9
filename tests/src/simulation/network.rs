//! The network seam over `turmoil`, with a digest of every byte that goes over it.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{Stream, StreamExt as _, unfold};
use plimsoll_host::net::{Accept, Io, NetFuture, Network, Provider};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

thread_local! {
    /// Of what the hosts of this thread's run have sent, in the order in which they did.
    static SENT: RefCell<DefaultHasher> = RefCell::default();
}

/// Forgets what earlier runs of this thread have sent.
pub(super) fn begin() {
    SENT.take();
}

/// Of every piece of bytes that was sent in this thread's run, and to whom: what leaks into a run from outside shows here
/// long before it shows in what the run did.
pub(super) fn sent_digest() -> u64 {
    SENT.with_borrow(DefaultHasher::finish)
}

/// The network of the simulated host that uses it; only inside a `turmoil` simulation.
pub fn simulated() -> Network {
    Network::new(Arc::new(Simulated))
}

#[derive(Debug)]
struct Simulated;

type Accepted = io::Result<(TcpStream, SocketAddr)>;

struct SimulatedListener {
    local: SocketAddr,
    accepted: Pin<Box<dyn Stream<Item = Accepted> + Send>>,
}

impl Provider for Simulated {
    fn connect(&self, host: String, port: u16) -> NetFuture<io::Result<Io>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let peer = stream.peer_addr().ok();
            Ok(Io::new(Watched { stream, peer }, peer))
        })
    }

    fn bind(&self, address: String) -> NetFuture<io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address.as_str()).await?;
            let local = listener.local_addr()?;
            let accepted = Box::pin(unfold(listener, |listener| async move {
                let next = listener.accept().await;
                Some((next, listener))
            }));
            Ok(Box::new(SimulatedListener { local, accepted }) as Box<dyn Accept>)
        })
    }
}

impl Accept for SimulatedListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Io>> {
        match ready!(self.accepted.poll_next_unpin(cx)) {
            Some(Ok((stream, peer))) => {
                Poll::Ready(Ok(Io::new(Watched { stream, peer: Some(peer) }, Some(peer))))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// A connection whose sent bytes are added to the digest.
struct Watched {
    stream: TcpStream,
    peer: Option<SocketAddr>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        SENT.with_borrow_mut(|sent| {
            self.peer.hash(sent);
            bytes[..written].hash(sent);
        });
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
