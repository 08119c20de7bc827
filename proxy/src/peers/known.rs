//! What one worker knows of its peers, within bounds, so that a request costs a comparison and no decoding.
//!
//! Workloads have numbers, and so have the pairs of identities at both ends of a connection: by these small integers
//! series of metrics are found again. They are never forgotten, because series are not; past `peers_max` whoever is new
//! is counted as `overflow`. What values of headers mean is kept beside, and forgotten whenever there are too many.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use config::Limits;

use super::{Workload, wire};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, Shard};
use crate::tls::Ends;

/// What metrics call those for whom there is no room, and their identities.
const OVERFLOW: &str = "overflow";

/// Number of those for whom there is no room.
const OVERFLOW_NUMBER: u32 = u32::MAX;

/// A peer, as far as it has said who it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    number: u32,
    /// The workload it stands beside.
    pub(crate) workload: Workload,
}

impl Peer {
    /// Its number, which no other workload has; never 0, which is nobody's.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

/// What somebody said of itself last: mostly it says the same again.
#[derive(Default)]
pub(crate) struct Said(RefCell<Option<Word>>);

/// A value of the header, and who says it.
type Word = (Rc<[u8]>, Who);

/// Who says something; nobody, where it says nothing.
type Who = Option<Rc<Peer>>;

/// The identities at both ends of a connection.
type Identities = (Option<Arc<str>>, Option<Arc<str>>);

/// What a worker knows.
pub(crate) struct Known {
    peers_max: usize,
    values_max: usize,
    bytes_max: usize,
    workloads: RefCell<HashMap<Workload, Rc<Peer>>>,
    identities: RefCell<HashMap<Identities, u32>>,
    /// By the value of the header; `None` for one that says nothing.
    values: RefCell<HashMap<Rc<[u8]>, Who>>,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
}

impl Known {
    /// Nobody yet.
    pub(crate) fn new(limits: &Limits, registry: &Arc<Registry>, shard: &Arc<Shard>) -> Known {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        Known {
            peers_max: size(limits.peers_max),
            values_max: size(limits.peer_metadata_values_max),
            bytes_max: size(limits.peer_metadata_bytes_max),
            workloads: RefCell::default(),
            identities: RefCell::default(),
            values: RefCell::default(),
            registry: registry.clone(),
            shard: shard.clone(),
        }
    }

    /// Bytes that a peer may say of itself.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Who says this in a header; `None` when it says nothing, or too much. What is said again is compared, and read no
    /// more.
    pub(crate) fn remembered(&self, said: &Said, value: &[u8]) -> Option<Rc<Peer>> {
        if let Some((last, peer)) = &*said.0.borrow()
            && **last == *value
        {
            return peer.clone();
        }
        if value.len() > self.bytes_max {
            self.said_too_much();
            return None;
        }
        let (value, peer) = self.of_header(value);
        said.0.replace(Some((value, peer.clone())));
        peer
    }

    /// The same, of anybody's. A value is read once, as long as it is kept.
    fn of_header(&self, value: &[u8]) -> Word {
        let mut values = self.values.borrow_mut();
        if let Some((value, peer)) = values.get_key_value(value) {
            return (value.clone(), peer.clone());
        }
        let peer = wire::of_header(value).map(|workload| self.peer(workload));
        if values.len() >= self.values_max {
            self.reached("peer_metadata_values_max");
            values.clear();
        }
        let value: Rc<[u8]> = value.into();
        values.insert(value.clone(), peer.clone());
        (value, peer)
    }

    /// Who says this before the bytes of a TCP connection; `None` when it says nothing.
    pub(crate) fn of_frame(&self, bytes: &[u8]) -> Option<Rc<Peer>> {
        wire::of_frame(bytes).map(|workload| self.peer(workload))
    }

    /// Counts that a peer said more of itself than is read.
    pub(crate) fn said_too_much(&self) {
        self.reached("peer_metadata_bytes_max");
    }

    /// The number of the identities at both ends of a connection; 0 where TLS has proved none.
    pub(crate) fn number(&self, ends: &Ends) -> u32 {
        if let Some(number) = ends.number.get() {
            return number;
        }
        let number = self.new_number(ends);
        ends.number.set(Some(number));
        number
    }

    /// The identities of the peer and of our own, as metrics name them.
    pub(crate) fn principals<'e>(&self, ends: &'e Ends) -> [Option<&'e str>; 2] {
        match self.number(ends) {
            OVERFLOW_NUMBER => [Some(OVERFLOW); 2],
            _ => [ends.peer.as_deref(), ends.own.as_deref()],
        }
    }

    fn new_number(&self, ends: &Ends) -> u32 {
        if ends.peer.is_none() && ends.own.is_none() {
            return 0;
        }
        let mut known = self.identities.borrow_mut();
        let key = (ends.peer.clone(), ends.own.clone());
        if let Some(number) = known.get(&key) {
            return *number;
        }
        let Some(number) = self.next(known.len()) else { return OVERFLOW_NUMBER };
        known.insert(key, number);
        number
    }

