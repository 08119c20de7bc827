//! TLS as it is declared. A filter chain terminates it with the secrets of a gateway, with files or with the identity of the
//! workload; any other that asks for it is closed.

use std::sync::Arc;
use std::time::Duration;

use config::origin::Origin;
use config::{
    ByRequest, ClientCertificates, DownstreamTls, FILE_CERTIFICATE, Fingerprint, OWN_CERTIFICATE,
    ServerCertificate, StringMatch, TlsVersion, Trust, UpstreamTls, UpstreamTlsMode,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use super::Refused;
use super::at::At;
use super::route::matcher::string;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{enumerated, is_true, needed};

/// What names of secrets begin with that a Gateway names.
const OF_GATEWAYS: &str = "kubernetes://";

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        core::TransportSocket::MESSAGE,
        core::transport_socket::ConfigType::MESSAGE,
        pb::UpstreamTlsContext::MESSAGE,
        pb::DownstreamTlsContext::MESSAGE,
        pb::CommonTlsContext::MESSAGE,
        ValidationContextType::MESSAGE,
        CombinedCertificateValidationContext::MESSAGE,
        pb::SdsSecretConfig::MESSAGE,
        pb::CertificateValidationContext::MESSAGE,
        pb::TlsParameters::MESSAGE,
    ]
}

variants!(core::transport_socket::ConfigType as "envoy.config.core.v3.TransportSocket.config_type" {
    honoured: TypedConfig;
});

variants!(ValidationContextType
    as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.validation_context_type" {
    honoured: CombinedValidationContext, ValidationContext, ValidationContextSdsSecretConfig;
    refused: ValidationContextCertificateProvider, ValidationContextCertificateProviderInstance;
});

/// The configuration of a transport socket, which says what it is.
pub(super) fn socket_config(told: core::TransportSocket, at: &At<'_>) -> Result<Any, Refused> {
    open!(told, at, core::TransportSocket as "envoy.config.core.v3.TransportSocket" {
        honoured: config_type;
        harmless: name = "the type of its configuration says what it is";
    });
    let core::transport_socket::ConfigType::TypedConfig(config) =
        needed(config_type, &at.field("typed_config"))?.choose(at)?;
    Ok(config)
}

/// TLS towards an upstream.
pub(super) fn upstream(
    told: pb::UpstreamTlsContext,
    origin: Option<&Origin>,
    at: &At<'_>,
) -> Result<UpstreamTls, Refused> {
    open!(told, at, pb::UpstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" {
        honoured: common_tls_context, sni;
        harmless: max_session_keys = "weft resumes no session";
        refused: auto_host_sni, auto_sni_san_validation, allow_renegotiation, enforce_rsa_key_usage;
    });
    let at = at.field("common_tls_context");
    let Common { certificates, alpn, params, peer } = common(common_tls_context, &at)?;
    if params.version_min.is_some_and(|told| told != TlsVersion::V1_2) || !params.cipher_suites.is_empty() {
        return Err(at.field("tls_params").not_honoured());
    }
    let mode = match certificates.first() {
        None => UpstreamTlsMode::Simple,
        Some(name) if name == OWN_CERTIFICATE => UpstreamTlsMode::IstioMutual,
        Some(_) => UpstreamTlsMode::Mutual,
    };
    let server = match (peer, certificates.as_slice()) {
        (_, [_, _, ..]) => ServerCertificate::Refused("several certificates are not shown".into()),
        (_, [name]) if name.is_empty() => {
            ServerCertificate::Refused("a certificate that is written into a resource is not shown".into())
        }
        (peer, _) => peer.unwrap_or(ServerCertificate::Any),
    };
    Ok(UpstreamTls {
        mode,
        sni: sni.into(),
        by_request: ByRequest::default(),
        certificate: certificates.into_iter().next().map(Arc::from),
        server,
        alpn: alpn.into_iter().map(Arc::from).collect(),
        // Envoy's default for clients; that for servers is 1.3.
        version_max: params.version_max.unwrap_or(TlsVersion::V1_2),
        origin: origin.cloned().map(Box::new),
    })
}

