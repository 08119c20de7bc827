//! Objects and "which proxy am I" to declared resources: istiod's job.
//!
//! One file a concern, in the order of the work:
//!
//! 1. `registry` (with `sidecar`, `service_entries`, `host` and `protocol`): the services that the proxy sees;
//! 2. `destination_rules` and `traffic_policy` (with `told` and `fields`): which settings hold for a service, port and subset;
//! 3. `workload`, `endpoints` (with `entries`) and `locality`: who serves it, and in which order of preference;
//! 4. `clusters`, `common_clusters` and `transport` (and `closed`): those three become clusters and load assignments;
//! 5. `virtual_services` and `delegates`: which rules the proxy sees, `visibility` says why;
//! 6. `virtual_hosts`, `routes` (with `matchers`, `headers`, `retry` and `actions`): rules become routes;
//! 7. `listeners`: what the command line asks for, served by those routes, with what `managers` says of all;
//! 8. `outbound`, `collected` and `tcp`: listeners for the traffic that a workload sends;
//! 9. `gateway`, `server_tls` and `auto_passthrough`: those for the traffic that comes into the mesh;
//! 10. `targets`, `inbound_clusters`, `peer_authentication`, `guards` and `inbound`: those for the traffic it gets.
//!
//! `tls_conflicts` asks some of them what no proxy has to ask. `steps` goes through them. `proxy` says for whom, `proxy_config` with which settings; `texts` keeps once what many
//! resources say; `compiler` compiles one state of the mesh after the other, `changes` says what is to be made again, and
//! `noted` what is known of the rest.
//!
//! What comes out is what istiod 1.32 sends a sidecar, names included, as far as weft honours it. Compile is a pure
//! function and total: what cannot be compiled is left out and found. What is written but not honoured yet is said
//! by [`validate`](crate::validate), not here.

mod access_log;
mod actions;
mod auto_passthrough;
mod behind;
mod changes;
mod closed;
mod clusters;
mod collected;
mod common_clusters;
mod compiler;
mod connection_pool;
mod delegates;
mod destination_rules;
mod egress;
mod endpoints;
mod entries;
mod fields;
mod findings;
mod gateway;
mod guards;
mod headers;
mod hidden;
mod host;
mod identities;
mod inbound;
mod inbound_clusters;
mod left_out;
mod listeners;
mod locality;
mod managers;
mod matchers;
mod name_table;
mod noted;
mod outbound;
mod outlier;
mod peer_authentication;
mod products;
mod protocol;
mod proxy;
mod proxy_config;
mod registry;
mod retry;
mod routes;
mod server_tls;
mod service_entries;
mod sidecar;
mod steps;
mod targets;
mod tcp;
#[cfg(test)]
mod tests;
mod texts;
mod tls_conflicts;
mod told;
mod traffic_policy;
mod transport;
mod trust_anchors;
mod virtual_hosts;
mod virtual_services;
mod visibility;
mod workload;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use behind::{At, Pods, by_address, place, target};
pub use behind::{Behind, behind};
pub use clusters::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH};
pub use compiler::{Compiler, Since};
pub(crate) use delegates::{is_taken_in, matches_of_rules};
pub(crate) use gateway::{LEFT_OUT, Taken, Written, is_that_of};
pub use guards::Guard;
pub use hidden::{Hidden, View};
pub use left_out::{LeftOut, rules_left_out};
pub(crate) use protocol::is_detected;
pub(crate) use protocol::is_protocol;
pub use protocol::{may_be_http, may_be_told_http};
pub use proxy::{NodeType, Proxy};
pub use proxy_config::{Concurrency, EffectiveProxyConfig, GivenConfig, effective_proxy_config};
pub(crate) use registry::ports_of_pod;
pub(crate) use service_entries::{Merged, entry_ports, merged};
pub(crate) use sidecar::is_where_traffic_comes;
pub(crate) use tls_conflicts::{Refusal, Said, Sent, TlsConflict, tls_conflicts};
pub use trust_anchors::{ReadRoots, TrustAnchors};
pub(crate) use virtual_services::gateway_name;
pub(crate) use visibility::{Sight, sight};

use crate::finding::Finding;
use crate::mesh::{InterceptionMode, MeshConfig};
use crate::objects::{Metadata, Objects};
use crate::origin::Origin;
use crate::resource::{NameTable, Update};

