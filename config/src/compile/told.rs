//! Which settings of a cluster its DestinationRule tells, and which MeshConfig.

use super::connection_pool::positive;
use super::traffic_policy::Policy;
use super::{Scope, managers};
use crate::istio::{GoDuration, H2UpgradePolicy, SimpleLb};
use crate::resource::{Setting, Told};

/// What the mesh tells of every cluster.
pub(super) fn by_mesh(scope: &Scope<'_>) -> Told {
    Told::default().by_mesh([
        (Setting::ConnectTimeout, time(scope.mesh.connect_timeout)),
        (Setting::TcpIdleTimeout, managers::told_tcp_idle_timeout(scope).is_some()),
    ])
}

/// Zero tells nothing.
fn time(told: Option<GoDuration>) -> bool {
    told.is_some_and(|time| !time.0.is_zero())
}

/// Who told the settings of a cluster under `policy`.
pub(super) fn of_cluster(scope: &Scope<'_>, policy: &Policy<'_>) -> Told {
    let tcp = policy.connection_pool.and_then(|pool| pool.tcp.as_ref());
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    let count = |told: Option<i32>| positive(told).is_some();
    let balancer = policy.load_balancer;
    let simple = balancer.and_then(|balancer| balancer.simple);
    let idle = http.and_then(|http| http.idle_timeout).or(tcp.and_then(|tcp| tcp.idle_timeout));
    let protocol = http.is_some_and(|http| {
        http.use_client_protocol == Some(true) || http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade)
    });
    by_mesh(scope)
        .by_mesh([(Setting::Locality, scope.mesh.locality_lb_setting.is_some())])
        .by_object([
            (Setting::LoadBalancing, simple.is_some_and(|simple| simple != SimpleLb::Unspecified)),
            (Setting::Locality, balancer.is_some_and(|balancer| balancer.locality_lb_setting.is_some())),
            (Setting::ConnectTimeout, time(tcp.and_then(|tcp| tcp.connect_timeout))),
            (Setting::IdleTimeout, idle.is_some()),
            (Setting::TcpIdleTimeout, tcp.is_some_and(|tcp| tcp.idle_timeout.is_some())),
            (Setting::Protocol, protocol),
            (Setting::OutlierDetection, policy.outlier_detection.is_some()),
            (Setting::Tls, policy.tls.is_some()),
            (Setting::MaxConnectionDuration, time(tcp.and_then(|tcp| tcp.max_connection_duration))),
        ])
        .by_object([
            (Setting::MaxConnections, count(tcp.and_then(|tcp| tcp.max_connections))),
            (Setting::MaxPendingRequests, count(http.and_then(|http| http.http1_max_pending_requests))),
            (Setting::MaxRequests, count(http.and_then(|http| http.http2_max_requests))),
            (Setting::MaxRetries, count(http.and_then(|http| http.max_retries))),
        ])
}
