//! The policies of a DestinationRule.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Check;
use super::{load_balancer, names, values};
use crate::finding::code;
use crate::istio::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, GoDuration, H2UpgradePolicy, HttpSettings,
    OutlierDetection, PortTrafficPolicy, TcpKeepalive, TrafficPolicy, TunnelSettings,
};
use crate::resource::TcpKeepalive as Keepalive;

/// Checks the policy at `path`.
pub(crate) fn check(check: &mut Check<'_>, path: &str, policy: &TrafficPolicy) {
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = policy;
    if load_balancer.is_none()
        && connection_pool.is_none()
        && outlier_detection.is_none()
        && tls.is_none()
        && port_level_settings.is_empty()
        && tunnel.is_none()
        && proxy_protocol.is_none()
        && retry_budget.is_none()
    {
        check.error(code::MISSING_FIELD, path, "the policy is empty", "say something in it, or remove it");
    }
    check.at_most_one(path, &[("tunnel", tunnel.is_some()), ("proxyProtocol", proxy_protocol.is_some())]);
    if let Some(settings) = load_balancer {
        let outlier = outlier_detection.is_some();
        load_balancer::check(check, &format!("{path}.loadBalancer"), settings, outlier);
    }
    check_blocks(check, path, connection_pool.as_ref(), outlier_detection.as_ref(), tls.as_ref());
    check_ports(check, path, port_level_settings);
    if let Some(tunnel) = tunnel {
        check_tunnel(check, &format!("{path}.tunnel"), tunnel);
    }
    if let Some(percent) = retry_budget.as_ref().and_then(|budget| budget.percent)
        && !(0.0..=100.0).contains(&percent)
    {
        let what = format!("{percent} is not a share in percent");
        check.bad(&format!("{path}.retryBudget.percent"), what, "write 0 to 100");
    }
}

fn check_blocks(
    check: &mut Check<'_>,
    path: &str,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
) {
    if let Some(pool) = pool {
        check_pool(check, &format!("{path}.connectionPool"), pool);
    }
    if let Some(outlier) = outlier {
        check_outlier(check, &format!("{path}.outlierDetection"), outlier);
    }
    if let Some(tls) = tls {
        check_tls(check, &format!("{path}.tls"), tls);
    }
}

fn check_ports(check: &mut Check<'_>, path: &str, settings: &[PortTrafficPolicy]) {
    let mut seen = BTreeSet::new();
    for (index, policy) in settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        match &policy.port {
            None => check.error(code::MISSING_FIELD, &path, "`port` is missing", "add `port: {number: ...}`"),
            Some(port) => {
                values::port(check, &format!("{path}.port.number"), port.number);
                if !seen.insert(port.number) {
                    let what = format!("port {} has settings before these, which hold", port.number);
                    check.warning(code::INEFFECTIVE_VALUE, &path, what, "merge the two");
                }
            }
        }
        let PortTrafficPolicy { load_balancer, connection_pool, outlier_detection, tls, .. } = policy;
        if load_balancer.is_none()
            && connection_pool.is_none()
            && outlier_detection.is_none()
            && tls.is_none()
        {
            check.error(code::MISSING_FIELD, &path, "the policy of the port is empty", "say something in it");
        }
        if let Some(settings) = load_balancer {
            let outlier = outlier_detection.is_some();
            load_balancer::check(check, &format!("{path}.loadBalancer"), settings, outlier);
        }
        check_blocks(check, &path, connection_pool.as_ref(), outlier_detection.as_ref(), tls.as_ref());
    }
}

