//! Every metric weft has, in one list.
//!
//! To add one: a variant of [`Family`], its [`Declaration`], and a call where it happens. Names are Istio's where
//! Istio has one (`istio_*`), Envoy's where Envoy has one with the same meaning (`envoy_*`), `weft_*` otherwise.

mod declarations;
mod labels;

pub(crate) use labels::{REQUEST_LABELS, TCP_LABELS};

/// A metric with all its label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// Requests by outcome.
    Requests,
    /// How long requests took.
    RequestDuration,
    /// Connections passed on that began.
    TcpOpened,
    /// Connections passed on that ended.
    TcpClosed,
    /// Bytes passed on from upstreams to clients.
    TcpSent,
    /// Bytes passed on from clients to upstreams.
    TcpReceived,
    /// Connections passed on, by listener.
    TcpConnections,
    /// Connections that no filter chain is for.
    NoFilterChain,
    /// Connections that are closed though they broke no rule.
    NotAdmitted,
    /// Connections that said too little for too long to tell what they speak.
    DetectionTimeout,
    /// Connections that do not say, as they should, for whom they are made.
    ProxyProtocolErrors,
    /// Handshakes of TLS with clients.
    TlsHandshakes,
    /// Those that failed.
    TlsHandshakeFailures,
    /// Clients' connections whose TLS broke after its handshake.
    TlsBroken,
    /// When certificates end to hold.
    CertificateExpiry,
    /// When a new identity is asked for.
    IdentityRenewal,
    /// Identities that did not come or were refused.
    IdentityFailures,
    /// Handshakes of TLS with upstreams.
    UpstreamTlsHandshakes,
    /// Those that failed.
    UpstreamTlsFailures,
    /// Connections with requests that are cut because they would not be made in this way any more.
    UpstreamNotAdmitted,
    /// Client connections accepted.
    DownstreamConnections,
    /// Client connections open.
    DownstreamConnectionsActive,
    /// Client connections that did not speak HTTP.
    DownstreamProtocolErrors,
    /// Limits of the process that were met.
    LimitReached,
    /// Idle client connections that made room for others.
    IdleConnectionsClosed,
    /// Client connections of each worker.
    WorkerConnections,
    /// Whether the process refuses work because it has too much.
    Overloaded,
    /// Upstream connections made.
    UpstreamConnections,
    /// Upstream connections open.
    UpstreamConnectionsActive,
    /// Upstream connections that could not be made.
    UpstreamConnectFailures,
    /// Times the limit of connections was met.
    UpstreamConnectionsOverflow,
    /// Requests that wait for a connection.
    UpstreamPending,
    /// Requests refused by the limit of those that wait.
    UpstreamPendingOverflow,
    /// Requests refused by the limit of those that have a connection.
    UpstreamRequestsOverflow,
    /// Attempts after the first.
    UpstreamRetries,
    /// Requests sent again because the upstream had refused them unseen.
    UpstreamReplays,
    /// Retries not made because of their limit.
    UpstreamRetriesOverflow,
    /// Requests refused by the process's limit of those that wait for a connection.
    PendingOverflow,
    /// Bytes of requests kept for a retry.
    ReplayBytes,
    /// Bytes of HTTP/2 bodies that wait because nobody reads them.
    UnreadBytes,
    /// Other bytes that were read and nobody takes.
    UntakenBytes,
    /// Bytes of requests whose answers were not taken yet.
    RequestHeadBytes,
    /// Bytes of large heads of answers of HTTP/1.
    AnswerHeadBytes,
    /// Connections there may still be.
    RemainingConnections,
    /// Requests that may still wait for a connection.
    RemainingPending,
    /// Requests that may still be in flight.
    RemainingRequests,
    /// Retries that may still be in flight.
    RemainingRetries,
    /// Endpoints that were ejected.
    Ejections,
    /// Endpoints that were not, because too many are.
    EjectionsOverflow,
    /// Endpoints that are ejected.
    EjectionsActive,
    /// Choices among all endpoints of a priority because too few are healthy.
    Panics,
    /// Times that DNS was asked for a name of a cluster.
    NameAttempts,
    /// Times that it answered.
    NameSuccesses,
    /// Times that it did not.
    NameFailures,
    /// Questions that the DNS proxy was asked.
    DnsQuestions,
    /// Those of them that somebody else was asked.
    DnsForwarded,
    /// Those of them that nobody answered.
    DnsForwardFailures,
    /// Access log lines that were lost because the writer could not keep up.
    AccessLogDropped,
    /// Lines of the process's own log that were lost because nobody read them.
    LogDropped,
    /// Times that the agent was asked for metrics.
    AgentScrapes,
    /// Times that a part of them could not be had.
    AgentScrapeFailures,
    /// The build.
    Build,
    /// Number of the generation that is served.
    ConfigGeneration,
    /// Objects that are refused now.
    ConfigRefused,
    /// Times that something was refused.
    ConfigRefusals,
    /// Findings now, by severity.
    ConfigFindings,
    /// When the generation that is served was published.
    ConfigPublished,
    /// Replaced generations that are still held.
    ConfigGenerationsHeld,
    /// Whether what guards access or trust and is not enforced is let through.
    UnenforcedSecurity,
    /// Endpoints that ask for TLS.
    TlsEndpoints,
    /// Label sets that were folded into `overflow`.
    SeriesOverflow,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets; in milliseconds.
    Histogram,
}

