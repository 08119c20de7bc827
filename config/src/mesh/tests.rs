//! Tables of MeshConfigs.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::testing;
use crate::yaml::Limits;

fn read(text: &str) -> MeshRead {
    read_mesh(&Arc::from("mesh.yaml"), text, &Limits::DEFAULT)
}

/// The configuration that `text` makes; findings are `LINE SEVERITY CODE PATH`.
fn check(text: &str, expected: &[&str]) -> MeshConfig {
    let MeshRead { config, findings, .. } = read(text);
    let found: Vec<_> = findings
        .iter()
        .map(|finding| {
            let line = finding.place.as_ref().map_or(0, |place| place.line);
            assert!(!finding.remedy.is_empty(), "{finding}");
            format!("{line} {} {} {}", finding.severity, finding.code, finding.path).trim_end().to_owned()
        })
        .collect();
    assert_eq!(found, expected, "{text}");
    assert_eq!(config.is_none(), found.iter().any(|finding| finding.contains(" error ")), "{text}");
    config.unwrap_or_default()
}

#[test]
fn honoured_fields() {
    let text = "accessLogFile: /dev/stdout\naccessLogFormat: '%PROTOCOL%'\naccessLogEncoding: TEXT\nenableTracing: true\n\
                outboundTrafficPolicy: {mode: REGISTRY_ONLY}\npathNormalization: {normalization: MERGE_SLASHES}\n\
                connectTimeout: 3s\nprotocolDetectionTimeout: 100ms\nproxyListenPort: 25001\nproxyInboundListenPort: 25006\ndnsRefreshRate: 7s\ntcpKeepalive: {time: 60s, probes: 3}\ndefaultHttpRetryPolicy: {attempts: 0}\n\
                localityLbSetting: {enabled: false}\nrootNamespace: root\ntrustDomain: corp\ntrustDomainAliases: [old.corp]\ncaCertificates: [{pem: roots, trustDomains: [partner]}]\nenableAutoMtls: false\nmeshMTLS: {minProtocolVersion: TLSV1_3}\ndefaultServiceExportTo: [.]\n\
                defaultVirtualServiceExportTo: ['*']\ndefaultDestinationRuleExportTo: [shop]\n\
                defaultConfig:\n  proxyMetadata: {ISTIO_META_HTTP10: \"1\"}\n  concurrency: 3\n  terminationDrainDuration: 7s\n  holdApplicationUntilProxyStarts: true\n  \
                gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: APPEND_FORWARD, proxyProtocol: {}}\n  interceptionMode: TPROXY\n\
                defaultProviders: {metrics: [prometheus]}\nextensionProviders: [{name: a, zipkin: {service: b, port: 1}}]\n";
    let config = check(text, &[]);
    let expected = MeshConfig {
        access_log_file: Some("/dev/stdout".to_owned()),
        access_log_encoding: AccessLogEncoding::Text,
        access_log_format: Some("%PROTOCOL%".to_owned()),
        enable_tracing: Some(true),
        outbound_traffic_policy: Some(OutboundTrafficPolicy::RegistryOnly),
        path_normalization: Some(Normalization::MergeSlashes),
        connect_timeout: Some(GoDuration(Duration::from_secs(3))),
        protocol_detection_timeout: Some(GoDuration(Duration::from_millis(100))),
        proxy_listen_port: Some(25001),
        proxy_inbound_listen_port: Some(25006),
        dns_refresh_rate: Some(GoDuration(Duration::from_secs(7))),
        tcp_keepalive: Some(TcpKeepalive {
            probes: Some(3),
            time: Some(GoDuration(Duration::from_secs(60))),
            interval: None,
        }),
        default_http_retry_policy: Some(HttpRetry::default()),
        locality_lb_setting: Some(LocalityLbSetting { enabled: Some(false), ..LocalityLbSetting::default() }),
        root_namespace: Some("root".to_owned()),
        default_service_export_to: vec![".".to_owned()],
        default_virtual_service_export_to: vec!["*".to_owned()],
        default_destination_rule_export_to: vec!["shop".to_owned()],
        trust_domain: Some("corp".to_owned()),
        trust_domain_aliases: vec!["old.corp".to_owned()],
        ca_certificates: vec![CertificateData {
            pem: Some("roots".to_owned()),
            trust_domains: vec!["partner".to_owned()],
            ..CertificateData::default()
        }],
        enable_auto_mtls: Some(false),
        mutual_tls_version_min: Some(TlsVersion::V1_3),
        default_config: ProxyConfig {
            concurrency: Some(3),
            proxy_metadata: BTreeMap::from([("ISTIO_META_HTTP10".to_owned(), "1".to_owned())]),
            termination_drain_duration: Some(GoDuration(Duration::from_secs(7))),
            gateway_topology: Some(GatewayTopology {
                num_trusted_proxies: 2,
                forward_client_cert_details: ForwardClientCertDetails::AppendForward,
                proxy_protocol: Some(ProxyProtocol {}),
            }),
            interception_mode: Some(InterceptionMode::Tproxy),
        },
        not_honoured: Vec::new(),
    };
    assert_eq!(config, expected);
    assert_eq!(check("{}", &[]), MeshConfig::default());
    assert_eq!(
        check("pathNormalization: {normalization: DEFAULT}", &[]).path_normalization,
        Some(Normalization::Base)
    );
}