/// Istio's root namespace when the mesh does not say another.
pub(crate) const ROOT_NAMESPACE: &str = "istio-system";

/// A listener that the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub target: ListenTarget,
}

/// What an [`ExplicitListener`] serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenTarget {
    /// The virtual host of one service, for every Host.
    Service {
        /// The service, `catalog.shop` or any longer form; `catalog` in the proxy's own namespace.
        host: Arc<str>,
        /// Its port.
        port: u16,
    },
    /// All HTTP services of one port, chosen by Host.
    Outbound {
        /// The port.
        port: u16,
    },
}

/// What is to be compiled beside the clusters and their endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Listeners that the command line asks for; those of the mode come after them.
    pub listeners: Vec<ExplicitListener>,
    /// Which listeners else.
    pub mode: Mode,
    /// Whether inbound traffic is served in plain text where policies that are not enforced yet guard it.
    pub allow_unenforced_security: bool,
    /// Whether the workload has an identity of its own, so that mutual TLS of the mesh is spoken.
    pub identity: bool,
    /// How many routes, and how many clusters with their endpoints, may be made at most.
    pub products_max: Option<usize>,
    /// Where the proxy takes orders itself.
    pub orders: TakesOrders,
}

/// Where a proxy takes orders, which are not for clients elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakesOrders {
    /// Where its admin console listens, which asks nobody who they are; `None` where that is not known.
    pub console: Option<SocketAddr>,
    /// The agent's port, which takes orders from localhost; Istio's where it is not known.
    pub agent_port: Option<u16>,
}

/// What a proxy is in the mesh. Istio: the type of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It serves what the command line asks for, and nothing else.
    #[default]
    Explicit,
    /// It stands beside a workload whose traffic is redirected to it.
    Sidecar,
    /// It is at the edge of the mesh, and serves what Gateway objects ask of it.
    Gateway,
}

/// What [`compile`] makes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// The declared resources: listeners in the order they were asked for, all else by name.
    pub update: Update,
    /// What it noticed that only shows when all objects are seen together for this proxy.
    pub findings: Vec<Finding>,
    /// What the DNS proxy answers.
    pub names: NameTable,
    /// What still holds of the compile before, and is not here; `None` for nothing. See [`Compiler`].
    pub since: Option<Since>,
}

/// Node metadata that says how the pod's traffic comes to its proxy.
pub(crate) const INTERCEPTION_MODE: &str = "INTERCEPTION_MODE";

/// What every step needs.
struct Scope<'a> {
    objects: &'a Objects,
    proxy: &'a Proxy,
    mesh: &'a MeshConfig,
    root_namespace: &'a str,
    mode: Mode,
    texts: texts::Texts,
    /// What the workload's own identity is called in TLS.
    mutual: transport::Mutual,
    /// How many routes there are.
    routes: products::Products,
    /// How many clusters of subsets, and endpoints of clusters, there are.
    endpoints: products::Products,
    /// Whether the workload has an identity.
    has_identity: bool,
    /// Where the proxy takes orders.
    orders: TakesOrders,
}

impl<'a> Scope<'a> {
    /// What every step of a compile needs.
    fn of(objects: &'a Objects, proxy: &'a Proxy, request: &Request) -> Scope<'a> {
        let (has_identity, orders) = (request.identity, request.orders);
        Scope { has_identity, orders, ..Scope::new(objects, proxy, request.mode, request.products_max) }
    }

    fn new(objects: &'a Objects, proxy: &'a Proxy, mode: Mode, products_max: Option<usize>) -> Scope<'a> {
        let mesh = &*objects.mesh;
        let root_namespace = mesh.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE);
        let (texts, mutual) = (texts::Texts::default(), transport::Mutual::default());
        let [routes, endpoints] = [products_max, products_max].map(products::Products::new);
        Scope {
            objects,
            proxy,
            mesh,
            root_namespace,
            mode,
            texts,
            mutual,
            routes,
            endpoints,
            has_identity: false,
            orders: TakesOrders::default(),
        }
    }
}

/// Compiles `objects` for `proxy` and the listeners that the command line asks for. It never fails: what cannot be
/// compiled is left out and found.
pub fn compile(objects: &Objects, proxy: &Proxy, listeners: &[ExplicitListener]) -> Compiled {
    compile_as(objects, proxy, &Request { listeners: listeners.to_vec(), ..Request::default() })
}

