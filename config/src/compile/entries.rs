//! Endpoints that ServiceEntry and WorkloadEntry objects declare.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::endpoints::{Member, is_reachable};
use super::registry::{Port, Resolution, Service};
use super::workload::{Instance, Instances};
use super::{Scope, service_entries};
use crate::hashed::{HashMap, HashSet};
use crate::istio::{ServiceEntry, WorkloadEntry};
use crate::kubernetes::{self, TargetPort};
use crate::objects::{Object, Objects};
use crate::origin::Origin;

/// All endpoints that are written.
pub(super) struct Entries<'a> {
    /// Those of a ServiceEntry itself, by namespace and name; its hosts are among them where DNS is to be asked for
    /// them.
    inline: HashMap<(&'a str, &'a str), Vec<Written<'a>>>,
    /// WorkloadEntry objects, by namespace.
    workloads: HashMap<&'a str, Vec<Written<'a>>>,
    /// A host stands for itself, where there are no endpoints.
    by_host: HashMap<(&'a str, &'a str), Hosts<'a>>,
}

/// The hosts of a ServiceEntry.
struct Hosts<'a> {
    /// As they are written, by their lower case.
    written: HashMap<String, &'a str>,
    instance: Instance<'a>,
}

/// An endpoint that is written.
struct Written<'a> {
    entry: &'a WorkloadEntry,
    instance: Instance<'a>,
}

/// What a host of a ServiceEntry is that has no endpoints: nothing but its name.
static NOTHING: WorkloadEntry = WorkloadEntry {
    address: String::new(),
    ports: BTreeMap::new(),
    labels: BTreeMap::new(),
    network: None,
    locality: None,
    weight: None,
    service_account: None,
    is_sick: false,
};

