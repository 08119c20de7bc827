//! Destinations of rules: whether the service, its port and its subset are there.

use std::collections::BTreeSet;

use super::hosts::{Asker, Hosts, full_name, gateway_named, namespace_of, with_domain};
use super::routes::{is_for_mesh_alone, named_clients, named_ports};
use crate::compile::sight;
use crate::finding::code;
use crate::hashed::{HashMap, HashSet};
use crate::istio::{Destination, VirtualService};
use crate::objects::{Kept, Key, Object, Objects};
use crate::validate::Check;
use crate::validate::virtual_service::is_for_mesh;
use crate::yaml::nearest;

/// Ports that are listed in a finding.
const PORTS_LISTED_MAX: usize = 16;

/// Names among which a similar one is looked for.
const NAMES_COMPARED_MAX: usize = 256;

/// Namespaces that an object names of which it is asked what their clients see.
const CLIENTS_ASKED_MAX: usize = 16;

/// What a rule routes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Routed {
    /// Of HTTP.
    Requests,
    /// Of TCP and TLS.
    Connections,
    /// What has a weight of 0 beside others.
    Nothing,
}

impl Routed {
    /// What a dangling reference does to what is routed; Envoy's flag for a cluster that is not there is NC.
    fn refused(self, what: &str) -> String {
        match self {
            Routed::Requests => format!("{what}; requests that go there are answered 503 NC"),
            Routed::Connections => format!("{what}; connections that go there are closed (NC)"),
            Routed::Nothing => format!("{what}; nothing goes there while its weight is 0"),
        }
    }
}

/// A destination, and where it is written.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub(super) path: &'w str,
    pub(super) destination: &'w Destination,
    pub(super) routed: Routed,
    /// The only ports for which the rule is; none where it is for any.
    pub(super) ports: &'w [u32],
    /// The namespaces that the rule names, if it is only for clients in those.
    pub(super) named: Option<&'w [&'w str]>,
}

/// What there is of a host.
enum Found<'o> {
    Nothing,
    /// A service that clients in that namespace do not see.
    Hidden(String),
    Service(Target<'o>),
}

/// Ports at which the rules of one object are asked.
struct Asked {
    /// Those that clients of its hosts can ask for, as far as services tell; `None` where it is for gateways alone.
    of_mesh: Option<BTreeSet<u32>>,
    /// Those of the Gateway objects it is for. Which of them serve it is not looked at.
    of_gateways: BTreeSet<u32>,
    /// The ports of HTTP that its hosts have, where sidecars alone serve it and all are known.
    of_sidecars: Option<BTreeSet<u32>>,
}

