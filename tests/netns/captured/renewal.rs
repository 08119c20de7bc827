//! Identities that are renewed while the sample mesh is used: certificates again and again, and the root of the mesh. No
//! application sees a request fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use support::client::KeepAlive;
use support::grpc::Client;
use support::netns::at;
use support::tls::Ca;
use support::{Request, eventually, shared};
use tokio::io::AsyncReadExt;

use super::identified::{Shop, greeted_by_ledger, speak};
use super::network::Network;

/// How often certificates are renewed, and then the root.
const RENEWALS: u32 = 50;
const ROOT_RENEWALS: u32 = 20;

/// How long everybody who asks waits before asking again.
const PACE: Duration = Duration::from_millis(10);

/// How often each of them is answered between two changes.
const BETWEEN: u64 = 2;

/// What is asked all the time.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http1,
    Http2,
    Grpc,
    Tcp,
}

const KINDS: usize = 4;

/// Requests under way.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    answered: [AtomicU64; KINDS],
    /// What is being done to the mesh.
    phase: Mutex<String>,
    failed: Mutex<Vec<String>>,
}

impl Load {
    /// Waits for the next turn, if there is one.
    async fn goes_on(&self) -> bool {
        tokio::time::sleep(PACE).await;
        !self.over.load(Ordering::Relaxed)
    }

    fn record(&self, kind: Kind, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.answered[kind as usize].fetch_add(1, Ordering::Relaxed);
            }
            Err(why) => self.failed.lock().push(format!("{}: {kind:?}: {why}", self.phase.lock())),
        }
    }

    fn answered(&self) -> [u64; KINDS] {
        self.answered.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until each of them was answered some more, or something failed.
    async fn is_served(&self) {
        let before = self.answered();
        eventually("everybody is served", || async {
            let more = self.answered().into_iter().zip(before).all(|(now, before)| now >= before + BETWEEN);
            (more || !self.failed.lock().is_empty()).then_some(())
        })
        .await;
        assert!(self.failed.lock().is_empty(), "{:#?}", self.failed.lock());
    }
}

/// What an answer that is not one of success says.
fn succeeded(answer: Result<support::Answer, String>) -> Result<(), String> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
        Err(why) => Err(why),
    }
}

/// One request after the other, on a connection that is kept.
async fn http1(load: Arc<Load>) {
    let mut connection = KeepAlive::connect(at("10.96.0.11", 8000)).await;
    while load.goes_on().await {
        load.record(Kind::Http1, succeeded(connection.send(Request::get("/items")).await));
    }
}

/// Each request on a connection of its own.
async fn http2(load: Arc<Load>) {
    while load.goes_on().await {
        let answer = Request::get("/items").http2().try_send(at("10.96.0.11", 9100)).await;
        load.record(Kind::Http2, succeeded(answer));
    }
}

async fn grpc(load: Arc<Load>) {
    let mut client = Client::connect(at("10.96.0.13", 9090)).await;
    while load.goes_on().await {
        let reply = client.unary(tonic::Request::new(Bytes::from_static(b"hello"))).await;
        load.record(Kind::Grpc, reply.map(drop).map_err(|status| format!("{status:?}")));
    }
}

/// One connection after the other: each is a handshake of the two sidecars.
async fn tcp(load: Arc<Load>) {
    while load.goes_on().await {
        let said = async { speak(greeted_by_ledger().await?).await }.await;
        load.record(Kind::Tcp, said.map(drop).map_err(|error| error.to_string()));
    }
}

/// Those whose identities are renewed.
struct Mesh<'m> {
    shop: &'m Shop,
    load: Arc<Load>,
    serial: u32,
}

impl Mesh<'_> {
    /// Gives everybody another certificate.
    async fn renew(&mut self, ca: &Ca) {
        self.serial += 1;
        *self.load.phase.lock() = format!("certificate {}", self.serial);
        for workload in self.shop.workloads() {
            workload.show(ca, self.serial);
        }
        for workload in self.shop.workloads() {
            workload.shows(self.serial).await;
        }
        self.load.is_served().await;
    }

    /// Tells everybody whom to believe.
    async fn believe(&mut self, what: &str, roots: &str) {
        *self.load.phase.lock() = format!("{what} after certificate {}", self.serial);
        let mut generations = Vec::new();
        for workload in self.shop.workloads() {
            generations.push(workload.generation().await);
            workload.believe(roots);
        }
        for (workload, generation) in self.shop.workloads().into_iter().zip(generations) {
            workload.generation_after(generation).await;
        }
        self.load.is_served().await;
    }

    /// The hash of web's certificate, as catalog is told it.
    async fn hash(&self) -> String {
        let answer = self.shop.web.send("10.96.0.11:8000", Request::get("/items")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let saw = answer.json();
        let told = saw["headers"]["x-forwarded-client-cert"][0].as_str().expect("it is told");
        let hash = told.split(';').find_map(|part| part.strip_prefix("Hash="));
        hash.expect("a hash").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_roots_are_renewed_and_no_request_fails() {
    const TEST: &str = "netns::captured::renewal::certificates_and_roots_are_renewed_and_no_request_fails";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let mut ca = Ca::new("root 0");
    let shop = Box::pin(Shop::start(&network, &ca)).await;
    let (web, cart) = (&shop.web, &shop.carts[0]);
    let load = Arc::new(Load::default());
    let under_way = [
        web.runtime().spawn(http1(load.clone())),
        web.runtime().spawn(http2(load.clone())),
        web.runtime().spawn(grpc(load.clone())),
        cart.runtime().spawn(tcp(load.clone())),
    ];
    let mut mesh = Mesh { shop: &shop, load: load.clone(), serial: 0x1000 };

    // What is connected stays so while certificates change.
    let long = cart.run(greeted_by_ledger()).await.expect("a connection");
    for _ in 0..RENEWALS {
        mesh.renew(&ca).await;
    }
    let mut long = cart.run(speak(long)).await.expect("it lasts");
    println!("after {RENEWALS} renewals: {:?} answers", load.answered());

    for number in 1..=ROOT_RENEWALS {
        let hash = mesh.hash().await;
        let next = Ca::new(&format!("root {number}"));
        mesh.believe("both roots", &format!("{}{}", ca.pem, next.pem)).await;
        mesh.renew(&next).await;
        mesh.believe("the old root is gone", &next.pem).await;
        // Who proved himself by the old one does so anew.
        assert_ne!(mesh.hash().await, hash);
        ca = next;
    }
    // By an end or by a reset.
    let ended = cart.run(async move { long.read(&mut [0]).await });
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it is parted with");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");

    load.over.store(true, Ordering::Relaxed);
    for ended in under_way {
        ended.await.expect("it asked to the end");
    }
    assert!(load.failed.lock().is_empty(), "{:#?}", load.failed.lock());
    println!("after {ROOT_RENEWALS} root renewals: {:?} answers", load.answered());
}
