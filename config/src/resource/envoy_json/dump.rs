//! Envoy's `/config_dump`, made piece by piece: that of a large mesh is many times what the mesh itself takes, so no more of
//! it than one entry is ever there, and of a route configuration one virtual host.

use std::iter;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};

use super::{bootstrap_dump, cluster, listener, load_assignment, proto, route};
use crate::compile::Proxy;
use crate::resource::{Named, Resources, RouteConfiguration};

/// Text, in the order in which it is written.
pub type Pieces = Box<dyn Iterator<Item = String>>;

/// A part of the dump: a list of resources of one kind, or the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpPart {
    /// Who the proxy is.
    Bootstrap,
    /// Clusters.
    Clusters,
    /// Listeners.
    Listeners,
    /// Route configurations.
    Routes,
    /// Endpoints.
    Endpoints,
}

impl DumpPart {
    /// All of them, in the order of the dump.
    pub const ALL: [DumpPart; 5] =
        [DumpPart::Bootstrap, DumpPart::Clusters, DumpPart::Listeners, DumpPart::Routes, DumpPart::Endpoints];

    /// Its field in Envoy's dump.
    pub fn field(self) -> &'static str {
        match self {
            DumpPart::Bootstrap => "bootstrap",
            DumpPart::Clusters => "dynamic_active_clusters",
            DumpPart::Listeners => "dynamic_listeners",
            DumpPart::Routes => "dynamic_route_configs",
            DumpPart::Endpoints => "dynamic_endpoint_configs",
        }
    }

    /// The message it is in.
    fn message(self) -> &'static str {
        match self {
            DumpPart::Bootstrap => "envoy.admin.v3.BootstrapConfigDump",
            DumpPart::Clusters => "envoy.admin.v3.ClustersConfigDump",
            DumpPart::Listeners => "envoy.admin.v3.ListenersConfigDump",
            DumpPart::Routes => "envoy.admin.v3.RoutesConfigDump",
            DumpPart::Endpoints => "envoy.admin.v3.EndpointsConfigDump",
        }
    }
}

/// What is wanted of a dump.
#[derive(Debug, Default)]
pub struct DumpSelection {
    /// Only this part; all when not given. Its entries then stand in `configs` themselves.
    pub part: Option<DumpPart>,
    /// Only resources with such a name.
    pub name: Option<Regex>,
}

/// The `/config_dump` of `resources`, all as dynamic ones of `version`. It keeps the resources that are still to come, and
/// nothing else.
pub fn config_dump(resources: &Resources, proxy: &Proxy, version: &str, wanted: &DumpSelection) -> Pieces {
    let name = wanted.name.as_ref();
    let of_part = |part| match part {
        DumpPart::Bootstrap => once(text(&bootstrap_dump(proxy)["bootstrap"])),
        DumpPart::Clusters => {
            list(&resources.clusters, name, version, |it, version| once(text(&dumped_cluster(it, version))))
        }
        DumpPart::Listeners => {
            list(&resources.listeners, name, version, |it, version| once(text(&dumped_listener(it, version))))
        }
        DumpPart::Routes => list(&resources.routes, name, version, dumped_routes),
        DumpPart::Endpoints => list(&resources.endpoints, name, version, |it, version| {
            once(text(&dumped_endpoints(it, version)))
        }),
    };
    let configs = match wanted.part {
        Some(part) => of_part(part),
        None => separated(DumpPart::ALL.map(|part| config(part, version, of_part(part))).into_iter()),
    };
    Box::new(once("{\"configs\": [\n".to_owned()).chain(configs).chain(once("\n]}\n".to_owned())))
}

/// A part within its message.
fn config(part: DumpPart, version: &str, entries: Pieces) -> Pieces {
    let begins = format!("{{\"@type\": \"type.googleapis.com/{}\"", part.message());
    let (before, after) = match part {
        DumpPart::Bootstrap => (format!("{begins}, \"bootstrap\": "), "}"),
        // These two say which version all of it is.
        DumpPart::Clusters | DumpPart::Listeners => {
            let version = json!(version);
            (format!("{begins}, \"version_info\": {version}, \"{}\": [\n", part.field()), "\n]}")
        }
        DumpPart::Routes | DumpPart::Endpoints => (format!("{begins}, \"{}\": [\n", part.field()), "\n]}"),
    };
    Box::new(once(before).chain(entries).chain(once(after.to_owned())))
}

/// The entries of resources with such a name.
fn list<T: 'static>(
    all: &Named<T>,
    name: Option<&Regex>,
    version: &str,
    entry: impl Fn(&Arc<T>, &str) -> Pieces + 'static,
) -> Pieces {
    let wanted = all.iter().filter(|(key, _)| name.is_none_or(|name| name.is_match(key)));
    let wanted: Vec<Arc<T>> = wanted.map(|(_, resource)| resource.clone()).collect();
    let version = version.to_owned();
    separated(wanted.into_iter().map(move |resource| entry(&resource, &version)))
}

/// The elements of an array.
fn separated(entries: impl Iterator<Item = Pieces> + 'static) -> Pieces {
    let comma = |number| if number == 0 { "" } else { ",\n" }.to_owned();
    Box::new(entries.enumerate().flat_map(move |(number, entry)| once(comma(number)).chain(entry)))
}

fn once(piece: String) -> Pieces {
    Box::new(iter::once(piece))
}

/// For people: what is written here is read in terminals.
fn text(value: &Value) -> String {
    format!("{value:#}")
}

fn dumped_cluster(resource: &crate::resource::Cluster, version: &str) -> Value {
    json!({
        "version_info": version,
        "cluster": proto::typed("envoy.config.cluster.v3.Cluster", cluster(resource)),
    })
}

fn dumped_listener(resource: &crate::resource::Listener, version: &str) -> Value {
    let listener = proto::typed("envoy.config.listener.v3.Listener", listener(resource));
    json!({ "name": &*resource.name, "active_state": { "version_info": version, "listener": listener } })
}

fn dumped_endpoints(resource: &crate::resource::ClusterLoadAssignment, version: &str) -> Value {
    let assignment =
        proto::typed("envoy.config.endpoint.v3.ClusterLoadAssignment", load_assignment(resource));
    json!({ "version_info": version, "endpoint_config": assignment })
}

/// One virtual host after the other: a single configuration may have all of a mesh.
fn dumped_routes(resource: &Arc<RouteConfiguration>, version: &str) -> Pieces {
    let config = proto::typed("envoy.config.route.v3.RouteConfiguration", route::without_hosts(resource));
    let fields = config.to_string();
    let fields = fields.strip_suffix('}').unwrap_or(&fields);
    let before =
        format!("{{\"version_info\": {}, \"route_config\": {fields}, \"virtual_hosts\": [\n", json!(version));
    let resource = resource.clone();
    let hosts = (0..resource.virtual_hosts.len()).filter_map(move |at| {
        resource.virtual_hosts.get(at).map(|host| once(text(&route::virtual_host(host))))
    });
    Box::new(once(before).chain(separated(hosts)).chain(once("\n]}}".to_owned())))
}
