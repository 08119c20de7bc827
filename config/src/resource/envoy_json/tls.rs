//! `extensions.transport_sockets.tls.v3.DownstreamTlsContext`, and what it has in common with `UpstreamTlsContext`.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::proto;
use crate::resource::{
    ClientCertificates, DownstreamTls, FILE_REVOKED, Fingerprint, ServerCertificate, StringMatch, TlsVersion,
    Trust, UpstreamTls,
};

/// TLS that a listener terminates, as the transport socket of its chain.
pub(super) fn downstream(tls: &DownstreamTls) -> Value {
    let mut common = Map::new();
    let mut set = |name: &str, value: Value| common.insert(name.to_owned(), value);
    let params = params(tls);
    if !params.is_empty() {
        set("tls_params", Value::Object(params));
    }
    set("alpn_protocols", tls.alpn.iter().map(|protocol| json!(&**protocol)).collect());
    set("tls_certificate_sds_secret_configs", tls.certificates.iter().map(|name| secret(name)).collect());
    if let Some(trust) = tls.client_certificates.trust() {
        set("combined_validation_context", validation(trust));
    }
    let required = matches!(tls.client_certificates, ClientCertificates::Required(_));
    proto::extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({ "common_tls_context": common, "require_client_certificate": required }),
    )
}

/// The `common_tls_context` of TLS towards an upstream.
pub(super) fn upstream_common(tls: &UpstreamTls) -> Value {
    let mut common = Map::new();
    let mut set = |name: &str, value: Value| common.insert(name.to_owned(), value);
    if tls.version_max != TlsVersion::V1_3 {
        set("tls_params", json!({ "tls_maximum_protocol_version": "TLSv1_2" }));
    }
    if !tls.alpn.is_empty() {
        set("alpn_protocols", tls.alpn.iter().map(|protocol| json!(&**protocol)).collect());
    }
    if let Some(certificate) = &tls.certificate {
        set("tls_certificate_sds_secret_configs", json!([secret(certificate)]));
    }
    match &tls.server {
        ServerCertificate::Verified(trust) => set("combined_validation_context", validation(trust)),
        ServerCertificate::Any => set("validation_context", json!({})),
        ServerCertificate::Refused(_) => None,
    };
    Value::Object(common)
}

/// Whose certificates are believed.
fn validation(trust: &Trust) -> Value {
    let mut default = Map::new();
    if !trust.subject_alt_names.is_empty() {
        let names = trust.subject_alt_names.iter().map(|name| match name {
            StringMatch::Exact(name) => json!({ "exact": &**name }),
            StringMatch::Prefix(prefix) => json!({ "prefix": &**prefix }),
            StringMatch::SafeRegex(regex) => json!({ "safe_regex": { "regex": &**regex } }),
        });
        default.insert("match_subject_alt_names".to_owned(), names.collect());
    }
    if let Some(path) = trust.revoked.as_deref().and_then(|name| name.strip_prefix(FILE_REVOKED)) {
        default.insert("crl".to_owned(), json!({ "filename": path }));
    }
    for fingerprint in &trust.fingerprints {
        let (field, text) = match fingerprint {
            Fingerprint::Certificate(hash) => ("verify_certificate_hash", HEXLOWER.encode(hash)),
            Fingerprint::PublicKey(hash) => ("verify_certificate_spki", proto::base64(hash)),
        };
        let known = default.entry(field).or_insert_with(|| json!([]));
        known.as_array_mut().into_iter().for_each(|known| known.push(json!(text)));
    }
    json!({
        "default_validation_context": default,
        "validation_context_sds_secret_config": secret(&trust.roots),
    })
}

/// What differs from what is spoken anyway.
fn params(tls: &DownstreamTls) -> Map<String, Value> {
    let mut params = Map::new();
    let version = |version| match version {
        TlsVersion::V1_2 => json!("TLSv1_2"),
        TlsVersion::V1_3 => json!("TLSv1_3"),
    };
    if tls.version_min != TlsVersion::V1_2 {
        params.insert("tls_minimum_protocol_version".to_owned(), version(tls.version_min));
    }
    if tls.version_max != TlsVersion::V1_3 {
        params.insert("tls_maximum_protocol_version".to_owned(), version(tls.version_max));
    }
    if !tls.cipher_suites.is_empty() {
        let suites = tls.cipher_suites.iter().map(|suite| json!(&**suite)).collect();
        params.insert("cipher_suites".to_owned(), suites);
    }
    params
}

fn secret(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } })
}