impl Asked {
    /// Those of all `askers` of one object.
    fn of(objects: &Objects, hosts: &Hosts<'_>, askers: &[Asker<'_>]) -> Asked {
        let of_sidecars = at_sidecars(hosts, askers);
        let mut asked = Asked { of_mesh: None, of_gateways: BTreeSet::new(), of_sidecars };
        for Asker { object, by } in askers {
            let only = by.map(|rule| named_ports(rule.matches.iter().map(|it| it.port))).unwrap_or_default();
            if is_for_mesh(&object.spec) {
                let own = object.spec.hosts.iter().map(|host| full_name(host, object.namespace()));
                let of_mesh = asked.of_mesh.get_or_insert_default();
                match only.as_slice() {
                    [] => of_mesh.extend(own.flat_map(|host| declared_ports(hosts, &host))),
                    only => of_mesh.extend(only),
                }
            }
            let gateways = object.spec.gateways.iter();
            let gateways = gateways.filter_map(|written| gateway_named(objects, written, object.namespace()));
            let servers = gateways.flat_map(|gateway| &gateway.spec.servers);
            let ports = servers.map(|server| server.port.number);
            asked.of_gateways.extend(ports.filter(|port| only.is_empty() || only.contains(port)));
        }
        asked
    }

    /// Whether some client may ask for a port.
    fn has(&self, port: u32, hosts: &Hosts<'_>) -> bool {
        let of_mesh = self.of_mesh.as_ref();
        of_mesh.is_some_and(|asked| asked.is_empty() || asked.contains(&port) || hosts.is_of_foreign(port))
            || self.of_gateways.contains(&port)
    }

    /// Whether sidecars alone are asked, for others than `port`: for those of `only`, if there are any, that can be asked for,
    /// and else for those that the hosts have. Port 80 counts where a rule names it: there any host can be asked for.
    fn is_never(&self, port: u32, only: &[u32], hosts: &Hosts<'_>) -> bool {
        let Some(of_sidecars) = &self.of_sidecars else { return false };
        let of_rule = only.iter().filter(|port| of_sidecars.contains(port) || hosts.is_of_foreign(**port));
        let asked: BTreeSet<_> =
            if only.is_empty() { of_sidecars.iter().collect() } else { of_rule.collect() };
        !asked.is_empty() && !asked.contains(&port)
    }

    /// Whether one may be asked for, or all of a gateway's are, that is none of `ports`.
    fn may_lack(&self, ports: &BTreeSet<u32>) -> bool {
        let of_mesh = self.of_mesh.as_ref();
        of_mesh.is_some_and(|asked| asked.is_empty() || !asked.is_subset(ports))
            || (!self.of_gateways.is_empty() && self.of_gateways.is_disjoint(ports))
    }
}

/// The ports at which `askers` are asked for HTTP, all of them at sidecars alone; `None` where they cannot be known.
fn at_sidecars(hosts: &Hosts<'_>, askers: &[Asker<'_>]) -> Option<BTreeSet<u32>> {
    let mut known = (!askers.is_empty()).then(BTreeSet::new)?;
    for Asker { object, by } in askers {
        let only = by.map(|rule| named_ports(rule.matches.iter().map(|it| it.port))).unwrap_or_default();
        let own = object.spec.hosts.iter().filter(|_| is_for_mesh_alone(&object.spec));
        let ports: Option<Vec<_>> =
            own.map(|host| hosts.http_ports(&full_name(host, object.namespace()))).collect();
        let ports = ports.filter(|ports| !ports.is_empty())?.into_iter().flatten();
        let is_meant = |port: &u32| only.is_empty() || only.contains(port);
        known.extend(ports.filter(is_meant));
        known.extend(only.iter().filter(|port| hosts.is_of_foreign(**port)));
    }
    Some(known)
}

/// What the rules of one object lead to, looked up once however many do.
pub(super) struct Targets<'o> {
    objects: &'o Objects,
    hosts: &'o Hosts<'o>,
    object: &'o Object<VirtualService>,
    asked: Asked,
    /// Who asks them.
    askers: Vec<Asker<'o>>,
    /// The namespaces that those name, if all are only for clients in such.
    named: Option<Vec<&'o str>>,
    /// The namespaces whose clients are sure to be meant: its own, unless it is for the mesh, or else those it names.
    clients: Vec<&'o str>,
    /// What its destinations lead to, by full host, and apart those of rules for clients in namespaces that they name.
    by_host: HashMap<(Option<Vec<String>>, String), Found<'o>>,
}

