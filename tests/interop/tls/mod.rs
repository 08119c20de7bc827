//! TLS with openssl, curl and sslyze at the other end.

mod clients;
mod renegotiation;
mod scanned;
mod servers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use support::gateway::Edge;
use support::tls::{Ca, Files, Pem};
use support::{Mesh, TestBackend, TestProxy};
use tokio_rustls::rustls::pki_types::UnixTime;

use crate::tools::{Said, attempt};

/// A gateway with servers of each mode, and one for each kind of key.
struct Gateway {
    proxy: TestProxy,
    address: SocketAddr,
    /// What clients show: `good.pem`, `good.key`, `stranger.pem`, `stranger.key`; `roots.pem` is whom they believe.
    files: Files,
    backend: TestBackend,
}

/// A request for a host, after which the connection ends.
fn get(host: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

impl Gateway {
    async fn start() -> Gateway {
        let ca = Ca::new("shop");
        let files = Files::new(&ca);
        for (name, ca) in [("good", &ca), ("stranger", &Ca::new("stranger"))] {
            let Pem { chain, key } = ca.issue("client", |_| {});
            files.write(&format!("{name}.pem"), &chain);
            files.write(&format!("{name}.key"), &key);
        }
        let simple = |name: &str| format!("mode: SIMPLE, credentialName: {name}");
        let edge = Edge::new()
            .server("ecdsa.example", &simple("ecdsa"))
            .server("rsa.example", &simple("rsa"))
            .server("both.example", "mode: SIMPLE, credentialNames: [ecdsa, rsa]")
            .server("new.example", "mode: SIMPLE, credentialName: ecdsa, minProtocolVersion: TLSV1_3")
            .server("mutual.example", "mode: MUTUAL, credentialName: mutual")
            .server("optional.example", "mode: OPTIONAL_MUTUAL, credentialName: optional")
            .secret("ecdsa", &ca.issue("ecdsa.example", dated), None)
            .secret("rsa", &ca.issue_rsa("rsa.example", dated), None)
            .secret("mutual", &ca.issue("mutual.example", dated), Some(&ca.pem))
            .secret("optional", &ca.issue("optional.example", dated), Some(&ca.pem));
        let backend = TestBackend::echo("catalog").await;
        let mesh =
            Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
        let mesh = support::Log::configure(edge.of(mesh), "");
        let proxy = TestProxy::of(mesh).set(Edge::serve).ready().await;
        Gateway { proxy, address: edge.address, files, backend }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    async fn failures(&self, reason: &str) -> f64 {
        let labels = [("reason", reason)];
        self.proxy.metric("weft_listener_tls_handshake_failures_total", &labels).await.unwrap_or(0.0)
    }
}

/// For all hosts without clients' certificates, and for three months: tools judge that, too.
fn dated(params: &mut rcgen::CertificateParams) {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = Duration::from_secs(UnixTime::now().as_secs());
    let begin = rcgen::date_time_ymd(1970, 1, 1) + now - DAY;
    (params.not_before, params.not_after) = (begin, begin + 90 * DAY);
    let hosts = ["ecdsa.example", "rsa.example", "both.example"];
    let names = hosts.map(|host| rcgen::SanType::DnsName(host.try_into().expect("a name")));
    params.subject_alt_names.extend(names);
}

/// What openssl's client says of a connection for a server name, after it has sent `input`.
async fn s_client(openssl: &PathBuf, to: SocketAddr, arguments: &[&str], input: &[u8]) -> (ExitStatus, Said) {
    let to = to.to_string();
    let connect = ["s_client", "-connect", &to, "-ign_eof"];
    attempt(openssl, connect.iter().chain(arguments), input).await
}
