//! Identities that are renewed again and again while the sample mesh is used. No application sees a request fail.

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

use super::identified::{Shop, greeted_by_ledger, speak};
use super::network::Network;

/// How often certificates are renewed.
const RENEWALS: u32 = 50;

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
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_and_no_request_fails() {
    const TEST: &str = "netns::captured::renewal::certificates_are_renewed_and_no_request_fails";
    let Some(shop) = shared::shop(TEST) else { return };
    let Some(network) = Network::new(TEST, &[&shop]) else { return };
    let ca = Ca::new("mesh");
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
    cart.run(speak(long)).await.expect("it lasts");
    load.over.store(true, Ordering::Relaxed);
    for ended in under_way {
        ended.await.expect("it asked to the end");
    }
    assert!(load.failed.lock().is_empty(), "{:#?}", load.failed.lock());
    println!("after {RENEWALS} renewals: {:?} answers", load.answered());
}
