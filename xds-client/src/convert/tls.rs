//! TLS as it is declared. It is not spoken yet: a cluster that asks for it answers 503, a filter chain that asks for it
//! is closed.

use config::origin::Origin;
use config::{UpstreamTls, UpstreamTlsMode};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};

use super::Refused;
use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::needed;

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
    let certificates = common(common_tls_context, &at.field("common_tls_context"))?;
    let mode = match certificates.first() {
        None => UpstreamTlsMode::Simple,
        Some(name) if name == OWN_CERTIFICATE => UpstreamTlsMode::IstioMutual,
        Some(_) => UpstreamTlsMode::Mutual,
    };
    Ok(UpstreamTls { mode, sni: sni.into(), origin: origin.cloned().map(Box::new) })
}

/// TLS that a listener terminates.
pub(super) fn downstream(told: pb::DownstreamTlsContext, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, pb::DownstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        honoured: common_tls_context;
        harmless:
            disable_stateful_session_resumption = "weft resumes no session",
            session_timeout = "weft resumes no session",
            session_ticket_keys_type = "weft resumes no session";
        not_run: require_client_certificate = "the chain is closed, as TLS is not terminated yet";
        refused: require_sni, ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers;
    });
    common(common_tls_context, &at.field("common_tls_context"))?;
    Ok(())
}

/// The names of the secrets with certificates that are shown; one that is written into the context has none.
fn common(told: Option<pb::CommonTlsContext>, at: &At<'_>) -> Result<Vec<String>, Refused> {
    let Some(told) = told else { return Ok(Vec::new()) };
    open!(told, at, pb::CommonTlsContext as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        honoured: tls_certificates, tls_certificate_sds_secret_configs, validation_context_type;
        not_run:
            tls_params = "TLS is not spoken yet",
            alpn_protocols = "TLS is not spoken yet";
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
    Ok(names)
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
