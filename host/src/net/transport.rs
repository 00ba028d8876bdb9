//! gRPC over the network seam. tonic leaves most limits open; all of them are set here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use plimsoll_proto::invalid::Invalid;
use tonic::transport::{Channel, Endpoint, Server};

use super::{Io, Provider};

/// Bytes in flight on a stream before the receiver must have read: measured to double uploads over the
/// 64 KiB that HTTP/2 starts with.
const WINDOW_BYTES: u32 = 4 << 20;
const FRAME_BYTES: u32 = 256 << 10;
/// Requests and streams that one connection may have open.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// How a channel behaves.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Pause between HTTP/2 pings, also when idle.
    pub keepalive_interval: Duration,
    /// How long an answer to a ping may take before the connection counts as lost.
    pub keepalive_timeout: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        // A connection that is cut off without a word is noticed after 6 s at most.
        Self { keepalive_interval: Duration::from_secs(3), keepalive_timeout: Duration::from_secs(3) }
    }
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Pause between HTTP/2 pings.
    pub keepalive_interval: Duration,
    /// How long an answer to a ping may take before the connection counts as lost.
    pub keepalive_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { keepalive_interval: Duration::from_secs(10), keepalive_timeout: Duration::from_secs(10) }
    }
}

/// A server with every limit set: add services and give it a listener's connections.
pub fn server(options: &ServerOptions) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 2)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(64))
}

pub(super) fn channel(
    provider: Arc<dyn Provider>,
    authority: &str,
    options: &ChannelOptions,
) -> Result<Channel, Invalid> {
    let wrong = || Invalid::new("address", "is not HOST:PORT");
    let (host, port) = split_authority(authority).ok_or_else(wrong)?;
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|_| wrong())?
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 2);
    Ok(endpoint.connect_with_connector_lazy(Connector { provider, host, port }))
}

/// Splits `HOST:PORT`; an IPv6 address stands in brackets.
pub(super) fn split_authority(authority: &str) -> Option<(String, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    let plain = bracketed.is_some() || !host.contains(':');
    let port = port.parse().ok()?;
    (plain && !host.is_empty() && !host.contains(['/', '@', '[', ']', ' '])).then(|| (host.to_owned(), port))
}

#[derive(Clone, Debug)]
struct Connector {
    provider: Arc<dyn Provider>,
    host: String,
    port: u16,
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Io>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let connect = self.provider.connect(self.host.clone(), self.port);
        Box::pin(async move { connect.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::ListTopicsRequest;
    use plimsoll_proto::v1::admin_client::AdminClient;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::net::{Accept, NetFuture};

    /// A network whose every peer takes what it is sent, up to 64 KiB, and says nothing.
    #[derive(Debug)]
    struct Silent {
        /// The other ends: dropped, they would close the connections.
        peers: mpsc::Sender<DuplexStream>,
    }

    impl Provider for Silent {
        fn connect(&self, _host: String, _port: u16) -> NetFuture<io::Result<Io>> {
            let (near, far) = tokio::io::duplex(64 << 10);
            let kept = self.peers.try_send(far).map_err(io::Error::other);
            Box::pin(async move { kept.map(|()| Io::new(near, None)) })
        }

        fn bind(&self, _address: String) -> NetFuture<io::Result<Box<dyn Accept>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_falls_silent_is_lost_after_six_seconds() {
        let (sender, mut peers) = mpsc::channel(1);
        let silent = Arc::new(Silent { peers: sender });
        let channel = channel(silent, "node:1", &ChannelOptions::default()).expect("an authority");
        let clock = crate::Clock::real();
        let began = clock.now();
        // Its own limit is far beyond; only pings without an answer can end it.
        let call = async move { AdminClient::new(channel).list_topics(ListTopicsRequest {}).await };
        let ended = clock.timeout(Duration::from_secs(600), call).await.expect("the stream is ended");
        let waited = clock.now().saturating_sub(began);
        assert!(ended.is_err() && peers.try_recv().is_ok(), "it was connected: {ended:?}");
        assert!(waited >= Duration::from_secs(5) && waited < Duration::from_millis(6_500), "{waited:?}");
    }

    #[test]
    fn authorities() {
        for (text, host, port) in
            [("a:1", "a", 1), ("127.0.0.1:65535", "127.0.0.1", 65535), ("[::1]:7", "::1", 7)]
        {
            assert_eq!(split_authority(text), Some((host.to_owned(), port)), "{text}");
        }
        for bad in ["", "a", ":1", "a:", "a:70000", "::1:7", "a/b:1", "u@a:1", "a b:1"] {
            assert_eq!(split_authority(bad), None, "{bad}");
        }
    }
}