impl<'a> Entries<'a> {
    /// The entries of `scope`.
    pub(super) fn new(scope: &Scope<'a>) -> Entries<'a> {
        let mut entries = Entries {
            inline: HashMap::default(),
            workloads: HashMap::default(),
            by_host: HashMap::default(),
        };
        for object in scope.objects.service_entries.values() {
            let key: (&'a str, &'a str) = (object.namespace(), object.name());
            let written = object.spec.endpoints.iter().enumerate().map(|(index, entry)| {
                let name = format!("{}-{index}", object.name());
                let instance = Instance::of_entry(entry, &entry.labels, &name, object.namespace(), scope);
                Written { entry, instance }
            });
            entries.inline.insert(key, written.collect());
            if object.spec.endpoints.is_empty() {
                let instance =
                    Instance::of_entry(&NOTHING, &NOTHING.labels, object.name(), object.namespace(), scope);
                let hosts = object.spec.hosts.iter().rev();
                let written = hosts.map(|host| (host.to_ascii_lowercase(), host.as_str())).collect();
                entries.by_host.insert(key, Hosts { written, instance });
            }
        }
        for object in scope.objects.workload_entries.values().filter(|object| !object.spec.is_sick) {
            let (spec, labels): (&'a WorkloadEntry, &'a Object<WorkloadEntry>) = (&object.spec, object);
            let instance = Instance::of_entry(spec, labels, object.name(), object.namespace(), scope);
            let written = Written { entry: &object.spec, instance };
            entries.workloads.entry(object.namespace()).or_default().push(written);
        }
        entries
    }

    /// Where the endpoint is written that this very instance is.
    pub(super) fn origin_of(&self, instance: &Instance<'_>, objects: &Objects) -> Option<Origin> {
        let is_it = |written: &Written<'_>| std::ptr::addr_eq(&written.instance, instance);
        let inline = self.inline.iter().find_map(|((namespace, name), written)| {
            let index = written.iter().position(is_it)?;
            let object = objects.service_entries.get(&((*namespace).into(), (*name).into()))?;
            Some(object.origin_at(&format!("spec.endpoints[{index}]")))
        });
        inline.or_else(|| {
            let written = self.workloads.values().flatten().find(|written| is_it(written))?;
            let mut workloads = objects.workload_entries.values();
            Some(workloads.find(|object| std::ptr::eq(&raw const object.spec, written.entry))?.origin())
        })
    }

    /// The endpoints of `port` of `service`, which `object` declares, and others for the same host.
    pub(super) fn members<'m>(
        &'m self,
        object: &'a Object<ServiceEntry>,
        service: &Service<'a>,
        port: &Port<'_>,
        instances: &'m Instances<'a>,
        scope: &Scope<'_>,
    ) -> Vec<Member<'m>> {
        let mut members = Vec::new();
        for object in std::iter::once(object).chain(service.others.iter().copied()) {
            // Of each its own target port.
            let mut ports = service_entries::ports(&object.spec);
            if let Some(port) = ports.find(|it| it.number == port.number && it.name == port.name) {
                members.extend(self.of_entry(object, service, &port, instances, scope));
            }
        }
        let mut seen = HashSet::default();
        members.retain(|member: &Member<'m>| {
            (member.name.is_some() || is_reachable(member.address.ip(), &scope.proxy.ips))
                && seen.insert((member.address, member.name))
        });
        members
    }

    fn of_entry<'m>(
        &'m self,
        object: &'a Object<ServiceEntry>,
        service: &Service<'a>,
        port: &Port<'_>,
        instances: &'m Instances<'a>,
        scope: &Scope<'_>,
    ) -> Vec<Member<'m>> {
        let by_dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        let number = port.target.unwrap_or(port.number);
        let key = (&**object.namespace(), &**object.name());
        let mut members = Vec::new();
        for written in self.inline.get(&key).into_iter().flatten() {
            members.extend(written.member(port.name, Some(number), by_dns));
        }
        let selector = object.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        if let Some(selector) = selector.filter(|labels| !labels.is_empty()) {
            let carries = |written: &Written<'_>| written.instance.labels().carries(selector);
            members.extend(self.selected(key.0, carries, port.name, Some(number), by_dns));
            let pods =
                instances.of_namespace(key.0).into_iter().filter(|(_, pod)| pod.labels().carries(selector));
            members.extend(pods.filter_map(|(name, pod)| {
                let written = &scope.objects.pods.get(&(object.namespace().clone(), name.into()))?.spec;
                let number = written.port_named(port.name).unwrap_or(number);
                let address = SocketAddr::new(written.status.pod_ip?, number);
                let is_ready = written.is_ready();
                Some(Member { address, name: None, is_ready, pod: Some(pod), node: "" })
            }));
        } else if by_dns && members.is_empty() && object.spec.endpoints.is_empty() {
            // The host is what DNS is asked for.
            let hosts = self.by_host.get(&key);
            let written = |hosts: &'m Hosts<'a>| hosts.written.get(&service.host.to_ascii_lowercase());
            members
                .extend(hosts.and_then(|hosts| Some(named(written(hosts)?, number, Some(&hosts.instance)))));
        }
        members
    }

    /// The WorkloadEntry objects that a Kubernetes service selects.
    pub(super) fn of_kubernetes<'m>(
        &'m self,
        object: &Object<kubernetes::Service>,
        port: &Port<'_>,
        scope: &Scope<'_>,
    ) -> Vec<Member<'m>> {
        let selector = &object.spec.spec.selector;
        if selector.is_empty() || self.workloads.is_empty() {
            return Vec::new();
        }
        let mut written = object.spec.spec.ports.iter();
        let told = written
            .find(|it| it.port == port.number && it.name.as_deref().unwrap_or_default() == port.name)
            .and_then(|it| it.target_port.as_ref());
        // A name is one that the entry has, or it serves no such port.
        let (name, number) = match told {
            Some(TargetPort::Name(name)) => (&**name, None),
            Some(TargetPort::Number(number)) if *number > 0 => (port.name, Some(*number)),
            _ => (port.name, Some(port.number)),
        };
        let selected = |written: &Written<'_>| written.instance.labels().is_selected_by(selector);
        let mut members = self.selected(object.namespace(), selected, name, number, false);
        members.retain(|member| is_reachable(member.address.ip(), &scope.proxy.ips));
        members
    }

    fn selected(
        &self,
        namespace: &str,
        is_selected: impl Fn(&Written<'_>) -> bool,
        port: &str,
        number: Option<u16>,
        by_dns: bool,
    ) -> Vec<Member<'_>> {
        let workloads = self.workloads.get(namespace).into_iter().flatten();
        let selected = workloads.filter(|written| is_selected(written));
        selected.filter_map(|written| written.member(port, number, by_dns)).collect()
    }
}

impl Written<'_> {
    /// The endpoint of a port, of that `number` where it does not say it itself; `None` when nobody does, or its address is
    /// of no use.
    fn member(&self, port: &str, number: Option<u16>, by_dns: bool) -> Option<Member<'_>> {
        let own = self.entry.ports.get(port).and_then(|port| u16::try_from(*port).ok());
        let number = own.filter(|port| *port > 0).or(number)?;
        match self.entry.address.parse::<IpAddr>() {
            Ok(ip) => {
                let address = SocketAddr::new(ip, number);
                Some(Member { address, name: None, is_ready: true, pod: Some(&self.instance), node: "" })
            }
            Err(_) if by_dns && !self.entry.address.is_empty() && !self.entry.address.contains('/') => {
                Some(named(&self.entry.address, number, Some(&self.instance)))
            }
            Err(_) => None,
        }
    }
}

fn named<'m>(host: &'m str, port: u16, instance: Option<&'m Instance<'m>>) -> Member<'m> {
    let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    Member { address, name: Some(host), is_ready: true, pod: instance, node: "" }
}
