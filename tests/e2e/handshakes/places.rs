//! Where handshakes are made: beside a workload in each mode of its mutual TLS, and at a gateway with a server of each mode.

use std::net::SocketAddr;
use std::sync::Arc;

use config::{
    ClientCertificates, FilterChain, FilterChainMatch, NetworkFilter, OWN_CERTIFICATE, OWN_ROOTS, Secret,
    SecretContent, TrafficDirection, TransportProtocol, Trust,
};
use support::declared::{
    any, chain, cluster, http, manager, sni, sniffing, terminates, to_http, to_tcp, update,
};
use support::tls::{Ca, Files, TlsServer, certificate};
use support::{Mesh, TestBackend, TestProxy};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::certificates::{Certificates, REVOKED};
use crate::mutual::{self, SERVER};

/// What a TLS record of a handshake begins with.
const HANDSHAKE: u8 = 22;

/// Where a client comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A workload that takes mutual TLS alone.
    Strict,
    /// A workload that takes plain text too.
    Permissive,
    /// A workload that speaks for itself.
    Disable,
    /// Servers of a gateway.
    Simple,
    Mutual,
    OptionalMutual,
    IstioMutual,
    Passthrough,
}

impl Mode {
    /// The way that an explanation is asked about.
    pub(super) fn way(self) -> &'static str {
        match self {
            Mode::Strict | Mode::Permissive | Mode::Disable => "inbound",
            _ => "gateway",
        }
    }

    /// The server name by which clients come to it.
    pub(super) fn server_name(self) -> &'static str {
        match self {
            Mode::Strict | Mode::Permissive | Mode::Disable => "outbound_.80_._.web.shop.svc.cluster.local",
            Mode::Simple => "simple.example",
            Mode::Mutual => "mutual.example",
            Mode::OptionalMutual => "optional.example",
            Mode::IstioMutual => "istio.example",
            Mode::Passthrough => "pass.example",
        }
    }
}

/// All of them.
pub(super) struct Places {
    strict: TestProxy,
    permissive: TestProxy,
    disable: TestProxy,
    gateway: TestProxy,
    pub(super) ca: Ca,
    pub(super) certificates: Certificates,
    /// What the application shows where it terminates TLS by itself.
    pub(super) app: Vec<CertificateDer<'static>>,
    _files: Files,
    _app: TestBackend,
    _own_tls: TlsServer,
}

impl Places {
    pub(super) async fn start() -> Places {
        let ca = Ca::new("mesh");
        let files = mutual::files(&ca, &ca.workload(SERVER));
        files.write("revoked.pem", &ca.revoke(&[REVOKED]));
        let app = TestBackend::echo("app").await;
        let own = ca.issue("app", |_| {});
        let own_tls = TlsServer::new(app.address, &own, None, &[]).await;
        let raw = raw(own_tls.address).await;
        let log = files.path().join("log");
        let inbound = |mut listener: config::Listener| {
            listener.traffic_direction = TrafficDirection::Inbound;
            listener
        };
        // Nobody looks for TLS where it is nobody's business.
        let plain = FilterChainMatch { transport_protocol: Some(TransportProtocol::RawBuffer), ..any() };
        let mut disable = sniffing("inbound", vec![to_http(http(), "app"), to_tcp(plain, "raw")], None);
        disable.listener_filters.tls_inspector = None;
        let declared = [
            inbound(sniffing("inbound", mutual::chains(false, &log), None)),
            inbound(sniffing("inbound", mutual::chains(true, &log), None)),
            inbound(disable),
            sniffing("gateway", servers(), None),
        ];
        let mut proxies = Vec::new();
        for listener in declared {
            let clusters = [cluster("app", &[app.address]), cluster("raw", &[raw])];
            let mut resources = update(vec![listener], clusters);
            resources.secrets = secrets(&ca);
            let start = TestProxy::of(Mesh::new()).set(|settings| {
                settings.static_resources = resources;
                settings.workload.service_account = "server".to_owned();
                settings.workload.environment.identity = Some(files.identity().into());
                settings.workload.environment.revoked = Some(files.path().join("revoked.pem"));
            });
            proxies.push(start.ready().await);
        }
        let [strict, permissive, disable, gateway] = proxies.try_into().unwrap();
        let certificates = Certificates::of(&ca);
        let (shown, _) = own.parsed();
        Places {
            strict,
            permissive,
            disable,
            gateway,
            ca,
            certificates,
            app: shown,
            _files: files,
            _app: app,
            _own_tls: own_tls,
        }
    }

    pub(super) fn at(&self, mode: Mode) -> &TestProxy {
        match mode {
            Mode::Strict => &self.strict,
            Mode::Permissive => &self.permissive,
            Mode::Disable => &self.disable,
            _ => &self.gateway,
        }
    }
}

/// A server of bytes: it says back what it hears, and terminates TLS by itself.
async fn raw(own_tls: SocketAddr) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut first = [0];
                stream.peek(&mut first).await.ok()?;
                // How a connection ends is the business of those at its ends.
                if first == [HANDSHAKE] {
                    let mut behind = TcpStream::connect(own_tls).await.ok()?;
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut behind).await);
                } else {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                }
                Some(())
            });
        }
    });
    address
}

fn secrets(ca: &Ca) -> Vec<Secret> {
    let roots = SecretContent::Roots {
        roots: ca.pem.as_bytes().into(),
        revoked: Some(ca.revoke(&[REVOKED]).as_bytes().into()),
        besides: None,
        bundles: Vec::new(),
    };
    let roots = Secret { name: "roots".into(), content: Ok(roots), origin: None };
    vec![certificate("server", &ca.issue("server", |_| {})), roots]
}

/// The chains of a gateway, one for each mode of a server.
fn servers() -> Vec<FilterChain> {
    let trust = |roots: &str| Trust {
        roots: roots.into(),
        revoked: None,
        subject_alt_names: Vec::new(),
        fingerprints: Vec::new(),
    };
    let server = |mode: Mode, certificate: &str, client_certificates| {
        let tls = terminates(certificate, client_certificates, &["h2", "http/1.1"]);
        let http = NetworkFilter::Http(Arc::new(manager("app")));
        FilterChain { tls: Some(Arc::new(tls)), ..chain(sni(mode.server_name()), http) }
    };
    vec![
        server(Mode::Simple, "server", ClientCertificates::NotAsked),
        server(Mode::Mutual, "server", ClientCertificates::Required(trust("roots"))),
        server(Mode::OptionalMutual, "server", ClientCertificates::Optional(trust("roots"))),
        server(Mode::IstioMutual, OWN_CERTIFICATE, ClientCertificates::Required(trust(OWN_ROOTS))),
        to_tcp(sni(Mode::Passthrough.server_name()), "raw"),
    ]
}
