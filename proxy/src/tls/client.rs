//! TLS towards an upstream: what is shown, who is believed, what is offered; and the handshake, as the client.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use config::{ServerCertificate, TlsVersion, UpstreamTlsMode};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::client::{ResolvesClientCert, Resumption};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName, ServerName};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SignatureScheme};
use tokio_rustls::{TlsConnector, TlsStream};

use super::ends::Ends;
use super::peer;
use super::reason::{SERVER_REFUSED, reason};
use super::secrets::{Lists, Roots, Secrets};
use super::server::{held_last, provider};
use super::stream::{Presented, Replayed, Stream};
use super::verify::Servers;

/// A resolved [`config::UpstreamTls`].
#[derive(Debug)]
pub(crate) struct Client {
    declared: config::UpstreamTls,
    certificate: Option<Arc<CertifiedKey>>,
    roots: Option<Arc<Roots>>,
    revoked: Option<Arc<Lists>>,
    /// The identity that is shown, read when it is first asked for.
    own: OnceLock<Option<Arc<str>>>,
    /// Who has signed the certificate that is shown, read when it is first asked for.
    issuer: OnceLock<Option<peer::Issuer>>,
    /// By what is spoken, made when it first is.
    configs: [OnceLock<Arc<ClientConfig>>; 3],
}

/// What is to be spoken behind TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes that nobody understands.
    Bytes,
}

/// Who is spoken to on behalf of a request, where the request decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(Arc<str>);

impl Host {
    /// That of an authority, without its port.
    pub(crate) fn of(authority: &str) -> Host {
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
            None => authority.split_once(':').map_or(authority, |(host, _)| host),
        };
        Host(host.to_ascii_lowercase().into())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.0
    }
}

impl Client {
    /// What `declared` asks for, which is `known` where that was made of the same; otherwise what is missing.
    ///
    /// # Errors
    ///
    /// Why it cannot be spoken.
    pub(crate) fn resolve(
        declared: &config::UpstreamTls,
        secrets: &Secrets,
        known: Option<&Arc<Client>>,
    ) -> Result<Arc<Client>, String> {
        let missing = |name: &Arc<str>| format!("the secret {name} cannot be used");
        if let ServerCertificate::Refused(why) = &declared.server {
            return Err(why.to_string());
        }
        let certificate = match &declared.certificate {
            Some(name) => Some(secrets.certificate(name).ok_or_else(|| missing(name))?.clone()),
            None => None,
        };
        let trust = declared.trust();
        let roots = match trust {
            Some(trust) => Some(secrets.roots(&trust.roots).ok_or_else(|| missing(&trust.roots))?.clone()),
            None => None,
        };
        let revoked = match trust.and_then(|trust| trust.revoked.as_ref()) {
            Some(name) => Some(secrets.lists(name).ok_or_else(|| missing(name))?.clone()),
            None => None,
        };
        if !declared.sni.is_empty() && DnsName::try_from(&*declared.sni).is_err() {
            return Err(format!("{} cannot be asked for as the name of a server", declared.sni));
        }
        let client = Client {
            declared: declared.clone(),
            certificate,
            roots,
            revoked,
            own: OnceLock::new(),
            issuer: OnceLock::new(),
            configs: Default::default(),
        };
        Ok(match known {
            Some(known) if known.has_same_trust(&client) && known.shows_same(&client) => known.clone(),
            _ => Arc::new(client),
        })
    }

    /// Whether a connection that was made by one may be used for the other: the same servers are believed, by the same
    /// roots, the same is asked of them, and they believe us for the same reason. The certificate that is shown may have been
    /// renewed, but by the same authority: servers part with whom they do not believe any more, and when the root of a mesh is
    /// replaced that may be who has connected before.
    pub(crate) fn has_same_trust(&self, other: &Client) -> bool {
        let pointer = |roots: &Option<Arc<Roots>>| roots.as_ref().map(Arc::as_ptr);
        let lists = |lists: &Option<Arc<Lists>>| lists.as_ref().map(Arc::as_ptr);
        self.declared == other.declared
            && pointer(&self.roots) == pointer(&other.roots)
            && lists(&self.revoked) == lists(&other.revoked)
            && self.shows_one_of_the_same(other)
    }