#[test]
fn fields_not_honoured_are_warned_of_and_kept_by_name() {
    let text = "accessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%NO_SUCH%\"}'\nverifyCertificateAtClient: false\ndefaultConfig:\n  statusPort: 4\n  tracing: {sampling: 5}\n";
    let expected = [
        "3 warning field-not-honoured verifyCertificateAtClient",
        "5 warning field-not-honoured defaultConfig.statusPort",
        "6 warning field-not-honoured defaultConfig.tracing",
        "2 warning field-not-honoured accessLogFormat",
    ];
    let config = check(text, &expected);
    assert_eq!(config.access_log_format, None);
    let names =
        ["verifyCertificateAtClient", "defaultConfig.statusPort", "defaultConfig.tracing", "accessLogFormat"];
    assert_eq!(config.not_honoured, names);
    let warned = |text: &str, path: &str| check(text, &[&format!("1 warning field-not-honoured {path}")]);
    assert_eq!(warned("accessLogFormat: '%NO_SUCH%'", "accessLogFormat").access_log_format, None);
    let json = |format: &str| format!("{{accessLogEncoding: JSON, accessLogFormat: '{format}'}}");
    assert_eq!(warned(&json("%PROTOCOL%"), "accessLogFormat").access_log_format, None);
    let honoured = check(&json("{\"a\": \"%PROTOCOL%\"}"), &[]);
    assert_eq!(honoured.access_log_encoding, AccessLogEncoding::Json);
    assert_eq!(honoured.access_log_format.as_deref(), Some("{\"a\": \"%PROTOCOL%\"}"));
    warned("caCertificates: [{spiffeBundleUrl: 'https://a'}]", "caCertificates[0].spiffeBundleUrl");
    warned("caCertificates: [{pem: a}, {pem: a, certSigners: [b]}]", "caCertificates[1].certSigners");
    warned("meshMTLS: {cipherSuites: [a]}", "meshMTLS.cipherSuites");
    warned("defaultProviders: {tracing: [otel]}", "defaultProviders.tracing");
    warned("defaultProviders: {metrics: [prometheus, other]}", "defaultProviders.metrics");
    let policy = warned("outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}", "outboundTrafficPolicy.mode");
    assert_eq!(policy.outbound_traffic_policy, Some(OutboundTrafficPolicy::AllowAny));
}

#[test]
fn what_weft_does_anyway_is_not_warned_of() {
    for text in [
        "verifyCertificateAtClient: true",
        "proxyListenPort: 15001",
        "protocolDetectionTimeout: 0s",
        "h2UpgradePolicy: DO_NOT_UPGRADE",
        "meshMTLS: {}",
        "meshMTLS: {minProtocolVersion: TLS_AUTO, ecdhCurves: []}",
        "caCertificates:",
        "ingressService: istio-ingressgateway",
        "defaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012', statusPort: 15020}",
        "defaultConfig: {terminationDrainDuration: 20s}",
    ] {
        check(text, &[]);
    }
}

/// istiod passes over what it does not know, and so goes on when Istio's version changes.
#[test]
fn fields_that_there_are_not_are_told_and_passed_over() {
    check("accesLogFile: a", &["1 warning unknown-field accesLogFile"]);
    assert_eq!(read("accesLogFile: a").findings[0].remedy, "did you mean `accessLogFile`?");
    check("defaultConfig:\n  proxymetadata: {}", &["2 warning unknown-field defaultConfig.proxymetadata"]);
    let config =
        check("tcpKeepalive: {times: 3, probes: 4}", &["1 warning unknown-field tcpKeepalive.times"]);
    assert_eq!(config.tcp_keepalive.and_then(|it| it.probes), Some(4));
    let text =
        "mixerCheckServer: a:15004\ndefaultConfig: {aFieldOfTomorrow: {a: 1}, statusPort: 15020}\nca: {}\n";
    let expected = [
        "1 warning unknown-field mixerCheckServer",
        "2 warning unknown-field defaultConfig.aFieldOfTomorrow",
    ];
    check(text, &expected);
    let refused = ["1 error unknown-field aFieldOfTomorrow", "2 error bad-value accessLogEncoding"];
    check("aFieldOfTomorrow: 1\naccessLogEncoding: XML", &refused);
}