/// TLS that a listener terminates; `None` where it cannot, so that the chain is closed.
pub(super) fn downstream(
    told: pb::DownstreamTlsContext,
    handshake_timeout: Option<Duration>,
    at: &At<'_>,
) -> Result<Option<DownstreamTls>, Refused> {
    open!(told, at, pb::DownstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        honoured: common_tls_context, require_client_certificate;
        harmless:
            disable_stateful_session_resumption = "weft resumes no session",
            session_timeout = "weft resumes no session",
            session_ticket_keys_type = "weft resumes no session";
        refused: require_sni, ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers;
    });
    let Common { certificates, alpn, params, peer } =
        common(common_tls_context, &at.field("common_tls_context"))?;
    let client_certificates = match (peer, is_true(require_client_certificate)) {
        (None | Some(ServerCertificate::Any), false) => ClientCertificates::NotAsked,
        (Some(ServerCertificate::Verified(trust)), false) => ClientCertificates::Optional(trust),
        (Some(ServerCertificate::Verified(trust)), true) => ClientCertificates::Required(trust),
        _ => return Ok(None),
    };
    let in_files = |name: &String| name.starts_with(FILE_CERTIFICATE);
    let is_known = |name: &String| name.starts_with(OF_GATEWAYS) || in_files(name) || name == OWN_CERTIFICATE;
    let is_served = !certificates.is_empty() && certificates.iter().all(is_known);
    // Gateways show what is theirs; a workload, its identity.
    let forwards_certificate = !certificates.iter().any(|name| name == OWN_CERTIFICATE);
    Ok(is_served.then(|| DownstreamTls {
        certificates: certificates.into_iter().map(Arc::from).collect(),
        client_certificates,
        version_min: params.version_min.unwrap_or(TlsVersion::V1_2),
        version_max: params.version_max.unwrap_or(TlsVersion::V1_3),
        cipher_suites: params.cipher_suites,
        alpn: alpn.into_iter().map(Arc::from).collect(),
        handshake_timeout,
        forwards_certificate,
        origin: None,
    }))
}

/// What both sides of TLS say.
#[derive(Default)]
struct Common {
    /// The names of the secrets with certificates that are shown; one that is written into the context has none.
    certificates: Vec<String>,
    /// Protocols that are offered.
    alpn: Vec<String>,
    /// Versions and cipher suites.
    params: Params,
    /// How the peer is verified; `None` when nothing is said about it.
    peer: Option<ServerCertificate>,
}

/// Versions of TLS and their cipher suites.
#[derive(Debug, Default, PartialEq, Eq)]
struct Params {
    version_min: Option<TlsVersion>,
    version_max: Option<TlsVersion>,
    cipher_suites: Vec<Arc<str>>,
}

fn common(told: Option<pb::CommonTlsContext>, at: &At<'_>) -> Result<Common, Refused> {
    let Some(told) = told else { return Ok(Common::default()) };
    open!(told, at, pb::CommonTlsContext as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        honoured: tls_certificates, tls_certificate_sds_secret_configs, validation_context_type, alpn_protocols,
            tls_params;
        refused: tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker,
            key_log;
    });
    let mut names = vec![String::new(); tls_certificates.len()];
    for (index, told) in tls_certificate_sds_secret_configs.into_iter().enumerate() {
        names.push(secret(told, &at.index("tls_certificate_sds_secret_configs", index))?);
    }
    let peer = match validation_context_type.map(|told| told.choose(at)).transpose()? {
        None => None,
        Some(ValidationContextType::CombinedValidationContext(told)) => {
            Some(ServerCertificate::Verified(combined(told, &at.field("combined_validation_context"))?))
        }
        Some(ValidationContextType::ValidationContext(told)) if told == Default::default() => {
            Some(ServerCertificate::Any)
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(told)) => {
            let roots = secret(told, &at.field("validation_context_sds_secret_config"))?.into();
            Some(ServerCertificate::Verified(Trust {
                roots,
                revoked: None,
                subject_alt_names: Vec::new(),
                fingerprints: Vec::new(),
            }))
        }
        Some(_) => {
            Some(ServerCertificate::Refused("roots that are written into a resource are not read".into()))
        }
    };
    let params = params(tls_params, &at.field("tls_params"))?;
    Ok(Common { certificates: names, alpn: alpn_protocols, params, peer })
}