    /// Whether a server that `before` has believed would be believed, too, when it shows this: a certificate that has meanwhile
    /// ended to hold is no reason to part.
    pub(crate) fn would_believe(&self, before: &Client, shown: &Presented) -> bool {
        let covers = Roots::all_cover(self.roots.as_ref(), before.roots.as_ref());
        let lists = |lists: &Option<Arc<Lists>>| lists.as_ref().map(Arc::as_ptr);
        let asks_the_same =
            self.declared.server == before.declared.server && self.declared.mode == before.declared.mode;
        if asks_the_same && covers && lists(&self.revoked) == lists(&before.revoked) {
            return true;
        }
        let Some((leaf, rest)) = shown.0.split_first() else { return false };
        let servers = self.servers(Arc::new(provider(&[])), None);
        let name = self.server_name(None);
        held_last(&shown.0).any(|at| servers.verify_server_cert(leaf, rest, &name, &[], at).is_ok())
    }

    /// Whether both show certificates of one authority, which leads to the roots by the same chain, or none.
    fn shows_one_of_the_same(&self, other: &Client) -> bool {
        let (Some(shown), Some(others)) = (&self.certificate, &other.certificate) else {
            return self.certificate.is_none() && other.certificate.is_none();
        };
        Arc::ptr_eq(shown, others)
            || shown.cert.get(1..) == others.cert.get(1..)
                && self.issuer().is_some_and(|issuer| other.issuer() == Some(issuer))
    }

    fn issuer(&self) -> Option<&peer::Issuer> {
        let read = || peer::issuer(self.certificate.as_ref()?.end_entity_cert().ok()?);
        self.issuer.get_or_init(read).as_ref()
    }

    fn shows_same(&self, other: &Client) -> bool {
        self.certificate.as_ref().map(Arc::as_ptr) == other.certificate.as_ref().map(Arc::as_ptr)
    }

    /// What it was resolved from.
    pub(crate) fn declared(&self) -> &config::UpstreamTls {
        &self.declared
    }

    /// Whether requests decide whom it speaks to, so that connections of one host are of no use for another.
    pub(crate) fn is_by_request(&self) -> bool {
        self.declared.by_request.sni || self.declared.by_request.name
    }

