//! A text to MeshConfig.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fields::{Fate, MESH_CONFIG, PROXY_CONFIG};
use super::{
    AccessLogEncoding, CertificateData, MeshConfig, Normalization, OutboundTrafficPolicy, ProxyConfig,
};
use crate::finding::{Finding, Severity, code};
use crate::format::{Format, FormatError, JsonFormat};
use crate::istio::{GoDuration, HttpRetry, LocalityLbSetting, TcpKeepalive};
use crate::objects::Source;
use crate::origin::ObjectRef;
use crate::resource::TlsVersion;
use crate::validate::{Check, check_mesh};
use crate::yaml::tree::{Node, Value};
use crate::yaml::typed::{self, Unknown};
use crate::yaml::{
    Document, FieldLines, Limits, Lines, Path, Problem, Problems, Room, build, documents, nearest,
};

/// The fields that say whom the mesh trusts, what is encrypted, and where workloads may go.
const GUARDS: [&str; 8] = [
    "caCertificates",
    "enableAutoMtls",
    "meshMTLS",
    "outboundTrafficPolicy",
    "pathNormalization",
    "rootNamespace",
    "trustDomain",
    "trustDomainAliases",
];

/// What a file that holds MeshConfig says.
#[derive(Debug)]
pub struct MeshRead {
    /// The configuration; `None` when it is refused.
    pub config: Option<MeshConfig>,
    /// Whether the text says nothing at all, as it does while it is being written.
    pub is_empty: bool,
    /// What there is to say about it.
    pub findings: Vec<Finding>,
}

/// The name under which findings speak of MeshConfig, which as an object has none.
pub fn object_ref() -> ObjectRef {
    ObjectRef { kind: "MeshConfig".into(), namespace: "".into(), name: "mesh".into() }
}

/// Reads MeshConfig from `text`, which is all that the file `file` holds.
pub fn read_mesh(file: &Arc<str>, text: &str, limits: &Limits) -> MeshRead {
    read_part(file, text, Lines::OF_FILE, limits)
}

/// Reads MeshConfig from `text`, of which `lines` says where it is in the file `file`.
pub(crate) fn read_part(file: &Arc<str>, text: &str, lines: Lines, limits: &Limits) -> MeshRead {
    let errors = |problems: Problems| -> Vec<Finding> {
        let in_file = |problem: Problem| Problem { line: lines.of_file(problem.line), ..problem };
        let told = problems.into_told(usize::MAX, "document_problems_max");
        let errors = told.into_iter().map(in_file);
        errors.map(|problem| problem.into_error(file, Some(object_ref()))).collect()
    };
    let mut problems = Problems::new(limits.document_problems_max);
    let mut documents = documents(text);
    let root = match (documents.next(), documents.next()) {
        (None, _) => None,
        (Some(document), None) => one_document(&document, limits, &mut problems),
        (_, Some(second)) => {
            let what = "a file of MeshConfig holds one document, and here begins another";
            problems.push(problem(
                second.line,
                code::MALFORMED_YAML,
                what,
                "remove it, or move it to another file",
            ));
            None
        }
    };
    let is_empty = root.is_none() && problems.is_empty();
    let Some(root) = root else {
        let config = is_empty.then(MeshConfig::default);
        return MeshRead { config, is_empty, findings: errors(problems) };
    };
    let (fields, passed_over) = fields(&root, &mut problems, limits);
    let mut findings = errors(problems);
    let mut config = fields.filter(|_| findings.is_empty()).map(Fields::into_config);
    if let Some(accepted) = &mut config {
        let fields = lines.are_kept.then(|| Arc::new(FieldLines::of(&root)));
        let source = Source { file: file.clone(), line: lines.of_file(root.line), fields };
        let object = object_ref();
        let mut check = Check::new(&object, &source, limits);
        warn_not_honoured(&mut check, &root, accepted);
        check_mesh(&mut check, accepted);
        findings = errors(passed_over);
        findings.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
        findings.extend(check.into_findings());
    }
    let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    MeshRead { config: config.filter(|_| !refused), is_empty: false, findings }
}

