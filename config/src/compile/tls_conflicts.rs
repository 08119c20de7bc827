//! Modes of TLS that cannot work: what DestinationRules have clients send, held against what the workloads behind the
//! services take. No proxy is asked for; whatever some workload of the mesh would be told counts.
//!
//! Istio: the analyzer's `MTLSPolicyConflict`, which looked at names alone. Here the functions decide that compile: which
//! rule holds for whom, for which port and subset, and which PeerAuthentication for which port of a pod. What Sidecar
//! objects let a client see is not looked at, nor are services outside the mesh, nor ports that do not go through a
//! sidecar, nor workloads that a Gateway selects: those listen as the Gateway says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::destination_rules::{DestinationRules, Merged, RuleSubset};
use super::endpoints::{Endpoints, Member, Wanted};
use super::host::{HostMap, complete};
use super::peer_authentication::{self, Modes};
use super::protocol::Protocol;
use super::registry::{Port, Registry, Resolution, Service, Source};
use super::traffic_policy::{Policy, marking, mode};
use super::workload::WorkloadLabels;
use super::{Mode, Proxy, Scope, closed};
use crate::hashed::HashSet;
use crate::istio::{ClientTlsMode, ClientTlsSettings, DestinationRule, TrafficPolicy};
use crate::objects::{Key, Object, Objects};
use crate::origin::Origin;

/// Clients of one service whose view of it is looked at, by namespace and labels; what only others see is not.
const VIEWERS_MAX: usize = 256;
/// Begins the names of identities of the mesh.
const SPIFFE: &str = "spiffe://";

/// What says how endpoints are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    /// MeshConfig, as no rule holds.
    Mesh,
    /// A DestinationRule, and where in it.
    Rule(Key, String),
}

/// How endpoints are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    /// In plain text, as a rule says DISABLE.
    Plain,
    /// In plain text, as no rule says anything and the mesh has no auto-mTLS.
    Untold,
    /// SIMPLE.
    Simple,
    /// MUTUAL.
    Mutual,
    /// MUTUAL towards an identity of the mesh: what it presents is one, too.
    MutualOfMesh,
    /// ISTIO_MUTUAL.
    IstioMutual,
}

/// Why an endpoint does not take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// Its sidecar takes mutual TLS of the mesh alone.
    Strict,
    /// Its sidecar takes plain text alone.
    Disable,
    /// Its sidecar takes HTTP, in plain text or in TLS of the mesh.
    Http,
    /// It has no sidecar.
    NoSidecar,
}

/// Endpoints of one service that do not take what they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsConflict {
    pub(crate) said: Said,
    pub(crate) sent: Sent,
    pub(crate) refusal: Refusal,
    /// The host of the service.
    pub(crate) host: Arc<str>,
    /// How many endpoints do not take it.
    pub(crate) refusing: usize,
    /// To how many it is sent.
    pub(crate) endpoints: usize,
    /// One of those that do not take it.
    pub(crate) example: String,
    /// The PeerAuthentication that decides over that one.
    pub(crate) origin: Option<Origin>,
}

/// All of them, of services with any.
#[derive(Debug, Default)]
pub(crate) struct TlsConflicts {
    /// Of Kubernetes' services.
    pub(crate) of_services: Vec<(Key, Vec<TlsConflict>)>,
    /// Of Istio's.
    pub(crate) of_entries: Vec<TlsConflict>,
}

/// What cannot work among `objects`; of Kubernetes' services only at `keys`, if such are given.
pub(crate) fn tls_conflicts(objects: &Objects, keys: Option<&HashSet<Key>>) -> TlsConflicts {
    let mut found = TlsConflicts::default();
    let nobody = Proxy { namespace: "".into(), ..Proxy::default() };
    let scope = Scope::new(objects, &nobody, Mode::Sidecar, None);
    let Some(rules) = Telling::new(&scope) else { return found };
    let wanted = match keys {
        None => Wanted::All,
        Some(keys) => Wanted::These(keys.iter().map(|(namespace, name)| (&**namespace, &**name)).collect()),
    };
    let look = Look {
        scope: &scope,
        all: DestinationRules::new(&scope),
        endpoints: Endpoints::new(&scope, &wanted),
        gateways: objects.gateways.values().map(|gateway| &gateway.spec.selector).collect(),
        any_is_strict: peer_authentication::any_is_strict(&scope),
        any_disables: peer_authentication::any_disables(&scope),
        rules,
    };
    for service in Registry::of_everybody(&scope, keys) {
        let conflicts = look.of_service(&service);
        match service.source {
            _ if conflicts.is_empty() => {}
            Source::Kubernetes(object) => {
                found.of_services.push((object.key(), conflicts));
            }
            Source::Entry(_) => found.of_entries.extend(conflicts),
        }
    }
    found
}

