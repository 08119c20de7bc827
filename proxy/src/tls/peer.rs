//! Who a client is, by its certificate.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use config::{Fingerprint, StringMatch};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use http::HeaderValue;
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::hash::Output;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{CertificateError, Error};
use x509_parser::asn1_rs::ToDer;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

use super::revocation;
use super::server::Server;

/// Characters of a line in PEM.
const PEM_LINE: usize = 64;

/// Bits of keys of RSA whose signatures the library verifies.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// What identities of the mesh begin with.
const SPIFFE: &str = "spiffe://";

/// The alternative names of a certificate, as text.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
    addresses: Vec<String>,
}

/// The names of a certificate's extension of alternative ones; `None` when it cannot be read, or a name cannot be text: a
/// name with a NUL, say, is no name.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Option<Names> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    alternative(&parsed)
}

/// When a certificate begins and ends to hold, in seconds since 1970.
pub(super) fn life(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Whether a signature by the key of a certificate is understood: by a scheme that handshakes know, and one of RSA is that of a
/// key of so many bits.
///
/// # Errors
///
/// As the handshake has it, when it is not.
pub(super) fn is_proved(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let schemes = default_provider().signature_verification_algorithms.mapping;
    let is_known = revocation::kind_of_key(parsed.public_key().raw).is_some_and(|kind| {
        schemes.iter().flat_map(|(_, all)| *all).any(|one| *one.public_key_alg_id() == *kind)
    });
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if !RSA_BITS.contains(&key.key_size()) => {
            Err(CertificateError::BadSignature.into())
        }
        _ if !is_known => Err(CertificateError::BadSignature.into()),
        _ => Ok(()),
    }
}

/// Who has signed a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Issuer {
    /// Its name, as it is encoded.
    name: Vec<u8>,
    /// Which of its keys it was.
    key: Vec<u8>,
}

/// Who has signed a certificate, as it says (RFC 5280 section 4.2.1.1); `None` when it does not say by which key.
pub(super) fn issuer(certificate: &CertificateDer<'_>) -> Option<Issuer> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    })?;
    Some(Issuer { name: parsed.issuer().as_raw().to_vec(), key: key.0.to_vec() })
}

fn alternative(certificate: &X509Certificate<'_>) -> Option<Names> {
    let mut names = Names::default();
    let extension = certificate.subject_alternative_name().ok()?;
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        let (list, name) = match name {
            GeneralName::URI(name) => (&mut names.uris, name),
            GeneralName::DNSName(name) => (&mut names.dns, name),
            GeneralName::IPAddress(bytes) => {
                names.addresses.extend(address(bytes).map(|address| address.to_string()));
                continue;
            }
            _ => continue,
        };
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return None;
        }
        list.push((*name).to_owned());
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl Names {
    /// Those of a workload's certificate.
    pub(super) fn of_identity(uri: &str) -> Names {
        Names { uris: vec![uri.to_owned()], ..Names::default() }
    }

    /// The identity of a workload: the only URI, which is one of SPIFFE's.
    pub(super) fn identity(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [only] if only.len() > SPIFFE.len() && only.starts_with(SPIFFE) => Some(only),
            _ => None,
        }
    }

    /// The trust domain of the workload.
    pub(super) fn trust_domain(&self) -> Option<&str> {
        self.identity()?.strip_prefix(SPIFFE)?.split('/').next()
    }

    /// Whether one of them is what is wanted. A name of DNS may stand for all of a domain; otherwise names are compared as
    /// they are. Semantics: Envoy's, but that an identity is a URI and nothing else: a name of DNS that looks like one is
    /// none.
    pub(super) fn have_any(&self, wanted: &[StringMatch]) -> bool {
        wanted.iter().any(|wanted| match wanted {
            StringMatch::Exact(name) => self.have(name),
            StringMatch::Prefix(prefix) if prefix.starts_with(SPIFFE) => {
                self.uris.iter().any(|name| name.starts_with(&**prefix))
            }
            StringMatch::Prefix(prefix) => self.all().any(|name| name.starts_with(&**prefix)),
            // Nobody declares it.
            StringMatch::SafeRegex(_) => false,
        })
    }

    /// Whether one of them is this one.
    pub(super) fn have(&self, wanted: &str) -> bool {
        let is_identity = wanted.starts_with(SPIFFE);
        !is_identity && self.dns.iter().any(|name| stands_for(name, wanted))
            || self.uris.iter().chain(&self.addresses).any(|name| name == wanted)
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.uris.iter().chain(&self.dns).chain(&self.addresses)
    }
}

