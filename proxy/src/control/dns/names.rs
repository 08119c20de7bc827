//! When names are asked for and what is known of them: pure decisions, given the time and a random number.
//!
//! A name is asked for once for all clusters that have it. What DNS told last stays when it does not answer; that there
//! is no such name is an answer too, as it is for Envoy.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::DnsFamily;
use config::origin::Origin;

/// At most so much is added to the time until a name is asked for again, so that not all are at once. Istio: 100 ms.
const JITTER_MICROS: u64 = 100_000;

/// Time until a name is asked for again that DNS failed to answer once; twice as much each further time, up to its
/// refresh rate.
const FAILURE_REFRESH: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The name.
    pub(super) host: Arc<str>,
    /// Which addresses of it.
    pub(super) family: DnsFamily,
}

/// Who wants a name, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Names of the clusters.
    pub(super) clusters: Vec<Arc<str>>,
    /// How many endpoints become one for each address of it; none where only the first address is wanted.
    pub(super) uses: usize,
    /// Time after which it is asked for again when DNS tells none.
    pub(super) refresh_rate: Duration,
    /// Whether the time to live that DNS tells goes before it.
    pub(super) respect_ttl: bool,
    /// The object that names it.
    pub(super) origin: Option<Origin>,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// These are its addresses, in the order they were told, for so long, if that was told.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// It has none.
    None(&'static str),
    /// There was no answer.
    Failed(String),
}

/// Bounds on the time between two questions, and on what is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// `dns_refresh_min_ms`.
    pub(super) shortest: Duration,
    /// `dns_refresh_max_ms`.
    pub(super) longest: Duration,
    /// `dns_addresses_total_max`.
    pub(super) addresses_max: usize,
}

/// All names that are wanted.
#[derive(Debug)]
pub(super) struct Names {
    bounds: Bounds,
    known: BTreeMap<Key, Name>,
}

#[derive(Debug)]
struct Name {
    wanted: Wanted,
    addresses: Vec<IpAddr>,
    /// How many were told, of which these are a part.
    told: usize,
    /// Why DNS told no address when it was asked last.
    trouble: Option<String>,
    failures: u32,
    state: State,
    answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Next(Instant),
}

impl Name {
    /// Whether it has not all addresses that were told.
    fn lacks_room(&self) -> bool {
        self.addresses.len() < self.told
    }
}

impl Names {
    /// None is wanted yet.
    pub(super) fn new(bounds: Bounds) -> Names {
        Names { bounds, known: BTreeMap::new() }
    }

    /// These are wanted from now on, and no others. What is known of them stays, as far as there is room for it.
    pub(super) fn want(&mut self, wanted: BTreeMap<Key, Wanted>, now: Instant) {
        self.known.retain(|key, _| wanted.contains_key(key));
        for (key, wanted) in wanted {
            let name = self.known.entry(key).or_insert_with(|| Name {
                wanted: wanted.clone(),
                addresses: Vec::new(),
                told: 0,
                trouble: None,
                failures: 0,
                state: State::Next(now),
                answered: false,
            });
            // Only the first address was kept.
            if name.wanted.uses == 0 && wanted.uses > 0 && name.state != State::Asked {
                name.state = State::Next(now);
            }
            name.wanted = wanted;
        }
        let room = self.room();
        self.fit(room);
    }