/// Reads the fields, and tells those that there are not and that istiod passes over: no webhook looks at the ConfigMap, and
/// versions of Istio before and after this one have others.
fn fields(root: &Node<'_>, problems: &mut Problems, limits: &Limits) -> (Option<Fields>, Problems) {
    let mut found = problems.fresh();
    check_names(root, &mut found);
    let known: Vec<_> = MESH_CONFIG.iter().map(|(name, _)| *name).collect();
    // What guards is not left to what a misspelt field leaves.
    let may_guard = |it: &Problem| {
        let field = it.path.split(['.', '[']).next().unwrap_or_default();
        nearest(field, &known).is_some_and(|name| GUARDS.contains(&name))
    };
    let are_passed_over = |found: &Problems| {
        found.untold() == 0 && !found.told().iter().any(|it| !is_unknown(it) || may_guard(it))
    };
    read_known(
        root,
        Unknown::RefusedExceptIn(&["", "defaultConfig"]),
        found,
        are_passed_over,
        problems,
        limits,
    )
}

/// Whether it is that there is no such field.
pub(super) fn is_unknown(problem: &Problem) -> bool {
    problem.code == code::UNKNOWN_FIELD
}

/// Reads `root`, of which `found` has problems already, and returns what is passed over of all that was found: where that may
/// not be, it is among the `problems`.
pub(super) fn read_known<'de, T: Deserialize<'de>>(
    root: &Node<'_>,
    strictly: Unknown,
    mut found: Problems,
    are_passed_over: impl FnOnce(&Problems) -> bool,
    problems: &mut Problems,
    limits: &Limits,
) -> (Option<T>, Problems) {
    let read = |unknown: Unknown, problems: &mut Problems| {
        typed::read(root, &Path::Root, unknown, problems, &mut Room::of_one(limits))
    };
    let value = read(strictly, &mut found);
    if found.is_empty() {
        return (value, found);
    }
    if !are_passed_over(&found) {
        problems.append(found);
        return (None, problems.fresh());
    }
    (read(Unknown::PassedOver, problems), found)
}

fn one_document<'a>(document: &Document<'a>, limits: &Limits, problems: &mut Problems) -> Option<Node<'a>> {
    let built = match build(document, limits) {
        Ok(built) => built,
        Err(broken) => {
            problems.push(broken.problem);
            return None;
        }
    };
    problems.append(built.problems);
    let root = built.root.filter(|root| !root.is_null())?;
    if !matches!(root.value, Value::Mapping(_)) {
        let what = "MeshConfig is a mapping";
        problems.push(problem(
            root.line,
            code::WRONG_TYPE,
            what,
            "write its fields, one `name: value` a line",
        ));
        return None;
    }
    Some(root)
}

fn problem(line: u32, code: &'static str, what: &str, remedy: &str) -> Problem {
    Problem { line, path: String::new(), code, what: what.to_owned(), remedy: remedy.to_owned() }
}

