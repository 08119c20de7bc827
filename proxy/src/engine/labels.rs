//! Label values of Istio's standard metrics, for a client-side proxy (`reporter="source"`). Semantics: Istio's
//! `istio_stats` filter; what is not known is `unknown`.

use http::HeaderValue;

use crate::snapshot::Cluster;
use crate::telemetry::Registry;
use crate::telemetry::flags::Flags;
use crate::telemetry::metrics::Family;
use crate::upstream::Outcome;

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

/// What a request is counted by, besides who sent it.
pub(crate) struct Subject<'a> {
    /// Where it went.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Who answered.
    pub(crate) endpoint: Option<&'a config::EndpointMetadata>,
    /// Name of the rule; Istio tells by it where unmatched hosts go.
    pub(crate) route: &'a str,
    /// What the client asked for, when no cluster says it.
    pub(crate) authority: Option<&'a HeaderValue>,
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
    /// What tells apart the requests of one endpoint, as a number.
    pub(crate) fn key(&self) -> u64 {
        let grpc_status = self.grpc_status.map_or(0xff, u64::from);
        u64::from(self.flags.bits()) << 32
            | u64::from(self.status) << 16
            | grpc_status << 8
            | u64::from(self.grpc)
    }

    /// Finds the series; takes a lock and allocates, so the result is kept.
    pub(crate) fn resolve(&self, identity: &Identity, registry: &Registry) -> Outcome {
        let workload = self.endpoint.and_then(|endpoint| endpoint.workload.as_ref());
        let of_workload = |part: fn(&config::Workload) -> &str| {
            workload.map(part).filter(|value| !value.is_empty()).unwrap_or(UNKNOWN)
        };
        let (service, service_name, service_namespace) = self.service();
        let status = self.status.to_string();
        let grpc_status =
            self.grpc_status.filter(|_| self.grpc).map(|status| status.to_string()).unwrap_or_default();
        let flags = self.flags.text();
        let labels: [&str; 25] = [
            "source",
            or_unknown(&identity.workload),
            or_unknown(&identity.canonical_service),
            if identity.canonical_revision.is_empty() { "latest" } else { &identity.canonical_revision },
            or_unknown(&identity.namespace),
            UNKNOWN,
            or_unknown(&identity.app),
            or_unknown(&identity.version),
            or_unknown(&identity.cluster),
            of_workload(|workload| &workload.name),
            of_workload(|workload| &workload.namespace),
            UNKNOWN,
            UNKNOWN,
            UNKNOWN,
            service,
            of_workload(|workload| &workload.canonical_name),
            if workload.is_some() { of_workload(|workload| &workload.canonical_revision) } else { UNKNOWN },
            service_name,
            service_namespace,
            of_workload(|workload| &workload.cluster_id),
            if self.grpc { "grpc" } else { "http" },
            &status,
            &grpc_status,
            &flags,
            UNKNOWN,
        ];
        Outcome {
            requests: registry.series(Family::Requests, &labels),
            duration: registry.series(Family::RequestDuration, &labels),
        }
    }

    /// Host, name and namespace of the service that was asked for.
    fn service(&self) -> (&str, &str, &str) {
        if let Some(service) = self.cluster.and_then(|cluster| cluster.declared.metadata.services.first()) {
            return (&service.host, &service.name, &service.namespace);
        }
        let host = self.authority.and_then(|authority| authority.to_str().ok()).unwrap_or(UNKNOWN);
        let name = match (self.route, self.cluster.map(|cluster| &**cluster.name())) {
            ("block_all", _) => "BlackHoleCluster",
            ("allow_any", _) => "PassthroughCluster",
            (_, Some(cluster)) => cluster,
            (_, None) => UNKNOWN,
        };
        (host, name, UNKNOWN)
    }
}

fn or_unknown(value: &str) -> &str {
    if value.is_empty() { UNKNOWN } else { value }
}