    /// The names to ask for now, at most so many; they count as asked.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Vec<(Key, Vec<Arc<str>>)> {
        let due =
            self.known.iter_mut().filter(|(_, name)| matches!(name.state, State::Next(at) if at <= now));
        let ask = |(key, name): (&Key, &mut Name)| {
            name.state = State::Asked;
            (key.clone(), name.wanted.clusters.clone())
        };
        due.take(most).map(ask).collect()
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = |name: &Name| match name.state {
            State::Asked => None,
            State::Next(at) => Some(at),
        };
        self.known.values().filter_map(next).min()
    }

    /// Takes in what came of asking for `key`; whether that changed addresses or what there is to say of a name.
    pub(super) fn answered(&mut self, key: &Key, answer: Answer, now: Instant, random: u64) -> bool {
        let bounds = self.bounds;
        // Nobody may want it any more.
        let Some(name) = self.known.get_mut(key) else { return false };
        let (addresses, trouble, ttl) = match answer {
            Answer::Addresses(addresses, ttl) => (Some(addresses), None, ttl),
            Answer::None(why) => (Some(Vec::new()), Some(why.to_owned()), None),
            Answer::Failed(why) => (None, Some(why), None),
        };
        let refresh_rate = name.wanted.refresh_rate;
        let wait = if addresses.is_some() {
            name.failures = 0;
            let ttl = ttl.filter(|ttl| name.wanted.respect_ttl && !ttl.is_zero());
            ttl.unwrap_or(refresh_rate).max(bounds.shortest).min(bounds.longest)
        } else {
            let wait = FAILURE_REFRESH.saturating_mul(2_u32.saturating_pow(name.failures));
            name.failures = name.failures.saturating_add(1);
            wait.min(refresh_rate).max(bounds.shortest)
        };
        let jitter = Duration::from_micros(random % JITTER_MICROS);
        name.state = State::Next(now + wait + jitter);
        let changed = !name.answered || trouble != name.trouble;
        name.answered = true;
        name.trouble = trouble;
        let Some(mut addresses) = addresses else { return changed };
        if name.wanted.uses == 0 {
            addresses.truncate(1);
        }
        let lacked = name.lacks_room();
        name.told = addresses.len();
        let room = self.room();
        let Some(name) = self.known.get_mut(key) else { return changed };
        if addresses.len() > room {
            // Those that it had are the last to be left out.
            let had: HashSet<IpAddr> = name.addresses.iter().copied().collect();
            addresses.sort_by_key(|address| !had.contains(address));
            addresses.truncate(room);
        }
        let differs = addresses != name.addresses;
        name.addresses = addresses;
        let changed = changed || differs || lacked != name.lacks_room();
        self.fit(room) || changed
    }

    /// Has names with more than `room` addresses keep the first ones; whether there are any.
    fn fit(&mut self, room: usize) -> bool {
        let long = self.known.values_mut().filter(|name| name.addresses.len() > room);
        let cut = |name: &mut Name| {
            name.addresses.truncate(room);
            name.addresses.shrink_to_fit();
        };
        long.map(cut).count() > 0
    }

    /// As many addresses each name may have. It goes by what was told alone, so that whoever is asked first has no more than others.
    fn room(&self) -> usize {
        let fits = |most: usize| {
            let kept = self.known.values().map(|name| name.told.min(most).saturating_mul(name.wanted.uses));
            kept.fold(0, usize::saturating_add) <= self.bounds.addresses_max
        };
        if fits(usize::MAX) {
            return usize::MAX;
        }
        // One is had by each, whether it fits or not: what names it is bounded.
        let mut most = 1..self.known.values().map(|name| name.told).max().unwrap_or(0);
        while most.len() > 1 {
            let middle = most.start + most.len() / 2;
            if fits(middle) { most.start = middle } else { most.end = middle }
        }
        most.start
    }

    /// The addresses of a name as they were told last.
    pub(super) fn addresses(&self, key: &Key) -> &[IpAddr] {
        self.known.get(key).map_or(&[], |name| &name.addresses)
    }

    /// How many have not been answered since they are wanted.
    pub(super) fn unanswered(&self) -> usize {
        self.known.values().filter(|name| !name.answered).count()
    }

    /// The names of which DNS told no address when it was asked last, why, and whether earlier ones are used.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&Key, &Wanted, &str, bool)> {
        self.known.iter().filter_map(|(key, name)| {
            Some((key, &name.wanted, name.trouble.as_deref()?, !name.addresses.is_empty()))
        })
    }

    /// The names of which addresses are left out for want of room.
    pub(super) fn cut(&self) -> impl Iterator<Item = (&Key, &Wanted)> {
        self.known.iter().filter(|(_, name)| name.lacks_room()).map(|(key, name)| (key, &name.wanted))
    }
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
