//! How long certificates hold.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use super::tls::{AtGateway, pem, secret};

#[test]
fn how_long_a_certificate_holds() {
    const HOUR: u64 = 3_600;
    let gateway = AtGateway::new();
    for (seconds, told) in [
        (100 * 24 * HOUR + HOUR, "100 days"),
        (2 * 24 * HOUR + HOUR, "2 days"),
        (2 * 24 * HOUR - HOUR / 2, "47 hours"),
        (23 * HOUR + HOUR / 2, "23 hours"),
        (2 * HOUR - 30, "119 minutes"),
    ] {
        let mut params = CertificateParams::new(["shop.example".to_owned()]).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        params.not_after = (SystemTime::UNIX_EPOCH + now + Duration::from_secs(seconds)).into();
        let key = KeyPair::generate().unwrap();
        let chain = pem("CERTIFICATE", params.signed_by(&key, &gateway.ca.issuer).unwrap().der());
        let key = pem("PRIVATE KEY", &key.serialize_der());
        gateway.file("secrets.yaml", &secret("shop", &[("tls.crt", &chain), ("tls.key", &key)]));
        gateway.says(
            &["https://shop.example/items"],
            &[&format!("`kubernetes://shop`, for shop.example; it holds for {told}\n")],
        );
    }
}