/// The rules that say something of TLS, by host.
struct Telling<'a>(HostMap<Vec<&'a Object<DestinationRule>>>);

impl<'a> Telling<'a> {
    /// `None` when nothing can conflict: no rule says anything, and what is not said works.
    fn new(scope: &Scope<'a>) -> Option<Telling<'a>> {
        let is_automatic = scope.mesh.is_mutual_by_itself();
        let rules = scope.objects.destination_rules.values();
        let telling = rules.filter(|rule| !is_automatic || tells(&rule.spec));
        let mut by_host: HostMap<Vec<&'a Object<DestinationRule>>> = HostMap::default();
        let mut is_any = !is_automatic;
        for rule in telling {
            is_any = true;
            let host = complete(&rule.spec.host, rule.namespace(), &scope.proxy.dns_domain);
            by_host.entry(&host, Vec::new).push(rule);
        }
        is_any.then_some(Telling(by_host))
    }

    /// Clients that between them see every rule that holds for `service`, by namespace and labels.
    fn viewers<'v>(&'v self, scope: &Scope<'a>, service: &'v Service<'a>) -> BTreeSet<Viewer<'v>> {
        let mut viewers = BTreeSet::new();
        let of_all = |namespace| Viewer { namespace, labels: None };
        let rules: Vec<_> = self.0.matching(&service.host).flatten().copied().collect();
        if rules.is_empty() && scope.mesh.is_mutual_by_itself() {
            return viewers;
        }
        // A namespace without rules of its own, and the service's own, which sees what others do not.
        viewers.extend([of_all(""), of_all(service.namespace())]);
        for rule in rules {
            let labels = rule.spec.workload_selector.as_ref().map(|selector| &selector.match_labels);
            viewers.insert(Viewer { namespace: rule.namespace(), labels });
            let named = rule.spec.export_to.iter().map(|namespace| of_all(namespace.as_str()));
            viewers.extend(named.take(VIEWERS_MAX.saturating_sub(viewers.len())));
            if viewers.len() >= VIEWERS_MAX {
                break;
            }
        }
        viewers
    }
}

/// Whether a rule says anything of TLS.
fn tells(rule: &DestinationRule) -> bool {
    let tells = |policy: &TrafficPolicy| {
        policy.tls.is_some() || policy.port_level_settings.iter().any(|settings| settings.tls.is_some())
    };
    let of_subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_deref());
    rule.traffic_policy.as_deref().into_iter().chain(of_subsets).any(tells)
}

/// A client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Viewer<'v> {
    namespace: &'v str,
    labels: Option<&'v BTreeMap<String, String>>,
}

/// What all services are looked at with.
struct Look<'l> {
    scope: &'l Scope<'l>,
    rules: Telling<'l>,
    all: DestinationRules<'l>,
    endpoints: Endpoints<'l>,
    /// Labels of workloads that listen as a Gateway says.
    gateways: Vec<&'l BTreeMap<String, String>>,
    any_is_strict: bool,
    any_disables: bool,
}

/// An endpoint, of whatever port.
type Who<'m> = (IpAddr, Option<&'m str>);

/// The endpoints that something is sent to.
#[derive(Default)]
struct Tally<'m> {
    all: HashSet<Who<'m>>,
    refusing: BTreeMap<Refusal, Refusing<'m>>,
}

/// Those of them that do not take it.
struct Refusing<'m> {
    all: HashSet<Who<'m>>,
    example: String,
    origin: Option<Origin>,
}

