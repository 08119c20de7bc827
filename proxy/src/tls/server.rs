//! What a filter chain terminates TLS with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use config::{CIPHER_SUITES, ClientCertificates, OWN_ROOTS, TlsVersion};
use http::HeaderValue;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use webpki::KeyUsage;

use super::bundles::{self, ByDomain};
use super::no_key::NoKey;
use super::peer;
use super::reason::word;
use super::revocation::{self, List, Shown};
use super::secrets::{Lists, Roots, Secrets};
use super::verify;

/// A resolved [`config::DownstreamTls`].
#[derive(Debug)]
pub(crate) struct Server {
    /// For clients that offer no protocol that is spoken: they get no answer about it, as BoringSSL does it.
    pub(super) without_alpn: Arc<ServerConfig>,
    /// For all others.
    pub(super) with_alpn: Arc<ServerConfig>,
    /// Bound on the handshake.
    pub(super) timeout: Option<Duration>,
    /// The URIs of the certificate that it shows.
    pub(super) uris: Vec<String>,
    /// Who lets clients in; `None` where they are not asked who they are.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// What it was resolved from.
    pub(super) declared: config::DownstreamTls,
    pub(super) certificates: Vec<Arc<CertifiedKey>>,
    pub(super) roots: Option<Arc<Roots>>,
    /// Lists of revoked certificates, besides those of the roots.
    revoked: Option<Arc<Lists>>,
}

/// What a client shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shows {
    /// No certificate.
    Nothing,
    /// These certificates, the leaf first, and that it has the key of it.
    Chain(Vec<CertificateDer<'static>>),
    /// A certificate of the mesh with this identity. It is not at hand, so its chain is taken to be believed.
    Identity(String),
}

