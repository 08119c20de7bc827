//! ServiceEntry and WorkloadEntry: what Istio's own validation refuses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::check::Check;
use super::{kubernetes, names, values};
use crate::finding::code;
use crate::istio::{ServiceEntry, ServiceResolution, WorkloadEntry};
use crate::resource::CidrRange;
use crate::yaml::{Limits, remedy};

/// Checks one ServiceEntry.
pub(crate) fn check(check: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() {
        check.error(code::MISSING_FIELD, "spec.hosts", "a service entry needs a host", "add one");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" {
            check.bad(&path, "the host `*` stands for everything", "name the host, or a suffix of it");
        } else if !names::is_ip(host) {
            names::host(check, &path, host);
        }
    }
    for (index, address) in spec.addresses.iter().enumerate() {
        if CidrRange::parse(address).is_none() {
            let remedy = "write an address, or a range like `10.0.0.0/8`";
            let what = format!("`{address}` is not an address");
            check.bad(&format!("spec.addresses[{index}]"), what, remedy);
        }
    }
    ports(check, spec);
    let selects = spec.workload_selector.as_ref().is_some_and(|selector| !selector.labels.is_empty());
    if selects && !spec.endpoints.is_empty() {
        let what = "endpoints are either written or selected";
        check.error(code::CONFLICTING_FIELDS, "spec.workloadSelector", what, "keep one of the two");
    }
    let by_dns = matches!(spec.resolution, ServiceResolution::Dns | ServiceResolution::DnsRoundRobin);
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        check_endpoint(check, &path, endpoint);
        for name in endpoint.ports.keys().filter(|name| !spec.ports.iter().any(|port| port.name == **name)) {
            let names: Vec<_> = spec.ports.iter().map(|port| port.name.as_str()).collect();
            let what = format!("no port of this object is named `{name}`");
            check.bad(&format!("{path}.ports[{name}]"), what, remedy(name, &names));
        }
        if !by_dns && endpoint.address.parse::<IpAddr>().is_err() && !endpoint.address.is_empty() {
            let what = format!("`{}` is not an IP address, and `resolution` is not DNS", endpoint.address);
            check.bad(&format!("{path}.address"), what, "write an address, or `resolution: DNS`");
        }
    }
    resolution(check, spec, selects);
    kubernetes::traffic_distribution(check, spec.traffic_distribution.as_deref());
    // For nobody but the workloads that serve it; other kinds cannot be so.
    if spec.export_to != ["~"] {
        names::export_to(check, &spec.export_to, false);
    }
}

fn ports(check: &mut Check<'_>, spec: &ServiceEntry) {
    let (mut numbers, mut port_names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        values::port_entry(check, &path, port.number, port.protocol.as_deref().unwrap_or_default());
        values::optional_port(check, &format!("{path}.targetPort"), port.target_port);
        if !numbers.insert(port.number) {
            check.bad(&format!("{path}.number"), format!("port {} is there twice", port.number), "keep one");
        }
        if port.name.is_empty() {
            check.error(code::MISSING_FIELD, &format!("{path}.name"), "a port needs a name", "add one");
        } else if !port_names.insert(&port.name) {
            check.bad(&format!("{path}.name"), format!("`{}` is there twice", port.name), "rename one");
        }
    }
}

fn resolution(check: &mut Check<'_>, spec: &ServiceEntry, selects: bool) {
    let path = "spec.resolution";
    let wildcard = spec.hosts.iter().any(|host| host.contains('*'));
    match spec.resolution {
        ServiceResolution::None if !spec.endpoints.is_empty() => {
            let what =
                "with `resolution: NONE` connections go where the client wanted, so endpoints have no use";
            check.error(code::CONFLICTING_FIELDS, path, what, "write `resolution: STATIC` or `DNS`");
        }
        ServiceResolution::Static if spec.endpoints.is_empty() && !selects => {
            let what = "there are no endpoints: every request is answered 503";
            check.warning(code::INEFFECTIVE_VALUE, path, what, "add `endpoints` or a `workloadSelector`");
        }
        ServiceResolution::Dns | ServiceResolution::DnsRoundRobin
            if wildcard && spec.endpoints.is_empty() =>
        {
            let what = "nobody can ask DNS for a host with `*`";
            check.bad(path, what, "name the hosts, add `endpoints`, or write `resolution: NONE`");
        }
        ServiceResolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            check.bad(
                path,
                "DNS_ROUND_ROBIN has one endpoint at most",
                "keep one, or write `resolution: DNS`",
            );
        }
        ServiceResolution::DynamicDns => {
            let what = "weft does not honour DYNAMIC_DNS yet: connections go where the client wanted to go";
            check.warning(
                code::FIELD_NOT_HONOURED,
                path,
                what,
                "name the hosts, and write `resolution: DNS`",
            );
        }
        _ => {}
    }
}

/// Each port of each host gets all endpoints.
pub(super) fn check_products(check: &mut Check<'_>, spec: &ServiceEntry, limits: &Limits) {
    let made = spec.hosts.len().saturating_mul(spec.ports.len()).saturating_mul(spec.endpoints.len().max(1));
    check.products(
        "spec.endpoints",
        made,
        "endpoints are made of these, for each port of each host all of them",
        limits,
    );
}

/// Checks an endpoint at `path`, or a WorkloadEntry.
pub(crate) fn check_endpoint(check: &mut Check<'_>, path: &str, entry: &WorkloadEntry) {
    let at = format!("{path}.address");
    let has_network = entry.network.as_deref().is_some_and(|network| !network.is_empty());
    if entry.address.starts_with("unix://") {
        let what = "weft does not honour Unix domain sockets yet: the endpoint is left out";
        check.warning(code::FIELD_NOT_HONOURED, &at, what, "serve on an IP address");
    } else if entry.address.is_empty() && has_network {
        // Istio would go by the gateways of that network.
        let what = "weft does not honour `network` yet: without an address, the endpoint is left out";
        check.warning(code::FIELD_NOT_HONOURED, &at, what, "add it");
    } else if entry.address.is_empty() {
        check.error(code::MISSING_FIELD, &at, "an endpoint needs an address", "add it");
    } else if !names::is_ip(&entry.address) {
        names::host(check, &at, &entry.address);
    }
    for (name, number) in &entry.ports {
        values::port(check, &format!("{path}.ports[{name}]"), *number);
    }
    names::labels(check, &format!("{path}.labels"), &entry.labels);
    if has_network && !entry.address.is_empty() {
        let what = "weft does not honour this field yet: the endpoint counts as one that can be reached";
        check.warning(code::FIELD_NOT_HONOURED, &format!("{path}.network"), what, "remove it");
    }
}
