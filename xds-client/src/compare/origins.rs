//! Declared resources without the objects and places that caused them, and who told which setting: a server tells some, and files and lines never.

use std::sync::Arc;

use config::{
    Cluster, DiscoveryType, FilterChain, Listener, NetworkFilter, RouteAction, RouteConfiguration,
    RouteSource, Told, TransportSocket, Update,
};

/// A copy without origins, and without the words in which a closed chain says why it is.
pub(super) fn without(update: &Update) -> Update {
    let mut update = update.clone();
    update.clusters.iter_mut().for_each(cluster);
    update.listeners.iter_mut().for_each(listener);
    update.routes.iter_mut().for_each(routes);
    update
}

fn cluster(cluster: &mut Cluster) {
    cluster.metadata.origin = None;
    cluster.metadata.told = Told::default();
    cluster.metadata.fields = None;
    let sockets = cluster.transport_socket_matches.iter_mut().map(|it| &mut it.transport_socket);
    for socket in sockets.chain([&mut cluster.transport_socket]) {
        if let TransportSocket::Tls(tls) = socket {
            tls.origin = None;
        }
    }
    if let DiscoveryType::StrictDns(dns) | DiscoveryType::LogicalDns(dns) = &mut cluster.discovery {
        Arc::make_mut(dns).origin = None;
    }
}

fn listener(listener: &mut Listener) {
    listener.origin = None;
    let Listener { filter_chains, default_filter_chain, .. } = listener;
    filter_chains.iter_mut().chain(default_filter_chain).for_each(chain);
}

fn chain(chain: &mut FilterChain) {
    if let Some(tls) = &mut chain.tls {
        Arc::make_mut(tls).origin = None;
    }
    filter(&mut chain.filter);
}

fn filter(filter: &mut NetworkFilter) {
    match filter {
        NetworkFilter::Http(manager) => {
            let manager = Arc::make_mut(manager);
            if let RouteSource::Inline(inline) = &mut manager.routes {
                routes(Arc::make_mut(inline));
            }
        }
        NetworkFilter::TcpProxy(tcp) => Arc::make_mut(tcp).origin = None,
        NetworkFilter::Closed(closed) => {
            closed.origin = None;
            closed.reason = "".into();
            closed.behind.iter_mut().for_each(|behind| self::filter(behind));
        }
    }
}

fn routes(routes: &mut RouteConfiguration) {
    for host in &mut routes.virtual_hosts {
        for route in &mut Arc::make_mut(host).routes {
            route.origin = None;
            if let RouteAction::Forward(forward) = &mut route.action {
                forward.told = Told::default();
            }
        }
    }
}
