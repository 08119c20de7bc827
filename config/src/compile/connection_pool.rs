//! `connectionPool` of a DestinationRule: bounds of connections and requests, as istiod writes them into a cluster.

use std::time::Duration;

use super::Scope;
use super::protocol::Protocol;
use crate::istio::{ConnectionPoolSettings, TcpKeepalive as KeepaliveSettings};
use crate::resource::{CircuitBreakers, TcpKeepalive};

/// Istio's default of MeshConfig.connectTimeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Envoy's `common_http_protocol_options.idle_timeout` when it is not given.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The rule's bound, or else the mesh's; zero is no bound to either.
pub(super) fn connect_timeout(scope: &Scope<'_>, pool: Option<&ConnectionPoolSettings>) -> Duration {
    let rule = pool.and_then(|pool| pool.tcp.as_ref()?.connect_timeout);
    let told = [rule, scope.mesh.connect_timeout].into_iter().flatten().map(|timeout| timeout.0);
    told.into_iter().find(|timeout| !timeout.is_zero()).unwrap_or(CONNECT_TIMEOUT)
}

pub(super) fn idle_timeout(pool: Option<&ConnectionPoolSettings>) -> Duration {
    let http = pool.and_then(|pool| pool.http.as_ref()?.idle_timeout);
    let tcp = pool.and_then(|pool| pool.tcp.as_ref()?.idle_timeout);
    http.or(tcp).map_or(IDLE_TIMEOUT, |timeout| timeout.0)
}

pub(super) fn max_requests_per_connection(pool: Option<&ConnectionPoolSettings>) -> Option<u32> {
    pool.and_then(|pool| positive(pool.http.as_ref()?.max_requests_per_connection))
}

pub(super) fn max_connection_duration(pool: Option<&ConnectionPoolSettings>) -> Option<Duration> {
    let duration = pool.and_then(|pool| pool.tcp.as_ref()?.max_connection_duration)?.0;
    Some(duration).filter(|duration| !duration.is_zero())
}

/// istiod says it only where the port itself is HTTP/2, and forgets it again where the client's protocol is used.
pub(super) fn max_concurrent_streams(port: Protocol, pool: Option<&ConnectionPoolSettings>) -> Option<u32> {
    let http = pool.and_then(|pool| pool.http.as_ref())?;
    let is_said = port == Protocol::Http2 && http.use_client_protocol != Some(true);
    positive(http.max_concurrent_streams).filter(|_| is_said)
}

/// Zero and negative numbers mean the default.
pub(super) fn positive(number: Option<i32>) -> Option<u32> {
    u32::try_from(number?).ok().filter(|number| *number > 0)
}

pub(super) fn circuit_breakers(pool: Option<&ConnectionPoolSettings>) -> CircuitBreakers {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let or_default = |told: Option<i32>| positive(told).unwrap_or(u32::MAX);
    CircuitBreakers {
        max_connections: or_default(tcp.and_then(|tcp| tcp.max_connections)),
        max_pending_requests: or_default(http.and_then(|http| http.http1_max_pending_requests)),
        max_requests: or_default(http.and_then(|http| http.http2_max_requests)),
        max_retries: or_default(http.and_then(|http| http.max_retries)),
    }
}

/// The mesh's keep-alive, field by field overridden by the rule's, as far as the kernel takes it.
pub(super) fn tcp_keepalive(
    scope: &Scope<'_>,
    pool: Option<&ConnectionPoolSettings>,
) -> Option<TcpKeepalive> {
    let told = |settings: &KeepaliveSettings| TcpKeepalive {
        probes: settings.probes.filter(|probes| *probes > 0),
        time: settings.time.map(|time| time.0),
        interval: settings.interval.map(|interval| interval.0),
    };
    let mesh = scope.mesh.tcp_keepalive.as_ref().map(told);
    let rule = pool.and_then(|pool| pool.tcp.as_ref()?.tcp_keepalive.as_ref()).map(told);
    let keepalive = match (mesh, rule) {
        (Some(mesh), Some(rule)) => Some(TcpKeepalive {
            probes: rule.probes.or(mesh.probes),
            time: rule.time.or(mesh.time),
            interval: rule.interval.or(mesh.interval),
        }),
        (mesh, rule) => rule.or(mesh),
    };
    keepalive.map(TcpKeepalive::bounded)
}
