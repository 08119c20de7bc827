//! What one worker knows of its peers, within bounds, so that a request costs a comparison and no decoding.
//!
//! Workloads have numbers, and so have the pairs of identities at both ends of a connection: by these small integers
//! series of metrics are found again. They are never forgotten, because series are not; past `peers_max` or their part of
//! `peer_bytes_max` whoever is new is counted as `overflow`. What values of headers mean is kept beside, and forgotten whenever there are too many.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
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

/// `peer_bytes_max` is for workloads and identities, for values and for outcomes of endpoints, as much for each.
const PARTS: usize = 3;

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

/// Bytes that each of those takes that are kept, besides its texts: its entry of a table that is half full, and what their
/// allocations add.
const ENTRY_BYTES: usize = 128;

/// A peer that is found by its workload.
struct Named(Rc<Peer>);

impl Borrow<Workload> for Named {
    fn borrow(&self) -> &Workload {
        &self.0.workload
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.workload.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Named) -> bool {
        self.0.workload == other.0.workload
    }
}

impl Eq for Named {}

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
    /// Bytes of workloads and identities, and of values.
    kept_bytes_max: usize,
    /// Bytes of workloads and identities.
    bytes: Cell<usize>,
    /// Bytes of values.
    values_bytes: Cell<usize>,
    /// All for whom there is no room.
    overflow: Rc<Peer>,
    workloads: RefCell<HashSet<Named>>,
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
        let kept_bytes_max = match limits.peer_bytes_max {
            0 => usize::MAX,
            bytes => size(bytes) / PARTS,
        };
        Known {
            kept_bytes_max,
            bytes: Cell::default(),
            values_bytes: Cell::default(),
            overflow: Rc::new(Peer {
                number: OVERFLOW_NUMBER,
                workload: Workload::of(|| OVERFLOW.to_owned()),
            }),
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

    /// Bytes that outcomes of endpoints may take: as many as workloads and identities.
    pub(crate) fn outcome_bytes_max(&self) -> usize {
        self.kept_bytes_max
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
        let bytes = self.values_bytes.get() + value.len() + ENTRY_BYTES;
        self.values_bytes.set(bytes);
        let limit = match values.len() >= self.values_max {
            true => Some("peer_metadata_values_max"),
            false => (bytes > self.kept_bytes_max).then_some("peer_bytes_max"),
        };
        if let Some(limit) = limit {
            self.reached(limit);
            values.clear();
            self.values_bytes.set(value.len() + ENTRY_BYTES);
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
        let bytes = [&key.0, &key.1].into_iter().flatten().map(|identity| identity.len()).sum();
        let Some(number) = self.next(known.len(), bytes) else { return OVERFLOW_NUMBER };
        known.insert(key, number);
        number
    }

    fn peer(&self, workload: Workload) -> Rc<Peer> {
        let mut known = self.workloads.borrow_mut();
        if let Some(peer) = known.get(&workload) {
            return peer.0.clone();
        }
        let Some(number) = self.next(known.len(), size_of::<Peer>() + workload.bytes()) else {
            return self.overflow.clone();
        };
        let peer = Rc::new(Peer { number, workload });
        known.insert(Named(peer.clone()));
        peer
    }

    /// The number after so many, for what takes so many bytes; `None`, which is counted, when there is no room.
    fn next(&self, known: usize, bytes: usize) -> Option<u32> {
        let number = u32::try_from(known + 1).ok().filter(|number| *number < OVERFLOW_NUMBER);
        let bytes = self.bytes.get() + bytes + ENTRY_BYTES;
        let limit = match number.filter(|_| known < self.peers_max) {
            None => "peers_max",
            Some(_) if bytes > self.kept_bytes_max => "peer_bytes_max",
            number => {
                self.bytes.set(bytes);
                return number;
            }
        };
        self.reached(limit);
        None
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
    fn what_is_kept_takes_so_many_bytes() {
        let (known, registry) = known(|limits| limits.peer_bytes_max = 3 * 20_000);
        let says = |index: usize| says(&known, &header("a", &format!("{index:0>200}"))).unwrap();
        let peers: Vec<Rc<Peer>> = (0..100).map(says).collect();
        let told = peers.iter().filter(|peer| peer.number() != OVERFLOW_NUMBER).count();
        assert!((20..40).contains(&told) && known.workloads.borrow().len() == told, "{told}");
        assert!(known.values.borrow().keys().map(|value| value.len()).sum::<usize>() <= 20_000);
        assert!(met(&registry, "peer_bytes_max") && !met(&registry, "peers_max"));
        assert!(!met(&registry, "peer_metadata_values_max"));
        assert!(Rc::ptr_eq(&says(0), &peers[0]) && Rc::ptr_eq(&peers[98], &peers[99]));
        // Identities share the room.
        let ends = Ends::of(Some("x".repeat(500).into()), None);
        assert_eq!(known.principals(&ends), [Some(OVERFLOW); 2]);
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
