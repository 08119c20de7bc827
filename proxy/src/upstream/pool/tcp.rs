//! Connections for bytes that are passed on as they come: each has one user and is not kept.

use std::net::SocketAddr;
use std::rc::Rc;

use super::super::connect::ConnectError;
use super::super::limits::OpenConnection;
use super::Pool;
use crate::tls::{Ends, Stream};

/// A connection to an endpoint, counted until it is dropped.
pub(crate) struct Dialed {
    /// The connection.
    pub(crate) stream: Stream,
    /// Our end of it.
    pub(crate) local_address: Option<SocketAddr>,
    /// Who is at both ends, where TLS tells it.
    pub(crate) ends: Option<Rc<Ends>>,
    _open: OpenConnection,
}

impl Pool {
    /// Opens a connection for one user, if the limits allow. What comes of it is told to outlier detection: for bytes that
    /// nobody understands, a connection is all that an endpoint can do well. Semantics: Envoy's TCP pool.
    pub(crate) async fn dial(&self) -> Result<Dialed, ConnectError> {
        let open = self.limits.open_counted_connection()?;
        let pending = self.limits.wait()?;
        let connected = self.connect_alone(&open).await;
        drop(pending);
        match connected {
            Ok((stream, ends)) => {
                self.monitor.connected();
                self.monitor.answered(200);
                Ok(Dialed { local_address: stream.socket().local_addr().ok(), ends, stream, _open: open })
            }
            Err(error) => {
                self.limits.connect_failed(&error);
                match error {
                    ConnectError::Timeout => self.monitor.timed_out(),
                    ConnectError::Failed(_) | ConnectError::Tls(_) => self.monitor.failed(),
                    // That is not the endpoint's fault.
                    ConnectError::Overflow(_) => {}
                }
                Err(error)
            }
        }
    }
}
