//! Listeners that the command line asks for, and the route configurations they need.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::clusters::Clusters;
use super::findings::Findings;
use super::registry::{Registry, Resolution};
use super::routes::{Routes, catch_all};
use super::virtual_hosts;
use super::virtual_services::VirtualServices;
use super::{ExplicitListener, ListenTarget, Scope};
use crate::finding::{Severity, code};
use crate::mesh::{AccessLogEncoding, MeshConfig, Normalization};
use crate::resource::format::{Format, FormatError, JsonFormat, LogFormat};
use crate::resource::{
    AccessLog, EscapedSlashes, FilterChain, FilterChainMatch, HttpConnectionManager, Listener,
    ListenerFilters, NetworkFilter, PathNormalization, RouteConfiguration, RouteSource, TrafficDirection,
    VirtualHost,
};

/// What outbound connection managers say they are: Envoy's own name, as Istio leaves it.
const SERVER_NAME: &str = "envoy";

/// Istio's access log line when the mesh does not say another.
const ACCESS_LOG_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// The same as an object, for the encoding JSON.
const ACCESS_LOG_FIELDS: &[(&str, &str)] = &[
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// What listeners are made from.
pub(super) struct Listeners<'l> {
    pub(super) scope: &'l Scope<'l>,
    pub(super) registry: &'l Registry<'l>,
    pub(super) clusters: &'l Clusters,
    pub(super) virtual_services: &'l VirtualServices<'l>,
}

impl Listeners<'_> {
    /// The listeners, in the order they were asked for, and their route configurations by name.
    pub(super) fn make(
        &self,
        asked: &[ExplicitListener],
        findings: &mut Findings,
    ) -> (Vec<Listener>, Vec<RouteConfiguration>) {
        let mut names = HashSet::new();
        let mut by_port: HashMap<u16, Vec<Arc<VirtualHost>>> = HashMap::new();
        let mut configurations: BTreeMap<Arc<str>, RouteConfiguration> = BTreeMap::new();
        let access_log = access_log(self.scope.mesh, findings);
        let mut listeners = Vec::with_capacity(asked.len());
        for asked in asked {
            let routes = self.route_configuration(&asked.target, &mut by_port, findings);
            let name = name(asked, &mut names);
            let manager = HttpConnectionManager {
                stat_prefix: format!("outbound_{name}").into(),
                routes: RouteSource::Rds(routes.name.clone()),
                server_name: SERVER_NAME.into(),
                path_normalization: path_normalization(self.scope.mesh),
                accept_http_10: accepts_http_10(self.scope),
                access_log: access_log.clone(),
                tracing: self.scope.mesh.enable_tracing != Some(false),
            };
            listeners.push(Listener {
                name,
                address: asked.address,
                bind_to_port: true,
                use_original_dst: false,
                transparent: false,
                traffic_direction: TrafficDirection::Outbound,
                listener_filters: ListenerFilters::default(),
                filter_chains: vec![FilterChain {
                    name: "".into(),
                    chain_match: FilterChainMatch::default(),
                    filter: NetworkFilter::Http(Arc::new(manager)),
                }],
                default_filter_chain: None,
                access_log: Vec::new(),
                origin: None,
            });
            configurations.entry(routes.name.clone()).or_insert(routes);
        }
        (listeners, configurations.into_values().collect())
    }

    fn route_configuration(
        &self,
        target: &ListenTarget,
        by_port: &mut HashMap<u16, Vec<Arc<VirtualHost>>>,
        findings: &mut Findings,
    ) -> RouteConfiguration {
        let (name, virtual_hosts) = match target {
            ListenTarget::Outbound { port } => {
                let mut hosts = self.virtual_hosts(*port, by_port, findings).to_vec();
                hosts.push(Arc::new(catch_all(self.scope, self.clusters)));
                (port.to_string(), hosts)
            }
            ListenTarget::Service { host, port } => {
                let host = self.complete(host);
                self.find_unusable(&host, *port, findings);
                let name = format!("{host}:{port}");
                let hosts = self.virtual_hosts(*port, by_port, findings);
                let routes = hosts.iter().find(|known| *known.name == name).map(|known| known.routes.clone());
                let host = VirtualHost {
                    name: name.as_str().into(),
                    domains: vec!["*".into()],
                    // Without routes every request is answered 404, until the service is there.
                    routes: routes.unwrap_or_default(),
                    include_request_attempt_count: true,
                };
                (name, vec![Arc::new(host)])
            }
        };
        RouteConfiguration { name: name.into(), virtual_hosts, ignore_port_in_host_matching: true }
    }

    fn virtual_hosts<'m>(
        &self,
        port: u16,
        by_port: &'m mut HashMap<u16, Vec<Arc<VirtualHost>>>,
        findings: &mut Findings,
    ) -> &'m [Arc<VirtualHost>] {
        by_port.entry(port).or_insert_with(|| {
            let routes = Routes { scope: self.scope, registry: self.registry, clusters: self.clusters, port };
            let hosts = virtual_hosts::of_port(&routes, self.virtual_services, findings);
            hosts.into_iter().map(Arc::new).collect()
        })
    }

    /// The host of a service as the command line may write it: `name`, `name.namespace`, `name.namespace.svc`, or
    /// whole.
    fn complete(&self, host: &str) -> Arc<str> {
        let proxy = self.scope.proxy;
        let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
        let candidates = [
            host.clone(),
            format!("{host}.{}", proxy.dns_domain),
            format!("{host}.svc.{}", proxy.dns_domain),
            format!("{host}.{}.svc.{}", proxy.namespace, proxy.dns_domain),
        ];
        if let Some(known) = candidates.iter().find_map(|host| self.registry.service(host)) {
            return known.host.clone();
        }
        let [_, with_domain, with_svc, with_namespace] = candidates;
        match host.split('.').collect::<Vec<_>>()[..] {
            [_] => with_namespace.into(),
            [_, _] => with_svc.into(),
            [_, _, "svc"] => with_domain.into(),
            _ => host.into(),
        }
    }

    fn find_unusable(&self, host: &str, port: u16, findings: &mut Findings) {
        let mut find = |code, what, remedy| findings.add_general(Severity::Warning, code, what, remedy);
        let Some(service) = self.registry.service(host) else {
            let what = format!("a listener serves `{host}`, which no service is called; it answers 404");
            find(
                code::UNKNOWN_LISTEN_SERVICE,
                what,
                "Correct the name, or add the Service; it is then served at once.",
            );
            return;
        };
        match service.port(port) {
            _ if matches!(service.resolution, Resolution::Alias(_)) => {
                let what = format!("a listener serves `{host}`, which is only another name; it answers 404");
                find(code::UNKNOWN_LISTEN_SERVICE, what, "Listen for the service that `externalName` names.");
            }
            None => {
                let what = format!(
                    "a listener serves port {port} of `{host}`, which it does not have; it answers 404"
                );
                find(code::UNKNOWN_LISTEN_PORT, what, "Use one of the ports of the Service.");
            }
            Some(told) if !told.protocol.may_be_http() => {
                let what =
                    format!("a listener serves port {port} of `{host}`, which is not HTTP; it answers 404");
                let remedy = "Use a port of HTTP, or say so by its name (`http-...`) or `appProtocol`.";
                find(code::UNKNOWN_LISTEN_PORT, what, remedy);
            }
            Some(_) => {}
        }
    }
}

