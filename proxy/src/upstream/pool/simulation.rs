//! Pools over time: those that serve, with the limits that serve, over connections whose other ends are held here. There is
//! no network; every time and number comes from a seed.
//!
//! A seed that fails is named by the failure; `WEFT_SIMULATION_SEED=N` runs it alone.

mod http1;
mod http2;

use std::cell::RefCell;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::super::outlier::Detector;
use super::super::simulation::below;
use super::*;
use crate::http::codec::Unread;
use crate::snapshot::{Cluster, testing};
use crate::telemetry::Registry;

type Dialed = Result<TcpStream, ConnectError>;

thread_local! {
    /// Connects that have not ended, while pools are simulated.
    static DIALS: RefCell<Option<Vec<oneshot::Sender<Dialed>>>> = const { RefCell::new(None) };
}

/// A connect that the simulation ends, if there is one.
pub(in super::super) fn dial() -> Option<oneshot::Receiver<Dialed>> {
    DIALS.with_borrow_mut(|dials| {
        let (ends, dialed) = oneshot::channel();
        dials.as_mut()?.push(ends);
        Some(dialed)
    })
}

/// Connects that were begun since this was last asked.
fn dials() -> Vec<oneshot::Sender<Dialed>> {
    DIALS.with_borrow_mut(|dials| dials.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// A pool for each of some endpoints of one cluster, which `change` declares.
fn pools(count: u32, change: impl FnOnce(&mut config::Cluster)) -> (Arc<Cluster>, Vec<Rc<Pool>>) {
    let weights = vec![1; count as usize];
    let cluster = Arc::new(testing::next_generation(None, &[(0, 1, &weights)], time::now(), change));
    let registry = Registry::new(&config::Limits::default());
    let shard = registry.shard();
    let of_worker = (&Rc::default(), &Unread::unbounded(), &Rc::default());
    let limits = Limits::new(&cluster, of_worker, &registry, &shard);
    let detector = Detector::new(&cluster, &registry, &shard);
    let pool = |endpoint: usize| {
        let monitor = Monitor::new(&detector, &cluster.endpoints[endpoint]);
        let settings = (Settings::of(&cluster.declared), None);
        Pool::new(cluster.endpoints[endpoint].address, settings, limits.clone(), monitor)
    };
    let pools = (0..weights.len()).map(pool).collect();
    (cluster, pools)
}

/// Says how to run a seed again that fails.
struct Replays(u64);

impl Drop for Replays {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("WEFT_SIMULATION_SEED={} runs this alone", self.0);
        }
    }
}

/// A connection, and its other end.
fn connection() -> (TcpStream, UnixStream) {
    let (own, other) = UnixStream::pair().expect("a pair");
    own.set_nonblocking(true).expect("it does not block");
    other.set_nonblocking(true).expect("it does not block");
    (TcpStream::from_std(StdStream::from(OwnedFd::from(own))).expect("a stream"), other)
}