/// Compiles `objects` for `proxy` as `request` says. It never fails either.
pub fn compile_as(objects: &Objects, proxy: &Proxy, request: &Request) -> Compiled {
    steps::compile_after(objects, proxy, request, None).0
}

/// The object that decides what happens to traffic of `proxy`, a sidecar, for hosts that no service has: a Sidecar, or else
/// MeshConfig, written or not.
pub fn outbound_traffic_policy_origin(objects: &Objects, proxy: &Proxy) -> Origin {
    sidecar::outbound_traffic_policy_origin(&Scope::new(objects, proxy, Mode::Sidecar, None))
}

/// Whether a port takes plain text and mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualTls {
    /// Istio's word for it: `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mode: &'static str,
    /// The PeerAuthentication that says so; `None` for Istio's default.
    pub origin: Option<Origin>,
}

impl MutualTls {
    fn of(told: &peer_authentication::Told) -> MutualTls {
        MutualTls { mode: told.mode.name(), origin: told.origin.clone() }
    }
}

/// The policies that guard `proxy`, a sidecar or a gateway as `mode` says, and are not enforced yet.
pub fn guards_of(objects: &Objects, proxy: &Proxy, mode: Mode) -> Vec<Guard> {
    guards::guards(&Scope::new(objects, proxy, mode, None))
}

/// Whether `port` of `proxy`, a sidecar, takes plain text and mutual TLS.
pub fn mutual_tls(objects: &Objects, proxy: &Proxy, port: u16) -> MutualTls {
    let scope = Scope::new(objects, proxy, Mode::Sidecar, None);
    MutualTls::of(peer_authentication::Modes::new(&scope).of(port))
}

/// The same for `port` of a pod, as `proxy` sees it; `None` when there is no such pod.
pub fn mutual_tls_of_pod(
    objects: &Objects,
    proxy: &Proxy,
    (namespace, name): (&str, &str),
    port: u16,
) -> Option<MutualTls> {
    let scope = Scope::new(objects, proxy, Mode::Sidecar, None);
    let instances = workload::Instances::new(&scope);
    let labels = instances.get(namespace, name)?.labels();
    Some(MutualTls::of(peer_authentication::Modes::of_workload(&scope, namespace, &labels).of(port)))
}

/// Whether traffic is redirected with its addresses as they are (TPROXY), as the pod says.
fn is_transparent(scope: &Scope<'_>) -> bool {
    is_interception(scope, InterceptionMode::Tproxy)
}

/// Whether traffic is redirected at all. Where it is not, all listeners of a sidecar have sockets of their own.
fn is_redirected(scope: &Scope<'_>) -> bool {
    !is_interception(scope, InterceptionMode::None)
}

/// Whether traffic is redirected to a port of the proxy, so that no other listener may have it, for whichever address.
fn is_redirected_to(scope: &Scope<'_>, port: u16) -> bool {
    is_redirected(scope) && [scope.mesh.inbound_port(), scope.mesh.outbound_port()].contains(&port)
}

fn is_interception(scope: &Scope<'_>, mode: InterceptionMode) -> bool {
    scope.proxy.metadata.get(INTERCEPTION_MODE).is_some_and(|told| told == mode.name())
}

/// How long a sidecar waits for first bytes; `None` for ever, which is Istio's default.
fn detection_timeout(scope: &Scope<'_>) -> Option<Duration> {
    scope.mesh.protocol_detection_timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero())
}

/// Every IPv6 address, for a proxy that has both IP versions and so listens on every IPv4 address first.
fn additional_addresses(scope: &Scope<'_>, port: u16) -> Vec<SocketAddr> {
    let both = has_both_families(&scope.proxy.ips);
    both.then(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).into_iter().collect()
}

/// Whether addresses of a proxy are of both IP versions: it is dual-stack then, as with istiod's `ISTIO_DUAL_STACK`.
fn has_both_families(ips: &[IpAddr]) -> bool {
    ips.iter().any(IpAddr::is_ipv4) && ips.iter().any(IpAddr::is_ipv6)
}

/// Sorts the oldest object first; those that do not say when they were made come last, by name.
pub(crate) fn age(metadata: &Metadata) -> (bool, &str, &str, &str) {
    let made = metadata.creation_timestamp.as_deref();
    (made.is_none(), made.unwrap_or_default(), &metadata.object.name, &metadata.object.namespace)
}
