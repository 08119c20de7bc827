//! How each metric is shown: its name, what it counts, its labels.

use super::{Declaration, Family, Kind, REQUEST_LABELS, TCP_LABELS};

const MANAGER: &str = "http_conn_manager_prefix";
/// Label of a listener, by its address.
const LISTENER: &str = "envoy_listener_address";
const CLUSTER: &str = "cluster_name";

impl Family {
    /// How it is shown.
    pub(crate) fn declaration(self) -> Declaration {
        let of = |name, help, kind, labels| Declaration { name, help, kind, labels };
        match self {
            Family::Requests => of("istio_requests_total", "Requests.", Kind::Counter, &REQUEST_LABELS),
            Family::RequestDuration => of(
                "istio_request_duration_milliseconds",
                "Time from the first byte of a request to the last of its response.",
                Kind::Histogram,
                &REQUEST_LABELS,
            ),
            Family::TcpOpened => of(
                "istio_tcp_connections_opened_total",
                "Connections passed on that began.",
                Kind::Counter,
                &TCP_LABELS,
            ),
            Family::TcpClosed => of(
                "istio_tcp_connections_closed_total",
                "Connections passed on that ended.",
                Kind::Counter,
                &TCP_LABELS,
            ),
            Family::TcpSent => of(
                "istio_tcp_sent_bytes_total",
                "Bytes passed on from upstreams to clients.",
                Kind::Counter,
                &TCP_LABELS,
            ),
            Family::TcpReceived => of(
                "istio_tcp_received_bytes_total",
                "Bytes passed on from clients to upstreams.",
                Kind::Counter,
                &TCP_LABELS,
            ),
            Family::TcpConnections => of(
                "envoy_tcp_downstream_cx_total",
                "Client connections passed on.",
                Kind::Counter,
                &["envoy_tcp_prefix"],
            ),
            Family::NoFilterChain => of(
                "envoy_listener_no_filter_chain_match",
                "Client connections closed because no filter chain is for them.",
                Kind::Counter,
                &[LISTENER],
            ),
            Family::NotAdmitted => of(
                "weft_listener_connections_not_admitted_total",
                "Client connections closed because what guards them is not enforced, be it that it came later than they, or \
                 because their listener is gone before their filter chain was found.",
                Kind::Counter,
                &["listener"],
            ),
            Family::DetectionTimeout => of(
                "envoy_listener_downstream_pre_cx_timeout",
                "Client connections that said too little for too long to tell what they speak.",
                Kind::Counter,
                &[LISTENER],
            ),
            Family::ProxyProtocolErrors => of(
                "weft_listener_proxy_protocol_errors_total",
                "Connections closed because they do not begin with a header of the PROXY protocol, by what is wrong.",
                Kind::Counter,
                &[LISTENER, "reason"],
            ),
            Family::TlsHandshakes => of(
                "envoy_listener_ssl_handshake",
                "Handshakes of TLS with clients.",
                Kind::Counter,
                &[LISTENER, "version", "cipher"],
            ),
            Family::TlsHandshakeFailures => of(
                "weft_listener_tls_handshake_failures_total",
                "Handshakes of TLS with clients that failed, by why.",
                Kind::Counter,
                &[LISTENER, "reason"],
            ),
            Family::TlsBroken => of(
                "weft_listener_tls_broken_total",
                "Client connections that ended because their TLS broke after its handshake, by why.",
                Kind::Counter,
                &[LISTENER, "reason"],
            ),
            Family::CertificateExpiry => of(
                "weft_certificate_expiry_timestamp_seconds",
                "When the certificate of a secret ends to hold, in seconds since 1970.",
                Kind::Gauge,
                &["name"],
            ),
            Family::IdentityRenewal => of(
                "weft_identity_renewal_timestamp_seconds",
                "When a new identity of the workload is asked for next, in seconds since 1970.",
                Kind::Gauge,
                &[],
            ),
            Family::IdentityFailures => of(
                "weft_identity_failures_total",
                "Times that a new identity of the workload did not come or was refused, by why.",
                Kind::Counter,
                &["reason"],
            ),
            Family::UpstreamTlsHandshakes => of(
                "envoy_cluster_ssl_handshake",
                "Handshakes of TLS with upstreams.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamTlsFailures => of(
                "weft_cluster_tls_handshake_failures_total",
                "Handshakes of TLS with upstreams that failed, by why.",
                Kind::Counter,
                &[CLUSTER, "reason"],
            ),
            Family::UpstreamNotAdmitted => of(
                "weft_cluster_connections_not_admitted_total",
                "Upstream connections with requests that were cut because they would not be made in this way any more.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::DownstreamConnections => of(
                "envoy_http_downstream_cx_total",
                "Client connections accepted.",
                Kind::Counter,
                &[MANAGER],
            ),
            Family::DownstreamConnectionsActive => {
                of("envoy_http_downstream_cx_active", "Client connections open.", Kind::Gauge, &[MANAGER])
            }
            Family::DownstreamProtocolErrors => of(
                "envoy_http_downstream_cx_protocol_error",
                "Client connections closed because they did not speak HTTP.",
                Kind::Counter,
                &[MANAGER],
            ),
            Family::LimitReached => of(
                "weft_limit_reached_total",
                "Times a limit of the process was met: a connection closed, a request refused, a body not kept for a retry, or something new found \
                 in the configuration that is past one.",
                Kind::Counter,
                &["limit"],
            ),
            Family::IdleConnectionsClosed => of(
                "weft_idle_connections_closed_total",
                "Client connections without a request that were closed to make room for others, by the limit that had been met and what was waited for.",
                Kind::Counter,
                &["limit", "awaited"],
            ),
            Family::WorkerConnections => of(
                "weft_worker_connections",
                "Client connections open, by the worker that serves them.",
                Kind::Gauge,
                &["worker"],
            ),
            Family::Overloaded => of(
                "weft_overloaded",
                "1 while connections and requests are refused because the process uses too much memory.",
                Kind::Gauge,
                &[],
            ),
            Family::UpstreamConnections => {
                of("envoy_cluster_upstream_cx_total", "Upstream connections made.", Kind::Counter, &[CLUSTER])
            }
            Family::UpstreamConnectionsActive => {
                of("envoy_cluster_upstream_cx_active", "Upstream connections open.", Kind::Gauge, &[CLUSTER])
            }
            Family::UpstreamConnectFailures => of(
                "envoy_cluster_upstream_cx_connect_fail",
                "Upstream connections that could not be made.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamConnectionsOverflow => of(
                "envoy_cluster_upstream_cx_overflow",
                "Times a connection was wanted and the limit of connections was reached.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamPending => of(
                "envoy_cluster_upstream_rq_pending_active",
                "Requests waiting for a connection.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::UpstreamPendingOverflow => of(
                "envoy_cluster_upstream_rq_pending_overflow",
                "Requests refused because too many wait for a connection.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamRequestsOverflow => of(
                "envoy_cluster_upstream_rq_active_overflow",
                "Requests refused because too many are in flight.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamRetries => {
                of("envoy_cluster_upstream_rq_retry", "Attempts after the first.", Kind::Counter, &[CLUSTER])
            }
            Family::UpstreamReplays => of(
                "weft_upstream_replays_total",
                "Requests sent again, without counting as a retry, because the upstream had refused them unseen.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::UpstreamRetriesOverflow => of(
                "envoy_cluster_upstream_rq_retry_overflow",
                "Retries not made because too many are in flight.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::PendingOverflow => of(
                "weft_pending_requests_overflow_total",
                "Requests refused because too many of the process wait for a connection.",
                Kind::Counter,
                &[],
            ),
            Family::ReplayBytes => {
                of("weft_replay_bytes", "Bytes of requests kept for a retry.", Kind::Gauge, &[])
            }
            Family::UnreadBytes => of(
                "weft_unread_bytes",
                "Bytes of HTTP/2 bodies that came and wait because the other side does not read them.",
                Kind::Gauge,
                &[],
            ),
            Family::UntakenBytes => of(
                "weft_untaken_bytes",
                "Other bytes of bodies, of WebSockets and of TCP that were read and the other side does not take.",
                Kind::Gauge,
                &[],
            ),
            Family::RequestHeadBytes => of(
                "weft_request_head_bytes",
                "Bytes that requests count for until their answers are taken.",
                Kind::Gauge,
                &[],
            ),
            Family::AnswerHeadBytes => of(
                "weft_answer_head_bytes",
                "Bytes of large heads and trailers of HTTP/1 upstreams' answers that are here.",
                Kind::Gauge,
                &[],
            ),
            Family::RemainingConnections => of(
                "envoy_cluster_circuit_breakers_default_remaining_cx",
                "Connections there may still be.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::RemainingPending => of(
                "envoy_cluster_circuit_breakers_default_remaining_pending",
                "Requests that may still wait for a connection.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::RemainingRequests => of(
                "envoy_cluster_circuit_breakers_default_remaining_rq",
                "Requests that may still be in flight.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::RemainingRetries => of(
                "envoy_cluster_circuit_breakers_default_remaining_retries",
                "Retries that may still be in flight.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::Ejections => of(
                "envoy_cluster_outlier_detection_ejections_enforced_total",
                "Endpoints ejected by outlier detection.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::EjectionsOverflow => of(
                "envoy_cluster_outlier_detection_ejections_overflow",
                "Endpoints not ejected because too many are.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::EjectionsActive => of(
                "envoy_cluster_outlier_detection_ejections_active",
                "Endpoints that are ejected.",
                Kind::Gauge,
                &[CLUSTER],
            ),
            Family::Panics => of(
                "envoy_cluster_lb_healthy_panic",
                "Choices among all endpoints, healthy or not, because too few are healthy.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::NameAttempts => of(
                "envoy_cluster_update_attempt",
                "Times that DNS was asked for a name of the cluster.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::NameSuccesses => of(
                "envoy_cluster_update_success",
                "Times that DNS answered, be it that there is no such name.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::NameFailures => of(
                "envoy_cluster_update_failure",
                "Times that DNS did not answer; the addresses told last stay.",
                Kind::Counter,
                &[CLUSTER],
            ),
            Family::DnsQuestions => of(
                "istio_agent_dns_requests_total",
                "Questions that the DNS proxy was asked.",
                Kind::Counter,
                &[],
            ),
            Family::DnsForwarded => of(
                "istio_agent_dns_upstream_requests_total",
                "Questions for names that are not of the mesh, which another server was asked.",
                Kind::Counter,
                &[],
            ),
            Family::DnsForwardFailures => of(
                "istio_agent_dns_upstream_failures_total",
                "Questions that no other server answered.",
                Kind::Counter,
                &[],
            ),
            Family::AccessLogDropped => of(
                "weft_access_log_dropped_lines_total",
                "Access log lines lost because they could not be written, or not in time.",
                Kind::Counter,
                &[],
            ),
            Family::LogDropped => of(
                "weft_log_dropped_lines_total",
                "Lines of the process's own log lost because stderr is not read.",
                Kind::Counter,
                &[],
            ),
            Family::AgentScrapes => of(
                "istio_agent_scrapes_total",
                "Times that the agent was asked for metrics.",
                Kind::Counter,
                &[],
            ),
            Family::AgentScrapeFailures => of(
                "istio_agent_scrape_failures_total",
                "Times that a part of the metrics could not be had when the agent was asked for them.",
                Kind::Counter,
                &["type"],
            ),
            Family::Build => of("istio_build", "The build.", Kind::Gauge, &["component", "tag"]),
            Family::ConfigGeneration => of(
                "weft_config_generation",
                "Number of the configuration generation that is served.",
                Kind::Gauge,
                &[],
            ),
            Family::ConfigRefused => {
                of("weft_config_refused_objects", "Objects that are refused now.", Kind::Gauge, &[])
            }
            Family::ConfigRefusals => of(
                "weft_config_refusals_total",
                "Errors found in the configuration since the start, each when it came up.",
                Kind::Counter,
                &[],
            ),
            Family::ConfigFindings => of(
                "weft_config_findings",
                "Findings about the configuration now.",
                Kind::Gauge,
                &["severity"],
            ),
            Family::ConfigPublished => of(
                "weft_config_published_timestamp_seconds",
                "When the generation that is served was published; its age is time() minus this.",
                Kind::Gauge,
                &[],
            ),
            Family::ConfigGenerationsHeld => of(
                "weft_config_generations_held",
                "Replaced generations that something still holds.",
                Kind::Gauge,
                &[],
            ),
            Family::UnenforcedSecurity => of(
                "weft_unenforced_security",
                "1 when --allow-unenforced-security lets through what guards access or trust.",
                Kind::Gauge,
                &[],
            ),
            Family::TlsEndpoints => of(
                "weft_tls_not_enforced_endpoints",
                "Endpoints that ask for TLS that cannot be spoken: requests to them are answered 503, or sent in \
                 plain text where weft_unenforced_security is 1.",
                Kind::Gauge,
                &[],
            ),
            Family::SeriesOverflow => of(
                "weft_metrics_series_overflow_total",
                "Label sets folded into `overflow` because there are too many.",
                Kind::Counter,
                &[],
            ),
        }
    }
}
