//! Label values of Istio's standard metrics: of the client's side (`reporter="source"`) for outbound listeners, of the
//! server's (`reporter="destination"`) for inbound ones. Semantics: Istio's `istio_stats` filter; what is not known is
//! `unknown`.

use config::TrafficDirection;
use config::compile::{BLACK_HOLE, PASSTHROUGH};
use http::HeaderValue;

use crate::snapshot::Cluster;
use crate::telemetry::Registry;
use crate::telemetry::flags::Flags;
use crate::telemetry::metrics::Family;
use crate::upstream::{Outcome, TcpOutcome};

const UNKNOWN: &str = "unknown";

/// Who this proxy is: the `source_*` labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Workload name.
    pub(crate) workload: String,
    /// Label `service.istio.io/canonical-name`, or what Istio takes instead.
    pub(crate) canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, or what Istio takes instead.
    pub(crate) canonical_revision: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Label `app`.
    pub(crate) app: String,
    /// Label `version`.
    pub(crate) version: String,
    /// Cluster ID.
    pub(crate) cluster: String,
}

impl Identity {
    /// That of a proxy.
    pub(crate) fn of(proxy: &config::compile::Proxy) -> Identity {
        let workload = proxy.workload();
        let label = |key| proxy.label(key).unwrap_or_default().to_owned();
        Identity {
            workload: workload.name.to_string(),
            canonical_service: workload.canonical_name.to_string(),
            canonical_revision: workload.canonical_revision.to_string(),
            namespace: workload.namespace.to_string(),
            app: label("app"),
            version: label("version"),
            cluster: workload.cluster_id.to_string(),
        }
    }
}

/// What a request or a connection is counted by, besides who this proxy is.
pub(crate) struct Subject<'a> {
    /// Which way it goes.
    pub(crate) direction: TrafficDirection,
    /// Where it went.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a config::EndpointMetadata>,
    /// Name of the rule; Istio tells by it where unmatched hosts go.
    pub(crate) route: &'a str,
    /// What the client asked for, when no cluster says it.
    pub(crate) authority: Option<&'a HeaderValue>,
    /// Whether its client was verified by mutual TLS.
    pub(crate) mutual: bool,
    /// Whether it was gRPC.
    pub(crate) grpc: bool,
    /// Status of the response; 0 when there was none.
    pub(crate) status: u16,
    /// gRPC status of the response.
    pub(crate) grpc_status: Option<u8>,
    /// Flags of the response.
    pub(crate) flags: Flags,
}

