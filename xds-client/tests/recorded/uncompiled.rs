//! What istiod sends the shop and nobody runs yet.

use xds_client::convert::FieldName;

/// Fields that are declared and not run yet, message and field. What does not happen as long as they are not stands in the
/// tables of the conversion, and `weft xds coverage` tells it. This list only gets shorter.
pub(crate) const FIELDS: [FieldName; 30] = [
    ("envoy.config.cluster.v3.Cluster.LbPolicy", "Maglev"),
    ("envoy.config.cluster.v3.Cluster.lb_config", "MaglevLbConfig"),
    ("envoy.config.route.v3.RouteAction", "hash_policy"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "cluster"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "disable_shadow_host_suffix_append"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "runtime_fraction"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "trace_sampled"),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "client_sampling",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "custom_tags",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "overall_sampling",
    ),
    ("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing", "provider"),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "random_sampling",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "spawn_upstream_span",
    ),
    ("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", "use_request_id_for_trace_sampling"),
    ("filter chains", "closed"),
    ("filter_metadata", "istio.alpn_override"),
    ("filters of a connection, by type", "envoy.extensions.filters.network.rbac.v3.RBAC"),
    ("filters of a connection, by type", "stats.PluginConfig"),
    ("filters of a request, by type", "envoy.extensions.filters.http.cors.v3.Cors"),
    ("filters of a request, by type", "envoy.extensions.filters.http.fault.v3.HTTPFault"),
    ("filters of a request, by type", "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"),
    ("filters of a request, by type", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"),
    ("filters of a request, by type", "envoy.extensions.filters.http.rbac.v3.RBAC"),
    ("filters of a request, by type", "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"),
    ("filters of a request, by type", "stats.PluginConfig"),
    ("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.AlpnOverride", "alpn_override"),
    ("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.AlpnOverride", "upstream_protocol"),
    ("settings of filters for a route, by type", "envoy.extensions.filters.http.cors.v3.CorsPolicy"),
    ("settings of filters for a route, by type", "envoy.extensions.filters.http.fault.v3.HTTPFault"),
    ("stats.PluginConfig", "disable_host_header_fallback"),
];