impl Server {
    /// What `declared` asks for, which is `known` where that was made of the same; otherwise what is missing.
    pub(crate) fn resolve(
        declared: &config::DownstreamTls,
        secrets: &Secrets,
        known: Option<&Arc<Server>>,
    ) -> Result<Arc<Server>, String> {
        let mut certificates = Vec::new();
        for name in &declared.certificates {
            let certificate = secrets.certificate(name);
            certificates
                .push(certificate.ok_or_else(|| format!("the secret {name} cannot be used"))?.clone());
        }
        let roots =
            declared.client_certificates.trust().and_then(|trust| secrets.roots(&trust.roots)).cloned();
        let revoked = declared.client_certificates.trust().and_then(|trust| trust.revoked.as_ref());
        let revoked = revoked.and_then(|name| secrets.lists(name)).cloned();
        let trust = (roots.as_ref(), revoked.as_ref());
        if let Some(known) = known.filter(|known| known.is_of(declared, &certificates, trust)) {
            return Ok(known.clone());
        }
        let provider = Arc::new(provider(&declared.cipher_suites));
        let versions: Vec<&'static SupportedProtocolVersion> =
            [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)]
                .into_iter()
                .filter(|(version, _)| (declared.version_min..=declared.version_max).contains(version))
                .map(|(_, version)| version)
                .collect();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| error.to_string())?;
        let verifier = match &declared.client_certificates {
            ClientCertificates::NotAsked => None,
            ClientCertificates::Optional(trust) => Some(verifier(trust, false, secrets, &provider)?),
            ClientCertificates::Required(trust) => Some(verifier(trust, true, secrets, &provider)?),
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates(certificates.clone())));
        // A session that is resumed would not be verified again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = declared.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let shown = certificates.first().and_then(|shown| peer::names(shown.end_entity_cert().ok()?));
        Ok(Arc::new(Server {
            without_alpn,
            with_alpn: Arc::new(config),
            timeout: declared.handshake_timeout,
            uris: shown.map(|names| names.uris).unwrap_or_default(),
            verifier,
            declared: declared.clone(),
            certificates,
            roots,
            revoked,
        }))
    }

    /// Whether a client that `before` has let in with this chain of certificates would be let in, too, as far as it is about
    /// whom they believe: a certificate that has meanwhile ended to hold is no reason to part.
    pub(super) fn lets_in(&self, before: &Server, chain: &[CertificateDer<'_>]) -> bool {
        let covers = Roots::all_cover(self.roots.as_ref(), before.roots.as_ref());
        let revoked = |server: &Server| server.revoked.as_ref().map(Arc::as_ptr);
        if self.declared.client_certificates == before.declared.client_certificates
            && covers
            && revoked(self) == revoked(before)
        {
            return true;
        }
        match (&self.verifier, chain.split_first()) {
            (None, _) => true,
            (Some(verifier), None) => !verifier.client_auth_mandatory(),
            (Some(verifier), Some((leaf, rest))) => {
                held_last(chain).any(|at| verifier.verify_client_cert(leaf, rest, at).is_ok())
            }
        }
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn asks_who_clients_are(&self) -> bool {
        self.verifier.is_some()
    }

    /// Whether a client that shows this is let in.
    ///
    /// # Errors
    ///
    /// Why it is not, in the word of the metric.
    pub(crate) fn admits(&self, shows: &Shows) -> Result<(), &'static str> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let verified = match shows {
            Shows::Nothing if verifier.client_auth_mandatory() => Err(Error::NoCertificatesPresented),
            Shows::Nothing => Ok(()),
            Shows::Chain(chain) => match chain.split_first() {
                Some((leaf, rest)) => verifier
                    .verify_client_cert(leaf, rest, UnixTime::now())
                    .and_then(|_| peer::is_proved(leaf)),
                None => Err(Error::NoCertificatesPresented),
            },
            Shows::Identity(uri) => match self.declared.client_certificates.trust() {
                Some(trust) => {
                    let names = Some(&peer::Names::of_identity(uri));
                    let is_vouched_for = self.roots.as_ref().is_none_or(|it| it.of_peer(names).is_some());
                    let vouched = if is_vouched_for { Ok(()) } else { Err(bundles::unknown()) };
                    vouched.and_then(|()| Wanted::of(trust).is_met(names))
                }
                None => Ok(()),
            },
        };
        verified.map_err(|error| word(&error))
    }

    /// What `x-forwarded-client-cert` says of a client that shows this and is let in; `None` when it says nothing.
    pub(crate) fn forwards(&self, shows: &Shows) -> Option<HeaderValue> {
        match shows {
            Shows::Chain(chain) if self.verifier.is_some() => peer::forwarded(chain.first()?, self),
            Shows::Chain(_) | Shows::Nothing | Shows::Identity(_) => None,
        }
    }

    /// With what a client is spoken to that offers these protocols.
    pub(super) fn config<'o>(&self, offered: impl IntoIterator<Item = &'o [u8]>) -> &Arc<ServerConfig> {
        let spoken = &self.with_alpn.alpn_protocols;
        let overlaps = offered.into_iter().any(|it| spoken.iter().any(|spoken| spoken == it));
        if overlaps { &self.with_alpn } else { &self.without_alpn }
    }

    /// The protocol on which it agrees with a client that offers these; `None` for none of them.
    pub(crate) fn agrees_on(&self, offered: &[Arc<str>]) -> Option<String> {
        let spoken = &self.config(offered.iter().map(|it| it.as_bytes())).alpn_protocols;
        let agreed = spoken.iter().find(|spoken| offered.iter().any(|it| it.as_bytes() == spoken.as_slice()));
        agreed.map(|agreed| String::from_utf8_lossy(agreed).into_owned())
    }

    /// What it was resolved from.
    pub(crate) fn declared(&self) -> &config::DownstreamTls {
        &self.declared
    }

    /// Whether it was made of these.
    fn is_of(
        &self,
        declared: &config::DownstreamTls,
        certificates: &[Arc<CertifiedKey>],
        (roots, revoked): (Option<&Arc<Roots>>, Option<&Arc<Lists>>),
    ) -> bool {
        self.declared == *declared
            && self.certificates.len() == certificates.len()
            && self.certificates.iter().zip(certificates).all(|(own, other)| Arc::ptr_eq(own, other))
            && self.roots.as_ref().map(Arc::as_ptr) == roots.map(Arc::as_ptr)
            && self.revoked.as_ref().map(Arc::as_ptr) == revoked.map(Arc::as_ptr)
    }
}

