//! The messages of `istio.v1.auth.IstioCertificateService`.

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

/// Its only method.
pub(super) const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Key of the metadata that names who is to sign.
const CERT_SIGNER: &str = "CertSigner";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    /// The request to sign, in PEM.
    #[prost(string, tag = "1")]
    pub(super) csr: String,
    /// How long the certificate is to hold, in seconds.
    #[prost(int64, tag = "3")]
    pub(super) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(super) metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    /// Certificates in PEM, the leaf first and the root last.
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}

/// Metadata that names who is to sign.
pub(super) fn signed_by(signer: &str) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(signer.to_owned())) };
    Struct { fields: BTreeMap::from([(CERT_SIGNER.to_owned(), value)]).into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The numbers of the fields are the protocol's, whatever both of our ends agree on.
    #[test]
    fn bytes_on_the_wire() {
        let request = Request { csr: "ab".to_owned(), validity_duration: 300, metadata: None };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02ab\x18\xac\x02");
        let request = Request { metadata: Some(signed_by("x")), ..Request::default() };
        assert_eq!(request.encode_to_vec(), b"\x22\x13\x0a\x11\x0a\x0aCertSigner\x12\x03\x1a\x01x");
        let response = Response { cert_chain: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(response.encode_to_vec(), b"\x0a\x01a\x0a\x01b");
    }
}
