//! A server of TLS, and a client that trusts nobody else: what both understand was opened by nobody between them.

use std::net::SocketAddr;
use std::sync::Arc;

use support::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What a server proves that it is by.
pub(super) type Certificate = CertificateDer<'static>;

/// A server that answers the first bytes of a connection with its name, the server name it was asked for and those bytes.
/// It ends with the pod.
pub(super) async fn serve(address: SocketAddr, name: &'static str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = TcpListener::bind(address).await.expect("a port");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            // Who does not finish what he began is no concern of the server's.
            tokio::spawn(answer(acceptor.clone(), stream, name));
        }
    });
    certificate
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, name: &str) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let asked_for = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).await.ok()?;
    let said = format!("{name} {asked_for} {}", String::from_utf8_lossy(&bytes[..count]));
    stream.write_all(said.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

/// Says hello to a server by its name, at an address that may be another's; what it answers, or why it does not.
pub(super) async fn hello(
    to: SocketAddr,
    name: &'static str,
    trusted: Certificate,
) -> Result<String, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let exchange = async {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from(name).expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"hello").await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok(said)
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}
