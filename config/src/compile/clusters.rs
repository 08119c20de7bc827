//! Clusters of the services that the proxy sees, one per port and subset, and their endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::destination_rules::{DestinationRules, Merged, RuleSubset};
use super::endpoints::{Assignment, Endpoints, Member};
use super::findings::Findings;
use super::locality;
use super::noted::Noted;
use super::outlier;
use super::products;
use super::protocol::Protocol;
use super::registry::{Port, Resolution, Service, Source};
use super::traffic_policy::{Policy, is_passthrough, tls_mode};
use super::transport::{Towards, Transport, sni};
use super::{Mode, Scope, auto_passthrough, closed, connection_pool, fields, identities, told};
use crate::hashed::HashSet;
use crate::istio::{ConnectionPoolSettings, H2UpgradePolicy, SimpleLb};
use crate::origin::Origin;
use crate::resource::{
    Cluster, ClusterLoadAssignment, ClusterMetadata, DiscoveryType, DnsDiscovery, DnsFamily, HttpProtocol,
    LoadBalancingPolicy, ServiceRef, SlowStart,
};

/// Name of the cluster without endpoints.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Name of the cluster that goes where the client wanted to go.
pub const PASSTHROUGH: &str = "PassthroughCluster";

/// Name of the cluster of inbound ports that no service has.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Istio's defaults of warm-up.
const AGGRESSION: f64 = 1.0;
const MIN_WEIGHT_PERCENT: f64 = 10.0;

/// Istio's default of MeshConfig.dnsRefreshRate.
const DNS_REFRESH_RATE: Duration = Duration::from_secs(60);
/// No labels: what everything carries.
static EVERYTHING: BTreeMap<String, String> = BTreeMap::new();

/// Which addresses are asked for by a proxy that has `ips`.
fn dns_family(ips: &[IpAddr]) -> DnsFamily {
    match (ips.iter().any(IpAddr::is_ipv4), ips.iter().any(IpAddr::is_ipv6)) {
        (true, true) => DnsFamily::All,
        (false, true) => DnsFamily::V6Only,
        (_, false) => DnsFamily::V4Only,
    }
}

/// The name of the cluster of a service, port and subset; the subset may be empty.
#[inline]
pub(super) fn cluster_name(subset: &str, host: &str, port: u32) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The name of the cluster of one of the workload's own ports.
pub(super) fn inbound_cluster_name(number: u16) -> String {
    format!("inbound|{number}||")
}

/// Clusters and endpoints as they are made.
#[derive(Default)]
pub(super) struct Clusters {
    pub(super) clusters: Vec<Cluster>,
    pub(super) endpoints: Vec<ClusterLoadAssignment>,
    names: HashSet<Arc<str>>,
    /// Whether there is another of each for clients that ask for it by its server name.
    by_server_name: bool,
}

impl Clusters {
    /// None yet.
    pub(super) fn new(scope: &Scope<'_>) -> Clusters {
        Clusters { by_server_name: auto_passthrough::is_asked(scope), ..Clusters::default() }
    }

    /// Adds the clusters of `service`, and says in `noted` what is to be noted of them.
    pub(super) fn add_service(
        &mut self,
        scope: &Scope<'_>,
        service: &Service<'_>,
        (rules, endpoints): (&DestinationRules<'_>, &Endpoints<'_>),
        noted: &mut Noted,
        findings: &mut Findings,
    ) {
        if matches!(service.resolution, Resolution::Alias(_)) {
            return;
        }
        let (clusters, assignments) = (self.clusters.len(), self.endpoints.len());
        let rule = rules.of(service, scope);
        let ports = service.distinct_ports().map(|port| (port, endpoints.members(service, port, scope)));
        let ports: Vec<(&Port<'_>, Vec<Member<'_>>)> = ports.collect();
        let identities =
            identities::of_service(scope, service, ports.iter().flat_map(|(_, members)| members));
        for (port, members) in &ports {
            let (identities, mutual_alone) = (&identities, false);
            let place = Place { scope, service, port, members, identities, endpoints, rule, mutual_alone };
            self.add(&place, findings);
        }
        let clusters = self.clusters.get(clusters..).unwrap_or_default();
        noted.service(scope, service, clusters, self.endpoints.get(assignments..).unwrap_or_default());
    }

