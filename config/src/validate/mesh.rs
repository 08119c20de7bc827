//! MeshConfig: the values of the fields that are honoured.

use std::time::Duration;

use super::check::Check;
use super::{http_route, load_balancer, names, not_honoured, proxy_config, traffic_policy, values};
use crate::mesh::MeshConfig;

/// Istio's bound on `connectTimeout`.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The ports that traffic is redirected to.
fn check_ports(check: &mut Check<'_>, config: &MeshConfig) {
    let inbound = "proxyInboundListenPort";
    for (path, port) in
        [("proxyListenPort", config.proxy_listen_port), (inbound, config.proxy_inbound_listen_port)]
    {
        if let Some(port) = port {
            values::port(check, path, port);
        }
    }
    if config.outbound_port() == config.inbound_port() {
        check.bad(inbound, "outbound traffic is redirected to the same port", "give each a port of its own");
    }
}

/// The trust domains. Semantics: istiod's, which takes names of DNS, perhaps with a point at their end.
fn check_trust_domains(check: &mut Check<'_>, config: &MeshConfig) {
    let own = config.trust_domain.iter().map(|domain| ("trustDomain".to_owned(), domain));
    let aliases = config.trust_domain_aliases.iter().enumerate();
    let aliases = aliases.map(|(index, domain)| (format!("trustDomainAliases[{index}]"), domain));
    let authorities = config.ca_certificates.iter().enumerate().flat_map(|(index, authority)| {
        let domains = authority.trust_domains.iter().enumerate();
        domains.map(move |(place, domain)| (format!("caCertificates[{index}].trustDomains[{place}]"), domain))
    });
    for (path, domain) in own.chain(aliases).chain(authorities) {
        let labels = domain.strip_suffix('.').unwrap_or(domain);
        if !labels.split('.').all(names::is_dns_label) {
            check.bad(
                &path,
                format!("`{domain}` is not a trust domain"),
                "write a name such as `cluster.local`",
            );
        }
    }
}

/// What vouches for identities.
fn check_authorities(check: &mut Check<'_>, config: &MeshConfig) {
    for (index, authority) in config.ca_certificates.iter().enumerate() {
        if authority.pem.as_deref().is_none_or(str::is_empty) && authority.spiffe_bundle_url.is_none() {
            let what = "there are no certificates in it";
            check.bad(&format!("caCertificates[{index}]"), what, "write them as `pem`");
        }
    }
}

/// Checks MeshConfig.
pub(crate) fn check_mesh(check: &mut Check<'_>, config: &MeshConfig) {
    values::duration(check, "connectTimeout", config.connect_timeout);
    if config.connect_timeout.is_some_and(|timeout| timeout.0 > CONNECT_TIMEOUT_MAX) {
        check.bad("connectTimeout", "the duration is over 1h", "write 1h or less");
    }
    values::duration(check, "dnsRefreshRate", config.dns_refresh_rate);
    let detection = config.protocol_detection_timeout.filter(|timeout| !timeout.0.is_zero());
    values::duration(check, "protocolDetectionTimeout", detection);
    check_ports(check, config);
    proxy_config::check_concurrency(check, "defaultConfig.concurrency", config.default_config.concurrency);
    traffic_policy::check_keepalive(check, "tcpKeepalive", config.tcp_keepalive.as_ref());
    if let Some(retries) = &config.default_http_retry_policy {
        http_route::check_retries(check, "defaultHttpRetryPolicy", retries);
        not_honoured::retries(check, "defaultHttpRetryPolicy", retries);
    }
    if let Some(setting) = &config.locality_lb_setting {
        load_balancer::check_localities(check, "localityLbSetting", setting, true);
    }
    if let Some(namespace) =
        config.root_namespace.as_deref().filter(|namespace| !names::is_dns_label(namespace))
    {
        check.bad(
            "rootNamespace",
            format!("`{namespace}` is not a namespace"),
            "write the name of a namespace",
        );
    }
    check_trust_domains(check, config);
    check_authorities(check, config);
    let lists = [
        ("defaultServiceExportTo", &config.default_service_export_to),
        ("defaultVirtualServiceExportTo", &config.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", &config.default_destination_rule_export_to),
    ];
    for (field, namespaces) in lists {
        for (index, namespace) in namespaces.iter().enumerate() {
            if !["*", ".", "~"].contains(&namespace.as_str()) && !names::is_dns_label(namespace) {
                let what = format!("`{namespace}` is not a namespace");
                check.bad(
                    &format!("{field}[{index}]"),
                    what,
                    "write `*`, `.`, `~` or the name of a namespace",
                );
            }
        }
    }
}
