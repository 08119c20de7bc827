//! Gateway: what Istio's own validation refuses, and what is not honoured yet.

use super::check::Check;
use super::{names, values};
use crate::finding::code;
use crate::istio::{Gateway, Server, ServerTlsMode};

/// What a port of a gateway may speak, in upper case.
const PROTOCOLS: [&str; 9] =
    ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "HTTP_PROXY"];

/// Checks one Gateway.
pub(crate) fn check(check: &mut Check<'_>, spec: &Gateway) {
    if spec.servers.is_empty() {
        check.error(code::MISSING_FIELD, "spec.servers", "a gateway needs a server", "add one");
    }
    for (index, server) in spec.servers.iter().enumerate() {
        check_server(check, &format!("spec.servers[{index}]"), server);
    }
}

fn check_server(check: &mut Check<'_>, path: &str, server: &Server) {
    values::port(check, &format!("{path}.port.number"), server.port.number);
    let protocol = server.port.protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        let what = format!("`{}` is not a protocol of gateways", server.port.protocol);
        let remedy = "write HTTP, HTTPS, HTTP2, GRPC, TLS or TCP";
        check.bad(&format!("{path}.port.protocol"), what, remedy);
    }
    if server.hosts.is_empty() {
        check.error(code::MISSING_FIELD, &format!("{path}.hosts"), "a server needs hosts", "add them");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{index}]");
        let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
        if !matches!(namespace, "." | "*") && !names::is_dns_label(namespace) {
            check.bad(&path, format!("`{namespace}` is not a namespace"), "write a namespace, `.` or `*`");
        }
        if name != "*" {
            names::host(check, &path, name);
        }
    }
    let Some(tls) = &server.tls else {
        if matches!(protocol.as_str(), "HTTPS" | "TLS") {
            let what = format!("{protocol} needs `tls`");
            check.error(code::MISSING_FIELD, &format!("{path}.tls"), what, "say who terminates TLS");
        }
        return;
    };
    let path = format!("{path}.tls.mode");
    match tls.mode {
        // On a port of plain HTTP only the redirect counts.
        _ if matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB") => {}
        ServerTlsMode::Passthrough => {}
        ServerTlsMode::AutoPassthrough => {
            let what = "weft does not honour AUTO_PASSTHROUGH yet: connections for these hosts are closed";
            check.warning(code::FIELD_NOT_HONOURED, &path, what, "write PASSTHROUGH and virtual services");
        }
        ServerTlsMode::Simple
        | ServerTlsMode::Mutual
        | ServerTlsMode::IstioMutual
        | ServerTlsMode::OptionalMutual => {
            let what = "weft does not terminate TLS yet: connections for these hosts are closed";
            let remedy = "write `mode: PASSTHROUGH` for services that terminate it themselves";
            check.warning(code::SECURITY_NOT_ENFORCED, &path, what, remedy);
        }
    }
}