    /// None yet, of which these names are known; no Gateway asks for others by server name.
    pub(super) fn named(names: HashSet<Arc<str>>) -> Clusters {
        Clusters { names, ..Clusters::default() }
    }

    /// Takes names out: there are no such clusters any more.
    pub(super) fn forget(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.names.remove(name);
        }
    }

    /// The names of all of them.
    pub(super) fn names(&self) -> &HashSet<Arc<str>> {
        &self.names
    }

    /// The name as its cluster holds it, or a new string when there is no such cluster.
    pub(super) fn name(&self, name: String) -> Arc<str> {
        self.names.get(name.as_str()).cloned().unwrap_or_else(|| name.into())
    }

    /// Those that were made and their endpoints, by name, and the names of all.
    pub(super) fn into_sorted(mut self) -> (Vec<Cluster>, Vec<ClusterLoadAssignment>, HashSet<Arc<str>>) {
        self.clusters.sort_by(|one, other| one.name.cmp(&other.name));
        self.endpoints.sort_by(|one, other| one.cluster_name.cmp(&other.cluster_name));
        (self.clusters, self.endpoints, self.names)
    }

    /// Adds a cluster that is no service's.
    pub(super) fn push(&mut self, cluster: Cluster) {
        self.names.insert(cluster.name.clone());
        self.clusters.push(cluster);
    }

    /// The clusters of one port of a service.
    fn add(&mut self, place: &Place<'_>, findings: &mut Findings) {
        let products = &place.scope.endpoints;
        if products.are_too_many() {
            place.find_too_many(findings);
            return;
        }
        let whole = place.cluster(self.name(place.name(None)), None, place.discovery(None));
        place.find_no_labels(&whole, None, findings);
        let passthrough = whole.discovery == DiscoveryType::OriginalDst;
        self.push_with_endpoints(place, whole, None);
        for subset in place.rule.iter().flat_map(|rule| &rule.subsets) {
            if products.are_too_many() {
                subset.find_too_many(products, findings);
                return;
            }
            let of_subset =
                is_passthrough(subset.subset.traffic_policy.as_deref()) && place.scope.mode != Mode::Gateway;
            let discovery = match passthrough || of_subset {
                true => DiscoveryType::OriginalDst,
                false => place.discovery(Some(subset)),
            };
            let cluster = place.cluster(self.name(place.name(Some(subset))), Some(subset), discovery);
            place.find_no_labels(&cluster, Some(subset), findings);
            self.push_with_endpoints(place, cluster, Some(subset));
        }
    }

    fn push_with_endpoints(&mut self, place: &Place<'_>, cluster: Cluster, subset: Option<&RuleSubset<'_>>) {
        if self.by_server_name && auto_passthrough::is_reachable(place.service, place.port) {
            let place = Place { mutual_alone: true, ..*place };
            let discovery = match &cluster.discovery {
                DiscoveryType::StrictDns(_) | DiscoveryType::LogicalDns(_) => place.discovery(subset),
                other => other.clone(),
            };
            let passed = Cluster { discovery, ..cluster.clone() };
            let passed = auto_passthrough::cluster(place.scope, passed, place.sni(subset), place.service);
            self.push_counted(&place, passed, subset);
        }
        self.push_counted(place, cluster, subset);
    }

    fn push_counted(&mut self, place: &Place<'_>, cluster: Cluster, subset: Option<&RuleSubset<'_>>) {
        let is_apart = cluster.discovery == DiscoveryType::Eds;
        let assignment = is_apart.then(|| place.assignment(cluster.name.clone(), subset));
        place.scope.endpoints.add(1 + products::of_cluster(&cluster, assignment.as_ref()));
        self.endpoints.extend(assignment);
        self.push(cluster);
    }
}