    /// Makes the handshake; who is at both ends then.
    ///
    /// # Errors
    ///
    /// Why it failed: one of few words.
    pub(crate) async fn connect(
        &self,
        spoken: Spoken,
        host: Option<&Host>,
        stream: TcpStream,
    ) -> Result<(Stream, Ends), &'static str> {
        let config = match host.filter(|_| self.declared.by_request.name) {
            Some(host) => Arc::new(self.config(spoken, Some(host))),
            None => {
                let made = self.configs.get(spoken as usize);
                made.ok_or("protocol_error")?.get_or_init(|| Arc::new(self.config(spoken, None))).clone()
            }
        };
        let connector = TlsConnector::from(config);
        let stream = Replayed::new(Vec::new(), stream);
        let connecting = connector.connect(self.server_name(host), stream);
        match connecting.await {
            Ok(stream) => {
                let stream = TlsStream::from(stream);
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                // Whoever nobody has verified is nobody.
                let peer = shown.filter(|_| self.roots.is_some()).and_then(identity);
                let ends = Ends::new(&stream, (peer, self.own()));
                Ok((Stream::Tls(Box::new(stream)), ends))
            }
            Err(error) => Err(reason(&error, ("server_left", SERVER_REFUSED))),
        }
    }

    /// The identity that is shown.
    fn own(&self) -> Option<Arc<str>> {
        let read = || identity(self.certificate.as_ref()?.end_entity_cert().ok()?);
        self.own.get_or_init(read).clone()
    }

    /// Whom the server is asked to be; an address, which is not asked for, stands for nobody in particular.
    fn server_name(&self, host: Option<&Host>) -> ServerName<'static> {
        let nobody = ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into());
        let asked = if !self.declared.sni.is_empty() {
            Some(&*self.declared.sni)
        } else {
            host.filter(|_| self.declared.by_request.sni).map(|host| &*host.0)
        };
        let name = asked.filter(|name| name.parse::<IpAddr>().is_err());
        let name = name.and_then(|name| DnsName::try_from(name.to_owned()).ok());
        name.map_or(nobody, ServerName::DnsName)
    }

    fn config(&self, spoken: Spoken, host: Option<&Host>) -> ClientConfig {
        let provider = Arc::new(provider(&[]));
        let servers = Arc::new(self.servers(provider.clone(), host));
        let builder = ClientConfig::builder_with_provider(provider);
        let (one, both) = ([&TLS12], [&TLS12, &TLS13]);
        let versions = match self.declared.version_max {
            TlsVersion::V1_2 => one.as_slice(),
            TlsVersion::V1_3 => both.as_slice(),
        };
        // The provider has suites of both versions.
        let builder = builder
            .with_protocol_versions(versions)
            .unwrap_or_else(|_| ClientConfig::builder_with_protocol_versions(versions));
        let builder = builder.dangerous().with_custom_certificate_verifier(servers);
        let mut config = builder.with_client_cert_resolver(Arc::new(Shown(self.certificate.clone())));
        // A session that is resumed would not be verified again.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = self.offered(spoken).into_iter().map(|it| it.as_bytes().to_vec()).collect();
        config
    }

    fn servers(&self, provider: Arc<CryptoProvider>, host: Option<&Host>) -> Servers {
        let trust = self.declared.trust();
        Servers {
            provider,
            roots: self.roots.clone(),
            revoked: self.revoked.as_ref().map(|lists| lists.parsed.clone()).unwrap_or_default(),
            names: trust.map(|trust| trust.subject_alt_names.clone()).unwrap_or_default(),
            fingerprints: trust.map(|trust| trust.fingerprints.clone()).unwrap_or_default(),
            host: host.map(|host| host.0.clone()),
            is_workload: self.declared.mode == UpstreamTlsMode::IstioMutual,
        }
    }

    /// Protocols that are offered. With the identity of the mesh those that Istio's filter `istio.alpn` offers, and for
    /// bytes what is declared; with another what is declared, or else what is spoken, as Envoy's pools do.
    fn offered(&self, spoken: Spoken) -> Vec<&str> {
        let declared = || self.declared.alpn.iter().map(|protocol| &**protocol);
        match (self.declared.mode, spoken) {
            (UpstreamTlsMode::IstioMutual, Spoken::Http1 | Spoken::Http2) => {
                offered_in_the_mesh(spoken).to_vec()
            }
            (UpstreamTlsMode::IstioMutual, Spoken::Bytes) => declared().collect(),
            (UpstreamTlsMode::Simple | UpstreamTlsMode::Mutual, spoken) if self.declared.alpn.is_empty() => {
                match spoken {
                    Spoken::Http1 => vec!["http/1.1"],
                    Spoken::Http2 => vec!["h2"],
                    Spoken::Bytes => Vec::new(),
                }
            }
            (UpstreamTlsMode::Simple | UpstreamTlsMode::Mutual, _) => declared().collect(),
        }
    }
}

/// The identity that a certificate stands for, as Envoy tells it in metrics and logs: the first of its URIs.
fn identity(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    peer::names(certificate)?.uris.into_iter().next().map(Arc::from)
}

/// What a workload's proxy offers in mutual TLS of the mesh, whichever service it speaks to.
pub(crate) fn offered_in_the_mesh(spoken: Spoken) -> &'static [&'static str] {
    match spoken {
        Spoken::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
        Spoken::Http2 => &["istio-h2", "istio", "h2"],
        Spoken::Bytes => &["istio-peer-exchange", "istio"],
    }
}

/// The certificate that a server gets that asks for one.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], understood: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.as_ref().filter(|shown| shown.key.choose_scheme(understood).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
