//! Endpoints that DNS tells: of clusters whose discovery type is STRICT_DNS or LOGICAL_DNS.
//!
//! The control thread asks, never a worker: names are asked for when they are wanted and again when their time to live
//! is over, and what changed becomes the next generation like any other change of endpoints.

mod endpoints;
mod names;
mod pace;
mod resolver;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::finding::{Finding, Severity, code};
use config::limits::DNS_ADDRESSES_TOTAL_MAX;
use config::{Cluster, ClusterLoadAssignment, DiscoveryType, Limits};
use tokio::task::JoinSet;

use super::settle::Burst;
use crate::program::Seldom;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, Shard};
use crate::{net, time};
use names::{Answer, Bounds, Key, Names, Wanted};
use resolver::Asker;
pub use resolver::Resolving;

/// What is known of names, and what is being asked.
pub(super) struct Dns {
    names: Names,
    asker: Asker,
    lookups: JoinSet<(Key, Vec<Arc<str>>, Answer)>,
    lookups_max: usize,
    addresses_max: usize,
    /// Until when the start waits for answers; `None` before it began to wait.
    start: Option<Instant>,
    start_wait_max: Duration,
    /// Told of each answer, and of each question without one.
    seldom: Arc<Seldom>,
    /// What changed and was not acted on yet.
    burst: Option<Burst>,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
}

/// Each lookup takes some three open files while nobody answers: all of them leave connections nine tenths.
const LOOKUP_FILES_PARTS: u64 = 32;

impl Dns {
    /// Asks for nothing yet.
    pub(super) fn new(
        resolving: Resolving,
        limits: &Limits,
        registry: &Arc<Registry>,
        seldom: &Arc<Seldom>,
    ) -> Dns {
        let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let bounds = Bounds {
            shortest: Duration::from_millis(limits.dns_refresh_min_ms),
            longest: Duration::from_millis(limits.dns_refresh_max_ms),
            addresses_max: match limits.dns_addresses_total_max {
                0 => count(DNS_ADDRESSES_TOTAL_MAX),
                told => count(told),
            },
        };
        Dns {
            names: Names::new(bounds),
            asker: Asker::new(resolving),
            lookups: JoinSet::new(),
            lookups_max: count(
                limits.dns_lookups_max.min((net::open_files_max() / LOOKUP_FILES_PARTS).max(1)),
            ),
            addresses_max: count(limits.dns_addresses_max),
            start: None,
            start_wait_max: Duration::from_millis(limits.dns_start_wait_max_ms),
            seldom: seldom.clone(),
            burst: None,
            shard: registry.shard(),
            registry: registry.clone(),
        }
    }

    /// These clusters are declared from now on, and no others.
    pub(super) fn want<'c>(&mut self, clusters: impl IntoIterator<Item = &'c Cluster>) {
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        for cluster in clusters {
            let Some((dns, names)) = endpoints::names(cluster) else { continue };
            let uses = usize::from(matches!(cluster.discovery, DiscoveryType::StrictDns(_)));
            for key in names {
                let wanted = wanted.entry(key).or_insert_with(|| Wanted {
                    clusters: Vec::new(),
                    uses: 0,
                    refresh_rate: dns.refresh_rate,
                    respect_ttl: dns.respect_ttl,
                    origin: dns.origin.clone(),
                });
                wanted.refresh_rate = wanted.refresh_rate.min(dns.refresh_rate);
                wanted.clusters.push(cluster.name.clone());
                wanted.uses += uses;
            }
        }
        self.names.want(wanted, time::now());
    }

    /// The endpoints of those of the clusters that ask DNS, as it told them last.
    pub(super) fn assignments<'c>(
        &self,
        clusters: impl IntoIterator<Item = &'c Cluster>,
    ) -> Vec<ClusterLoadAssignment> {
        let assignment = |cluster| endpoints::assignment(cluster, |key| self.names.addresses(key));
        clusters.into_iter().filter_map(assignment).collect()
    }

    /// How many names the start waits for still.
    pub(super) fn awaited_at_start(&mut self) -> usize {
        let now = time::now();
        let until = *self.start.get_or_insert(now + self.start_wait_max);
        if now < until { self.names.unanswered() } else { 0 }
    }

    /// Asks for what is due, until what is known changed. It may be dropped at any time and called again: nothing is
    /// lost.
    pub(super) async fn changed(&mut self) {
        loop {
            let now = time::now();
            self.ask(now);
            if self.burst.is_some_and(|burst| burst.over() <= now) {
                self.burst = None;
                return;
            }
            let due = self.names.next().filter(|_| self.lookups.len() < self.lookups_max);
            let start = self.start.filter(|until| *until > now);
            let wake = [due, self.burst.map(Burst::over), start].into_iter().flatten().min();
            let woken = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(Ok((key, clusters, answer))) = self.lookups.join_next() => self.take(&key, &clusters, answer),
                () = woken => {
                    if start.is_some_and(|until| until <= time::now()) {
                        return;
                    }
                }
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        let room = self.lookups_max.saturating_sub(self.lookups.len());
        for (key, clusters) in self.names.due(now, room) {
            self.count(Family::NameAttempts, &clusters);
            let asking = Box::pin(resolver::ask(self.asker.resolver(), key.clone(), self.addresses_max));
            self.lookups.spawn_local(async move { (key, clusters, asking.await) });
        }
    }

    fn take(&mut self, key: &Key, clusters: &[Arc<str>], answer: Answer) {
        let outcome = match answer {
            Answer::Addresses(..) | Answer::None(_) => Family::NameSuccesses,
            Answer::Failed(_) => Family::NameFailures,
        };
        self.count(outcome, clusters);
        // Others may answer any moment.
        let told = if self.lookups.is_empty() { &self.seldom.over } else { &self.seldom.done };
        told.notify_one();
        let now = time::now();
        let random = RandomState::new().hash_one(&*key.host);
        if self.names.answered(key, answer, now, random) {
            self.burst = Some(Burst::with(self.burst, now));
        }
    }

    fn count(&self, family: Family, clusters: &[Arc<str>]) {
        for cluster in clusters {
            self.shard.increment(self.registry.series(family, &[cluster]));
        }
    }

    /// The names of which DNS told no address when it was asked last, or more than there is room for.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let unresolved = self.names.troubles().map(|(key, wanted, why, has_earlier)| {
            let then =
                if has_earlier { "the addresses it told last are used" } else { "it has no endpoints" };
            let what = format!("DNS does not tell the address of `{}`: {why}; {then}", key.host);
            let remedy = "correct the name, or see to it that the resolver of the pod knows it";
            finding(wanted, code::UNRESOLVED_NAME, what, remedy)
        });
        // Without the number of addresses, which may be another with each answer.
        let cut = self.names.cut().map(|(key, wanted)| {
            let what = format!(
                "DNS tells more addresses of `{}` than the limit dns_addresses_total_max allows, which is for all names together; \
                 it has a part of them",
                key.host
            );
            let remedy = "let names have fewer addresses, or raise the limit with `--limit dns_addresses_total_max=NUMBER`";
            finding(wanted, code::LIMIT_EXCEEDED, what, remedy)
        });
        unresolved.chain(cut)
    }
}

/// A warning about a name.
fn finding(wanted: &Wanted, code: &'static str, what: String, remedy: &str) -> Finding {
    let (severity, path, remedy) = (Severity::Warning, String::new(), remedy.to_owned());
    let place = wanted.origin.as_ref().and_then(|origin| origin.place.clone());
    let object = wanted.origin.as_ref().map(|origin| origin.object.clone());
    Finding { place, severity, code, object, path, what, remedy }
}