/// One port of a service, and what decides over its clusters.
struct Place<'p> {
    scope: &'p Scope<'p>,
    service: &'p Service<'p>,
    port: &'p Port<'p>,
    members: &'p [Member<'p>],
    identities: &'p [Arc<str>],
    endpoints: &'p Endpoints<'p>,
    rule: Option<&'p Merged<'p>>,
    /// Whether only endpoints count that are spoken to with mutual TLS of the mesh.
    mutual_alone: bool,
}

impl<'p> Place<'p> {
    /// Finds that there are no clusters for this port.
    fn find_too_many(&self, findings: &mut Findings) {
        let (products, what) =
            (&self.scope.endpoints, "it has no cluster from this port on, and requests are answered 503");
        match self.service.source {
            Source::Entry(object) => products.find(object, "spec.ports", what, findings),
            Source::Kubernetes(object) => products.find(object, "spec.ports", what, findings),
        }
    }

    /// Finds that labels were to decide over the endpoints of `cluster`, and do not.
    fn find_no_labels(&self, cluster: &Cluster, subset: Option<&RuleSubset<'p>>, findings: &mut Findings) {
        let asks_dns =
            matches!(cluster.discovery, DiscoveryType::StrictDns(_) | DiscoveryType::LogicalDns(_));
        let Source::Entry(entry) = self.service.source else { return };
        // Nothing decides over an only endpoint.
        if asks_dns && self.members.len() > 1 {
            let holding = self.assigned(Arc::default(), subset).locality;
            holding.iter().for_each(|holding| holding.find_no_labels(entry, findings));
        }
    }

    /// How the endpoints of a subset are found.
    fn discovery(&self, subset: Option<&RuleSubset<'p>>) -> DiscoveryType {
        let dns = || {
            let mut assignment = self.assigned(Arc::default(), subset);
            assignment.locality = assignment.locality.and_then(locality::Holding::of_names);
            Arc::new(DnsDiscovery {
                localities: self.endpoints.names(self.members, &assignment, self.scope),
                refresh_rate: self.refresh_rate(),
                respect_ttl: true,
                family: dns_family(&self.scope.proxy.ips),
                origin: match self.service.source {
                    Source::Entry(object) => Some(object.origin()),
                    Source::Kubernetes(_) => None,
                },
            })
        };
        match self.service.resolution {
            // The client of a gateway wanted to go to the gateway.
            Resolution::Passthrough if self.scope.mode == Mode::Gateway => DiscoveryType::Eds,
            Resolution::Passthrough => DiscoveryType::OriginalDst,
            Resolution::Dns => DiscoveryType::StrictDns(dns()),
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns(dns()),
            Resolution::ClientSide | Resolution::Alias(_) => DiscoveryType::Eds,
        }
    }

    /// The port that a client is taken to instead of the one that it wanted to go to: `targetPort` of an entry whose
    /// clients know its addresses.
    fn port_there(&self) -> Option<u16> {
        let is_entry = matches!(self.service.source, Source::Entry(_));
        let is_passed = is_entry && self.service.resolution == Resolution::Passthrough;
        self.port.target.filter(|_| is_passed)
    }

    /// How long an answer of DNS without a time to live holds.
    fn refresh_rate(&self) -> Duration {
        self.scope.mesh.dns_refresh_rate.map_or(DNS_REFRESH_RATE, |rate| rate.0)
    }

