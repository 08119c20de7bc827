//! What clients take, by the networks they come from: many connections of one client are one client.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use super::{LOOK_INTERVAL, is_far_more};
use crate::http::codec::guard::{Guard, Network};

/// What the clients of each network carried when all were looked at last, which is not long ago: whoever floods us with requests
/// that are refused does not have all clients looked at for each.
#[derive(Debug, Default)]
pub(in crate::engine) struct Takers {
    at: Cell<Option<Instant>>,
    networks: RefCell<HashMap<Network, Taken>>,
}

/// What the clients of one network carry together, and the one that carries most.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    all: u64,
    largest: u64,
}

impl Takers {
    /// Looks at what these carry, unless that was done lately.
    pub(super) fn look<'g>(&self, now: Instant, guards: impl Iterator<Item = &'g Rc<Guard>>) {
        let is_new = |at| now.saturating_duration_since(at) < LOOK_INTERVAL;
        if self.at.get().is_some_and(is_new) {
            return;
        }
        self.at.set(Some(now));
        let mut networks = self.networks.borrow_mut();
        networks.clear();
        for guard in guards {
            let (taken, carried) = (networks.entry(guard.network()).or_default(), guard.carried());
            *taken = Taken { all: taken.all + carried, largest: taken.largest.max(carried) };
        }
    }

    /// Of which network a client may be parted with for one of `network` that carries `own`: of the one whose clients carry most,
    /// if that is far more than its own do, or else of its own.
    pub(super) fn whose(&self, network: Network, own: u64) -> Option<Network> {
        let networks = self.networks.borrow();
        let ours = networks.get(&network).copied().unwrap_or_default();
        let heaviest = networks.iter().max_by_key(|(_, taken)| taken.all);
        let other = heaviest.filter(|(other, most)| **other != network && is_far_more(most.all, ours.all));
        let of_own = || is_far_more(ours.largest, own).then_some(network);
        other.map(|(other, _)| *other).or_else(of_own)
    }

    /// So much was what one of this network carried at most; whether it is parted with.
    pub(super) fn found(&self, network: Network, largest: u64, is_parted: bool) {
        if let Some(taken) = self.networks.borrow_mut().get_mut(&network) {
            taken.largest = largest;
            taken.all = taken.all.saturating_sub(if is_parted { largest } else { 0 });
        }
    }
}

/// Those of them whose network has most of these bytes in all.
pub(super) fn of_heaviest(mut all: Vec<(u64, &Rc<Guard>)>) -> Vec<(u64, &Rc<Guard>)> {
    let mut networks: HashMap<Network, u64> = HashMap::new();
    for (bytes, guard) in &all {
        *networks.entry(guard.network()).or_default() += bytes;
    }
    let heaviest = networks.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(network, _)| network);
    all.retain(|(_, guard)| Some(guard.network()) == heaviest);
    all
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::http::codec::guard::testing;
    use crate::time;

    fn network(address: &str) -> Network {
        Network::of(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn many_connections_of_one_client_are_one_client() {
        let (now, takers) = (time::now(), Takers::default());
        let good = testing::carrying("10.0.0.1", 160_000);
        let many = [(); 40].map(|()| testing::carrying("10.0.0.2", 50_000));
        let all = || many.iter().chain([&good]);
        takers.look(now, all());
        for (address, own, expected) in [
            ("10.0.0.1", 160_000, Some("10.0.0.2")),
            ("10.0.0.3", 0, Some("10.0.0.2")),
            ("10.0.0.2", 10_000, None),
        ] {
            assert_eq!(takers.whose(network(address), own), expected.map(network), "{address}");
        }
        let heaviest = of_heaviest(all().map(|guard| (guard.carried(), guard)).collect());
        assert!(
            heaviest.len() == 40 && heaviest.iter().all(|(_, guard)| guard.network() == network("10.0.0.2"))
        );
    }

    #[test]
    fn who_would_be_refused_anyway_has_nobody_looked_at_again() {
        let (now, takers) = (time::now(), Takers::default());
        let (own, larger) = (testing::carrying("::1", 150_000), testing::carrying("::1", 200_000));
        let loopback = network("::1");
        takers.look(now, [&own, &larger].into_iter());
        assert_eq!(takers.whose(loopback, 150_000), None);
        // Whoever holds still with much keeps nobody out who has little.
        assert_eq!(takers.whose(loopback, 20_000), Some(loopback));
        let largest = testing::carrying("::1", 1_000_000);
        takers.look(now + LOOK_INTERVAL / 2, [&own, &larger, &largest].into_iter());
        assert_eq!(takers.whose(loopback, 150_000), None, "it is not known yet");
        takers.look(now + LOOK_INTERVAL, [&own, &larger, &largest].into_iter());
        assert_eq!(takers.whose(loopback, 150_000), Some(loopback));
        takers.found(loopback, 1_000_000, true);
        takers.found(loopback, 200_000, false);
        assert_eq!(takers.whose(loopback, 150_000), None, "it was parted with");
        let small = testing::carrying("::1", 64 * 1024);
        takers.look(now + Duration::from_secs(1), [&small].into_iter());
        assert_eq!(takers.whose(loopback, 0), None, "nobody carries much");
    }

    #[test]
    fn networks_are_those_that_one_has_alone() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(network(one) == network(other), same, "{one} {other}");
        }
    }
}