fn params(told: Option<pb::TlsParameters>, at: &At<'_>) -> Result<Params, Refused> {
    let Some(told) = told else { return Ok(Params::default()) };
    open!(told, at, pb::TlsParameters as "envoy.extensions.transport_sockets.tls.v3.TlsParameters" {
        honoured: tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites;
        refused: ecdh_curves, signature_algorithms, compliance_policies;
    });
    Ok(Params {
        version_min: version(tls_minimum_protocol_version, &at.field("tls_minimum_protocol_version"))?,
        version_max: version(tls_maximum_protocol_version, &at.field("tls_maximum_protocol_version"))?,
        cipher_suites: cipher_suites.into_iter().map(Arc::from).collect(),
    })
}

fn version(told: i32, at: &At<'_>) -> Result<Option<TlsVersion>, Refused> {
    use pb::tls_parameters::TlsProtocol;
    match enumerated::<TlsProtocol>(told, at)? {
        TlsProtocol::TlsAuto => Ok(None),
        TlsProtocol::TlSv12 => Ok(Some(TlsVersion::V1_2)),
        TlsProtocol::TlSv13 => Ok(Some(TlsVersion::V1_3)),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => Err(at.not_honoured()),
    }
}

fn combined(told: CombinedCertificateValidationContext, at: &At<'_>) -> Result<Trust, Refused> {
    open!(told, at, CombinedCertificateValidationContext
        as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext" {
        honoured: validation_context_sds_secret_config, default_validation_context;
        refused: validation_context_certificate_provider, validation_context_certificate_provider_instance;
    });
    let of_roots = at.field("validation_context_sds_secret_config");
    let roots = secret(needed(validation_context_sds_secret_config, &of_roots)?, &of_roots)?.into();
    match default_validation_context {
        Some(told) => validation(told, roots, &at.field("default_validation_context")),
        None => Ok(Trust { roots, revoked: None, subject_alt_names: Vec::new(), fingerprints: Vec::new() }),
    }
}

/// Who is believed by these roots: whose names and fingerprints are asked for, and who is not revoked.
fn validation(
    told: pb::CertificateValidationContext,
    roots: Arc<str>,
    at: &At<'_>,
) -> Result<Trust, Refused> {
    open!(told, at, pb::CertificateValidationContext
        as "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        honoured: match_subject_alt_names, crl, verify_certificate_spki, verify_certificate_hash;
        refused: trusted_ca, ca_certificate_provider_instance, system_root_certs, watched_directory,
            match_typed_subject_alt_names,
            require_signed_certificate_timestamp, allow_expired_certificate, trust_chain_verification,
            custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth, suppress_client_ca_list;
    });
    let mut names = Vec::with_capacity(match_subject_alt_names.len());
    for (index, told) in match_subject_alt_names.into_iter().enumerate() {
        let at = at.index("match_subject_alt_names", index);
        match string(told, &at)? {
            StringMatch::SafeRegex(_) => return Err(at.field("safe_regex").not_honoured()),
            name => names.push(name),
        }
    }
    let revoked = match crl.map(|told| told.specifier) {
        None => None,
        Some(Some(core::data_source::Specifier::Filename(path))) => {
            Some(format!("{}{path}", config::FILE_REVOKED).into())
        }
        Some(_) => return Err(at.field("crl").not_honoured()),
    };
    let hashes = verify_certificate_hash.iter().map(|text| Fingerprint::of_certificate(text)).enumerate();
    let keys = verify_certificate_spki.iter().map(|text| Fingerprint::of_public_key(text)).enumerate();
    let hashes = hashes.map(|(index, hash)| hash.ok_or(("verify_certificate_hash", index)));
    let keys = keys.map(|(index, key)| key.ok_or(("verify_certificate_spki", index)));
    let fingerprints: Result<Vec<_>, _> = hashes.chain(keys).collect();
    let fingerprints = fingerprints.map_err(|(field, index)| at.index(field, index).not_honoured())?;
    Ok(Trust { roots, revoked, subject_alt_names: names, fingerprints })
}

fn secret(told: pb::SdsSecretConfig, at: &At<'_>) -> Result<String, Refused> {
    open!(told, at, pb::SdsSecretConfig as "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" {
        honoured: name;
        harmless: sds_config = "its name says where a secret comes from";
    });
    Ok(name)
}
