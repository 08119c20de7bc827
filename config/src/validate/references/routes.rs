//! What VirtualServices refer to, and where two of them collide.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::hosts::{Hosts, exported_to, full_name, is_exported, with_domain};
use crate::compile::is_taken_in;
use crate::finding::{Finding, code};
use crate::istio::{Delegate, Destination, HttpMatchRequest, HttpRoute, VirtualService};
use crate::kubernetes::Service;
use crate::objects::{Object, Objects};
use crate::origin::ObjectRef;
use crate::validate::Check;
use crate::validate::virtual_service::{MESH_GATEWAY, is_for_mesh};
use crate::yaml::Limits;

/// Checks what the rules of one VirtualService refer to.
pub(super) fn check(
    objects: &Objects,
    hosts: &Hosts<'_>,
    object: &Object<VirtualService>,
    limits: &Limits,
) -> Vec<Finding> {
    let mut check = Check::new(&object.metadata.object, &object.metadata.source, limits);
    if !is_for_mesh(&object.spec) {
        return Vec::new();
    }
    let asked = asked_ports(hosts, object);
    let mut targets = HashMap::new();
    for (index, route) in object.spec.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (number, entry) in route.route.iter().enumerate() {
            let path = format!("{path}.route[{number}].destination");
            let written = &entry.destination.host;
            if written.starts_with('*') {
                continue;
            }
            let host = full_name(written, object.namespace());
            let target =
                targets.entry(host).or_insert_with_key(|host| Target::of(objects, hosts, object, host));
            match target {
                Some(target) => target.check(&mut check, &path, &entry.destination, &asked),
                None => {
                    let host = full_name(written, object.namespace());
                    dangling_host(&mut check, hosts, &path, written, &host);
                }
            }
        }
        check_matched_ports(&mut check, hosts, object, &path, route);
        if let Some(delegate) = &route.delegate {
            check_delegate(&mut check, objects, &format!("{path}.delegate"), route, delegate);
        }
    }
    check.into_findings()
}

/// Ports that are listed in a finding.
const PORTS_LISTED_MAX: usize = 16;

/// Names among which a similar one is looked for.
const NAMES_COMPARED_MAX: usize = 256;

/// A service that rules of one object lead to, looked up once however many do.
struct Target<'o> {
    host: String,
    ports: BTreeSet<u32>,
    /// Subsets by DestinationRules that hold there, in their order.
    subsets: Vec<&'o str>,
    known: HashSet<&'o str>,
    /// Whether a client may have asked for a port that it has not; `None` until that is asked.
    is_ambiguous: Option<bool>,
}

impl<'o> Target<'o> {
    fn of(
        objects: &'o Objects,
        hosts: &Hosts<'o>,
        object: &Object<VirtualService>,
        host: &str,
    ) -> Option<Target<'o>> {
        let service = hosts.service(host)?;
        let default = &objects.mesh.default_destination_rule_export_to;
        let rules = hosts.rules(host, service.namespace(), object.namespace(), default);
        let subsets: Vec<_> =
            rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str()).collect();
        Some(Target {
            host: host.to_owned(),
            ports: ports_of(&service.spec).collect(),
            known: subsets.iter().copied().collect(),
            subsets,
            is_ambiguous: None,
        })
    }

    fn check(&mut self, check: &mut Check<'_>, path: &str, destination: &Destination, asked: &BTreeSet<u32>) {
        self.check_port(check, path, destination, asked);
        let Some(subset) = destination.subset.as_deref().filter(|subset| !subset.is_empty()) else { return };
        if self.known.contains(&subset) {
            return;
        }
        let path = format!("{path}.subset");
        check.warning_with(code::DANGLING_SUBSET, &path, || {
            let what =
                format!("no DestinationRule that holds here for `{}` has a subset `{subset}`", self.host);
            let remedy = match self.subsets.as_slice() {
                [] => "write a DestinationRule for that host with this subset, or remove `subset`".to_owned(),
                known => crate::yaml::remedy(subset, known.get(..NAMES_COMPARED_MAX).unwrap_or(known)),
            };
            (answered_503(&what), remedy)
        });
    }

    /// Without a port, istiod takes the only one of the service, or else the one that the client asked for.
    fn check_port(
        &mut self,
        check: &mut Check<'_>,
        path: &str,
        destination: &Destination,
        asked: &BTreeSet<u32>,
    ) {
        let (host, ports) = (&self.host, &self.ports);
        match &destination.port {
            Some(port) if !ports.contains(&port.number) => {
                check.warning_with(code::DANGLING_PORT, &format!("{path}.port"), || {
                    let what = format!("`{host}` has no port {}", port.number);
                    (answered_503(&what), format!("write one of its ports: {}", listed(ports)))
                });
            }
            None if ports.len() > 1
                && *self.is_ambiguous.get_or_insert_with(|| asked.is_empty() || !asked.is_subset(ports)) =>
            {
                check.warning_with(code::AMBIGUOUS_PORT, path, || {
                    let what = format!(
                        "`{host}` has several ports ({}) and none is named: the port that the client asked for is taken, \
                         which may not be one of them",
                        listed(ports)
                    );
                    (what, "add `port: {number: ...}`".to_owned())
                });
            }
            _ => {}
        }
    }
}

