//! Connections without a request are the first to go when the process may open no more files, or has too much memory: those
//! of all pools of the worker, whatever their clusters.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use socket2::Socket;
use tokio::net::TcpStream;

use super::super::connect::{ConnectError, connect};
use super::super::limits::{Limit, OpenConnection};
use super::Pool;
use crate::net;
use crate::tls::{Ends, Spoken, Stream};

/// The pools of a worker.
#[derive(Default)]
pub(crate) struct Pools(RefCell<Vec<Weak<Pool>>>);

impl Pools {
    /// One more. Those that are gone make room for it.
    pub(super) fn add(&self, pool: &Rc<Pool>) {
        let mut pools = self.0.borrow_mut();
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Rc::downgrade(pool));
    }

    /// All that are there.
    pub(super) fn all(&self) -> Vec<Rc<Pool>> {
        self.0.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Closes all connections without a request; whether there were any.
    pub(crate) fn close_idle(&self) -> bool {
        self.all().iter().fold(false, |closed, pool| pool.close_idle() | closed)
    }
}

impl Pool {
    fn close_idle(&self) -> bool {
        let h1 = self.h1_idle.take();
        let mut h2 = self.h2_open.borrow_mut();
        let before = h2.len();
        h2.retain(|connection| connection.idle_since().is_none());
        !h1.is_empty() || h2.len() < before
    }

    /// Connects, and makes the handshake of TLS where that carries the bytes; both together in the time that connecting may
    /// take. Who is at both ends then, where TLS tells it. `open` is what it is counted by.
    pub(super) async fn connect(
        &self,
        spoken: Spoken,
        open: &OpenConnection,
    ) -> Result<(Stream, Option<Rc<Ends>>), ConnectError> {
        let secured = self.secured.borrow().clone();
        let Some(secured) = secured else {
            let stream = Stream::from(self.reach(open).await?);
            self.admit(|| stream.presented())?;
            return Ok((stream, None));
        };
        let timeout = self.settings.get().connect_timeout;
        // In a box, so that plain connections cost no more for it.
        let connecting = Box::pin(async {
            let stream = self.reach(open).await?;
            secured.client.connect(spoken, secured.host.as_ref(), stream).await.map_err(ConnectError::Tls)
        });
        let (stream, ends) =
            tokio::time::timeout(timeout, connecting).await.unwrap_or(Err(ConnectError::Timeout))?;
        self.limits.secured();
        self.admit(|| stream.presented())?;
        Ok((stream, Some(Rc::new(ends))))
    }

    /// Why TLS on a connection with these ends broke, if it did, in the words of access logs. If nothing was `answered` on it that is
    /// about its handshake: in TLS 1.3 a server sees the certificate of a client for whom that is over.
    pub(crate) fn tls_broke(&self, ends: Option<&Rc<Ends>>, answered: bool) -> Option<String> {
        let reason = ends?.breach.why()?;
        if !answered {
            self.limits.tls_failed(reason);
        }
        Some(ConnectError::tls_words(reason))
    }

    /// Connects. When the process may open no more files, idle connections are closed, and it is tried once more.
    async fn reach(&self, open: &OpenConnection) -> Result<TcpStream, ConnectError> {
        let settings = self.settings.get();
        let made_by = |socket: &Socket| open.is_made_by(socket, self.address);
        match connect(self.address, &settings, made_by).await {
            Err(ConnectError::Overflow(Limit::OpenFiles)) if self.limits.pools().close_idle() => {
                // An HTTP/2 connection is closed by its own task.
                tokio::task::yield_now().await;
                self.limits.reached(net::OPEN_FILES_MAX);
                connect(self.address, &settings, made_by).await
            }
            connected => connected,
        }
    }
}
