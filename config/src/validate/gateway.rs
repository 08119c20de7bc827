//! Gateway: what Istio's own validation refuses, and what is not honoured yet.

use std::collections::BTreeSet;

use super::check::Check;
use super::{names, values};
use crate::finding::code;
use crate::istio::{Gateway, Server, ServerTlsMode, ServerTlsSettings};
use crate::resource::{CIPHER_SUITES, Fingerprint};

/// What a port of a gateway may speak, in upper case.
const PROTOCOLS: [&str; 9] =
    ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "HTTP_PROXY"];

/// Checks one Gateway.
pub(crate) fn check(check: &mut Check<'_>, spec: &Gateway) {
    if spec.servers.is_empty() {
        check.error(code::MISSING_FIELD, "spec.servers", "a gateway needs a server", "add one");
    }
    if !names::is_dns_label(check.name()) {
        let what = format!("`{}` is not a DNS label, as the name of a Gateway must be", check.name());
        check.bad("metadata.name", what, "use letters, digits and `-`, a letter or digit at both ends");
    }
    // Routes behind TLS are told apart by them.
    let mut port_names = BTreeSet::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        check_server(check, &path, server);
        let (path, name) = (format!("{path}.port.name"), server.port.name.as_str());
        if name.is_empty() {
            check.error(code::MISSING_FIELD, &path, "the port of a server needs a name", "add one");
        } else if !port_names.insert(name) {
            let what = format!("a server before this one has a port named `{name}`");
            check.bad(&path, what, "give each server of the object another port name");
        }
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
    values::bind(check, path, server.bind.as_deref());
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
    check_tls(check, &format!("{path}.tls"), &protocol, tls);
}

