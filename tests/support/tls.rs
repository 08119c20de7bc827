//! Certificates for tests, and servers that speak TLS.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{PrivateKey, Secret, SecretContent};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    PublicKeyData, RevokedCertParams, SanType,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::{Acceptor, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client};
use weft::app::IdentityFiles;

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pem {
    /// The chain, the leaf first.
    pub chain: String,
    /// The key of the leaf.
    pub key: String,
}

fn pem(what: &str, bytes: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

/// What an authority of that name says of itself, and its key.
fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    (params, KeyPair::generate().unwrap())
}

/// An authority.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

impl Ca {
    /// One of that name.
    pub fn new(name: &str) -> Ca {
        let (params, key) = authority(name);
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// One of that name, for which this one vouches.
    pub fn under(&self, name: &str) -> Ca {
        self.under_numbered(name, 1)
    }

    /// The same, by a certificate with that serial number.
    pub fn under_numbered(&self, name: &str, serial: u8) -> Ca {
        let (mut params, key) = authority(name);
        params.serial_number = Some(vec![serial].into());
        let pem = pem("CERTIFICATE", params.signed_by(&key, &self.issuer).unwrap().der());
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name of DNS, with whatever `change` makes of it.
    pub fn issue(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        self.issue_for(&KeyPair::generate().unwrap(), host, change)
    }

    /// The same, with a key of RSA.
    pub fn issue_rsa(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        self.issue_for(&KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(), host, change)
    }

    fn issue_for(&self, key: &KeyPair, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc");
        params.distinguished_name.push(DnType::CommonName, host);
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let chain = pem("CERTIFICATE", params.signed_by(key, &self.issuer).unwrap().der());
        Pem { chain, key: pem("PRIVATE KEY", &key.serialize_der()) }
    }

    /// A certificate of a workload: its only name is that URI.
    pub fn workload(&self, uri: &str) -> Pem {
        self.workload_with(uri, |_| {})
    }

    /// The same, with that serial number.
    pub fn workload_numbered(&self, uri: &str, serial: u32) -> Pem {
        self.workload_with(uri, |params| params.serial_number = Some(serial.to_be_bytes().to_vec().into()))
    }

    /// The same as [`Ca::workload`], which holds for so long.
    pub fn workload_for(&self, uri: &str, life: Duration) -> Pem {
        let ends = SystemTime::UNIX_EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap() + life;
        self.workload_with(uri, |params| params.not_after = ends.into())
    }

    fn workload_with(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        self.issue("workload", |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            change(params);
        })
    }

    /// The certificate that a request asks for, with whatever `change` makes of it, in PEM.
    pub fn sign(&self, csr: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let mut request = CertificateSigningRequestParams::from_der(&der).unwrap();
        request.params.use_authority_key_identifier_extension = true;
        change(&mut request.params);
        pem("CERTIFICATE", request.signed_by(&self.issuer).unwrap().der())
    }

    /// A list that revokes the certificates with these serial numbers, in PEM.
    pub fn revoke(&self, serials: &[u8]) -> String {
        self.revoke_until(2100, serials)
    }

    /// The same, of which there is to be a newer one in that year.
    pub fn revoke_until(&self, year: i32, serials: &[u8]) -> String {
        self.list(serials, |list| list.next_update = rcgen::date_time_ymd(year, 1, 1))
    }

    /// The same, of which there is to be a newer one when this is over.
    pub fn revoke_for(&self, life: Duration, serials: &[u8]) -> String {
        let ends = SystemTime::UNIX_EPOCH + SystemTime::UNIX_EPOCH.elapsed().unwrap() + life;
        self.list(serials, |list| list.next_update = ends.into())
    }

    /// The same, for certificates of authorities alone.
    pub fn revoke_authorities(&self, serials: &[u8]) -> String {
        let distribution_point = CrlDistributionPoint { uris: vec!["http://ca.example/authorities".into()] };
        let scope = Some(CrlScope::CaCertsOnly);
        let point = CrlIssuingDistributionPoint { distribution_point, scope };
        self.list(serials, |list| list.issuing_distribution_point = Some(point))
    }

    fn list(&self, serials: &[u8], change: impl FnOnce(&mut CertificateRevocationListParams)) -> String {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: vec![*serial].into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let mut list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut list);
        pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())
    }

    /// Roots with this authority alone.
    pub fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        store
    }
}

impl Pem {
    /// The chain and the key as the TLS library takes them.
    pub fn parsed(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

/// Files with certificates, in a directory of their own: `roots.pem`, `chain.pem`, `key.pem`.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// With roots alone.
    pub fn new(roots: &Ca) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("roots.pem", &roots.pem);
        files
    }

    /// Writes a file at once, as whoever rotates does it.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.0.path().join(format!(".{name}"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.0.path().join(name)).unwrap();
    }

    /// Writes a certificate and its key.
    pub fn show(&self, pem: &Pem) {
        self.write("chain.pem", &pem.chain);
        self.write("key.pem", &pem.key);
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// As the identity of a workload.
    pub fn identity(&self) -> IdentityFiles {
        let [chain, key, roots] = ["chain.pem", "key.pem", "roots.pem"].map(|name| self.0.path().join(name));
        IdentityFiles { chain, key, roots }
    }
}