fn listed(ports: &BTreeSet<u32>) -> String {
    let listed: Vec<_> = ports.iter().take(PORTS_LISTED_MAX).map(u32::to_string).collect();
    let more = if ports.len() > PORTS_LISTED_MAX { ", ..." } else { "" };
    format!("{}{more}", listed.join(", "))
}

/// What a dangling reference does to requests; Envoy's flag for a cluster that is not there is NC.
fn answered_503(what: &str) -> String {
    format!("{what}; requests that go there are answered 503 NC")
}

/// Warns of a host that no service has.
pub(super) fn dangling_host(check: &mut Check<'_>, hosts: &Hosts<'_>, path: &str, written: &str, host: &str) {
    if hosts.is_declared(host) {
        return;
    }
    let completed = with_domain(written);
    let remedy = if written.contains('.') && hosts.service(&completed).is_some() {
        format!("write `{completed}`; only a name without a point is completed")
    } else if written == host {
        "correct the name, or add the Service or ServiceEntry".to_owned()
    } else {
        format!("correct the name, add the Service, or name its namespace; it is taken to be `{host}`")
    };
    let what = format!("no service has the host `{written}`");
    check.warning(code::DANGLING_HOST, &format!("{path}.host"), what, remedy);
}

/// Ports that clients of the hosts of `object` can ask for, as far as services tell.
fn asked_ports(hosts: &Hosts<'_>, object: &Object<VirtualService>) -> BTreeSet<u32> {
    let services =
        object.spec.hosts.iter().filter_map(|host| hosts.service(&full_name(host, object.namespace())));
    services.flat_map(|service| ports_of(&service.spec)).collect()
}

/// Warns of matches for ports that no service of these hosts has. Those for gateways are left alone: their ports are others.
fn check_matched_ports(
    check: &mut Check<'_>,
    hosts: &Hosts<'_>,
    object: &Object<VirtualService>,
    path: &str,
    route: &HttpRoute,
) {
    let is_mesh = |gateways: &[String]| gateways.iter().all(|gateway| gateway == MESH_GATEWAY);
    let ports = |request: &HttpMatchRequest| request.port.filter(|port| *port != 0);
    if !is_mesh(&object.spec.gateways)
        || object.spec.hosts.is_empty()
        || !route.matches.iter().any(|it| ports(it).is_some())
    {
        return;
    }
    let mut known = BTreeSet::new();
    for host in &object.spec.hosts {
        let Some(ports) = hosts.ports(&full_name(host, object.namespace())) else { return };
        known.extend(ports);
    }
    for (number, request) in route.matches.iter().enumerate() {
        let Some(port) = ports(request).filter(|port| !known.contains(port)) else { continue };
        check.warning_with(code::DANGLING_PORT, &format!("{path}.match[{number}].port"), || {
            let what = format!("the match never holds: no service of these hosts has a port {port}");
            (what, format!("write one of their ports: {}", listed(&known)))
        });
    }
}

fn ports_of(service: &Service) -> impl Iterator<Item = u32> {
    service.spec.ports.iter().map(|port| u32::from(port.port))
}