impl Subject<'_> {
    /// What tells apart the requests of one endpoint, as a number; `None` where that is not enough, because the service is
    /// told by what the client asked for.
    pub(crate) fn key(&self) -> Option<u64> {
        if self.host().is_some() {
            return None;
        }
        let grpc_status = self.grpc_status.map_or(0xff, u64::from);
        let key = u64::from(self.flags.bits()) << 32
            | u64::from(self.status) << 16
            | grpc_status << 8
            | u64::from(self.mutual) << 2
            | u64::from(self.direction == TrafficDirection::Inbound) << 1
            | u64::from(self.grpc);
        Some(key)
    }

    /// The host that the client asked for, where that alone tells which service it is.
    fn host(&self) -> Option<&str> {
        let is_told = self.cluster.is_some_and(|cluster| !cluster.declared.metadata.services.is_empty());
        match self.direction {
            TrafficDirection::Outbound if !is_told => self.authority?.to_str().ok(),
            // The Host header of a stranger would make a series each; Istio does not look at it here either.
            TrafficDirection::Outbound | TrafficDirection::Inbound => None,
        }
    }

    /// Finds the series of a request; takes a lock and allocates, so the result is kept.
    pub(crate) fn resolve(&self, identity: &Identity, registry: &Registry) -> Outcome {
        let status = self.status.to_string();
        let grpc_status =
            self.grpc_status.filter(|_| self.grpc).map(|status| status.to_string()).unwrap_or_default();
        let flags = self.flags.text();
        let protocol = if self.grpc { "grpc" } else { "http" };
        let last = [protocol, &status, &grpc_status, &flags, self.security_policy()];
        let labels = self.peers(identity).chain(last).collect::<Vec<_>>();
        Outcome {
            requests: registry.series(Family::Requests, &labels),
            duration: registry.series(Family::RequestDuration, &labels),
        }
    }

    /// Finds the series of a connection whose bytes are passed on; the result is kept, too.
    pub(crate) fn resolve_tcp(&self, identity: &Identity, registry: &Registry) -> TcpOutcome {
        let flags = self.flags.text();
        let labels = self.peers(identity).chain(["tcp", &flags, self.security_policy()]).collect::<Vec<_>>();
        TcpOutcome {
            opened: registry.series(Family::TcpOpened, &labels),
            closed: registry.series(Family::TcpClosed, &labels),
            sent: registry.series(Family::TcpSent, &labels),
            received: registry.series(Family::TcpReceived, &labels),
        }
    }

    /// The labels that say who talked to whom: the first 20.
    fn peers<'s>(&'s self, own: &'s Identity) -> impl Iterator<Item = &'s str> {
        let (service, service_name, service_namespace) = self.service(own);
        let revision =
            if own.canonical_revision.is_empty() { "latest" } else { own.canonical_revision.as_str() };
        let (reporter, source, destination) = match self.direction {
            TrafficDirection::Outbound => {
                let workload = self.endpoint.and_then(|endpoint| endpoint.workload.as_ref());
                let of_workload = |part: fn(&config::Workload) -> &str| {
                    workload.map(part).filter(|value| !value.is_empty()).unwrap_or(UNKNOWN)
                };
                let source =
                    [&own.workload, &own.canonical_service, revision, &own.namespace].map(or_unknown);
                let destination = [
                    of_workload(|workload| &workload.name),
                    of_workload(|workload| &workload.namespace),
                    UNKNOWN,
                    UNKNOWN,
                    UNKNOWN,
                    service,
                    of_workload(|workload| &workload.canonical_name),
                    of_workload(|workload| &workload.canonical_revision),
                    service_name,
                    service_namespace,
                    of_workload(|workload| &workload.cluster_id),
                ];
                let more =
                    [UNKNOWN, or_unknown(&own.app), or_unknown(&own.version), or_unknown(&own.cluster)];
                ("source", (source, more), destination)
            }
            TrafficDirection::Inbound => {
                let destination = [
                    or_unknown(&own.workload),
                    or_unknown(&own.namespace),
                    UNKNOWN,
                    or_unknown(&own.app),
                    or_unknown(&own.version),
                    service,
                    or_unknown(&own.canonical_service),
                    revision,
                    service_name,
                    service_namespace,
                    or_unknown(&own.cluster),
                ];
                // Who is at the other end is told by the identity of its connection, or by itself, and neither is read.
                ("destination", ([UNKNOWN; 4], [UNKNOWN; 4]), destination)
            }
        };
        [reporter].into_iter().chain(source.0).chain(source.1).chain(destination)
    }

    /// What protected the connection from the client. Only the server's side knows.
    fn security_policy(&self) -> &'static str {
        match self.direction {
            TrafficDirection::Outbound => UNKNOWN,
            TrafficDirection::Inbound if self.mutual => "mutual_tls",
            TrafficDirection::Inbound => "none",
        }
    }

    /// Host, name and namespace of the service that was asked for.
    fn service<'s>(&'s self, own: &'s Identity) -> (&'s str, &'s str, &'s str) {
        if let Some(service) = self.cluster.and_then(|cluster| cluster.declared.metadata.services.first()) {
            return (&service.host, &service.name, &service.namespace);
        }
        let host = match self.direction {
            TrafficDirection::Outbound => self.host(),
            TrafficDirection::Inbound => Some(or_unknown(&own.canonical_service)),
        };
        let host = host.unwrap_or(UNKNOWN);
        let name = match (self.route, self.cluster.map(|cluster| &**cluster.name())) {
            ("block_all", _) => BLACK_HOLE,
            ("allow_any", _) => PASSTHROUGH,
            (_, Some(cluster)) => cluster,
            (_, None) => UNKNOWN,
        };
        (host, name, UNKNOWN)
    }
}

fn or_unknown(value: &str) -> &str {
    if value.is_empty() { UNKNOWN } else { value }
}