/// When the leaf of what was shown held last, and where that was another time, when all of it did: what else is shown need not be
/// of the chain, and may have ended long ago.
pub(super) fn held_last(shown: &[CertificateDer<'_>]) -> impl Iterator<Item = UnixTime> + use<> {
    let leaf = last(shown.get(..1).unwrap_or_default());
    let all = last(shown);
    std::iter::once(leaf).chain((all.as_secs() != leaf.as_secs()).then_some(all))
}

/// Now, or when the first of these certificates ended to hold: they held when they were shown.
fn last(chain: &[CertificateDer<'_>]) -> UnixTime {
    let ends = chain
        .iter()
        .filter_map(peer::life)
        .map(|(_, ends)| Duration::from_secs(ends.try_into().unwrap_or(0)));
    let now = Duration::from_secs(UnixTime::now().as_secs());
    UnixTime::since_unix_epoch(ends.min().map_or(now, |ends| ends.min(now)))
}

/// The cipher suites of TLS 1.3, and those of TLS 1.2 that are named, in their order; all of them for none. Of TLS 1.3 AES-128
/// comes first, as a client of Envoy's offers it where the processor knows AES: it is the cheaper one, and what a server that
/// takes the client's first then speaks.
pub(super) fn provider(named: &[Arc<str>]) -> CryptoProvider {
    let all = aws_lc_rs::default_provider();
    let mut suites: Vec<SupportedCipherSuite> =
        all.cipher_suites.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
    suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let of_name =
        |name: &str| all.cipher_suites.iter().find(|suite| openssl_name(suite.suite()) == name).copied();
    match named {
        [] => suites.extend(CIPHER_SUITES.iter().filter_map(|name| of_name(name))),
        named => suites.extend(named.iter().filter_map(|name| of_name(name))),
    }
    CryptoProvider { cipher_suites: suites, ..all }
}

/// A cipher suite as OpenSSL, and so Envoy, calls it.
pub(super) fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

/// Several certificates, of which a client gets the first whose signatures it understands. Who understands none is to hear that
/// nothing is in common (RFC 8446 section 4.1.1: `handshake_failure`). Without a certificate rustls would say that access is
/// denied, and with a key for which nothing in common is left, in TLS 1.2, nothing at all.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let understood = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        // No cipher suite is for such a key: the handshake ends before anything is shown.
        let no_key = || Arc::new(NoKey(SignatureAlgorithm::Anonymous));
        let none = || Some(Arc::new(CertifiedKey::new(self.0.first()?.cert.clone(), no_key())));
        self.0.iter().find(understood).cloned().or_else(none)
    }
}

fn verifier(
    trust: &config::Trust,
    required: bool,
    secrets: &Secrets,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots =
        secrets.roots(&trust.roots).ok_or_else(|| format!("the secret {} cannot be used", trust.roots))?;
    let missing = |name: &Arc<str>| format!("the secret {name} cannot be used");
    let revoked = trust.revoked.as_ref().map(|name| secrets.lists(name).ok_or_else(|| missing(name)));
    let revoked = revoked.transpose()?.map(|lists| lists.parsed.clone()).unwrap_or_default();
    let by = |believed: &Arc<RootCertStore>| -> Result<Arc<dyn ClientCertVerifier>, String> {
        let mut builder = WebPkiClientVerifier::builder_with_provider(believed.clone(), provider.clone());
        if !required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map(|built| built as _).map_err(|error| error.to_string())
    };
    let by_domain = roots.bundles.iter().map(|bundle| Ok((bundle.domain.clone(), by(&bundle.roots)?)));
    let chain = match ByDomain::new(by_domain.collect::<Result<_, String>>()?) {
        Some(by_domain) => Arc::new(by_domain),
        None => by(&roots.roots)?,
    };
    let (roots, provider, wanted) = (roots.clone(), provider.clone(), Wanted::of(trust));
    Ok(Arc::new(Named { chain, roots, revoked, provider, wanted }))
}

/// Verifies the chain, and then that nobody on it is revoked, that the names of the certificate can be told, that it has one of
/// those that are wanted, and one of the fingerprints.
#[derive(Debug)]
struct Named {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<Roots>,
    /// Lists besides those of the roots.
    revoked: Arc<[List]>,
    provider: Arc<CryptoProvider>,
    wanted: Wanted,
}

impl Named {
    /// Verifies that no list revokes anything of a chain that has been verified.
    fn unrevoked(&self, shown: Shown<'_>, names: Option<&peer::Names>, now: UnixTime) -> Result<(), Error> {
        if self.roots.lists.is_empty() && self.revoked.is_empty() {
            return Ok(());
        }
        let anchors = self.roots.of_peer(names).ok_or_else(bundles::unknown)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let lists = self.roots.lists.iter().chain(self.revoked.iter());
        revocation::verify(shown, &anchors.roots, lists, algorithms, KeyUsage::client_auth, now)
            .map_err(verify::told)
    }
}