impl<'o> Targets<'o> {
    pub(super) fn new(
        objects: &'o Objects,
        hosts: &'o Hosts<'o>,
        object: &'o Object<VirtualService>,
    ) -> Targets<'o> {
        let askers = hosts.askers(object);
        let asked = Asked::of(objects, hosts, &askers);
        // Whoever meets a rule of a delegate has met the one that delegates.
        let names = |asker: &Asker<'o>| asker.by.and_then(|rule| named_clients(&rule.matches));
        let for_all = askers.iter().filter(|asker| names(asker).is_none());
        let clients = for_all.flat_map(|asker| clients(objects, hosts, asker.object)).collect();
        let named: Option<Vec<Vec<&'o str>>> = askers.iter().map(names).collect();
        let named = named.filter(|_| !askers.is_empty()).map(|named| named.concat());
        Targets { objects, hosts, object, asked, askers, named, clients, by_host: HashMap::default() }
    }

    /// The namespaces of clients that are named where a rule names those, if it or all that delegates to it does: of those
    /// that see who asks.
    fn clients_named(&self, own: Option<&[&str]>) -> Option<Vec<String>> {
        let default = &self.objects.mesh.default_virtual_service_export_to;
        let of_askers = self.named.as_deref();
        let named = own.or(of_askers)?.iter().filter(|it| of_askers.is_none_or(|named| named.contains(it)));
        let sees = |client: &&&str| {
            let mut askers = self.askers.iter().map(|asker| asker.object);
            askers.any(|it| sight(&it.spec.export_to, default, it.namespace(), client).is_some())
        };
        Some(named.filter(sees).take(CLIENTS_ASKED_MAX).map(|client| (*client).to_owned()).collect())
    }

    /// Warns of what a destination names and is not there.
    pub(super) fn check(&mut self, check: &mut Check<'_>, wanted: Wanted<'_>) {
        let named = self.clients_named(wanted.named);
        let Targets { objects, hosts, object, asked, clients, by_host, .. } = self;
        let written = &wanted.destination.host;
        if written.starts_with('*') {
            return;
        }
        let host = full_name(written, object.namespace());
        let found = by_host.entry((named, host)).or_insert_with_key(|(named, host)| {
            let is_hidden = |client: &&str| hosts.is_hidden(host, client, &objects.mesh);
            let mut asking: Vec<&str> = match named {
                Some(named) => named.iter().map(String::as_str).collect(),
                None => clients.clone(),
            };
            if let Some(client) = asking.iter().find(|client| is_hidden(client)) {
                return Found::Hidden((*client).to_owned());
            }
            if named.is_none() {
                asking = vec![object.namespace()];
            }
            let target = Target::of(objects, hosts, &asking, host);
            target.map_or(Found::Nothing, |target| {
                Found::Service(Target { is_for_named: named.is_some(), ..target })
            })
        });
        match found {
            Found::Service(target) => {
                target.check_port(check, wanted, hosts, asked);
                target.check_subset(check, wanted, hosts, asked);
            }
            Found::Hidden(client) => {
                check.warning_with(code::HIDDEN_HOST, &format!("{}.host", wanted.path), || {
                    let what = format!(
                        "clients in the namespace `{client}` do not see the service of `{written}`, which is not exported to it"
                    );
                    (wanted.routed.refused(&what), "let `exportTo` of that service name it too".to_owned())
                });
            }
            Found::Nothing => {
                let (path, host) = (format!("{}.host", wanted.path), full_name(written, object.namespace()));
                if !hosts.is_declared(&host) {
                    return dangling_host(check, objects, hosts, (&path, written, &host));
                }
                check.warning_with(code::DANGLING_HOST, &path, || {
                    let what =
                        format!("only a wildcard stands for `{written}`, and no service has that host");
                    (wanted.routed.refused(&what), "declare the host itself in a ServiceEntry".to_owned())
                });
            }
        }
    }
}

/// The namespaces whose clients the rules of `object` are sure to be for.
fn clients<'o>(objects: &'o Objects, hosts: &Hosts<'o>, object: &'o Object<VirtualService>) -> Vec<&'o str> {
    let default = &objects.mesh.default_virtual_service_export_to;
    let (export_to, own) = (&object.spec.export_to, object.namespace().as_ref());
    let sees = |client: &&str| sight(export_to, default, own, client).is_some();
    // Where the workloads of gateways are is not told by them.
    if own == hosts.root_namespace() || !is_for_mesh(&object.spec) {
        return Vec::new();
    }
    if sees(&own) {
        return vec![own];
    }
    export_to.iter().map(String::as_str).filter(sees).take(CLIENTS_ASKED_MAX).collect()
}

