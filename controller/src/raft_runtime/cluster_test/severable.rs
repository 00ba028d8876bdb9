//! Hosts whose connections can be cut, for tests of several controllers in one process.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use plimsoll_host::Host;
use plimsoll_host::net::{Accept, Io, NetFuture, Network, Provider};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Whether a host is cut off from all others, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn set(&self, cut: bool) {
        self.0.store(cut, Ordering::SeqCst);
    }

    /// The real host over connections that obey this.
    pub(super) fn host(&self) -> Host {
        Host { network: Network::new(Arc::new(Severable(self.clone()))), ..Host::real() }
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn wrap(&self, stream: TcpStream) -> Io {
        Io::new(Stream { stream, cut: self.clone() }, None)
    }
}

#[derive(Debug)]
struct Severable(Cut);

impl Provider for Severable {
    #[expect(clippy::disallowed_methods, reason = "a network of this test")]
    fn connect(&self, host: String, port: u16) -> NetFuture<io::Result<Io>> {
        let cut = self.0.clone();
        Box::pin(async move {
            cut.check()?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(cut.wrap(stream))
        })
    }

    #[expect(clippy::disallowed_methods, reason = "a network of this test")]
    fn bind(&self, address: String) -> NetFuture<io::Result<Box<dyn Accept>>> {
        let cut = self.0.clone();
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(Accepting { listener, cut }) as Box<dyn Accept>)
        })
    }
}

struct Accepting {
    listener: TcpListener,
    cut: Cut,
}

impl Accept for Accepting {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Io>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Ok(self.cut.wrap(stream)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Whoever writes or is sent something while the host is cut off loses the connection.
struct Stream {
    stream: TcpStream,
    cut: Cut,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.cut.check())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
