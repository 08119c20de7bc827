//! Connections that a lowered limit of the cluster leaves behind: they are closed, but each pool keeps one, as it may always
//! open one.
//!
//! Envoy makes new pools for a cluster that changed and lets the old ones run out, so that connections of before do not
//! outlive their requests there either.

use std::rc::Rc;

use super::Pool;

impl Pool {
    /// Whether a connection that has no request now is one too many.
    pub(super) fn is_surplus_h1(&self) -> bool {
        self.limits.surplus_connections() > 0 && self.h1_line.borrow().established() > 1
    }

    /// Closes connections without a request while there are too many. HTTP/2 connections that have requests get no new ones,
    /// and are closed when the last has ended.
    pub(super) fn give_up_surplus(&self) {
        while self.is_surplus_h1() {
            let mut idle = self.h1_idle.borrow_mut();
            if idle.is_empty() {
                break;
            }
            // The one that was idle for longest. The list is free again before it is closed, which looks at the line.
            let oldest = idle.remove(0);
            drop(idle);
            drop(oldest);
        }
        self.give_up_surplus_h2();
    }

    /// The same for those of HTTP/2.
    pub(super) fn give_up_surplus_h2(&self) {
        let surplus = self.limits.surplus_connections() as usize;
        if surplus == 0 {
            return;
        }
        let mut open = self.h2_open.borrow_mut();
        // Those that take no requests are on their way out already.
        let leaving = self.h2_line.borrow().established().saturating_sub(open.len());
        for _ in leaving..surplus {
            if open.len() <= 1 {
                break;
            }
            let least_needed = open.iter().enumerate().min_by_key(|(_, connection)| {
                (!connection.is_retired() && !connection.is_refusing(), connection.active())
            });
            let Some((index, _)) = least_needed else { break };
            open.swap_remove(index);
        }
    }

    /// Opens connections for those who wait, as far as the limits allow now.
    pub(super) fn open_for_waiting(self: &Rc<Self>) {
        let waiting = self.h1_line.borrow().len();
        (0..waiting).for_each(|_| self.open_h1());
        if self.h2_line.borrow().len() > 0 {
            self.open_h2();
        }
    }
}