fn check_pool(check: &mut Check<'_>, path: &str, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(code::MISSING_FIELD, path, "neither `tcp` nor `http` is written", "add one of them");
    }
    if let Some(http) = &pool.http {
        check_http_settings(check, &format!("{path}.http"), http);
    }
    let Some(tcp) = &pool.tcp else { return };
    let path = format!("{path}.tcp");
    values::not_negative(check, &path, &[("maxConnections", tcp.max_connections)]);
    values::duration(check, &format!("{path}.connectTimeout"), tcp.connect_timeout);
    values::duration(check, &format!("{path}.maxConnectionDuration"), tcp.max_connection_duration);
    values::duration(check, &format!("{path}.idleTimeout"), tcp.idle_timeout);
    check_keepalive(check, &format!("{path}.tcpKeepalive"), tcp.tcp_keepalive.as_ref());
}

/// Checks keep-alive probes, here and in MeshConfig.
pub(crate) fn check_keepalive(check: &mut Check<'_>, path: &str, keepalive: Option<&TcpKeepalive>) {
    let Some(keepalive) = keepalive else { return };
    for (field, told) in [("time", keepalive.time), ("interval", keepalive.interval)] {
        let path = format!("{path}.{field}");
        values::duration(check, &path, told);
        if let Some(GoDuration(told)) = told {
            check_seconds(check, &path, told);
        }
    }
    let most = Keepalive::PROBES_MAX;
    if let Some(probes) = keepalive.probes.filter(|probes| *probes > most) {
        let what = format!("the kernel takes up to {most} probes, not {probes}: {most} are sent");
        check.warning(code::VALUE_BOUNDED, &format!("{path}.probes"), what, format!("write 1 to {most}"));
    }
}

/// What becomes of a time that the kernel is told in seconds.
fn check_seconds(check: &mut Check<'_>, path: &str, told: Duration) {
    let (most, whole) = (Keepalive::SECONDS_MAX, told.as_secs());
    let what = match whole {
        _ if whole > most => format!("the kernel takes up to {most}s, not {told:?}: {most}s hold"),
        _ if told.subsec_nanos() == 0 || told.as_millis() == 0 => return,
        0 => format!("istiod counts whole seconds, and {told:?} is none: the kernel's default holds"),
        _ => format!("istiod counts whole seconds: {whole}s hold, not {told:?}"),
    };
    check.warning(code::VALUE_BOUNDED, path, what, format!("write whole seconds from 1s to {most}s"));
}

fn check_http_settings(check: &mut Check<'_>, path: &str, http: &HttpSettings) {
    let numbers = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    values::not_negative(check, path, &numbers);
    values::duration(check, &format!("{path}.idleTimeout"), http.idle_timeout);
    if http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade) && http.use_client_protocol == Some(true) {
        let what = "`useClientProtocol` contradicts `h2UpgradePolicy: UPGRADE`";
        check.error(code::CONFLICTING_FIELDS, path, what, "keep one of them");
    }
}

fn check_outlier(check: &mut Check<'_>, path: &str, outlier: &OutlierDetection) {
    values::duration(check, &format!("{path}.interval"), outlier.interval);
    values::duration(check, &format!("{path}.baseEjectionTime"), outlier.base_ejection_time);
    let percents = [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ];
    for (field, percent) in percents {
        if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
            check.bad(
                &format!("{path}.{field}"),
                format!("{percent} is not a share in percent"),
                "write 0 to 100",
            );
        }
    }
    if outlier.consecutive_errors.is_some_and(|errors| errors != 0) {
        let path = format!("{path}.consecutiveErrors");
        let what = "deprecated, and without effect, in Istio too";
        check.warning(code::DEPRECATED_FIELD, &path, what, "use `consecutive5xxErrors`");
    }
    let split = outlier.split_external_local_origin_errors.unwrap_or_default();
    if !split && outlier.consecutive_local_origin_failures.is_some_and(|failures| failures > 0) {
        let what = "`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`";
        check.error(code::CONFLICTING_FIELDS, path, what, "add it, or remove the other");
    }
}

/// Whether a handshake can ask for a server of that name.
fn is_server_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.chars().all(is_plain) && !names::is_ip(name)
}