    fn peer(&self, workload: Workload) -> Rc<Peer> {
        let mut known = self.workloads.borrow_mut();
        if let Some(peer) = known.get(&workload) {
            return peer.clone();
        }
        let Some(number) = self.next(known.len()) else {
            let overflow = || OVERFLOW.to_owned();
            let workload = Workload {
                name: overflow(),
                namespace: overflow(),
                canonical_service: overflow(),
                canonical_revision: overflow(),
                app: overflow(),
                version: overflow(),
                cluster: overflow(),
            };
            return Rc::new(Peer { number: OVERFLOW_NUMBER, workload });
        };
        let peer = Rc::new(Peer { number, workload: workload.clone() });
        known.insert(workload, peer.clone());
        peer
    }

    /// The number after so many; `None`, which is counted, when there is no room.
    fn next(&self, known: usize) -> Option<u32> {
        let number = u32::try_from(known + 1).ok().filter(|number| *number < OVERFLOW_NUMBER);
        let number = number.filter(|_| known < self.peers_max);
        if number.is_none() {
            self.reached("peers_max");
        }
        number
    }

    fn reached(&self, limit: &str) {
        self.shard.increment(self.registry.series(Family::LimitReached, &[limit]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Object;
    use super::*;

    fn known(change: impl FnOnce(&mut Limits)) -> (Known, Arc<Registry>) {
        let mut limits = Limits::default();
        change(&mut limits);
        let registry = Registry::new(&limits);
        (Known::new(&limits, &registry, &registry.shard()), registry)
    }

    fn header(pod: &str, workload: &str) -> String {
        wire::header(&Object::default().with("NAME", pod).with("WORKLOAD_NAME", workload))
    }

    /// Who says this on a connection of its own.
    fn says(known: &Known, value: &str) -> Option<Rc<Peer>> {
        known.remembered(&Said::default(), value.as_bytes())
    }

    fn met(registry: &Arc<Registry>, limit: &str) -> bool {
        let text = registry.text(true);
        text.contains(&format!("weft_limit_reached_total{{limit=\"{limit}\"}}"))
    }

    #[test]
    fn pods_of_a_workload_are_one_peer() {
        let (known, _) = known(|_| {});
        let first = says(&known, &header("web-1", "web")).unwrap();
        let second = says(&known, &header("web-2", "web")).unwrap();
        let other = says(&known, &header("cart-1", "cart")).unwrap();
        assert!(Rc::ptr_eq(&first, &second));
        assert_ne!(first.number(), other.number());
        assert_eq!(other.workload.name, "cart");
    }

    #[test]
    fn what_a_connection_says_again_is_compared_and_what_it_says_anew_is_read() {
        let (known, _) = known(|limits| limits.peer_metadata_values_max = 1);
        let said = Said::default();
        let name =
            |value: &str| known.remembered(&said, value.as_bytes()).map(|peer| peer.workload.name.clone());
        for (value, expected) in [("web", "web"), ("web", "web"), ("cart", "cart"), ("web", "web")] {
            assert_eq!(name(&header("a", value)).as_deref(), Some(expected));
        }
        assert_eq!(name("!"), None);
        assert_eq!(name("!"), None);
        assert_eq!(name(&header("a", "cart")).as_deref(), Some("cart"));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (known, registry) = known(|limits| {
            limits.peers_max = 2;
            limits.peer_metadata_values_max = 3;
        });
        let numbers: Vec<u32> =
            (0..10).map(|index| says(&known, &header("a", &index.to_string())).unwrap().number()).collect();
        assert_eq!(numbers[..3], [1, 2, OVERFLOW_NUMBER]);
        assert!(numbers[2..].iter().all(|number| *number == OVERFLOW_NUMBER));
        assert!(known.values.borrow().len() <= 3 && known.workloads.borrow().len() == 2);
        assert!(met(&registry, "peers_max") && met(&registry, "peer_metadata_values_max"));
        // Whoever was known before still is.
        assert_eq!(says(&known, &header("b", "1")).unwrap().number(), 2);
        let last = says(&known, &header("a", "9")).unwrap();
        assert_eq!((&*last.workload.name, &*last.workload.cluster), (OVERFLOW, OVERFLOW));
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let (known, registry) = known(|limits| limits.peer_metadata_bytes_max = 512);
        let long = header("a", &"x".repeat(400));
        assert!(long.len() > 512);
        assert_eq!(says(&known, &long), None);
        assert!(known.values.borrow().is_empty());
        assert!(met(&registry, "peer_metadata_bytes_max"));
    }

    #[test]
    fn identities_have_numbers() {
        let (known, registry) = known(|limits| limits.peers_max = 2);
        let ends =
            |peer: Option<&str>, own: Option<&str>| Ends::of(peer.map(Into::into), own.map(Into::into));
        assert_eq!(known.number(&ends(None, None)), 0);
        let web = ends(Some("spiffe://a/ns/shop/sa/web"), Some("spiffe://a/ns/shop/sa/own"));
        assert_eq!(known.number(&web), 1);
        assert_eq!(known.number(&web), 1);
        assert_eq!(known.number(&ends(Some("b"), None)), 2);
        let third = ends(Some("c"), None);
        assert_eq!(known.principals(&third), [Some(OVERFLOW); 2]);
        assert!(met(&registry, "peers_max"));
        assert_eq!(known.principals(&ends(Some("b"), None)), [Some("b"), None]);
    }
}
