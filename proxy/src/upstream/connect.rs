//! Opens connections to endpoints.

use std::io;
use std::net::SocketAddr;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

use super::limits::Limit;
use super::pool::Settings;
use crate::net;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// It took too long.
    Timeout,
    /// The system or the other side refused, in the system's words.
    Failed(String),
    /// There is a connection, and no TLS on it: why, in one of few words.
    Tls(&'static str),
    /// A limit of the cluster or of the process was met.
    Overflow(Limit),
}

impl ConnectError {
    /// Why there is no TLS, as Envoy begins it.
    pub(crate) fn tls_words(reason: &str) -> String {
        format!("TLS_error: {reason}")
    }
}

impl From<Limit> for ConnectError {
    fn from(limit: Limit) -> ConnectError {
        ConnectError::Overflow(limit)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        if net::is_out_of_files(&error) {
            return ConnectError::Overflow(Limit::OpenFiles);
        }
        let text = error.to_string();
        // Without the number, and with what Envoy says before it.
        let words = text.split_once(" (os error").map_or(&*text, |(words, _)| words);
        ConnectError::Failed(format!("delayed connect error: {words}"))
    }
}

/// Connects as a pool of these settings does. Small writes are sent at once; keep-alive probes are sent if asked for.
/// `made_by` gets the socket once it has an address.
pub(crate) async fn connect(
    address: SocketAddr,
    settings: &Settings,
    made_by: impl FnOnce(&Socket),
) -> Result<TcpStream, ConnectError> {
    #[cfg(test)]
    if let Some(dialed) = super::pool::simulation::dial() {
        return in_time(settings, async { dialed.await.expect("the simulation ends it") }).await;
    }
    let stream = in_time(
        settings,
        net::connect(address, (settings.source(address), settings.leaves_files()), made_by),
    )
    .await?;
    stream.set_nodelay(true)?;
    if let Some(keepalive) = settings.keepalive
        && let Err(error) = set_keepalive(&stream, keepalive)
    {
        // The connection serves without probes, too.
        tracing::debug!(%address, %error, "the kernel refuses the keep-alive");
    }
    Ok(stream)
}

/// What comes of connecting in the time that it may take.
async fn in_time<E: Into<ConnectError>>(
    settings: &Settings,
    connecting: impl Future<Output = Result<TcpStream, E>>,
) -> Result<TcpStream, ConnectError> {
    let connected = tokio::time::timeout(settings.connect_timeout, connecting).await;
    connected.map_or(Err(ConnectError::Timeout), |connected| connected.map_err(Into::into))
}

/// What is not given is left to the kernel.
fn set_keepalive(stream: &TcpStream, declared: config::TcpKeepalive) -> io::Result<()> {
    let mut keepalive = socket2::TcpKeepalive::new();
    if let Some(time) = declared.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = declared.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = declared.probes {
        keepalive = keepalive.with_retries(probes);
    }
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