fn check_tls(check: &mut Check<'_>, path: &str, tls: &ClientTlsSettings) {
    let written = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let mode = tls.mode.unwrap_or(ClientTlsMode::Disable);
    let (certificate, key) = (written(&tls.client_certificate), written(&tls.private_key));
    let (roots, credential) = (written(&tls.ca_certificates), written(&tls.credential_name));
    let names = !tls.subject_alt_names.is_empty();
    let simple = mode == ClientTlsMode::Simple;
    if let Some(sni) = tls.sni.as_deref().filter(|sni| !sni.is_empty() && !is_server_name(sni)) {
        let what = format!("`{sni}` is not a name that a server can be asked for");
        check.bad(&format!("{path}.sni"), what, "write the name of a host, not an address");
    }
    let (crl, skips) = (written(&tls.ca_crl), tls.insecure_skip_verify == Some(true));
    if !matches!(mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        let without_effect = [
            ("clientCertificate", certificate),
            ("privateKey", key),
            ("caCertificates", roots),
            ("credentialName", credential),
            ("caCrl", crl),
            ("insecureSkipVerify", skips),
            ("subjectAltNames", names && mode == ClientTlsMode::Disable),
        ];
        let instead = match mode {
            ClientTlsMode::Disable => "connections are in plain text: `mode` is DISABLE, or not written",
            _ => "`mode: ISTIO_MUTUAL` speaks and verifies by the identities of the mesh alone",
        };
        for (field, _) in without_effect.into_iter().filter(|(_, is_written)| *is_written) {
            let remedy = "write `mode: SIMPLE` or `mode: MUTUAL`, or leave it out";
            check.warning(code::INEFFECTIVE_VALUE, &format!("{path}.{field}"), instead, remedy);
        }
        return;
    }
    if skips && crl {
        let what = "a server that is not verified is not looked for among those that are revoked";
        check.warning(code::INEFFECTIVE_VALUE, &format!("{path}.caCrl"), what, "keep one of them");
    }
    if tls.credential_name.as_deref().is_some_and(|name| !names::is_secret(name)) {
        check.bad(&format!("{path}.credentialName"), names::NOT_A_SECRET, "write the name of a Secret");
    }
    if skips && (roots || names || simple && credential) {
        let what = "`insecureSkipVerify` contradicts what the server is to be verified with";
        check.error(code::CONFLICTING_FIELDS, path, what, "keep one of them");
    }
    if simple && (certificate || key) {
        let field = if certificate { "clientCertificate" } else { "privateKey" };
        let what = "`mode: SIMPLE` shows no certificate of its own";
        let path = format!("{path}.{field}");
        check.warning(code::INEFFECTIVE_VALUE, &path, what, "write `mode: MUTUAL`, or leave it out");
    }
    if credential {
        let files = [
            ("clientCertificate", certificate),
            ("privateKey", key),
            ("caCertificates", roots),
            ("caCrl", crl),
        ];
        for (file, written) in files {
            check.at_most_one(path, &[("credentialName", true), (file, written)]);
        }
    } else if mode == ClientTlsMode::Mutual {
        for (field, written) in [("clientCertificate", certificate), ("privateKey", key)] {
            if !written {
                let what = format!("mutual TLS needs `{field}`");
                let path = format!("{path}.{field}");
                check.error(code::MISSING_FIELD, &path, what, format!("add `{field}`, or `credentialName`"));
            }
        }
    }
}

fn check_tunnel(check: &mut Check<'_>, path: &str, tunnel: &TunnelSettings) {
    let protocol = tunnel.protocol.as_deref().unwrap_or_default();
    if !["", "CONNECT", "POST"].contains(&protocol) {
        check.bad(
            &format!("{path}.protocol"),
            format!("`{protocol}` is not a tunnel"),
            "write `CONNECT` or `POST`",
        );
    }
    let host = tunnel.target_host.as_deref().unwrap_or_default();
    if !names::is_ip(host) {
        names::host(check, &format!("{path}.targetHost"), host);
    }
    values::port(check, &format!("{path}.targetPort"), tunnel.target_port.unwrap_or_default());
}