/// What the names of a certificate must be.
#[derive(Debug)]
struct Wanted {
    /// One of these; empty for any.
    names: Vec<config::StringMatch>,
    /// Empty for any.
    fingerprints: Vec<config::Fingerprint>,
    /// Whether clients are workloads of the mesh, which have one identity and no more.
    are_workloads: bool,
}

/// A certificate is none of those that there may be.
#[derive(Debug)]
pub(super) struct OtherFingerprint;

impl fmt::Display for OtherFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate has another fingerprint")
    }
}

impl std::error::Error for OtherFingerprint {}

impl Wanted {
    fn of(trust: &config::Trust) -> Wanted {
        Wanted {
            names: trust.subject_alt_names.clone(),
            fingerprints: trust.fingerprints.clone(),
            are_workloads: *trust.roots == *OWN_ROOTS,
        }
    }

    /// Whether the names are. Names that nobody could be told of are those of nobody.
    fn is_met(&self, names: Option<&peer::Names>) -> Result<(), Error> {
        if self.are_workloads && names.and_then(peer::Names::identity).is_none() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let names = names.ok_or(CertificateError::BadEncoding)?;
        match self.names.is_empty() || names.have_any(&self.names) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now);
        let verified = verified.map_err(verify::of_its_name)?;
        let names = peer::names(end_entity);
        self.unrevoked((end_entity, intermediates), names.as_ref(), now)?;
        self.wanted.is_met(names.as_ref())?;
        match self.wanted.fingerprints.is_empty() || peer::has_any(end_entity, &self.wanted.fingerprints) {
            true => Ok(verified),
            false => Err(CertificateError::Other(OtherError(Arc::new(OtherFingerprint))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use config::{DownstreamTls, PrivateKey, Secret, SecretContent};
    use data_encoding::BASE64;

    use super::*;
    use crate::tls::Expected;

    const NAME: &str = "kubernetes://shop";

    #[test]
    fn the_cheaper_suite_is_offered_first() {
        let offered = provider(&["ECDHE-RSA-AES256-GCM-SHA384".into()]).cipher_suites;
        let names: Vec<&str> = offered.iter().map(|suite| openssl_name(suite.suite())).collect();
        let tls13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
        assert_eq!(names, [&tls13[..], &["ECDHE-RSA-AES256-GCM-SHA384"]].concat());
    }

    fn declared() -> DownstreamTls {
        DownstreamTls {
            certificates: vec![NAME.into()],
            client_certificates: ClientCertificates::NotAsked,
            version_min: TlsVersion::V1_2,
            version_max: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            alpn: vec!["h2".into()],
            handshake_timeout: None,
            forwards_certificate: true,
            origin: None,
        }
    }

    fn pem(what: &str, der: &[u8]) -> Vec<u8> {
        format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64.encode(der)).into_bytes()
    }

    /// Secrets with a certificate that is made anew, after `previous`.
    fn renewed(previous: &Secrets) -> Secrets {
        let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        let chain = pem("CERTIFICATE", made.cert.der()).into();
        let key = PrivateKey::new(pem("PRIVATE KEY", made.signing_key.serialized_der()));
        let content = Ok(SecretContent::Certificate { chain, key });
        let secret = Arc::new(Secret { name: NAME.into(), content, origin: None });
        let (secrets, unusable) = Secrets::resolve([&secret], previous, &Expected::default());
        assert!(unusable.is_empty(), "{unusable:?}");
        secrets
    }

    #[test]
    fn a_server_stays_until_something_of_it_changes() {
        let (secrets, declared) = (renewed(&Secrets::default()), declared());
        let first = Server::resolve(&declared, &secrets, None).unwrap();
        let again = Server::resolve(&self::declared(), &secrets, Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let rotated = Server::resolve(&declared, &renewed(&secrets), Some(&first)).unwrap();
        assert!(!Arc::ptr_eq(&first, &rotated));
        let asking = DownstreamTls { version_min: TlsVersion::V1_3, ..self::declared() };
        assert!(!Arc::ptr_eq(&first, &Server::resolve(&asking, &secrets, Some(&first)).unwrap()));
        assert!(Server::resolve(&declared, &Secrets::default(), Some(&first)).is_err());
    }
}