#[test]
fn errors_refuse_it() {
    check("connectTimeout: 3", &["1 error wrong-type connectTimeout"]);
    check("defaultConfig: {concurrency: -1}", &["1 error bad-value defaultConfig.concurrency"]);
    check(
        "defaultConfig: {terminationDrainDuration: 5}",
        &["1 error wrong-type defaultConfig.terminationDrainDuration"],
    );
    check(
        "defaultConfig: {gatewayTopology: {numTrustedProxies: -1}}",
        &["1 error bad-value defaultConfig.gatewayTopology.numTrustedProxies"],
    );
    check(
        "defaultConfig: {gatewayTopology: {forwardClientCertDetails: FORWARD}}",
        &["1 error bad-value defaultConfig.gatewayTopology.forwardClientCertDetails"],
    );
    check("connectTimeout: 0s", &["1 error bad-value connectTimeout"]);
    check("protocolDetectionTimeout: 1us", &["1 error bad-value protocolDetectionTimeout"]);
    check("proxyListenPort: 0", &["1 error bad-value proxyListenPort"]);
    check("proxyInboundListenPort: 65536", &["1 error bad-value proxyInboundListenPort"]);
    check("proxyListenPort: 15006", &["1 error bad-value proxyInboundListenPort"]);
    check("defaultConfig: {interceptionMode: ALL}", &["1 error bad-value defaultConfig.interceptionMode"]);
    check("connectTimeout: 2h", &["1 error bad-value connectTimeout"]);
    check("dnsRefreshRate: 0s", &["1 error bad-value dnsRefreshRate"]);
    check("outboundTrafficPolicy: {mode: ANY}", &["1 error bad-value outboundTrafficPolicy.mode"]);
    check("accessLogEncoding: XML", &["1 error bad-value accessLogEncoding"]);
    check(
        "defaultHttpRetryPolicy: {attempts: 1, retryOn: x}",
        &["1 error bad-value defaultHttpRetryPolicy.retryOn"],
    );
    check(
        "localityLbSetting: {distribute: [{from: a, to: {b: 1}}]}",
        &["1 error bad-value localityLbSetting.distribute[0].to"],
    );
    check("trustDomain: a_b", &["1 error bad-value trustDomain"]);
    check("trustDomainAliases: [a.b, a/b]", &["1 error bad-value trustDomainAliases[1]"]);
    check("trustDomainAliases: ['']", &["1 error bad-value trustDomainAliases[0]"]);
    check(
        "caCertificates: [{pem: a, trustDomains: [a, 'b c']}]",
        &["1 error bad-value caCertificates[0].trustDomains[1]"],
    );
    check("caCertificates: [{trustDomains: [a]}]", &["1 error bad-value caCertificates[0]"]);
    check("meshMTLS: {minProtocolVersion: TLSV1_1}", &["1 error bad-value meshMTLS.minProtocolVersion"]);
    check("caCertificates: [{pems: a}]", &["1 error unknown-field caCertificates[0].pems"]);
    check("meshMTLS: {minVersion: TLSV1_3}", &["1 error unknown-field meshMTLS.minVersion"]);
    for misspelt in ["outboundTrafficPolcy: {mode: REGISTRY_ONLY}", "trust_domain: a", "enableAutoMTLs: true"]
    {
        let field = misspelt.split(':').next().unwrap();
        check(misspelt, &[&format!("1 error unknown-field {field}")]);
    }
    check("outboundTrafficPolicy: {modus: a}", &["1 error unknown-field outboundTrafficPolicy.modus"]);
    check("rootNamespace: a.b", &["1 error bad-value rootNamespace"]);
    check("defaultServiceExportTo: [a, 'b c']", &["1 error bad-value defaultServiceExportTo[1]"]);
    check("a: [", &["1 error malformed-yaml a[0]"]);
    check("- a", &["1 error wrong-type"]);
    check("enableTracing: true\nenableTracing: true\n", &["2 error duplicate-key enableTracing"]);
    check("enableTracing: true\n---\nenableTracing: true\n", &["2 error malformed-yaml"]);
}

#[test]
fn a_text_that_says_nothing() {
    for text in ["", "# only a comment\n", "---\n"] {
        let read = read(text);
        assert!(
            read.is_empty && read.findings.is_empty() && read.config == Some(MeshConfig::default()),
            "{text:?}"
        );
    }
    assert!(!read("{}").is_empty);
}

#[test]
fn the_shops_mesh_config() {
    let Some(shop) = testing::shop() else { return };
    let config = check(&shop.read("mesh.yaml"), &[]);
    assert_eq!(config.access_log_file.as_deref(), Some("/dev/stdout"));
    assert_eq!(config.enable_tracing, Some(true));
}