impl<'l> Look<'l> {
    fn of_service(&self, service: &Service<'l>) -> Vec<TlsConflict> {
        let viewers = self.rules.viewers(self.scope, service);
        let is_closed = || closed::transport(self.scope, service).is_some();
        if viewers.is_empty() || matches!(service.resolution, Resolution::Alias(_)) || is_closed() {
            return Vec::new();
        }
        let ports = service.distinct_ports();
        let ports: Vec<(&Port<'_>, Vec<Member<'_>>)> =
            ports.map(|port| (port, self.endpoints.members(service, port, self.scope))).collect();
        let mut tallies: BTreeMap<(Said, Sent), Tally<'_>> = BTreeMap::new();
        let mut seen: Vec<Option<&Merged<'_>>> = Vec::new();
        for viewer in viewers {
            if !service.is_seen_in(self.scope, viewer.namespace) {
                continue;
            }
            let own = || {
                let own = WorkloadLabels::of_proxy(self.scope);
                viewer.labels.map_or(WorkloadLabels::of_proxy(self.scope), |labels| own.with(labels))
            };
            let rule = self.all.of_viewer(service, viewer.namespace, own);
            let is_same = |seen: &&Option<&Merged<'_>>| match (seen, rule) {
                (Some(seen), Some(rule)) => std::ptr::eq(*seen, rule),
                (None, None) => true,
                _ => false,
            };
            if seen.iter().any(|seen| is_same(&seen)) {
                continue;
            }
            seen.push(rule);
            for (port, members) in &ports {
                self.count(service, rule, port, members, &mut tallies);
            }
        }
        let counted = tallies.into_iter().flat_map(|(key, tally)| conflicts(service, key, tally));
        counted.collect()
    }

    /// Adds what `rule` has clients send to one port.
    fn count<'m>(
        &self,
        service: &Service<'_>,
        rule: Option<&Merged<'_>>,
        port: &Port<'_>,
        members: &'m [Member<'m>],
        tallies: &mut BTreeMap<(Said, Sent), Tally<'m>>,
    ) {
        let whole = self.told(service, rule, None, port.number);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets);
        let of_subsets =
            subsets.map(|subset| (self.told(service, rule, Some(subset), port.number), Some(subset)));
        // What a subset is told like all is counted.
        let of_subsets: Vec<_> = of_subsets.filter(|(told, _)| *told != whole).collect();
        for (told, subset) in [(whole, None)].into_iter().chain(of_subsets) {
            let Some(told) = told else { continue };
            let sent = told.1;
            let tally = tallies.entry(told).or_default();
            let carries = |member: &&Member<'_>| subset.is_none_or(|it| member.carries(&it.subset.labels));
            for member in members.iter().filter(carries) {
                let who = (member.address.ip(), member.name);
                tally.all.insert(who);
                let Some((refusal, origin)) = self.refusal(member, sent, port.protocol) else { continue };
                let refusing = tally.refusing.entry(refusal).or_insert_with(|| Refusing {
                    all: HashSet::default(),
                    example: named(member),
                    origin,
                });
                refusing.all.insert(who);
            }
        }
    }

    /// What `rule` says for a port of a subset, and where; `None` where what is sent works by itself.
    fn told(
        &self,
        service: &Service<'_>,
        rule: Option<&Merged<'_>>,
        subset: Option<&RuleSubset<'_>>,
        port: u16,
    ) -> Option<(Said, Sent)> {
        let of_service = rule.and_then(|rule| rule.traffic_policy);
        let of_subset = subset.and_then(|subset| subset.subset.traffic_policy.as_deref());
        let policy = match subset {
            None => Policy::of(of_service, port),
            Some(_) => Policy::of_subset(of_service, of_subset, port),
        };
        if let Some(tls) = policy.tls {
            return Some((place(tls, rule, subset)?, sent(tls)));
        }
        if !self.scope.mesh.is_mutual_by_itself() {
            let said = rule.map_or(Said::Mesh, |rule| Said::Rule(rule.object().key(), "spec".to_owned()));
            return Some((said, Sent::Untold));
        }
        // Endpoints that are marked as without TLS are not spoken to with it.
        let marked = marking(if subset.is_some() { of_subset } else { of_service }, port)?;
        let is_marked = mode(marked) != ClientTlsMode::IstioMutual;
        let is_balanced = service.resolution != Resolution::Passthrough;
        (is_marked && is_balanced).then_some((place(marked, rule, subset)?, Sent::Plain))
    }

    /// Why `member` does not take what is sent to a port of this protocol, and which PeerAuthentication says so.
    fn refusal(
        &self,
        member: &Member<'_>,
        sent: Sent,
        protocol: Protocol,
    ) -> Option<(Refusal, Option<Origin>)> {
        let pod = member.pod?;
        let port = member.address.port();
        let is_gateway =
            || self.gateways.iter().any(|labels| !labels.is_empty() && pod.labels().carries(labels));
        if !pod.accepts_mutual_tls() {
            // Without a sidecar, the application itself takes what comes.
            let is_refused = sent == Sent::IstioMutual && pod.is_without_sidecar() && !is_gateway();
            return is_refused.then_some((Refusal::NoSidecar, None));
        }
        // Who detects the protocol passes TLS on.
        let is_http = matches!(protocol, Protocol::Http1 | Protocol::Http2);
        let may_be = match sent {
            Sent::IstioMutual => self.any_disables,
            Sent::Plain | Sent::Untold => self.any_is_strict,
            Sent::Simple | Sent::Mutual => self.any_is_strict || is_http,
            Sent::MutualOfMesh => is_http,
        };
        if !may_be || !pod.is_captured(port) {
            return None;
        }
        let modes = Modes::of_workload(self.scope, &pod.workload()?.namespace, &pod.labels());
        let told = modes.of(port);
        let refusal = match (told.mode == peer_authentication::Mode::Strict, sent) {
            (false, Sent::IstioMutual) if told.mode == peer_authentication::Mode::Disable => Refusal::Disable,
            (_, Sent::IstioMutual) | (true, Sent::MutualOfMesh) => return None,
            (true, _) => Refusal::Strict,
            (false, Sent::Simple | Sent::Mutual | Sent::MutualOfMesh) if is_http => Refusal::Http,
            (false, _) => return None,
        };
        (!is_gateway()).then(|| (refusal, told.origin.clone()))
    }
}

