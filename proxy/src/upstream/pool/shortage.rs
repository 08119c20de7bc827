//! Where the process may open no more files, whoever waits gets a connection that another gives back, or a file that is free
//! again, and is told only after the time that connecting may take: a burst of requests costs nobody more than that.

use std::rc::Rc;
use std::time::Duration;

use super::super::connect::ConnectError;
use super::super::limits::Limit;
use super::Pool;

/// How often it is seen whether files are free again.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl ConnectError {
    /// Whether it is for want of a file.
    fn is_shortage(&self) -> bool {
        *self == ConnectError::Overflow(Limit::OpenFiles)
    }
}

impl Pool {
    /// An HTTP/1 connection could not be opened. All who wait are told, but where it is for want of a file and the pool has other
    /// connections.
    #[cold]
    pub(super) fn not_opened_h1(self: &Rc<Self>, error: &ConnectError) {
        self.limits.connect_failed(error);
        let mut line = self.h1_line.borrow_mut();
        if !error.is_shortage() || line.has_no_connection() {
            line.fail(error);
        } else if line.len() > 0 && !line.is_short {
            line.is_short = true;
            tokio::task::spawn_local(self.clone().outlast_shortage());
        }
    }

    async fn outlast_shortage(self: Rc<Self>) {
        while self.h1_line.borrow().len() > 0 {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let patience =
                self.settings.get().connect_timeout.as_millis().div_ceil(CHECK_INTERVAL.as_millis());
            let patience = u32::try_from(patience).unwrap_or(u32::MAX);
            self.h1_line.borrow_mut().step(patience, &ConnectError::Overflow(Limit::OpenFiles));
            self.open_h1();
        }
        self.h1_line.borrow_mut().is_short = false;
    }

    /// The same for HTTP/2, where one connection that is being opened does for all who wait.
    pub(super) fn waits_for_another_h2(&self, error: &ConnectError) -> bool {
        error.is_shortage() && self.h2_line.borrow().connecting > 0
    }
}