/// A service that rules lead to.
struct Target<'o> {
    host: String,
    ports: BTreeSet<u32>,
    /// Subsets by DestinationRules that hold for clients in a namespace.
    subsets: Vec<(String, HashSet<&'o str>)>,
    /// Whether those are the only ones that are meant.
    is_for_named: bool,
    /// Whether a client may have asked for a port that it has not; `None` until that is asked.
    is_ambiguous: Option<bool>,
    /// Whether the subsets of rules for other clients are among those that are known.
    is_widened: bool,
}

impl<'o> Target<'o> {
    fn of(objects: &'o Objects, hosts: &Hosts<'o>, clients: &[&str], host: &str) -> Option<Target<'o>> {
        let ports = declared_ports(hosts, host);
        let service = hosts.service(host).map(|service| service.namespace());
        let entries = hosts.entries(host).iter().map(|entry| entry.namespace()).filter(|_| service.is_none());
        let namespaces: BTreeSet<_> = service.into_iter().chain(entries).collect();
        if namespaces.is_empty() {
            return None;
        }
        let default = &objects.mesh.default_destination_rule_export_to;
        let subsets = clients.iter().map(|client| {
            let rules = namespaces.iter().flat_map(|of| hosts.rules(host, of, client, default));
            let subsets = rules.flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str());
            ((*client).to_owned(), subsets.collect())
        });
        Some(Target {
            host: host.to_owned(),
            ports,
            subsets: subsets.collect(),
            is_for_named: false,
            is_ambiguous: None,
            is_widened: false,
        })
    }

    fn check_subset(&mut self, check: &mut Check<'_>, wanted: Wanted<'_>, hosts: &Hosts<'o>, asked: &Asked) {
        let subset = wanted.destination.subset.as_deref().filter(|subset| !subset.is_empty());
        let Some(subset) = subset else { return };
        // The workloads of gateways may be clients in any namespace.
        let is_anywhere = asked.of_mesh.is_none() && !self.is_for_named;
        let lacks = |(_, known): &&(String, HashSet<&'o str>)| !known.contains(subset);
        if is_anywhere
            && self.subsets.iter().any(|it| lacks(&it))
            && !std::mem::replace(&mut self.is_widened, true)
        {
            let (host, subsets) = (&self.host, &mut self.subsets);
            subsets.iter_mut().for_each(|(_, known)| known.extend(hosts.subsets_anywhere(host)));
        }
        let Some((client, known)) = self.subsets.iter().find(lacks) else { return };
        check.warning_with(code::DANGLING_SUBSET, &format!("{}.subset", wanted.path), || {
            let holds = match self.is_for_named {
                true => format!("for clients in the namespace `{client}`"),
                false => "here".to_owned(),
            };
            let host = &self.host;
            let what = format!("no DestinationRule that holds {holds} for `{host}` has a subset `{subset}`");
            let mut known: Vec<&str> = known.iter().copied().collect();
            known.sort_unstable();
            let remedy = match known.as_slice() {
                [] => "write a DestinationRule for that host with this subset, or remove `subset`".to_owned(),
                known => crate::yaml::remedy(subset, known.get(..NAMES_COMPARED_MAX).unwrap_or(known)),
            };
            (wanted.routed.refused(&what), remedy)
        });
    }

    /// Without a port, istiod takes the only one of the service, or else the one that the client asked for. Sidecars take that
    /// for HTTP in any case: they look for the service among those that have it.
    fn check_port(&mut self, check: &mut Check<'_>, wanted: Wanted<'_>, hosts: &Hosts<'_>, asked: &Asked) {
        let (host, ports, path) = (&self.host, &self.ports, wanted.path);
        let is_ambiguous = &mut self.is_ambiguous;
        let mut may_lack = || match wanted.ports {
            [] => *is_ambiguous.get_or_insert_with(|| asked.may_lack(ports)),
            only => only.iter().any(|port| !ports.contains(port) && asked.has(*port, hosts)),
        };
        match &wanted.destination.port {
            Some(port) if !ports.contains(&port.number) => {
                check.warning_with(code::DANGLING_PORT, &format!("{path}.port"), || {
                    let what = format!("`{host}` has no port {}", port.number);
                    (wanted.routed.refused(&what), format!("write one of its ports: {}", listed(ports)))
                });
            }
            None if ports.len() > 1 && may_lack() => {
                check.warning_with(code::AMBIGUOUS_PORT, path, || {
                    let what = format!(
                        "`{host}` has several ports ({}) and none is named: the port that the client asked for is taken, \
                         which may not be one of them",
                        listed(ports)
                    );
                    (what, "add `port: {number: ...}`".to_owned())
                });
            }
            None if matches!(wanted.routed, Routed::Requests)
                && ports.len() == 1
                && ports.first().is_some_and(|only| asked.is_never(*only, wanted.ports, hosts)) =>
            {
                check.warning_with(code::DANGLING_PORT, path, || {
                    let only = listed(ports);
                    let what = format!(
                        "no port is named, and at sidecars that is the one that the client asked for; `{host}` has only port \
                         {only}, which these hosts have not"
                    );
                    (wanted.routed.refused(&what), format!("add `port: {{number: {only}}}`"))
                });
            }
            _ => {}
        }
    }
}

