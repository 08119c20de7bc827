//! A client that is connected and silent, and is not believed any more: its connection ends though it asks for nothing.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::sync::Arc;

use config::PrivateKey;
use support::tls::{Ca, Pem};
use support::{PATIENCE, TestBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use weft::app::{Identity, IdentitySource, PushedIdentity};

use crate::mutual::{CLIENT, SERVER, server_with};

fn identity(pem: &Pem, roots: &str) -> Identity {
    Identity {
        chain: pem.chain.as_bytes().into(),
        key: PrivateKey::new(pem.key.as_bytes()),
        roots: roots.as_bytes().into(),
        revoked: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_parted_with() {
    let (old, new) = (Ca::new("mesh"), Ca::new("mesh, renewed"));
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().unwrap();
    let (pusher, pushed) = PushedIdentity::new("a test");
    pusher.push(identity(&old.workload(SERVER), &old.pem));
    let server = server_with(IdentitySource::Pushed(pushed), &app, false, &log.path().join("log")).await;
    let server = server.ready().await;
    for (alpn, first) in [
        ("istio-http/1.1", &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        ("istio-h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let shown = old.workload(CLIENT);
        let (chain, key) = shown.parsed();
        let builder = ClientConfig::builder().dangerous();
        let builder = builder.with_custom_certificate_verifier(support::tls::anybody(&old));
        let mut config = builder.with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(server.listener(0)).await.unwrap();
        let name = ServerName::try_from("outbound_.80_._.a.b").unwrap();
        let mut client = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        client.write_all(first).await.unwrap();
        let mut heard = [0; 9];
        client.read_exact(&mut heard).await.unwrap();
        // Other roots besides change nothing for it.
        let before = server.generation().await;
        pusher.push(identity(&old.workload(SERVER), &format!("{}{}", old.pem, new.pem)));
        server.generation_after(before).await;
        client.write_all(b"").await.unwrap();
        let before = server.generation().await;
        pusher.push(identity(&new.workload(SERVER), &new.pem));
        server.generation_after(before).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{alpn}: the connection is still there");
        let before = server.generation().await;
        pusher.push(identity(&old.workload(SERVER), &old.pem));
        server.generation_after(before).await;
    }
}
