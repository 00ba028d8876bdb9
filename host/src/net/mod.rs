//! The one place that dials and listens.
//!
//! Every connection has a limit on how long it may take to come up, races IPv6 and IPv4, and is kept alive
//! by HTTP/2 pings, so that a partition is noticed.

mod happy_eyeballs;
mod real;
mod transport;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use transport::{ChannelOptions, ServerOptions, server};

/// A boxed future of the network.
pub type NetFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One open connection.
pub struct Io {
    inner: Box<dyn Duplex>,
    peer: Option<SocketAddr>,
}

impl Io {
    /// Wraps a stream.
    pub fn new(inner: impl Duplex + 'static, peer: Option<SocketAddr>) -> Self {
        Self { inner: Box::new(inner), peer }
    }

    /// The other end, when known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Io({:?})", self.peer)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer
    }
}

/// Accepts connections.
pub trait Accept: Send {
    /// Waits for the next one. Cancel safe.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Io>>;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// What a network must offer: the operating system's, or a simulated one.
pub trait Provider: Send + Sync + fmt::Debug {
    /// Connects to `host` (a name or an address without brackets) at `port`; names are resolved anew each time.
    fn connect(&self, host: String, port: u16) -> NetFuture<io::Result<Io>>;
    /// Listens at `address` (`HOST:PORT`; port 0 takes a free one).
    fn bind(&self, address: String) -> NetFuture<io::Result<Box<dyn Accept>>>;
}

/// Why nothing can listen at an address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there: stop it, or choose another port.
    #[error("{address} is in use by another process")]
    AddressInUse {
        /// The address.
        address: String,
    },
    /// The address is not of this machine, or may not be used.
    #[error("cannot listen at {address}: {why}")]
    Unusable {
        /// The address.
        address: String,
        /// What the system said.
        why: String,
    },
}

/// What a port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Something listens.
    Reached,
    /// Nothing listens there: the process is gone, the host is up.
    Refused,
    /// No answer in time: dead, cut off, or only slow.
    Silent,
}

/// Dials and listens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    provider: Arc<dyn Provider>,
}

impl Network {
    /// The operating system's network.
    pub fn real() -> Self {
        Self::new(Arc::new(real::Real::default()))
    }

    /// Another network, for a simulation.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self { provider }
    }

    /// Listens at `HOST:PORT`.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(&self, address: &str) -> Result<Listener, BindError> {
        match self.provider.bind(address.to_owned()).await {
            Ok(accept) => Ok(Listener { accept }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(BindError::AddressInUse { address: address.to_owned() })
            }
            Err(error) => Err(BindError::Unusable { address: address.to_owned(), why: error.to_string() }),
        }
    }

    /// A channel to `HOST:PORT` that connects when it is first used and again whenever it was lost.
    ///
    /// # Errors
    /// [`plimsoll_proto::invalid::Invalid`] when the authority cannot be part of a URL.
    pub fn channel(
        &self,
        authority: &str,
        options: &ChannelOptions,
    ) -> Result<tonic::transport::Channel, plimsoll_proto::invalid::Invalid> {
        transport::channel(self.provider.clone(), authority, options)
    }

    /// Asks whether anything listens at `HOST:PORT`. Cancel safe.
    pub async fn probe(&self, authority: &str, limit: Duration) -> Probe {
        let Some((host, port)) = transport::split_authority(authority) else {
            return Probe::Silent;
        };
        match tokio::time::timeout(limit, self.provider.connect(host, port)).await {
            Ok(Ok(_)) => Probe::Reached,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Refused,
            Ok(Err(_)) | Err(_) => Probe::Silent,
        }
    }
}

/// A bound port.
pub struct Listener {
    accept: Box<dyn Accept>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({:?})", self.local_addr())
    }
}

impl Listener {
    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// What the operating system says; not expected of a bound port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.local_addr()
    }

    /// The connections, for a server. A failed accept (too many open files, say) is waited out, never the end.
    pub fn into_incoming(self) -> Incoming {
        Incoming { accept: self.accept, pause: None }
    }
}

/// Connections as they come in; never ends.
pub struct Incoming {
    accept: Box<dyn Accept>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Wait after a failed accept: the cause is mostly a lack of descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl futures::Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Io>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.accept.poll_accept(cx)) {
                Ok(io) => return Poll::Ready(Some(Ok(io))),
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE))),
            }
        }
    }
}
