//! Clients whose certificates are good, and whose keys prove nothing.

use data_encoding::BASE64;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{AtGateway, Ca, pem};

/// A public key of RSA with 1024 bits.
const RSA_1024: &[u8] = b"MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDc0fN8tU6DgbN1dkwQODmAzJU0zcf2JqZdBw5Abbck/O5mFe8gb27druWBKSGU9E3ZYYTBuwhLBvnpOz1s6gsVG10yqQywNnZYAFpxlWXvHD1uY0Eqn6u+E02klC567UGh4cfTB48RFEBEwGoWIDwmhZRZyB1x/lUxUF0k/nZUIQIDAQAB";

/// What a key of that kind is taken for, as kinds are encoded.
type Instead<'k> = Option<(&'k [u8], &'k [u8])>;

/// A certificate by that authority, in PEM.
fn issued(ca: &Ca, kind: &'static SignatureAlgorithm, instead: Instead<'_>) -> String {
    let key = KeyPair::generate_for(kind).unwrap();
    issued_for(ca, &key, instead)
}

fn issued_for(ca: &Ca, key: &impl PublicKeyData, instead: Instead<'_>) -> String {
    let certificate = CertificateParams::default().signed_by(key, &ca.issuer).unwrap();
    let Some((kind, other)) = instead else { return pem("CERTIFICATE", certificate.der()) };
    let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    let mut signed = parsed.tbs_certificate.as_ref().to_vec();
    let at = signed.windows(kind.len()).position(|bytes| bytes == kind).unwrap();
    signed[at..][..other.len()].copy_from_slice(other);
    let signature = ca.issuer.key().sign(&signed).unwrap();
    let ecdsa_with_sha256 = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let bits = [0x03, u8::try_from(signature.len() + 1).unwrap(), 0];
    let all = [&signed, &ecdsa_with_sha256[..], &bits, &signature].concat();
    let [high, low] = u16::try_from(all.len()).unwrap().to_be_bytes();
    pem("CERTIFICATE", &[&[0x30, 0x82, high, low], &all[..]].concat())
}

/// As in the handshake, whose signature by such a key nobody verifies.
#[test]
fn a_client_proves_nothing_by_a_key_of_a_kind_that_handshakes_do_not_know() {
    const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
    const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
    let gateway = AtGateway::new();
    let weak = SubjectPublicKeyInfo::from_der(&BASE64.decode(RSA_1024).unwrap()).unwrap();
    let of = |kind, instead| issued(&gateway.ca, kind, instead);
    let (p384, ed25519) = (&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519);
    for (what, certificate, is_proved) in [
        ("P-256", of(&PKCS_ECDSA_P256_SHA256, None), true),
        ("P-384", of(p384, None), true),
        ("Ed25519", of(ed25519, None), true),
        ("P-384 as it is", of(p384, Some((P384, P384))), true),
        ("P-521", of(p384, Some((P384, b"\x06\x05\x2b\x81\x04\x00\x23"))), true),
        ("P-224", of(p384, Some((P384, b"\x06\x05\x2b\x81\x04\x00\x21"))), false),
        ("secp256k1", of(p384, Some((P384, b"\x06\x05\x2b\x81\x04\x00\x0a"))), false),
        ("Ed448", of(ed25519, Some((ED25519, b"\x06\x03\x2b\x65\x71"))), false),
        ("RSA of 1024 bits", issued_for(&gateway.ca, &weak, None), false),
    ] {
        let file = gateway.file("client.pem", &certificate);
        let expected = match is_proved {
            true => "the client's certificate is verified\n",
            false => "=> closed NR, certificate_invalid\n",
        };
        println!("by a key of {what}");
        let asked = ["https://mutual.example/", "--client-certificate", file.to_str().unwrap()];
        gateway.says(&asked, &[expected]);
    }
}