/// Ports as they stand in a finding.
pub(super) fn listed(ports: &BTreeSet<u32>) -> String {
    let listed: Vec<_> = ports.iter().take(PORTS_LISTED_MAX).map(u32::to_string).collect();
    let more = if ports.len() > PORTS_LISTED_MAX { ", ..." } else { "" };
    format!("{}{more}", listed.join(", "))
}

/// The ports of the service of a full host, or else of the ServiceEntry objects that declare it.
pub(super) fn declared_ports(hosts: &Hosts<'_>, host: &str) -> BTreeSet<u32> {
    if let Some(service) = hosts.service(host) {
        return service.spec.spec.ports.iter().map(|port| u32::from(port.port)).collect();
    }
    let ports = hosts.entries(host).iter().flat_map(|entry| &entry.spec.ports);
    ports.map(|port| port.number).collect()
}

/// Warns of a host that no service has, of which it is told where it is written, how, and what it is in full.
pub(super) fn dangling_host(
    check: &mut Check<'_>,
    objects: &Objects,
    hosts: &Hosts<'_>,
    (path, written, host): (&str, &str, &str),
) {
    if hosts.is_declared(host) {
        return;
    }
    check.warning_with(code::DANGLING_HOST, path, || {
        let completed = with_domain(written);
        let remedy = if written.contains('.') && hosts.service(&completed).is_some() {
            format!("write `{completed}`; only a name without a point is completed")
        } else if let Some(near) = similar_service(objects, written, host) {
            format!("did you mean `{near}`?")
        } else if written == host {
            "correct the name, or add the Service or ServiceEntry".to_owned()
        } else {
            format!("correct the name, add the Service, or name its namespace; it is taken to be `{host}`")
        };
        (format!("no service has the host `{written}`"), remedy)
    });
}

/// The service of the same namespace that `host` was most likely meant to be, as it is `written`.
fn similar_service(objects: &Objects, written: &str, host: &str) -> Option<String> {
    let namespace = namespace_of(host)?;
    let (name, rest) = written.split_once('.').map_or((written, None), |(name, rest)| (name, Some(rest)));
    let near = nearest(name, &names(&objects.services, namespace))?;
    Some(rest.map_or_else(|| near.to_owned(), |rest| format!("{near}.{rest}")))
}

/// Names of objects of a namespace, as many as are compared with another.
pub(super) fn names<'o, T>(objects: &'o Kept<T>, namespace: &str) -> Vec<&'o str> {
    let from: Key = (namespace.into(), "".into());
    let of_namespace = objects.range(from..).take_while(|((of, _), _)| **of == *namespace);
    of_namespace.take(NAMES_COMPARED_MAX).map(|((_, name), _)| &**name).collect()
}
