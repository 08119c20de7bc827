//! Connections without a request are the first to go when the process may open no more files, or has too much memory: those
//! of all pools of the worker, whatever their clusters, and for files those of other workers, too.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::net::TcpStream;

use super::super::connect::{ConnectError, connect};
use super::super::limits::OpenConnection;
use super::{Pool, Settings};
use crate::net;
use crate::time;
use crate::tls::{Ends, Spoken, Stream};

/// Connections that are closed at once for files.
const CLOSED_MAX: usize = 16;

/// For how long those have been without a request, but for one to an endpoint that has none.
const IDLE_TIME_MIN: Duration = Duration::from_secs(1);

/// The pools of a worker.
#[derive(Default)]
pub(crate) struct Pools {
    pools: RefCell<Vec<Weak<Pool>>>,
    /// Has other workers close some of theirs.
    others: OnceCell<Box<dyn Fn()>>,
}

impl Pools {
    /// One more. Those that are gone make room for it.
    pub(super) fn add(&self, pool: &Rc<Pool>) {
        let mut pools = self.pools.borrow_mut();
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Rc::downgrade(pool));
    }

    /// All that are there.
    pub(super) fn all(&self) -> Vec<Rc<Pool>> {
        self.pools.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Closes all connections without a request; whether there were any.
    pub(crate) fn close_idle(&self) -> bool {
        self.close(usize::MAX, Duration::ZERO)
    }

    /// The same of some that nobody has needed lately, for files.
    pub(crate) fn make_room(&self) -> bool {
        self.close(CLOSED_MAX, IDLE_TIME_MIN)
    }

    fn close(&self, most: usize, idle_time_min: Duration) -> bool {
        let Some(before) = time::now().checked_sub(idle_time_min) else { return false };
        let left = self.all().iter().fold(most, |left, pool| left - pool.close_idle(left, before));
        left < most
    }

    /// How other workers are asked for the same; it is said once.
    pub(crate) fn others_by(&self, ask: impl Fn() + 'static) {
        let _ = self.others.set(Box::new(ask));
    }

    /// Asks them.
    pub(super) fn ask_others(&self) {
        if let Some(ask) = self.others.get() {
            ask();
        }
    }
}

impl Pool {
    /// How many it has closed that have had no request since then: those of HTTP/1 first that are idle for longest.
    fn close_idle(&self, most: usize, before: Instant) -> usize {
        // They are closed when the list is free again, as that looks at the line.
        let mut idle = self.h1_idle.borrow_mut();
        let count = idle.iter().take(most).take_while(|connection| connection.idle_since() <= before).count();
        let h1: Vec<_> = idle.drain(..count).collect();
        drop(idle);
        let mut left = most - h1.len();
        self.h2_open.borrow_mut().retain(|connection| {
            let stays = left == 0 || connection.idle_since().is_none_or(|since| since > before);
            left -= usize::from(!stays);
            stays
        });
        most - left
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
            let stream = Stream::from(self.reach(spoken, open).await?);
            self.admit(|| stream.presented())?;
            return Ok((stream, None));
        };
        let timeout = self.settings.get().connect_timeout;
        // In a box, so that plain connections cost no more for it.
        let connecting = Box::pin(async {
            let stream = self.reach(spoken, open).await?;
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

    /// Connects. When the process may open no more files, idle connections are closed, and it is tried once more. Whoever has other
    /// connections leaves others theirs, and some files to those who have none.
    async fn reach(&self, spoken: Spoken, open: &OpenConnection) -> Result<TcpStream, ConnectError> {
        let settings = self.settings.get();
        let has_others = match spoken {
            Spoken::Http1 => self.h1_line.borrow().has_several(),
            Spoken::Http2 => self.h2_line.borrow().has_several(),
            Spoken::Bytes => open.has_others(),
        };
        let settings = Settings { leaves_files: has_others, ..settings };
        let made_by = |socket: &Socket| open.is_made_by(socket, self.address);
        let pools = self.limits.pools();
        let makes_room =
            || if has_others { pools.make_room() } else { pools.close(CLOSED_MAX, Duration::ZERO) };
        match connect(self.address, &settings, made_by).await {
            Err(error) if error.is_shortage() && makes_room() => {
                // An HTTP/2 connection is closed by its own task.
                tokio::task::yield_now().await;
                self.limits.reached(net::OPEN_FILES_MAX);
                connect(self.address, &settings, made_by).await
            }
            connected => connected,
        }
    }
}
