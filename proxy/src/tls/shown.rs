//! What operators are shown of certificates: all that a peer sees of them as well, and never a key.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

use super::server::Server;

/// The certificates of a filter chain, as Envoy shows them.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The first of those by which clients are verified.
    pub(crate) roots: Option<Certificate>,
    /// Those that are offered, without the authorities between them and the root.
    pub(crate) chain: Vec<Certificate>,
}

/// What is shown of one certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The secret it is of.
    pub(crate) secret: String,
    /// Its serial number, hexadecimal.
    pub(crate) serial_number: String,
    /// Its alternative names.
    pub(crate) names: Vec<AlternativeName>,
    /// Since when it is valid.
    pub(crate) valid_from: SystemTime,
    /// Until when.
    pub(crate) expiration: SystemTime,
}

/// An alternative name, as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AlternativeName {
    /// A name of DNS.
    Dns(String),
    /// A URI, such as a SPIFFE identity.
    Uri(String),
    /// An address.
    Ip(String),
}

impl Server {
    /// What operators are shown of it. A certificate that cannot be read is left out; none is: what is used was read before.
    pub(crate) fn shown(&self) -> Shown {
        let trust = self.declared.client_certificates.trust();
        let first = self.roots.as_ref().and_then(|roots| roots.first.as_ref());
        let roots = trust.zip(first).and_then(|(trust, first)| Certificate::of(&trust.roots, first));
        let named = self.declared.certificates.iter().zip(&self.certificates);
        let chain = named.filter_map(|(name, certified)| Certificate::of(name, certified.cert.first()?));
        Shown { roots, chain: chain.collect() }
    }
}

impl Certificate {
    fn of(secret: &str, certificate: &CertificateDer<'_>) -> Option<Certificate> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let serial = parsed.raw_serial();
        let leading = serial.iter().take_while(|byte| **byte == 0).count();
        let extension = parsed.subject_alternative_name().ok()?;
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        let validity = parsed.validity();
        Some(Certificate {
            secret: secret.to_owned(),
            serial_number: HEXLOWER.encode(serial.get(leading..).unwrap_or_default()),
            names: names.filter_map(name).collect(),
            valid_from: time(validity.not_before),
            expiration: time(validity.not_after),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<AlternativeName> {
    Some(match name {
        GeneralName::DNSName(name) => AlternativeName::Dns((*name).to_owned()),
        GeneralName::URI(name) => AlternativeName::Uri((*name).to_owned()),
        GeneralName::IPAddress(bytes) => AlternativeName::Ip(match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string(),
        }),
        _ => return None,
    })
}

/// A time before 1970 is 1970.
fn time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