/// A client that believes every server of an authority, whatever its names, and one that has ended. It shows this certificate, if any, and offers these
/// protocols.
pub fn believing(ca: &Ca, shown: Option<&Pem>, offers: &[&str]) -> ClientConfig {
    believing_in(DEFAULT_VERSIONS, ca, shown, offers)
}

/// The same, in these versions of TLS alone.
pub fn believing_in(
    versions: &[&'static SupportedProtocolVersion],
    ca: &Ca,
    shown: Option<&Pem>,
    offers: &[&str],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_protocol_versions(versions)
        .dangerous()
        .with_custom_certificate_verifier(anybody(ca));
    let mut config = match shown.map(Pem::parsed) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = offers.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}

/// Makes the handshake as a client that asks for the server of that name.
///
/// # Errors
///
/// When it fails, as far as a client knows of it by then: why.
pub async fn handshake(
    config: ClientConfig,
    to: SocketAddr,
    name: &str,
) -> Result<client::TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.map_err(|error| error.to_string())
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

/// The key of a certificate, as it is in there (`SubjectPublicKeyInfo`).
pub fn public_key(of: &Pem) -> Vec<u8> {
    KeyPair::try_from(of.parsed().1.secret_der()).unwrap().subject_public_key_info()
}

fn anybody(ca: &Ca) -> Arc<dyn ServerCertVerifier> {
    #[derive(Debug)]
    struct Anybody(Arc<WebPkiServerVerifier>);

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. }
                    | CertificateError::Expired
                    | CertificateError::ExpiredContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    Arc::new(Anybody(WebPkiServerVerifier::builder(Arc::new(ca.store())).build().unwrap()))
}

/// What a client said in its handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The name it asked for; empty for none.
    pub server_name: String,
    /// The protocols it offered.
    pub alpn: Vec<String>,
    /// The certificate it showed.
    pub certificate: Option<Vec<u8>>,
    /// Whether TLS 1.3 is spoken.
    pub is_tls13: bool,
}

/// A server that terminates TLS, and passes on what is behind it to another.
#[derive(Debug)]
pub struct TlsServer {
    /// Where it listens.
    pub address: SocketAddr,
    said: Arc<Mutex<Vec<Said>>>,
    task: JoinHandle<()>,
}

impl TlsServer {
    /// Before `behind`. It shows `certificate`, speaks those protocols, and asks clients for a certificate of `clients`
    /// if that is given.
    pub async fn new(
        behind: SocketAddr,
        certificate: &Pem,
        clients: Option<&Ca>,
        alpn: &[&str],
    ) -> TlsServer {
        TlsServer::new_at(([127, 0, 0, 1], 0).into(), behind, certificate, clients, alpn).await
    }

    /// The same, at an address of its own.
    pub async fn new_at(
        address: SocketAddr,
        behind: SocketAddr,
        certificate: &Pem,
        clients: Option<&Ca>,
        alpn: &[&str],
    ) -> TlsServer {
        let (chain, key) = certificate.parsed();
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(ca.store())).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let config = Arc::new(config);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::<Mutex<Vec<Said>>>::default();
        let heard = said.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, config.clone(), behind, heard.clone()));
            }
        });
        TlsServer { address, said, task }
    }

    /// What clients said whose handshakes succeeded, in their order.
    pub fn said(&self) -> Vec<Said> {
        self.said.lock().clone()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    behind: SocketAddr,
    heard: Arc<Mutex<Vec<Said>>>,
) -> Option<()> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
    let hello = begun.client_hello();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut said = Said {
        server_name: hello.server_name().unwrap_or_default().to_owned(),
        alpn: hello.alpn().into_iter().flatten().map(text).collect(),
        ..Said::default()
    };
    let mut stream = match begun.into_stream(config).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut stream)) => {
            // What comes for a connection that is closed already resets it, and nobody may hear then why.
            drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    said.certificate = shown.map(|certificate| certificate.to_vec());
    said.is_tls13 =
        stream.get_ref().1.protocol_version() == Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_3);
    heard.lock().push(said);
    let mut server = TcpStream::connect(behind).await.ok()?;
    // How it ends is the business of those at its ends.
    drop(tokio::io::copy_bidirectional(&mut stream, &mut server).await);
    Some(())
}

/// A secret with a certificate.
pub fn certificate(name: &str, pem: &Pem) -> Secret {
    let chain = pem.chain.as_bytes().into();
    let content = SecretContent::Certificate { chain, key: PrivateKey::new(pem.key.as_bytes()) };
    Secret { name: name.into(), content: Ok(content), origin: None }
}

/// A secret with roots.
pub fn roots(name: &str, ca: &Ca) -> Secret {
    let content = SecretContent::Roots {
        roots: ca.pem.as_bytes().into(),
        revoked: None,
        besides: None,
        bundles: Vec::new(),
    };
    Secret { name: name.into(), content: Ok(content), origin: None }
}
