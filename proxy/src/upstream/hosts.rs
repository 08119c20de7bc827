//! Connections to an endpoint that only serve requests to one host: where the host decides what server is asked for, or what
//! its certificate must say, a connection made for one is of no use for another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::EndpointState;
use super::pool::{Pool, Secured};
use crate::http::codec::RequestHead;
use crate::tls::Host;

/// Hosts whose connections one worker keeps for one endpoint. A client may ask for any number of them.
const HOSTS_MAX: usize = 64;

/// Pools by host.
#[derive(Default)]
pub(super) struct Hosts(RefCell<HashMap<Arc<str>, Rc<Pool>>>);

impl EndpointState {
    /// The connections that serve a request.
    pub(crate) fn pool_for(&self, head: &RequestHead) -> Rc<Pool> {
        match self.transport.tls() {
            Some(client) if client.is_by_request() => {
                let authority = head.authority.as_ref().and_then(|authority| authority.to_str().ok());
                self.pool_of(Host::of(authority.unwrap_or_default()))
            }
            _ => self.pool.clone(),
        }
    }

    fn pool_of(&self, host: Host) -> Rc<Pool> {
        let mut hosts = self.hosts.0.borrow_mut();
        if let Some(pool) = hosts.get(host.name()) {
            return pool.clone();
        }
        if hosts.len() >= HOSTS_MAX {
            // Nobody uses them now.
            hosts.retain(|_, pool| Rc::strong_count(pool) > 1);
        }
        let name = host.name().clone();
        let pool = self.pool.for_host(host);
        if hosts.len() < HOSTS_MAX {
            hosts.insert(name, pool.clone());
        } else {
            // It serves this request, and is kept for no other.
            pool.close();
        }
        pool
    }

    /// All its pools.
    pub(super) fn pools(&self) -> Vec<Rc<Pool>> {
        self.hosts.0.borrow().values().chain([&self.pool]).cloned().collect()
    }

    /// The endpoint is gone.
    pub(super) fn close(&self) {
        self.pools().iter().for_each(|pool| pool.close());
    }

    /// Closes connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
        self.hosts.0.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        });
    }
}

impl Pool {
    /// Another to the same endpoint, for requests to one host.
    fn for_host(&self, host: Host) -> Rc<Pool> {
        let secured = self
            .secured
            .borrow()
            .as_ref()
            .map(|own| Secured { client: own.client.clone(), host: Some(host) });
        Pool::new(self.address, (self.settings.get(), secured), self.limits.clone(), self.monitor.clone())
    }
}