    fn policy(&self, subset: Option<&RuleSubset<'p>>) -> Policy<'p> {
        let service = self.rule.and_then(|rule| rule.traffic_policy);
        match subset {
            None => Policy::of(service, self.port.number),
            Some(subset) => {
                Policy::of_subset(service, subset.subset.traffic_policy.as_deref(), self.port.number)
            }
        }
    }

    fn name(&self, subset: Option<&RuleSubset<'p>>) -> String {
        let subset = subset.map_or("", |subset| &subset.subset.name);
        cluster_name(subset, &self.service.host, u32::from(self.port.number))
    }

    fn cluster(&self, name: Arc<str>, subset: Option<&RuleSubset<'p>>, discovery: DiscoveryType) -> Cluster {
        let policy = self.policy(subset);
        let locality = locality::holding(self.scope, &policy, self.service.traffic_distribution());
        let locality_weighted = locality::is_weighted(locality.as_ref());
        let (discovery, load_balancing) = balancing(discovery, &policy, self);
        let pool = policy.connection_pool;
        let subset_name = subset.map_or("", |subset| &subset.subset.name);
        let transport = self.transport(&policy, subset, &discovery);
        let told = told::of_cluster(self.scope, &policy);
        Cluster {
            name,
            discovery,
            load_balancing,
            slow_start: slow_start(load_balancing, &policy).map(Box::new),
            locality_weighted,
            connect_timeout: connection_pool::connect_timeout(self.scope, pool),
            circuit_breakers: connection_pool::circuit_breakers(pool),
            outlier_detection: outlier::outlier_detection(policy.outlier_detection).map(Box::new),
            healthy_panic_percent: outlier::healthy_panic_percent(policy.outlier_detection),
            protocol: protocol(self.port.protocol, pool, self.scope.mode),
            idle_timeout: connection_pool::idle_timeout(pool),
            max_requests_per_connection: connection_pool::max_requests_per_connection(pool),
            max_connection_duration: connection_pool::max_connection_duration(pool),
            max_concurrent_streams: connection_pool::max_concurrent_streams(self.port.protocol, pool),
            tcp_keepalive: connection_pool::tcp_keepalive(self.scope, pool).map(Box::new),
            bind_addresses: Box::default(),
            transport_socket_matches: transport.matches,
            transport_socket: transport.socket,
            metadata: ClusterMetadata {
                services: Box::new([ServiceRef {
                    host: self.service.host.clone(),
                    name: self.service.name().clone(),
                    namespace: self.service.namespace().clone(),
                }]),
                subset: self.scope.texts.get(subset_name),
                external: self.service.is_external(),
                untold: false,
                origin: self.origin(subset).map(Box::new),
                told,
                fields: fields::fields(&policy, told, self.rule, subset),
            },
        }
    }

    fn transport(
        &self,
        policy: &Policy<'p>,
        subset: Option<&RuleSubset<'p>>,
        discovery: &DiscoveryType,
    ) -> Transport {
        if let Some(closed) = closed::transport(self.scope, self.service) {
            return closed;
        }
        let protocol = protocol(self.port.protocol, policy.connection_pool, self.scope.mode);
        let towards = Towards {
            mutual: &self.scope.mutual,
            sni: self.sni(subset),
            is_http2: protocol == HttpProtocol::Http2,
            identities: self.identities,
            is_entry: matches!(self.service.source, Source::Entry(_)),
        };
        if let Some(tls) = policy.tls {
            let origin = fields::asking_for_tls(policy, self.rule, subset);
            return Transport::told(tls, &towards, origin);
        }
        // Nobody there would understand it, or it is not to be spoken unless somebody asks for it.
        if self.service.is_external() || !self.scope.mesh.is_mutual_by_itself() {
            return Transport::plain();
        }
        let traffic_policy = match subset {
            None => self.rule.and_then(|rule| rule.traffic_policy),
            Some(subset) => subset.subset.traffic_policy.as_deref(),
        };
        // To an endpoint that the client chose, TLS is either always spoken or never.
        let chosen_by_client =
            self.service.resolution == Resolution::Passthrough || is_passthrough(traffic_policy);
        let chosen_by_client = chosen_by_client && self.scope.mode != Mode::Gateway;
        if chosen_by_client && (self.members.is_empty() || self.members.iter().any(Member::is_without_tls)) {
            return Transport::plain();
        }
        Transport::automatic(&towards, discovery, &self.scope.texts)
    }

    /// The server name by which proxies ask for it.
    fn sni(&self, subset: Option<&RuleSubset<'p>>) -> Arc<str> {
        let subset = subset.map_or("", |subset| &subset.subset.name);
        sni(subset, &self.service.host, u32::from(self.port.number))
    }

    fn origin(&self, subset: Option<&RuleSubset<'p>>) -> Option<Origin> {
        match subset {
            Some(subset) => Some(subset.origin().clone()),
            None => self.rule.map(|rule| rule.origin().clone()),
        }
    }

    fn assignment(&self, cluster_name: Arc<str>, subset: Option<&RuleSubset<'p>>) -> ClusterLoadAssignment {
        self.endpoints.assign(self.members, self.assigned(cluster_name, subset), self.scope)
    }

    fn assigned(&self, cluster_name: Arc<str>, subset: Option<&RuleSubset<'p>>) -> Assignment<'p> {
        let policy = self.policy(subset);
        let traffic_policy = match subset {
            None => self.rule.and_then(|rule| rule.traffic_policy),
            Some(subset) => subset.subset.traffic_policy.as_deref(),
        };
        Assignment {
            cluster_name,
            subset: subset.map_or(&EVERYTHING, |subset| &subset.subset.labels),
            node: self.service.is_node_local().then(|| self.scope.proxy.node()),
            tls_mode: tls_mode(traffic_policy, self.port.number),
            locality: locality::holding(self.scope, &policy, self.service.traffic_distribution()),
            mutual_alone: self.mutual_alone,
        }
    }
}

/// How endpoints are found and chosen. What weft does not balance by yet, `consistentHash` that is, falls back to
/// Istio's default.
fn balancing(
    discovery: DiscoveryType,
    policy: &Policy<'_>,
    place: &Place<'_>,
) -> (DiscoveryType, LoadBalancingPolicy) {
    let mode = place.scope.mode;
    let provided = LoadBalancingPolicy::ClusterProvided { port: place.port_there() };
    if discovery == DiscoveryType::OriginalDst {
        return (discovery, provided);
    }
    match policy.load_balancer.and_then(|balancer| balancer.simple) {
        Some(SimpleLb::Passthrough) if mode == Mode::Gateway => {
            (discovery, LoadBalancingPolicy::LeastRequest)
        }
        Some(SimpleLb::Passthrough) => (DiscoveryType::OriginalDst, provided),
        Some(SimpleLb::Random) => (discovery, LoadBalancingPolicy::Random),
        Some(SimpleLb::RoundRobin) => (discovery, LoadBalancingPolicy::RoundRobin),
        Some(SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest) | None => {
            (discovery, LoadBalancingPolicy::LeastRequest)
        }
    }
}

/// Warm-up, for the policies that weigh. Istio begins with 10 % and grows evenly where the rule says nothing.
fn slow_start(load_balancing: LoadBalancingPolicy, policy: &Policy<'_>) -> Option<SlowStart> {
    let balancer = policy.load_balancer.filter(|balancer| balancer.consistent_hash.is_none())?;
    let weighs =
        matches!(load_balancing, LoadBalancingPolicy::RoundRobin | LoadBalancingPolicy::LeastRequest);
    let warmup = balancer.warmup.as_ref();
    let window = warmup.and_then(|warmup| warmup.duration).or(balancer.warmup_duration_secs)?;
    weighs.then(|| SlowStart {
        window: window.0,
        aggression: warmup.and_then(|warmup| warmup.aggression).unwrap_or(AGGRESSION).max(1.0),
        min_weight_percent: warmup
            .and_then(|warmup| warmup.minimum_percent)
            .unwrap_or(MIN_WEIGHT_PERCENT)
            .clamp(0.0, 100.0),
    })
}

/// A gateway speaks HTTP/1.1 where a sidecar would speak what its client does.
pub(super) fn protocol(port: Protocol, pool: Option<&ConnectionPoolSettings>, mode: Mode) -> HttpProtocol {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.and_then(|http| http.use_client_protocol) == Some(true) {
        return HttpProtocol::Downstream;
    }
    if http.and_then(|http| http.h2_upgrade_policy) == Some(H2UpgradePolicy::Upgrade) {
        return HttpProtocol::Http2;
    }
    match port {
        Protocol::Http2 => HttpProtocol::Http2,
        Protocol::Detected if mode != Mode::Gateway => HttpProtocol::Downstream,
        Protocol::Detected
        | Protocol::Http1
        | Protocol::Tls
        | Protocol::Tcp
        | Protocol::Mongo
        | Protocol::MySql
        | Protocol::Udp => HttpProtocol::Http1,
    }
}