/// What a label begins with that is written in another alphabet.
const OTHER_ALPHABET: &str = "xn--";

/// Whether a name of DNS stands for this one: in its first label, and there alone, `*` stands for anything.
fn stands_for(name: &str, wanted: &str) -> bool {
    let (name, wanted) = (name.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    if name == wanted {
        return true;
    }
    let (Some((pattern, domain)), Some((label, rest))) = (name.split_once('.'), wanted.split_once('.'))
    else {
        return false;
    };
    let Some((begin, end)) = pattern.split_once('*') else { return false };
    domain == rest
        && !domain.contains('*')
        && !end.contains('*')
        && !pattern.starts_with(OTHER_ALPHABET)
        && label.len() > begin.len() + end.len()
        && label.starts_with(begin)
        && label.ends_with(end)
}

/// Whether a certificate is one of these, or its key is.
pub(super) fn has_any(certificate: &CertificateDer<'_>, wanted: &[Fingerprint]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let is = |hash: Option<Output>, wanted: &[u8; 32]| hash.is_some_and(|hash| hash.as_ref() == wanted);
    wanted.iter().any(|wanted| match wanted {
        Fingerprint::Certificate(wanted) => is(sha256(certificate), wanted),
        Fingerprint::PublicKey(wanted) => is(sha256(parsed.public_key().raw), wanted),
    })
}

/// SHA-256; `None` for the cipher suite that is there without it, which none is.
fn sha256(bytes: &[u8]) -> Option<Output> {
    Some(TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.hash(bytes))
}

/// What `x-forwarded-client-cert` says of a certificate that `by` has verified, with the parts that Istio sets at gateways,
/// or beside workloads, in Envoy's order; `None` when it cannot be said.
pub(super) fn forwarded(certificate: &CertificateDer<'_>, by: &Server) -> Option<HeaderValue> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let Names { uris, dns, .. } = alternative(&parsed)?;
    let hash = sha256(certificate)?;
    let mut parts: Vec<String> = by.uris.iter().map(|own| format!("By={}", field(own))).collect();
    parts.push(format!("Hash={}", HEXLOWER.encode(hash.as_ref())));
    if by.declared.forwards_certificate {
        parts.push(format!("Cert=\"{}\"", url_encoded_pem(certificate)));
    }
    // What would end it early is escaped already, as RFC 2253 has it.
    parts.push(format!("Subject=\"{}\"", subject(parsed.subject())));
    match uris.as_slice() {
        [] => parts.push("URI=".to_owned()),
        uris => parts.extend(uris.iter().map(|uri| format!("URI={}", field(uri)))),
    }
    parts.extend(dns.iter().map(|name| format!("DNS={}", field(name))));
    HeaderValue::try_from(parts.join(";")).ok()
}

/// What would end a field early stands in quotes: Envoy writes it as it is, so that a certificate can add fields.
fn field(text: &str) -> String {
    match text.contains([',', ';', '"']) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.to_owned(),
    }
}

/// What is encoded in DER, in PEM.
pub(super) fn pem(kind: &str, der: &[u8]) -> String {
    let mut pem = format!("-----BEGIN {kind}-----\n");
    for line in BASE64.encode(der).as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.extend(["-----END ", kind, "-----\n"]);
    pem
}

fn url_encoded_pem(certificate: &[u8]) -> String {
    let pem = pem("CERTIFICATE", certificate);
    let mut encoded = String::with_capacity(pem.len() + pem.len() / 8);
    for character in pem.chars() {
        match character {
            '\n' => encoded.push_str("%0A"),
            ' ' => encoded.push_str("%20"),
            '+' => encoded.push_str("%2B"),
            '/' => encoded.push_str("%2F"),
            '=' => encoded.push_str("%3D"),
            other => encoded.push(other),
        }
    }
    encoded
}

/// A subject as RFC 2253 writes it: the last part first.
pub(super) fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let attributes = part.iter().map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            match label(&oid) {
                Some(label) => format!("{label}={}", escaped(attribute.as_str().unwrap_or_default())),
                None => {
                    let value = attribute.attr_value().to_der_vec().unwrap_or_default();
                    format!("{oid}=#{}", HEXUPPER.encode(&value))
                }
            }
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

/// What OpenSSL calls an attribute.
fn label(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.46" => "dnQualifier",
        _ => return None,
    })
}