/// What of a tally does not work.
fn conflicts(
    service: &Service<'_>,
    (said, sent): (Said, Sent),
    tally: Tally<'_>,
) -> impl Iterator<Item = TlsConflict> {
    let (host, endpoints) = (service.host.clone(), tally.all.len());
    tally.refusing.into_iter().map(move |(refusal, refusing)| TlsConflict {
        said: said.clone(),
        sent,
        refusal,
        host: host.clone(),
        refusing: refusing.all.len(),
        endpoints,
        example: refusing.example,
        origin: refusing.origin,
    })
}

/// How endpoints are spoken to.
fn sent(tls: &ClientTlsSettings) -> Sent {
    let is_of_mesh = || tls.subject_alt_names.iter().any(|name| name.starts_with(SPIFFE));
    match mode(tls) {
        ClientTlsMode::Disable => Sent::Plain,
        ClientTlsMode::Simple => Sent::Simple,
        ClientTlsMode::IstioMutual => Sent::IstioMutual,
        ClientTlsMode::Mutual if is_of_mesh() => Sent::MutualOfMesh,
        ClientTlsMode::Mutual => Sent::Mutual,
    }
}

/// Where `tls` is written.
fn place(
    tls: &ClientTlsSettings,
    rule: Option<&Merged<'_>>,
    subset: Option<&RuleSubset<'_>>,
) -> Option<Said> {
    let policies = [subset.and_then(RuleSubset::policy), rule.and_then(Merged::policy)];
    policies.into_iter().flatten().find_map(|(object, policy, path)| {
        let is_it =
            |other: &Option<ClientTlsSettings>| other.as_ref().is_some_and(|it| std::ptr::eq(it, tls));
        let path = match policy.port_level_settings.iter().position(|settings| is_it(&settings.tls)) {
            Some(index) => format!("{path}.portLevelSettings[{index}].tls"),
            None if is_it(&policy.tls) => format!("{path}.tls"),
            None => return None,
        };
        Some(Said::Rule(object.key(), path))
    })
}

/// An endpoint in words.
fn named(member: &Member<'_>) -> String {
    let port = member.address.port();
    let address = member.name.map_or_else(|| member.address.to_string(), |name| format!("{name}:{port}"));
    match member.pod.and_then(|pod| pod.workload()) {
        Some(workload) => format!("{address} of {}/{}", workload.namespace, workload.name),
        None => address,
    }
}
