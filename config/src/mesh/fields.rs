//! All fields of Istio's MeshConfig and ProxyConfig (1.32), and what becomes of each.

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// weft acts by it.
    Honoured,
    /// It is for istiod, the injector or the installation, and changes nothing that a sidecar does.
    NotForProxy,
    /// weft does not honour it yet; the values listed are what weft does anyway.
    NotHonoured(&'static [&'static str]),
}

use Fate::{Honoured, NotForProxy, NotHonoured};

/// Fields of `istio.mesh.v1alpha1.MeshConfig`.
pub(super) const MESH_CONFIG: &[(&str, Fate)] = &[
    ("accessLogEncoding", Honoured),
    ("accessLogFile", Honoured),
    ("accessLogFormat", Honoured),
    ("ca", NotForProxy),
    ("caCertificates", Honoured),
    ("certificates", NotForProxy),
    ("compliancePolicy", NotHonoured(&[])),
    ("configSources", NotForProxy),
    ("connectTimeout", Honoured),
    ("defaultConfig", Honoured),
    ("defaultDestinationRuleExportTo", Honoured),
    ("defaultHttpRetryPolicy", Honoured),
    ("defaultProviders", Honoured),
    ("defaultServiceExportTo", Honoured),
    ("defaultVirtualServiceExportTo", Honoured),
    ("disableEnvoyListenerLog", NotForProxy),
    ("discoverySelectors", NotHonoured(&[])),
    ("dnsRefreshRate", Honoured),
    ("enableAutoMtls", Honoured),
    ("enableEnvoyAccessLogService", NotHonoured(&["false"])),
    ("enablePrometheusMerge", NotForProxy),
    // Without a provider, which `defaultProviders` or a Telemetry names, Istio sends no traces either.
    ("enableTracing", Honoured),
    // Definitions only; what refers to them is warned of where it does.
    ("extensionProviders", NotForProxy),
    ("h2UpgradePolicy", NotHonoured(&["DO_NOT_UPGRADE"])),
    ("inboundClusterStatName", NotHonoured(&[])),
    ("inboundTrafficPolicy", NotHonoured(&[])),
    ("ingressClass", NotForProxy),
    ("ingressControllerMode", NotForProxy),
    ("ingressSelector", NotForProxy),
    ("ingressService", NotForProxy),
    ("localityLbSetting", Honoured),
    ("meshMTLS", Honoured),
    ("outboundClusterStatName", NotHonoured(&[])),
    ("outboundTrafficPolicy", Honoured),
    ("pathNormalization", Honoured),
    ("protocolDetectionTimeout", Honoured),
    ("proxyHttpPort", NotHonoured(&["0"])),
    ("proxyInboundListenPort", Honoured),
    ("proxyListenPort", Honoured),
    ("rootNamespace", Honoured),
    ("serviceScopeConfigs", NotHonoured(&[])),
    ("serviceSettings", NotHonoured(&[])),
    ("tcpKeepalive", Honoured),
    ("tlsDefaults", NotHonoured(&[])),
    ("trustDomain", Honoured),
    ("trustDomainAliases", Honoured),
    ("verifyCertificateAtClient", NotHonoured(&["true"])),
];

/// Fields of `istio.mesh.v1alpha1.ProxyConfig`, which is `defaultConfig`.
pub(super) const PROXY_CONFIG: &[(&str, Fate)] = &[
    ("availabilityZone", NotForProxy),
    ("binaryPath", NotForProxy),
    ("caCertificatesPem", NotHonoured(&[])),
    ("concurrency", Honoured),
    ("configPath", NotForProxy),
    ("connectionSettings", NotHonoured(&[])),
    ("controlPlaneAuthPolicy", NotForProxy),
    ("customConfigFile", NotForProxy),
    ("discoveryAddress", NotForProxy),
    ("discoveryRefreshDelay", NotForProxy),
    ("drainDuration", NotHonoured(&["45s"])),
    ("envoyAccessLogService", NotHonoured(&[])),
    ("envoyMetricsService", NotHonoured(&[])),
    ("envoyMetricsServiceAddress", NotHonoured(&[])),
    ("extraStatTags", NotHonoured(&[])),
    ("fileFlushInterval", NotHonoured(&[])),
    ("fileFlushMinSizeKb", NotHonoured(&[])),
    ("gatewayTopology", Honoured),
    // The injector writes it into the pod.
    ("holdApplicationUntilProxyStarts", NotForProxy),
    ("image", NotForProxy),
    ("interceptionMode", Honoured),
    ("meshId", NotHonoured(&[])),
    ("parentShutdownDuration", NotForProxy),
    ("privateKeyProvider", NotHonoured(&[])),
    ("proxyAdminPort", NotHonoured(&["15000"])),
    ("proxyBootstrapTemplatePath", NotForProxy),
    ("proxyHeaders", NotHonoured(&[])),
    ("proxyMetadata", Honoured),
    ("proxyStatsMatcher", NotHonoured(&[])),
    ("readinessProbe", NotForProxy),
    ("runtimeValues", NotHonoured(&[])),
    ("sds", NotForProxy),
    ("serviceCluster", NotForProxy),
    ("statNameLength", NotForProxy),
    ("statsCompression", NotHonoured(&[])),
    ("statsdUdpAddress", NotHonoured(&[])),
    ("statusPort", NotHonoured(&["15020"])),
    ("terminationDrainDuration", Honoured),
    ("tracing", NotHonoured(&[])),
    ("tracingServiceName", NotForProxy),
    ("zipkinAddress", NotHonoured(&[])),
];