/// RFC 2253 section 2.4; what is not printable ASCII is written as hexadecimal digits.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let last = text.len().saturating_sub(1);
    for (index, byte) in text.bytes().enumerate() {
        let at_edge = index == 0 && matches!(byte, b' ' | b'#') || index == last && byte == b' ';
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => escaped.extend(['\\', char::from(byte)]),
            _ if at_edge => escaped.extend(['\\', char::from(byte)]),
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dns_stand_for_others() {
        let check = |name: &str, wanted: &str, expected: bool| {
            assert_eq!(stands_for(name, wanted), expected, "{name} {wanted}");
        };
        check("a.example", "A.Example", true);
        check("*.example", "a.example", true);
        check("*.a.example", "b.a.example", true);
        check("*.a.example", "c.b.a.example", false);
        check("*.a.example", "a.example", false);
        check("a*.example", "ab.example", true);
        check("*b.example", "ab.example", true);
        check("a*.example", "a.example", false);
        check("*", "a", false);
        check("**.example", "ab.example", false);
        check("a.*", "a.example", false);
        check("xn--*.example", "xn--a.example", false);
    }

    /// What Envoy 1.40 writes of certificates with these subjects.
    #[test]
    fn a_subject_is_written_as_envoy_does() {
        let check = |parts: &[(&[u64], &str)], expected: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (oid, value) in parts {
                params.distinguished_name.push(rcgen::DnType::CustomDnType(oid.to_vec()), *value);
            }
            let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let (_, parsed) = X509Certificate::from_der(der.der()).unwrap();
            assert_eq!(subject(parsed.subject()), expected);
        };
        let (name, organization): (&[u64], &[u64]) = (&[2, 5, 4, 3], &[2, 5, 4, 10]);
        check(&[], "");
        let other = r#"a";URI=spiffe://cluster.local/ns/a/sa/admin;X="#;
        check(&[(name, other)], r#"CN=a\"\;URI=spiffe://cluster.local/ns/a/sa/admin\;X="#);
        check(
            &[(organization, r"Shop, Inc\"), (name, "#x <y> + é\u{1} ")],
            r"CN=\#x \<y\> \+ \C3\A9\01\ ,O=Shop\, Inc\\",
        );
        check(&[(name, " x=y")], r"CN=\ x=y");
        check(
            &[(&[1, 2, 840, 113549, 1, 9, 1], "a@b.c"), (&[1, 2, 3, 4, 5], "unk")],
            "1.2.3.4.5=#0C03756E6B,emailAddress=a@b.c",
        );
    }

    #[test]
    fn no_name_ends_its_field() {
        let check = |text: &str, expected: &str| assert_eq!(field(text), expected);
        check("spiffe://a/b=c", "spiffe://a/b=c");
        check(r"a\b", r"a\b");
        check("a,b", r#""a,b""#);
        check("a;b=c", r#""a;b=c""#);
        check(r#"a";b\"#, r#""a\";b\\""#);
    }

    #[test]
    fn a_workload_has_one_identity() {
        let check = |uris: &[&str], expected: Option<&str>| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let names = Names { uris, dns: vec!["a".to_owned()], ..Names::default() };
            assert_eq!(names.identity(), expected);
        };
        let one = "spiffe://cluster.local/ns/shop/sa/web";
        check(&[one], Some(one));
        check(&[], None);
        check(&[one, "spiffe://cluster.local/ns/shop/sa/cart"], None);
        check(&["https://shop.example"], None);
        check(&["spiffe://"], None);
    }

    #[test]
    fn an_identity_is_a_uri() {
        let check = |names: Names, wanted: StringMatch, expected: bool| {
            assert_eq!(names.have_any(std::slice::from_ref(&wanted)), expected, "{names:?} {wanted:?}");
        };
        let one = "spiffe://mesh/ns/shop/sa/web";
        let forged = || Names { dns: vec![one.to_owned()], ..Names::of_identity("spiffe://evil/ns/a/sa/b") };
        for wanted in [StringMatch::Prefix("spiffe://mesh/".into()), StringMatch::Exact(one.into())] {
            check(Names::of_identity(one), wanted.clone(), true);
            check(forged(), wanted, false);
        }
        check(forged(), StringMatch::Prefix("spiffe://evil/".into()), true);
        let named = || Names { dns: vec!["a.b".to_owned()], ..Names::default() };
        check(named(), StringMatch::Prefix("a.".into()), true);
        check(named(), StringMatch::Exact("A.b".into()), true);
    }

    #[test]
    fn an_identity_is_of_a_trust_domain() {
        for (uri, expected) in [
            ("spiffe://corp/ns/shop/sa/web", Some("corp")),
            ("spiffe://corp", Some("corp")),
            ("spiffe:///a", Some("")),
            ("https://corp/a", None),
        ] {
            assert_eq!(Names::of_identity(uri).trust_domain(), expected, "{uri}");
        }
    }
}
