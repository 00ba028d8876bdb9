//! The network seam over `turmoil`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{Stream, StreamExt as _, unfold};
use plimsoll_host::net::{Accept, Io, NetFuture, Network, Provider};
use turmoil::net::{TcpListener, TcpStream};

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
            Ok(Io::new(stream, peer))
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
            Some(Ok((stream, peer))) => Poll::Ready(Ok(Io::new(stream, Some(peer)))),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
