//! AUTO_PASSTHROUGH: a gateway between networks. Proxies on the other side ask for a service, port and subset by the server
//! name of its cluster, in mutual TLS with the workload itself; the gateway reads that name and nothing else.
//!
//! Nobody gets to a workload in plain text by it: only clients are passed on that offer what proxies of the mesh offer, and
//! only to endpoints that accept mutual TLS.

use std::sync::Arc;

use super::findings::Findings;
use super::gateway::{self, Served};
use super::host::{HostIndex, is_wildcard};
use super::protocol::Protocol;
use super::registry::{Port, Resolution, Service};
use super::tcp::{Tcp, server_names};
use super::transport::{Transport, sni};
use super::{Mode, Scope, closed};
use crate::istio::ServerTlsMode;
use crate::resource::{Cluster, FilterChain, FilterChainMatch};

/// What proxies of the mesh offer in mutual TLS, in istiod's order.
const MESH_ALPN: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Whether a Gateway asks this workload for it.
pub(super) fn is_asked(scope: &Scope<'_>) -> bool {
    let is_auto = |mode| mode == ServerTlsMode::AutoPassthrough;
    scope.mode == Mode::Gateway
        && gateway::selected(scope)
            .iter()
            .flat_map(|object| &object.spec.servers)
            .any(|server| server.tls.as_ref().is_some_and(|tls| is_auto(tls.mode)))
}

/// Whether a port can be asked for by name.
pub(super) fn is_reachable(service: &Service<'_>, port: &Port<'_>) -> bool {
    !service.is_external()
        && !matches!(service.resolution, Resolution::Alias(_))
        && !is_wildcard(&service.host)
        && port.protocol != Protocol::Udp
}

/// The cluster to which connections are passed on that are for `whole`, the cluster of a service, port and subset: the same
/// but for its TLS, of which there is none.
pub(super) fn cluster(scope: &Scope<'_>, whole: Cluster, name: Arc<str>, service: &Service<'_>) -> Cluster {
    let Transport { matches, socket } = closed::transport(scope, service).unwrap_or_else(Transport::plain);
    Cluster { name, transport_socket_matches: matches, transport_socket: socket, ..whole }
}

impl Tcp<'_> {
    /// A chain for each service, port and subset that the hosts of a server cover.
    pub(super) fn passed_by_name(&self, served: &Served<'_>, findings: &mut Findings) -> Vec<FilterChain> {
        let hosts: Vec<Arc<str>> =
            served.scoped_hosts().map(|(_, host)| host.to_lowercase().into()).collect();
        let hosts = HostIndex::new(&hosts);
        let offered = MESH_ALPN.map(Arc::from);
        let mut chains = Vec::new();
        for service in self.registry.services().iter().filter(|service| hosts.covers(&service.host)) {
            for port in service.distinct_ports().filter(|port| is_reachable(service, port)) {
                let products = &self.scope.routes;
                if products.are_too_many() {
                    let what = "connections for the services that are left are closed";
                    products.find(served.object, &served.path(), what, findings);
                    return chains;
                }
                let rule = self.rules.of(service, self.scope);
                let subsets = rule.into_iter().flat_map(|rule| &rule.subsets);
                let subsets = [""].into_iter().chain(subsets.map(|subset| &*subset.subset.name));
                for subset in subsets {
                    let to = (service, subset, u32::from(port.number));
                    chains.push(self.passed_to(served, to, offered.to_vec()));
                    products.add(1);
                }
            }
        }
        chains
    }

    fn passed_to(
        &self,
        served: &Served<'_>,
        (service, subset, port): (&Service<'_>, &str, u32),
        application_protocols: Vec<Arc<str>>,
    ) -> FilterChain {
        let name = sni(subset, &service.host, port);
        let server_names = server_names(std::iter::once(&*name));
        let chain_match =
            FilterChainMatch { server_names, application_protocols, ..FilterChainMatch::default() };
        let asking = served.object.origin_at(&format!("{}.tls.mode", served.path()));
        let cluster = self.clusters.name(name.to_string());
        self.to_service((service, subset, port), (cluster, Some(asking)), chain_match)
    }
}
