//! Where the process may open no more files, whoever waits gets a connection that another gives back, or a file that is free
//! again, and is told only after the time that connecting may take: a burst costs nobody more than that.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::super::connect::ConnectError;
use super::super::limits::{Limit, OpenConnection};
use super::Pool;
use super::line::Line;
use crate::time;
use crate::tls::{Ends, Spoken, Stream};

/// How often it is seen whether files are free again.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Those who wait for connections of one protocol, and what opens one for them.
pub(super) struct Waits<C> {
    pub(super) line: fn(&Pool) -> &RefCell<Line<C>>,
    pub(super) open: fn(&Rc<Pool>),
}

impl ConnectError {
    /// Whether it is for want of a file.
    pub(super) fn is_shortage(&self) -> bool {
        *self == ConnectError::Overflow(Limit::OpenFiles)
    }
}

impl Pool {
    /// A connection could not be opened. Whether those who wait are not told, because it was for want of a file.
    #[cold]
    pub(super) fn waits_for_files<C: 'static>(
        self: &Rc<Self>,
        error: &ConnectError,
        waits: Waits<C>,
    ) -> bool {
        let mut line = (waits.line)(self).borrow_mut();
        if error.is_shortage() && line.len() > 0 {
            line.is_short = true;
            if !std::mem::replace(&mut line.is_watched, true) {
                tokio::task::spawn_local(self.clone().tries_again(waits));
            }
        }
        error.is_shortage()
    }

    /// If there is no file then either, this begins anew. Who waits for other reasons meanwhile is not told.
    async fn tries_again<C>(self: Rc<Self>, Waits { line, open }: Waits<C>) {
        self.limits.pools().ask_others();
        tokio::time::sleep(CHECK_INTERVAL).await;
        let timeout = self.settings.get().connect_timeout.as_millis();
        let patience = u32::try_from(timeout.div_ceil(CHECK_INTERVAL.as_millis())).unwrap_or(u32::MAX);
        {
            let mut line = line(&self).borrow_mut();
            line.step(patience, &ConnectError::Overflow(Limit::OpenFiles));
            line.is_watched = false;
        }
        open(&self);
    }

    /// One was opened. There may be files for more, for those who wait.
    pub(super) fn opened<C>(self: &Rc<Self>, Waits { line, open }: Waits<C>) {
        let is_short = {
            let mut line = line(self).borrow_mut();
            line.is_short &= line.len() > line.connecting;
            line.is_short
        };
        if is_short {
            open(self);
        }
    }

    /// Connects as [`Pool::connect`], for one user: there is no line that waits.
    pub(super) async fn connect_alone(
        &self,
        open: &OpenConnection,
    ) -> Result<(Stream, Option<Rc<Ends>>), ConnectError> {
        let begun = time::now();
        loop {
            let connected = self.connect(Spoken::Bytes, open).await;
            let is_over =
                || time::now().saturating_duration_since(begun) >= self.settings.get().connect_timeout;
            if !connected.as_ref().is_err_and(ConnectError::is_shortage) || is_over() {
                return connected;
            }
            self.limits.pools().ask_others();
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}
