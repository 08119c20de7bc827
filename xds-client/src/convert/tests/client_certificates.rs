//! What is told of a client's certificate.

use manager::http_connection_manager::{ForwardClientCertDetails as Forward, SetCurrentClientCertDetails};

use super::*;

/// What istiod asks for beside workloads.
fn details() -> SetCurrentClientCertDetails {
    SetCurrentClientCertDetails {
        subject: Some(BoolValue { value: true }),
        dns: true,
        uri: true,
        ..SetCurrentClientCertDetails::default()
    }
}

/// Whether a listener that terminates TLS tells all of a certificate.
fn tells(forward: Forward, told: Option<SetCurrentClientCertDetails>) -> Result<bool, String> {
    let told = HttpConnectionManager {
        forward_client_cert_details: forward.into(),
        set_current_client_cert_details: told,
        ..http(vec![])
    };
    let mut told = with_filters(vec![any(&told)]);
    let certificate = tls::SdsSecretConfig { name: "kubernetes://shop".to_owned(), ..Default::default() };
    let common = tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![certificate],
        ..tls::CommonTlsContext::default()
    };
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        ..tls::DownstreamTlsContext::default()
    };
    let config = core::transport_socket::ConfigType::TypedConfig(any(&context));
    told.filter_chains[0].transport_socket =
        Some(core::TransportSocket { name: "tls".to_owned(), config_type: Some(config) });
    let listener = convert_listener(&told).map_err(|refused| refused.to_string())?;
    Ok(listener.filter_chains[0].tls.as_ref().expect("TLS").forwards_certificate)
}

#[test]
fn parts_that_are_told() {
    for forward in [Forward::AppendForward, Forward::SanitizeSet] {
        assert_eq!(tells(forward, Some(details())), Ok(false));
        assert_eq!(tells(forward, Some(SetCurrentClientCertDetails { cert: true, ..details() })), Ok(true));
    }
}

#[test]
fn parts_that_weft_tells_otherwise_are_refused() {
    const PATH: &str = "filter_chains[0].filters[0].typed_config.set_current_client_cert_details";
    let always = "weft tells it where it tells of a client's certificate";
    let never = "weft does not honour it";
    let check = |change: fn(&mut SetCurrentClientCertDetails), field: &str, why: &str| {
        let mut told = details();
        change(&mut told);
        let expected = Err(format!("{PATH}.{field}: {why}"));
        assert_eq!(tells(Forward::SanitizeSet, Some(told)), expected);
    };
    check(|it| it.subject = None, "subject", always);
    check(|it| it.subject = Some(BoolValue { value: false }), "subject", always);
    check(|it| it.dns = false, "dns", always);
    check(|it| it.uri = false, "uri", always);
    check(|it| it.chain = true, "chain", never);
    check(|it| it.issuer = true, "issuer", never);
    check(|it| it.format = 1, "format", never);
    assert!(tells(Forward::AppendForward, None).is_err());
    // Where nothing is told of it, no part is.
    for forward in [Forward::Sanitize, Forward::ForwardOnly, Forward::AlwaysForwardOnly] {
        assert!(tells(forward, None).is_ok());
    }
}
