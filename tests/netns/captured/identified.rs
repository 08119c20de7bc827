//! Workloads of the sample mesh with identities of their own: each has its certificate and the roots of the mesh in files,
//! as whoever mounts them in a pod provides them.

use std::ops::Deref;

use serde_json::Value;
use support::grpc::EchoServer;
use support::netns::at;
use support::tls::{Ca, Files};
use support::{TestBackend, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::network::{Network, Pod};

/// What these tests let go of the mesh's security: AuthorizationPolicy and RequestAuthentication. With an identity nothing
/// of mutual TLS is.
const LET_GO: &str = "--allow-unenforced-security";

/// The identity of a service account of the shop.
pub(super) fn spiffe(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// A workload whose traffic is captured, its sidecar, and the files of its identity.
pub(super) struct Workload {
    pod: Pod,
    identity: String,
    files: Files,
}

impl Network {
    /// The pod of that name at that address, captured, with an identity that `ca` issues.
    pub(super) async fn identified(&self, name: &str, address: &str, ca: &Ca) -> Workload {
        let pod = self.pod(name, &[address]);
        pod.redirect(&[]).await;
        self.identify(pod, ca, &[], &[]).await
    }

    /// Starts the sidecar of a captured pod with such an identity, by a command and with more arguments. Pods of the shop
    /// are called after their service accounts.
    pub(super) async fn identify(&self, mut pod: Pod, ca: &Ca, command: &[&str], more: &[&str]) -> Workload {
        let identity = spiffe(pod.name().split('-').next().unwrap_or_default());
        let files = Files::new(ca);
        files.show(&ca.workload(&identity));
        let paths = files.identity();
        let variables = [
            ("ISTIO_META_TLS_CLIENT_CERT_CHAIN", paths.chain),
            ("ISTIO_META_TLS_CLIENT_KEY", paths.key),
            ("ISTIO_META_TLS_CLIENT_ROOT_CERT", paths.roots),
        ];
        let variables = variables.map(|(name, path)| format!("{name}={}", path.display()));
        let mut command = command.to_vec();
        command.extend(["env", "FILE_MOUNTED_CERTS=true"]);
        command.extend(variables.iter().map(String::as_str));
        self.sidecar_by(&mut pod, &command, &[&[LET_GO], more].concat()).await;
        Workload { pod, identity, files }
    }
}

impl Workload {
    /// Shows another certificate of the same identity, of `ca` and with this serial number.
    pub(super) fn show(&self, ca: &Ca, serial: u32) {
        self.files.show(&ca.workload_numbered(&self.identity, serial));
    }

    /// Believes others than before.
    pub(super) fn believe(&self, roots: &str) {
        self.files.write("roots.pem", roots);
    }

    /// Waits until the sidecar's listeners show the certificate with this serial number.
    pub(super) async fn shows(&self, serial: u32) {
        let wanted = format!("{serial:x}");
        let what = format!("{} shows certificate {serial}", self.name());
        eventually(&what, || async {
            let page: Value = serde_json::from_str(&self.page("/certs").await).expect("JSON");
            let certificates = page["certificates"].as_array().expect("a list");
            let shows = |entry: &Value| {
                entry["cert_chain"][0]["serial_number"].as_str().map(|it| it.trim_start_matches('0'))
                    == Some(wanted.as_str())
            };
            (!certificates.is_empty() && certificates.iter().all(shows)).then_some(())
        })
        .await;
    }

    /// Which of its configurations the sidecar serves.
    pub(super) async fn generation(&self) -> f64 {
        self.metric("weft_config_generation", &[]).await
    }

    /// Waits until it serves one after `before`.
    pub(super) async fn generation_after(&self, before: f64) {
        let what = format!("{} has a new generation", self.name());
        eventually(&what, || async { (self.generation().await > before).then_some(()) }).await;
    }
}

impl Deref for Workload {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

/// Those of the shop that call each other, with their applications: web calls catalog and cart, cart calls ledger.
pub(super) struct Shop {
    pub(super) web: Workload,
    pub(super) catalogs: [Workload; 2],
    pub(super) carts: [Workload; 2],
    pub(super) ledger: Workload,
    _catalog_apps: Vec<TestBackend>,
    _cart_apps: Vec<EchoServer>,
}

impl Shop {
    /// With identities that `ca` issues.
    pub(super) async fn start(network: &Network, ca: &Ca) -> Shop {
        let (web, first, second, cart, other_cart, ledger) = tokio::join!(
            network.identified("web-1.shop", "10.244.1.10", ca),
            network.identified("catalog-v1-1.shop", "10.244.1.21", ca),
            network.identified("catalog-v2-1.shop", "10.244.1.23", ca),
            network.identified("cart-1.shop", "10.244.1.41", ca),
            network.identified("cart-2.shop", "10.244.2.42", ca),
            network.identified("ledger-1.shop", "10.244.1.51", ca),
        );
        let mut catalog_apps = Vec::new();
        for (there, address) in [(&first, "10.244.1.21"), (&second, "10.244.1.23")] {
            for port in [8080, 9100] {
                catalog_apps.push(there.run(TestBackend::echo_at(at(address, port), "catalog")).await);
            }
        }
        let mut cart_apps = Vec::new();
        for (there, address) in [(&cart, "10.244.1.41"), (&other_cart, "10.244.2.42")] {
            cart_apps.push(there.run(async move { EchoServer::start_at(at(address, 9090)) }).await);
        }
        let server = ledger.run(TcpListener::bind(at("10.244.1.51", 3306))).await.expect("a port");
        ledger.runtime().spawn(serve_ledger(server));
        Shop {
            web,
            catalogs: [first, second],
            carts: [cart, other_cart],
            ledger,
            _catalog_apps: catalog_apps,
            _cart_apps: cart_apps,
        }
    }

    /// Everybody.
    pub(super) fn workloads(&self) -> [&Workload; 6] {
        let [[first, second], [cart, other_cart]] = [&self.catalogs, &self.carts].map(|pair| pair.each_ref());
        [&self.web, first, second, cart, other_cart, &self.ledger]
    }
}

/// What ledger says at first.
const GREETING: &[u8] = b"ledger 1.0\n";

/// Greets, and says back what it hears.
async fn serve_ledger(server: TcpListener) {
    while let Ok((mut stream, _)) = server.accept().await {
        tokio::spawn(async move {
            // How it ends is the client's concern.
            stream.write_all(GREETING).await.ok()?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.ok()
        });
    }
}

/// A connection to ledger, which has greeted.
pub(super) async fn greeted_by_ledger() -> Result<TcpStream, std::io::Error> {
    let mut stream = TcpStream::connect(at("10.96.0.14", 3306)).await?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(greeting, GREETING);
    Ok(stream)
}

/// Says something to ledger, and hears it.
pub(super) async fn speak(mut stream: TcpStream) -> Result<TcpStream, std::io::Error> {
    stream.write_all(b"hello").await?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"hello");
    Ok(stream)
}
