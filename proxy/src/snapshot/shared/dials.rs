//! The connections that the process makes, so that it knows one of them when it is brought back to it: by redirect rules that
//! do not leave the proxy alone, a connection to anybody would come to the proxy that makes it, which would make it again, until
//! no files are left.
//!
//! Both ends tell a connection: our own address has its port for other destinations at the same time. An end is known before
//! the kernel has told the acceptor of the connection, or nearly so; where another worker is faster, the next round is found.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::ProcessShared;

/// Both ends of a connection, ours first.
type Ends = [(IpAddr, u16); 2];

/// Those of the process that could be brought back to it.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    /// Whether connections are redirected to this process. Where they are not, nothing is kept.
    are_kept: AtomicBool,
    /// Locked for a few instructions, once when a connection is made, once when it ends, and for each that is redirected here;
    /// never for a request.
    open: Mutex<HashSet<Ends>>,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Dial {
    process: Arc<ProcessShared>,
    ends: Ends,
}

fn ends(own: SocketAddr, peer: SocketAddr) -> Ends {
    [own, peer].map(|end| (end.ip(), end.port()))
}

impl Dials {
    /// From now on connections are redirected to this process.
    pub(crate) fn keep(&self) {
        self.are_kept.store(true, Ordering::Relaxed);
    }

    /// Whether there is any use in telling of a connection.
    pub(crate) fn are_kept(&self) -> bool {
        self.are_kept.load(Ordering::Relaxed)
    }

    /// Whether a connection from `client` to `destination` is one that this process makes.
    pub(crate) fn has(&self, client: SocketAddr, destination: SocketAddr) -> bool {
        self.are_kept() && self.open.lock().contains(&ends(client, destination))
    }
}

impl Dial {
    /// A connection from `own` to `peer` is being made.
    pub(crate) fn new(process: &Arc<ProcessShared>, own: SocketAddr, peer: SocketAddr) -> Dial {
        let ends = ends(own, peer);
        process.dials.open.lock().insert(ends);
        Dial { process: process.clone(), ends }
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.process.dials.open.lock().remove(&self.ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    #[test]
    fn a_connection_is_known_while_it_is_there() {
        let process = ProcessShared::new(&config::Limits::default(), time::now());
        let [own, peer, other] =
            ["10.0.0.1:40000", "10.0.0.2:80", "10.0.0.3:80"].map(|text| text.parse().unwrap());
        process.dials.keep();
        let dial = Dial::new(&process, own, peer);
        assert!(process.dials.has(own, peer));
        assert!(!process.dials.has(own, other), "an application's, from the same port");
        assert!(!process.dials.has(peer, own));
        drop(dial);
        assert!(!process.dials.has(own, peer));
    }
}