/// How a metric is shown.
#[derive(Debug)]
pub(crate) struct Declaration {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it counts.
    pub(crate) help: &'static str,
    /// What kind it is.
    pub(crate) kind: Kind,
    /// Names of its labels, in order.
    pub(crate) labels: &'static [&'static str],
}

/// Upper bounds of the buckets in milliseconds: those of Envoy, which Istio's dashboards expect.
pub(crate) const BUCKETS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

impl Family {
    /// All of them, in the order they are shown.
    pub(crate) const ALL: [Family; 71] = [
        Family::Requests,
        Family::RequestDuration,
        Family::TcpOpened,
        Family::TcpClosed,
        Family::TcpSent,
        Family::TcpReceived,
        Family::TcpConnections,
        Family::NoFilterChain,
        Family::NotAdmitted,
        Family::DetectionTimeout,
        Family::ProxyProtocolErrors,
        Family::TlsHandshakes,
        Family::TlsHandshakeFailures,
        Family::TlsBroken,
        Family::CertificateExpiry,
        Family::IdentityRenewal,
        Family::IdentityFailures,
        Family::UpstreamTlsHandshakes,
        Family::UpstreamTlsFailures,
        Family::UpstreamNotAdmitted,
        Family::DownstreamConnections,
        Family::DownstreamConnectionsActive,
        Family::DownstreamProtocolErrors,
        Family::LimitReached,
        Family::IdleConnectionsClosed,
        Family::WorkerConnections,
        Family::Overloaded,
        Family::UpstreamConnections,
        Family::UpstreamConnectionsActive,
        Family::UpstreamConnectFailures,
        Family::UpstreamConnectionsOverflow,
        Family::UpstreamPending,
        Family::UpstreamPendingOverflow,
        Family::UpstreamRequestsOverflow,
        Family::UpstreamRetries,
        Family::UpstreamReplays,
        Family::UpstreamRetriesOverflow,
        Family::PendingOverflow,
        Family::ReplayBytes,
        Family::UnreadBytes,
        Family::UntakenBytes,
        Family::RequestHeadBytes,
        Family::AnswerHeadBytes,
        Family::RemainingConnections,
        Family::RemainingPending,
        Family::RemainingRequests,
        Family::RemainingRetries,
        Family::Ejections,
        Family::EjectionsOverflow,
        Family::EjectionsActive,
        Family::Panics,
        Family::NameAttempts,
        Family::NameSuccesses,
        Family::NameFailures,
        Family::DnsQuestions,
        Family::DnsForwarded,
        Family::DnsForwardFailures,
        Family::AccessLogDropped,
        Family::LogDropped,
        Family::AgentScrapes,
        Family::AgentScrapeFailures,
        Family::Build,
        Family::ConfigGeneration,
        Family::ConfigRefused,
        Family::ConfigRefusals,
        Family::ConfigFindings,
        Family::ConfigPublished,
        Family::ConfigGenerationsHeld,
        Family::UnenforcedSecurity,
        Family::TlsEndpoints,
        Family::SeriesOverflow,
    ];
}