/// What is done about TLS on a port of `protocol`, which is in upper case.
fn check_tls(check: &mut Check<'_>, path: &str, protocol: &str, tls: &ServerTlsSettings) {
    let is_http = matches!(protocol, "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
    if tls.https_redirect == Some(true) && !is_http {
        let what = "only HTTP in plain text is led to HTTPS";
        let path = format!("{path}.httpsRedirect");
        check.warning(code::INEFFECTIVE_VALUE, &path, what, "write it for the server of the port of HTTP");
    }
    if matches!(protocol, "TCP" | "MONGO") {
        let what = format!("TLS is not terminated on a port of the protocol {protocol}");
        check.bad(path, what, "write TLS as the port's protocol, or leave `tls` out");
    }
    match tls.mode {
        // On a port of plain HTTP only the redirect counts, which lets nothing else be said in plain text.
        mode if is_http => {
            if mode != ServerTlsMode::Passthrough && tls.https_redirect != Some(true) {
                let what = format!("TLS is not terminated on a port of the protocol {protocol}");
                check.bad(
                    &format!("{path}.mode"),
                    what,
                    "write HTTPS as the port's protocol, or leave `tls` out",
                );
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            for field in shown(tls) {
                let what = "TLS is passed on, and no certificate is shown or asked for";
                let path = format!("{path}.{field}");
                check.warning(code::INEFFECTIVE_VALUE, &path, what, "leave it out, or terminate TLS");
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            check_terminated(check, path, tls);
        }
        ServerTlsMode::IstioMutual => {
            check_clients(check, path, tls);
            for field in shown(tls) {
                let what = "with `mode: ISTIO_MUTUAL` the certificates are those of the mesh";
                check.bad(&format!("{path}.{field}"), what, "leave it out, or write `mode: MUTUAL`");
            }
            let is_told = |version: &Option<String>| {
                version.as_deref().is_some_and(|version| !matches!(version, "" | "TLS_AUTO"))
            };
            for (field, is_told) in [
                ("minProtocolVersion", is_told(&tls.min_protocol_version)),
                ("maxProtocolVersion", is_told(&tls.max_protocol_version)),
                ("cipherSuites", !tls.cipher_suites.is_empty()),
            ] {
                if is_told {
                    let what = "with `mode: ISTIO_MUTUAL` versions and cipher suites are those of the mesh";
                    check.warning(code::INEFFECTIVE_VALUE, &format!("{path}.{field}"), what, "leave it out");
                }
            }
        }
    }
}

/// The fields that are written of those that say which certificates are shown, and by which clients are verified.
fn shown(tls: &ServerTlsSettings) -> impl Iterator<Item = &'static str> + use<> {
    let is_there = |field: &Option<String>| field.as_deref().is_some_and(|text| !text.is_empty());
    let fields = [
        ("serverCertificate", is_there(&tls.server_certificate)),
        ("privateKey", is_there(&tls.private_key)),
        ("caCertificates", is_there(&tls.ca_certificates)),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", is_there(&tls.credential_name)),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    fields.into_iter().filter_map(|(field, is_there)| is_there.then_some(field))
}

/// What of TLS is not spoken or not verified, and must not look as if it were.
fn check_terminated(check: &mut Check<'_>, path: &str, tls: &ServerTlsSettings) {
    for (field, version) in
        [("minProtocolVersion", &tls.min_protocol_version), ("maxProtocolVersion", &tls.max_protocol_version)]
    {
        match version.as_deref() {
            None | Some("" | "TLS_AUTO" | "TLSV1_2" | "TLSV1_3") => {}
            Some(other) => {
                let what = format!("weft does not speak `{other}`");
                check.bad(&format!("{path}.{field}"), what, "write TLSV1_2 or TLSV1_3");
            }
        }
    }
    let is = |version: &Option<String>, wanted| version.as_deref() == Some(wanted);
    if is(&tls.min_protocol_version, "TLSV1_3") && is(&tls.max_protocol_version, "TLSV1_2") {
        let what = "no version is left between `minProtocolVersion` and this";
        check.bad(&format!("{path}.maxProtocolVersion"), what, "write TLSV1_3, or leave one of them out");
    }
    check_certificates(check, path, tls);
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        if !CIPHER_SUITES.contains(&suite.as_str()) {
            let what = format!("weft does not speak the cipher suite `{suite}`");
            let remedy = format!("write one of {}", CIPHER_SUITES.join(", "));
            check.bad(&format!("{path}.cipherSuites[{index}]"), what, remedy);
        }
    }
    if tls.mode == ServerTlsMode::Simple {
        let asks = [
            ("caCrl", tls.ca_crl.as_deref().is_some_and(|path| !path.is_empty())),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
            ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
            ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ];
        for (field, _) in asks.into_iter().filter(|(_, is_told)| *is_told) {
            let what = "clients are asked for no certificate that this could be looked for in";
            check.bad(&format!("{path}.{field}"), what, "write `mode: MUTUAL`, or leave it out");
        }
    } else {
        check_clients(check, path, tls);
    }
    for (index, certificate) in tls.tls_certificates.iter().enumerate() {
        if certificate.ca_certificates.as_deref().is_some_and(|path| !path.is_empty()) {
            let what = "clients are verified by `caCertificates` beside `tlsCertificates` alone";
            let path = format!("{path}.tlsCertificates[{index}].caCertificates");
            check.warning(code::FIELD_NOT_HONOURED, &path, what, "write it there");
        }
    }
}

/// What is shown, and what clients are verified by, where no Secret is named: Istio refuses a server without it.
fn check_certificates(check: &mut Check<'_>, path: &str, tls: &ServerTlsSettings) {
    let is_there = |field: &Option<String>| field.as_deref().is_some_and(|text| !text.is_empty());
    let several = tls.credential_names.iter().enumerate();
    let names = several.map(|(index, name)| (format!("credentialNames[{index}]"), name));
    let one = tls.credential_name.iter().map(|name| ("credentialName".to_owned(), name));
    let roots = tls.ca_cert_credential_name.iter().map(|name| ("caCertCredentialName".to_owned(), name));
    for (field, name) in one.chain(names).chain(roots) {
        if !names::is_secret(name) {
            check.bad(&format!("{path}.{field}"), names::NOT_A_SECRET, "write the name of a Secret");
        }
    }
    let named = !tls.credential_names.is_empty() || !tls.tls_certificates.is_empty();
    if is_there(&tls.credential_name) || named {
        return;
    }
    let asks = tls.mode != ServerTlsMode::Simple && !is_there(&tls.ca_cert_credential_name);
    let wanted = [
        ("serverCertificate", &tls.server_certificate, "there is no certificate to show", true),
        ("privateKey", &tls.private_key, "there is no key of the certificate", true),
        ("caCertificates", &tls.ca_certificates, "there is nothing that clients are verified by", asks),
    ];
    for (field, told, what, is_wanted) in wanted {
        if is_wanted && !is_there(told) {
            let remedy =
                format!("name a Secret by `credentialName`, or write the path of a file as `{field}`");
            check.error(code::MISSING_FIELD, &format!("{path}.{field}"), what, remedy);
        }
    }
}

/// How clients are verified.
fn check_clients(check: &mut Check<'_>, path: &str, tls: &ServerTlsSettings) {
    for (index, text) in tls.verify_certificate_hash.iter().enumerate() {
        if Fingerprint::of_certificate(text).is_none() {
            let path = format!("{path}.verifyCertificateHash[{index}]");
            let what = format!("`{text}` is not the SHA-256 of a certificate");
            check.bad(&path, what, "write it in 64 hexadecimal digits");
        }
    }
    for (index, text) in tls.verify_certificate_spki.iter().enumerate() {
        if Fingerprint::of_public_key(text).is_none() {
            let path = format!("{path}.verifyCertificateSpki[{index}]");
            let what = format!("`{text}` is not the SHA-256 of a public key");
            check.bad(&path, what, "write its 32 bytes in base64");
        }
    }
    if tls.insecure_skip_verify == Some(true) {
        let what = "weft lets in no clients that are not verified: connections for these hosts are closed";
        let remedy = "leave it out, or write `mode: SIMPLE`";
        check.warning(code::SECURITY_NOT_ENFORCED, &format!("{path}.insecureSkipVerify"), what, remedy);
    }
}
