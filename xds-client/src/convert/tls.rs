//! TLS as it is declared. It is not spoken to clusters yet, which answer 503. A filter chain terminates it with the
//! secrets of a gateway alone; any other that asks for it is closed.

use std::sync::Arc;
use std::time::Duration;

use config::origin::Origin;
use config::{ClientCertificates, DownstreamTls, TlsVersion, UpstreamTls, UpstreamTlsMode};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use super::Refused;
use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::needed;

/// What names of secrets begin with that a Gateway names.
const OF_GATEWAYS: &str = "kubernetes://";
/// Name of the secret with the workload's own certificate.
const OWN_CERTIFICATE: &str = "default";

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
    ]
}

variants!(core::transport_socket::ConfigType as "envoy.config.core.v3.TransportSocket.config_type" {
    honoured: TypedConfig;
});

variants!(ValidationContextType
    as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.validation_context_type" {
    honoured: CombinedValidationContext;
    not_run:
        ValidationContext = "no certificate is verified, as TLS is not spoken yet",
        ValidationContextSdsSecretConfig = "no certificate is verified, as TLS is not spoken yet";
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
    let Common { certificates, alpn, .. } = common(common_tls_context, &at)?;
    if !alpn.is_empty() {
        at.not_run((pb::CommonTlsContext::MESSAGE.name, "alpn_protocols"), "TLS is not spoken yet");
    }
    let mode = match certificates.first() {
        None => UpstreamTlsMode::Simple,
        Some(name) if name == OWN_CERTIFICATE => UpstreamTlsMode::IstioMutual,
        Some(_) => UpstreamTlsMode::Mutual,
    };
    Ok(UpstreamTls { mode, sni: sni.into(), origin: origin.cloned().map(Box::new) })
}

/// TLS that a listener terminates; `None` where it cannot, so that the chain is closed.
pub(super) fn downstream(
    told: pb::DownstreamTlsContext,
    handshake_timeout: Option<Duration>,
    at: &At<'_>,
) -> Result<Option<DownstreamTls>, Refused> {
    open!(told, at, pb::DownstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        honoured: common_tls_context;
        harmless:
            disable_stateful_session_resumption = "weft resumes no session",
            session_timeout = "weft resumes no session",
            session_ticket_keys_type = "weft resumes no session";
        not_run: require_client_certificate = "the chain is closed, as TLS is not terminated yet";
        refused: require_sni, ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers;
    });
    let Common { certificates, alpn, has_more } =
        common(common_tls_context, &at.field("common_tls_context"))?;
    let of_gateway = !certificates.is_empty() && certificates.iter().all(|it| it.starts_with(OF_GATEWAYS));
    Ok((of_gateway && !has_more).then(|| DownstreamTls {
        certificates: certificates.into_iter().map(Arc::from).collect(),
        client_certificates: ClientCertificates::NotAsked,
        version_min: TlsVersion::V1_2,
        version_max: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: alpn.into_iter().map(Arc::from).collect(),
        handshake_timeout,
    }))
}

/// What both sides of TLS say.
#[derive(Default)]
struct Common {
    /// The names of the secrets with certificates that are shown; one that is written into the context has none.
    certificates: Vec<String>,
    /// Protocols that are offered.
    alpn: Vec<String>,
    /// Whether versions, cipher suites or a verification of the peer are told.
    has_more: bool,
}

fn common(told: Option<pb::CommonTlsContext>, at: &At<'_>) -> Result<Common, Refused> {
    let Some(told) = told else { return Ok(Common::default()) };
    let has_more = told.tls_params.is_some() || told.validation_context_type.is_some();
    open!(told, at, pb::CommonTlsContext as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        honoured: tls_certificates, tls_certificate_sds_secret_configs, validation_context_type, alpn_protocols;
        not_run: tls_params = "TLS is not spoken yet, and a chain with it is closed";
        refused: tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker,
            key_log;
    });
    let mut names = vec![String::new(); tls_certificates.len()];
    for (index, told) in tls_certificate_sds_secret_configs.into_iter().enumerate() {
        names.push(secret(told, &at.index("tls_certificate_sds_secret_configs", index))?);
    }
    if let Some(ValidationContextType::CombinedValidationContext(told)) =
        validation_context_type.map(|told| told.choose(at)).transpose()?
    {
        combined(told, &at.field("combined_validation_context"))?;
    }
    Ok(Common { certificates: names, alpn: alpn_protocols, has_more })
}

fn combined(told: CombinedCertificateValidationContext, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, CombinedCertificateValidationContext
        as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext" {
        honoured: validation_context_sds_secret_config;
        not_run: default_validation_context = "no certificate is verified, as TLS is not spoken yet";
        refused: validation_context_certificate_provider, validation_context_certificate_provider_instance;
    });
    let at = at.field("validation_context_sds_secret_config");
    secret(needed(validation_context_sds_secret_config, &at)?, &at).map(drop)
}

fn secret(told: pb::SdsSecretConfig, at: &At<'_>) -> Result<String, Refused> {
    open!(told, at, pb::SdsSecretConfig as "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" {
        honoured: name;
        not_run: sds_config = "no secret is asked for, as TLS is not spoken yet";
    });
    Ok(name)
}