fn check_names(root: &Node<'_>, problems: &mut Problems) {
    let names = |fields: &[(&'static str, Fate)]| fields.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    typed::unknown_fields(root, &Path::Root, &names(MESH_CONFIG), problems);
    if let Some(config) = root.get("defaultConfig") {
        let path = Path::Root;
        typed::unknown_fields(config, &path.field("defaultConfig"), &names(PROXY_CONFIG), problems);
    }
}

fn warn_not_honoured(check: &mut Check<'_>, root: &Node<'_>, config: &mut MeshConfig) {
    let parts = [(Some(root), "", MESH_CONFIG), (root.get("defaultConfig"), "defaultConfig.", PROXY_CONFIG)];
    for (node, prefix, fields) in parts {
        for entry in node.map(Node::entries).unwrap_or_default() {
            let fate = fields.iter().find(|(name, _)| *name == entry.key).map(|(_, fate)| *fate);
            if let Some(Fate::NotHonoured(harmless)) = fate
                && !is_harmless(&entry.value, harmless)
            {
                not_honoured(check, config, format!("{prefix}{}", entry.key), "it has no effect");
            }
        }
    }
    for (index, authority) in config.ca_certificates.clone().into_iter().enumerate() {
        let instead = "nothing of this entry is believed, and identities of its trust domains are refused";
        let CertificateData { pem: _, spiffe_bundle_url, cert_signers, trust_domains: _ } = authority;
        for (field, is_told) in
            [("spiffeBundleUrl", spiffe_bundle_url.is_some()), ("certSigners", !cert_signers.is_empty())]
        {
            if is_told {
                not_honoured(check, config, format!("caCertificates[{index}].{field}"), instead);
            }
        }
    }
    for (name, honoured) in [("tracing", ""), ("accessLogging", ""), ("metrics", "prometheus")] {
        let providers = root.get("defaultProviders").and_then(|providers| providers.get(name));
        let Some(Value::Sequence(items)) = providers.map(|node| &node.value) else { continue };
        if items.iter().any(|item| item.text() != Some(honoured)) {
            not_honoured(
                check,
                config,
                format!("defaultProviders.{name}"),
                "nothing is sent to these providers",
            );
        }
    }
    if let Some(why) = config.access_log_format.as_deref().and_then(|format| malformed(config, format)) {
        let instead = format!("{why}; so Istio's default format is used");
        not_honoured(check, config, "accessLogFormat".to_owned(), &instead);
        config.access_log_format = None;
    }
    let mutual = root.get("meshMTLS");
    for field in ["cipherSuites", "ecdhCurves"] {
        if mutual.and_then(|mutual| mutual.get(field)).is_some_and(|value| !is_harmless(value, &[])) {
            not_honoured(check, config, format!("meshMTLS.{field}"), "those of the mesh are spoken");
        }
    }
    let policy = root.get("outboundTrafficPolicy");
    if policy.and_then(|policy| policy.get("mode")).and_then(Node::text) == Some("ALLOW_ANY_DYNAMIC_DNS") {
        not_honoured(check, config, "outboundTrafficPolicy.mode".to_owned(), "it counts as ALLOW_ANY");
    }
    if policy.is_some_and(|policy| policy.get("tlsSettings").is_some()) {
        not_honoured(check, config, "outboundTrafficPolicy.tlsSettings".to_owned(), "it has no effect");
    }
}

/// Why a format of the access log is not one, if it is not.
fn malformed(config: &MeshConfig, format: &str) -> Option<FormatError> {
    match config.access_log_encoding {
        AccessLogEncoding::Text => Format::parse(format).err(),
        AccessLogEncoding::Json => JsonFormat::parse(format).err(),
    }
}

fn not_honoured(check: &mut Check<'_>, config: &mut MeshConfig, path: String, instead: &str) {
    let remedy = match path.as_str() {
        "defaultConfig.proxyAdminPort" => "use `--admin`",
        _ => "remove it, or keep Istio's own proxy where the mesh relies on it",
    };
    let what = format!("weft does not honour this field yet: {instead}");
    check.warning(code::FIELD_NOT_HONOURED, &path, what, remedy);
    config.not_honoured.push(path);
}

/// Whether a value is empty, or what weft does anyway.
pub(super) fn is_harmless(value: &Node<'_>, harmless: &[&str]) -> bool {
    match &value.value {
        Value::Scalar { text, .. } => text.is_empty() || value.is_null() || harmless.contains(&text.as_ref()),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
    }
}

/// The fields that are honoured, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    access_log_file: Option<String>,
    access_log_format: Option<String>,
    access_log_encoding: AccessLogEncoding,
    enable_tracing: Option<bool>,
    outbound_traffic_policy: OutboundPolicy,
    path_normalization: PathNormalization,
    connect_timeout: Option<GoDuration>,
    protocol_detection_timeout: Option<GoDuration>,
    proxy_listen_port: Option<u32>,
    proxy_inbound_listen_port: Option<u32>,
    dns_refresh_rate: Option<GoDuration>,
    tcp_keepalive: Option<TcpKeepalive>,
    default_http_retry_policy: Option<HttpRetry>,
    locality_lb_setting: Option<LocalityLbSetting>,
    root_namespace: Option<String>,
    default_service_export_to: Vec<String>,
    default_virtual_service_export_to: Vec<String>,
    default_destination_rule_export_to: Vec<String>,
    trust_domain: Option<String>,
    trust_domain_aliases: Vec<String>,
    ca_certificates: Vec<CertificateData>,
    enable_auto_mtls: Option<bool>,
    #[serde(rename = "meshMTLS")]
    mesh_mtls: MeshMtls,
    default_config: ProxyConfig,
    #[serde(rename = "defaultProviders")]
    _default_providers: DefaultProviders,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OutboundMode {
    RegistryOnly,
    AllowAny,
    AllowAnyDynamicDns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OutboundPolicy {
    mode: Option<OutboundMode>,
    #[serde(rename = "tlsSettings")]
    _tls_settings: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
enum MinVersion {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MeshMtls {
    min_protocol_version: MinVersion,
    #[serde(rename = "cipherSuites")]
    _cipher_suites: IgnoredAny,
    #[serde(rename = "ecdhCurves")]
    _ecdh_curves: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PathNormalization {
    normalization: Option<Normalization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DefaultProviders {
    #[serde(rename = "tracing")]
    _tracing: Vec<String>,
    #[serde(rename = "metrics")]
    _metrics: Vec<String>,
    #[serde(rename = "accessLogging")]
    _access_logging: Vec<String>,
}

impl Fields {
    fn into_config(self) -> MeshConfig {
        MeshConfig {
            access_log_file: self.access_log_file,
            access_log_encoding: self.access_log_encoding,
            access_log_format: self.access_log_format.filter(|format| !format.is_empty()),
            enable_tracing: self.enable_tracing,
            outbound_traffic_policy: self.outbound_traffic_policy.mode.map(|mode| match mode {
                OutboundMode::RegistryOnly => OutboundTrafficPolicy::RegistryOnly,
                OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => OutboundTrafficPolicy::AllowAny,
            }),
            path_normalization: self.path_normalization.normalization,
            connect_timeout: self.connect_timeout,
            protocol_detection_timeout: self.protocol_detection_timeout,
            proxy_listen_port: self.proxy_listen_port,
            proxy_inbound_listen_port: self.proxy_inbound_listen_port,
            dns_refresh_rate: self.dns_refresh_rate,
            tcp_keepalive: self.tcp_keepalive,
            default_http_retry_policy: self.default_http_retry_policy,
            locality_lb_setting: self.locality_lb_setting,
            root_namespace: self.root_namespace.filter(|namespace| !namespace.is_empty()),
            default_service_export_to: self.default_service_export_to,
            default_virtual_service_export_to: self.default_virtual_service_export_to,
            default_destination_rule_export_to: self.default_destination_rule_export_to,
            trust_domain: self.trust_domain.filter(|domain| !domain.is_empty()),
            trust_domain_aliases: self.trust_domain_aliases,
            ca_certificates: self.ca_certificates,
            enable_auto_mtls: self.enable_auto_mtls,
            mutual_tls_version_min: match self.mesh_mtls.min_protocol_version {
                MinVersion::Auto => None,
                MinVersion::V1_2 => Some(TlsVersion::V1_2),
                MinVersion::V1_3 => Some(TlsVersion::V1_3),
            },
            default_config: self.default_config,
            not_honoured: Vec::new(),
        }
    }
}
