//! Connections for bytes that are passed on as they come: each has one user and is not kept.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::super::connect::ConnectError;
use super::super::limits::OpenConnection;
use super::Pool;

/// A connection to an endpoint, counted until it is dropped.
pub(crate) struct Dialed {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    _open: OpenConnection,
}

impl Pool {
    /// Opens a connection for one user, if the limits allow. What comes of it is told to outlier detection: for bytes that
    /// nobody understands, a connection is all that an endpoint can do well. Semantics: Envoy's TCP pool.
    pub(crate) async fn dial(&self) -> Result<Dialed, ConnectError> {
        let open = self.limits.open_counted_connection()?;
        let pending = self.limits.wait()?;
        let connected = self.connect().await;
        drop(pending);
        match connected {
            Ok(stream) => {
                self.monitor.connected();
                self.monitor.answered(200);
                Ok(Dialed { local_address: stream.local_addr().ok(), stream, _open: open })
            }
            Err(error) => {
                self.limits.connect_failed(&error);
                match error {
                    ConnectError::Timeout => self.monitor.timed_out(),
                    ConnectError::Failed(_) => self.monitor.failed(),
                    // That is not the endpoint's fault.
                    ConnectError::Overflow(_) => {}
                }
                Err(error)
            }
        }
    }
}