/// istiod's form, `127.0.0.1_8080`, numbered where several listeners share an address (port 0 does).
fn name(asked: &ExplicitListener, names: &mut HashSet<Arc<str>>) -> Arc<str> {
    let base = match asked.address.ip() {
        IpAddr::V4(ip) => format!("{ip}_{}", asked.address.port()),
        IpAddr::V6(ip) => format!("[{ip}]_{}", asked.address.port()),
    };
    let numbered = (2_usize..).map(|number| format!("{base}_{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !names.contains(name.as_str()));
    let name: Arc<str> = free.unwrap_or(base).into();
    names.insert(name.clone());
    name
}

fn accepts_http_10(scope: &Scope<'_>) -> bool {
    let own = scope.proxy.metadata.get("HTTP10");
    own.or_else(|| scope.mesh.default_config.proxy_metadata.get("ISTIO_META_HTTP10"))
        .is_some_and(|it| it == "1")
}

fn path_normalization(mesh: &MeshConfig) -> PathNormalization {
    let normalization = mesh.path_normalization.unwrap_or_default();
    PathNormalization {
        normalize_path: normalization != Normalization::None,
        merge_slashes: matches!(
            normalization,
            Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
        ),
        escaped_slashes: match normalization {
            Normalization::DecodeAndMergeSlashes => EscapedSlashes::UnescapeAndForward,
            Normalization::None | Normalization::Base | Normalization::MergeSlashes => {
                EscapedSlashes::KeepUnchanged
            }
        },
    }
}

fn access_log(mesh: &MeshConfig, findings: &mut Findings) -> Vec<AccessLog> {
    let Some(path) = mesh.access_log_file.as_deref().filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let told = mesh.access_log_format.as_deref().filter(|format| !format.is_empty());
    let encoding = mesh.access_log_encoding;
    let format = match told.map(|text| log_format(encoding, text)) {
        Some(Ok(format)) => format,
        Some(Err(error)) => {
            let what = format!("accessLogFormat of the mesh configuration cannot be written: {error}");
            let remedy = "Correct it; until then lines have Istio's default format.";
            findings.add_general(Severity::Warning, code::ACCESS_LOG_FORMAT, what, remedy);
            default_format(encoding)
        }
        None => default_format(encoding),
    };
    vec![AccessLog { path: path.into(), format }]
}

fn log_format(encoding: AccessLogEncoding, text: &str) -> Result<LogFormat, FormatError> {
    Ok(match encoding {
        AccessLogEncoding::Text => {
            LogFormat::Text(Format::parse(&format!("{}\n", text.strip_suffix('\n').unwrap_or(text)))?)
        }
        AccessLogEncoding::Json => LogFormat::Json(JsonFormat::parse(text)?),
    })
}

fn default_format(encoding: AccessLogEncoding) -> LogFormat {
    let text = || Format::parse(ACCESS_LOG_FORMAT).unwrap_or_else(|_| Format::literal("\n"));
    match encoding {
        AccessLogEncoding::Text => LogFormat::Text(text()),
        AccessLogEncoding::Json => {
            JsonFormat::of_fields(ACCESS_LOG_FIELDS).map_or_else(|_| LogFormat::Text(text()), LogFormat::Json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::format::Operator;

    #[test]
    fn the_default_format_is_one() {
        let LogFormat::Text(text) = default_format(AccessLogEncoding::Text) else { panic!() };
        assert_eq!(text.text(), ACCESS_LOG_FORMAT);
        // In JSON it has the same values, each under a key of its own.
        let json = default_format(AccessLogEncoding::Json);
        assert!(matches!(json, LogFormat::Json(_)));
        let values = |format: &LogFormat| {
            let looked_up = |operator: &&Operator| !matches!(operator, Operator::Literal(_));
            let mut values: Vec<String> =
                format.operators().filter(looked_up).map(|operator| format!("{operator:?}")).collect();
            values.sort();
            values
        };
        assert_eq!(values(&json), values(&LogFormat::Text(text)));
        assert_eq!(ACCESS_LOG_FIELDS.len(), 24);
    }
}