fn check_delegate(
    check: &mut Check<'_>,
    objects: &Objects,
    path: &str,
    route: &HttpRoute,
    delegate: &Delegate,
) {
    let namespace = delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or(check.namespace());
    let name = delegate.name.as_deref().unwrap_or_default();
    let default = &objects.mesh.default_virtual_service_export_to;
    let problem = match objects.virtual_services.get(&(namespace.into(), name.into())) {
        None => "does not exist",
        Some(found) if !found.spec.hosts.is_empty() => "has `hosts`, so it is not a delegate",
        Some(found) if !is_exported(&found.spec.export_to, default, namespace, check.namespace()) => {
            "is not exported to this namespace"
        }
        Some(found) => return check_delegated(check, path, route, found),
    };
    let what = format!("the VirtualService {namespace}/{name} {problem}; the rule has no effect");
    check.warning(code::DANGLING_DELEGATE, path, what, "correct `name` and `namespace`, or that object");
}

/// Warns of rules of a delegate that are not taken in.
fn check_delegated(check: &mut Check<'_>, path: &str, route: &HttpRoute, delegate: &Object<VirtualService>) {
    for (number, rule) in delegate.spec.http.iter().enumerate() {
        if is_taken_in(route, rule) {
            continue;
        }
        check.warning_with(code::CONFLICTING_DELEGATE, path, || {
            let name = rule.name.as_deref().filter(|name| !name.is_empty());
            let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
            let what = format!(
                "rule http[{number}]{name} of the VirtualService {}/{} is left out: what it matches is no part of what this \
                 rule matches",
                delegate.namespace(),
                delegate.name()
            );
            (what, "let it match a part of it, without `regex` where both match the same".to_owned())
        });
    }
}

/// Warns of hosts that several VirtualServices speak for. For sidecars Istio merges nothing: the oldest holds.
pub(super) fn check_collisions(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    /// One entry of `hosts`: its number and its object.
    type Claim<'o> = (usize, &'o Object<VirtualService>);
    let mut by_host: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for object in objects.virtual_services.values().filter(|object| is_for_mesh(&object.spec)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            by_host.entry(full_name(host, object.namespace())).or_default().push((index, object));
        }
    }
    let mut checks: BTreeMap<&ObjectRef, Check<'_>> = BTreeMap::new();
    for (host, mut claims) in by_host {
        claims.sort_by_cached_key(|(_, object)| age(object));
        let mut older = Older::default();
        for (index, object) in claims {
            let Some(older) = older.seen_together(object, &objects.mesh.default_virtual_service_export_to)
            else {
                continue;
            };
            let metadata = &object.metadata;
            let check = checks
                .entry(&metadata.object)
                .or_insert_with(|| Check::new(&metadata.object, &metadata.source, limits));
            check.warning_with(code::CONFLICTING_HOST, &format!("spec.hosts[{index}]"), || {
                let what = format!(
                    "{} is older and holds for `{host}`; this one has no effect on it",
                    older.origin()
                );
                (what, "write the rules of one host in one VirtualService, or delegate to several".to_owned())
            });
        }
    }
    checks.into_values().flat_map(Check::into_findings).collect()
}

/// The VirtualServices of one host so far, the oldest first.
#[derive(Default)]
struct Older<'o> {
    all: Option<&'o Object<VirtualService>>,
    /// The oldest that each namespace sees, with its number; `*` stands for those that all see.
    by_namespace: HashMap<&'o str, (usize, &'o Object<VirtualService>)>,
    count: usize,
}

impl<'o> Older<'o> {
    /// The oldest that some namespace sees together with `object`, which is one of them from now on.
    fn seen_together(
        &mut self,
        object: &'o Object<VirtualService>,
        default: &'o [String],
    ) -> Option<&'o Object<VirtualService>> {
        let names = exported_to(&object.spec.export_to, default);
        let own = object.namespace().as_ref();
        let names: Vec<&'o str> = match names {
            Cow::Borrowed(names) => names.iter().map(|name| if name == "." { own } else { name }).collect(),
            Cow::Owned(_) => vec!["*"],
        };
        let found = if names.contains(&"*") {
            self.all
        } else {
            let seen = names.iter().chain(&["*"]).filter_map(|name| self.by_namespace.get(name));
            seen.min_by_key(|(number, _)| *number).map(|(_, older)| *older)
        };
        for name in names {
            self.by_namespace.entry(name).or_insert((self.count, object));
        }
        self.count += 1;
        self.all.get_or_insert(object);
        found
    }
}

/// istiod's order: by time of creation, objects without one last, then by name and namespace.
fn age(object: &Object<VirtualService>) -> (bool, Option<Box<str>>, String) {
    let created = object.metadata.creation_timestamp.clone();
    (created.is_none(), created, format!("{}.{}", object.name(), object.namespace()))
}
