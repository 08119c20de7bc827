//! TCP as it is: a client's connection and one to an upstream, and the bytes between them.
//!
//! [`serve`] is the story of one connection: draw a cluster, choose an endpoint, dial, pass bytes on, record. Nothing is
//! understood of the bytes, so nothing is tried twice once there is a connection. A connection that a later generation would
//! not admit is closed. Where ALPN has agreed on it, both sides say first who they are. Semantics: Envoy's `tcp_proxy`, with one
//! attempt to connect, which is its default and what istiod leaves.

mod copy;
mod greeting;
mod record;
mod unserved;

use std::rc::Rc;
use std::sync::Arc;

use config::{DiscoveryType, TrafficDirection};

use crate::engine::{Arrival, Engine, Generation};
use crate::snapshot::{Listener, NoTrace, TcpProxy, Transport};
use crate::telemetry::flags::Flag;
use crate::tls::Stream;
use crate::upstream::balancer::Avoid;
use crate::upstream::pool::Dialed;
use crate::upstream::{ActiveRequest, ConnectError, Destination, EndpointState, View};
use record::Record;
pub(crate) use record::log_unserved;
pub(crate) use unserved::Unserved;

/// Why there is no connection to an upstream in time, in Envoy's words.
const CONNECT_TIMEOUT: &str = "connection timeout";

/// A connection to an upstream that is ready for a client's bytes.
pub(crate) struct Connected {
    /// The cluster.
    view: Rc<View>,
    endpoint: Rc<EndpointState>,
    /// Counts it for the endpoint.
    _active: ActiveRequest,
    /// The connection.
    pub(crate) dialed: Dialed,
}

/// Why there is none, and how far it came.
pub(crate) struct Refused {
    flag: Flag,
    reason: Option<String>,
    /// The cluster that is not there.
    missing: Option<Arc<str>>,
    view: Option<Rc<View>>,
    endpoint: Option<Rc<EndpointState>>,
}

/// What serves a connection: a TCP proxy of a listener.
pub(crate) struct Service {
    /// The proxy.
    pub(crate) proxy: Arc<TcpProxy>,
    /// Number of the generation that chose it.
    pub(crate) generation: u64,
    /// Which way the listener's traffic goes.
    pub(crate) direction: TrafficDirection,
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// The listener.
    pub(crate) declared: Arc<Listener>,
}

impl Connected {
    /// Whether that is where a service sends its clients by this generation: to the same cluster, and as it is now.
    pub(crate) fn leads_where(&self, service: &Service, generation: &Generation) -> bool {
        let cluster = service.proxy.only_cluster();
        let cluster = cluster.and_then(|cluster| generation.snapshot().clusters.get(cluster));
        cluster.is_some_and(|cluster| Arc::ptr_eq(cluster, &self.view.cluster))
    }
}

/// Passes a connection on, to its end. `connected` is the connection to the upstream, if one was made already.
pub(crate) async fn serve(
    engine: Rc<Engine>,
    service: Service,
    mut arrival: Arrival,
    mut client: Stream,
    connected: Option<Connected>,
) {
    let first = std::mem::take(&mut arrival.first);
    let destination = arrival.destination;
    let idle_timeout = service.proxy.declared.idle_timeout;
    let direction = service.direction;
    let drawn = service.proxy.draw(engine.random()).cloned();
    let mut record = Record::begin(engine.clone(), service, arrival);
    let connected = match (connected, drawn) {
        (Some(connected), _) => Some(Ok(connected)),
        (None, Some(cluster)) => record.while_admitted(connect(&engine, &cluster, destination)).await,
        (None, None) => Some(Err(Refused::of(Flag::NoClusterFound))),
    };
    let Some(connected) = connected else { return };
    match connected {
        Ok(Connected { view, endpoint, _active, mut dialed }) => {
            let greets = match direction {
                TrafficDirection::Inbound => client.exchanges_metadata(),
                TrafficDirection::Outbound => dialed.stream.exchanges_metadata(),
            };
            record.connected(view, endpoint, &dialed, greets);
            copy::both_ways(&engine, &mut client, &mut dialed.stream, first, idle_timeout, &mut record).await;
        }
        Err(refused) => record.refused(refused),
    }
}

/// Opens a connection to an endpoint of a cluster, or to where the client wanted to go if the cluster is one of those.
pub(crate) async fn connect(
    engine: &Rc<Engine>,
    cluster: &Arc<str>,
    destination: Option<Destination>,
) -> Result<Connected, Refused> {
    let upstream = engine.upstream(engine.generation().snapshot(), cluster);
    let Some(upstream) = upstream else {
        return Err(Refused { missing: Some(cluster.clone()), ..Refused::of(Flag::NoClusterFound) });
    };
    let view = upstream.view();
    let endpoint = match &view.cluster.declared.discovery {
        DiscoveryType::OriginalDst => destination.map(|destination| upstream.choose(&view, destination)),
        DiscoveryType::Eds
        | DiscoveryType::Static
        | DiscoveryType::StrictDns(_)
        | DiscoveryType::LogicalDns(_) => {
            upstream.pick(&view, engine.random(), &[], Avoid::default(), &mut NoTrace)
        }
    };
    let Some(endpoint) = endpoint else {
        return Err(Refused { view: Some(view), ..Refused::of(Flag::NoHealthyUpstream) });
    };
    let refused = |flag, reason| Refused {
        reason: Some(reason),
        view: Some(view.clone()),
        endpoint: Some(endpoint.clone()),
        ..Refused::of(flag)
    };
    match &endpoint.transport {
        Transport::Plain | Transport::Tls(_) => {}
        Transport::Unusable(why) => {
            return Err(refused(Flag::UpstreamConnectionFailure, ConnectError::tls_words(why)));
        }
        Transport::TlsNotEnforced(_) => {
            let reason = "the upstream asks for TLS, which is not enforced".to_owned();
            return Err(refused(Flag::UpstreamConnectionFailure, reason));
        }
    }
    let active = endpoint.begin();
    match endpoint.pool.dial().await {
        Ok(dialed) => {
            Ok(Connected { view: view.clone(), endpoint: endpoint.clone(), _active: active, dialed })
        }
        Err(ConnectError::Timeout) => {
            Err(refused(Flag::UpstreamConnectionFailure, CONNECT_TIMEOUT.to_owned()))
        }
        Err(ConnectError::Tls(reason)) => {
            Err(refused(Flag::UpstreamConnectionFailure, ConnectError::tls_words(reason)))
        }
        Err(ConnectError::Failed(reason)) => Err(refused(Flag::UpstreamConnectionFailure, reason)),
        Err(ConnectError::Overflow(limit)) => {
            Err(refused(Flag::UpstreamOverflow, limit.describe(&view.cluster)))
        }
    }
}

impl Refused {
    fn of(flag: Flag) -> Refused {
        Refused { flag, reason: None, missing: None, view: None, endpoint: None }
    }
}
