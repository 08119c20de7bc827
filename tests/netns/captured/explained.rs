//! What `/explain` says beforehand is what happens, where traffic is captured and at a gateway, too: requests and connections
//! that are made up are explained, then sent, and what was said is held against who got them, what the client got and what
//! the access log says. The random draws are the same on both sides, as in [`crate::explained`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::BASE64;
use http::Method;
use serde_json::Value;
use support::netns::at;
use support::tls::Ca;
use support::{Request, TestBackend, eventually, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::network::{Network, Pod};
use super::tls;
use crate::capture::named;
use crate::explained::{Draws, PATHS, logged, said};

const SEED: u64 = 0x7765_6674;

/// How many of each kind are made up.
const OUTBOUND: usize = 200;
const INBOUND: usize = 80;
const CONNECTIONS: usize = 60;
const AT_GATEWAY: usize = 200;

/// Who serves HTTP, by address: everybody says it is who it is.
const SERVERS: [(&str, u16, &str); 10] = [
    ("10.244.1.21", 8080, "10.244.1.21:8080"),
    ("10.244.2.22", 8080, "10.244.2.22:8080"),
    ("10.244.1.23", 8080, "10.244.1.23:8080"),
    ("10.244.1.31", 8080, "10.244.1.31:8080"),
    ("10.244.2.32", 8080, "10.244.2.32:8080"),
    ("10.244.3.33", 8080, "10.244.3.33:8080"),
    ("10.244.1.61", 9200, "10.244.1.61:9200"),
    ("10.244.1.71", 8080, "10.244.1.71:8080"),
    ("10.244.9.9", 8000, "10.244.9.9:8000"),
    ("10.244.9.9", 7070, "10.244.9.9:7070"),
];

/// What web sends: where to, and for which host. Hosts of services are found by their names, wherever the client believes
/// them to be; what nobody knows goes where the client wants.
const SENT: [(&str, &str); 9] = [
    ("10.96.0.11:8000", "catalog"),
    ("10.96.0.11:8000", "catalog.shop.svc.cluster.local:8000"),
    ("10.96.0.12:8000", "CATALOG.shop"),
    ("10.96.0.12:8000", "reviews"),
    ("10.96.0.12:8000", "reviews.shop:8000"),
    ("10.96.0.20:8000", "legacy.ops"),
    ("10.244.1.61:9200", "search"),
    ("10.244.9.9:8000", "stranger.example"),
    ("10.244.9.9:7070", "stranger.example:7070"),
];

/// What a client at the edge asks for: where, by which URL and for which server name.
const ASKED: [(&str, &str, Option<&str>); 8] = [
    ("10.244.1.90:8080", "http://shop.example", None),
    ("10.244.1.90:8080", "http://shop.example:80", None),
    ("10.244.1.90:8080", "http://other.shop.example", None),
    ("10.244.1.90:8443", "https://shop.example", Some("shop.example")),
    ("10.244.1.90:8443", "https://other.shop.example", Some("shop.example")),
    ("10.244.1.90:8443", "https://shop.example", Some("nobody.example")),
    ("10.244.1.90:8443", "https://shop.example:8443", Some("shop.example")),
    ("10.244.1.90:8443", "http://shop.example", None),
];

/// A request that is made up.
#[derive(Debug)]
struct MadeUp {
    number: usize,
    way: &'static str,
    method: &'static str,
    to: &'static str,
    /// Scheme and authority.
    url: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    server_name: Option<&'static str>,
}

impl MadeUp {
    fn new(
        number: usize,
        way: &'static str,
        to: &'static str,
        url: &'static str,
        words: &mut Draws,
    ) -> MadeUp {
        let path = words.of(&PATHS);
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut headers = Vec::new();
        for (name, values) in [("x-user", ["tester", "somebody"]), ("x-chaos", ["on", "off"])] {
            if words.next().is_multiple_of(3) {
                headers.push((name, words.of(&values)));
            }
        }
        let method = words.of(&["GET", "GET", "POST", "DELETE"]);
        let path = format!("{path}{separator}n={number}");
        MadeUp { number, way, method, to, url, path, headers, server_name: None }
    }

    fn host(&self) -> &str {
        self.url.split_once("://").map_or(self.url, |(_, host)| host)
    }

    /// What the proxy of `pod` says of it, with these draws.
    async fn explain(&self, pod: &Pod, draw: u64, pick: u64) -> Value {
        let url = encode(&format!("{}{}", self.url, self.path));
        let mut page = format!(
            "/explain?format=json&way={}&method={}&url={url}&destination={}&source=192.0.2.7&draw={draw}&pick={pick}",
            self.way, self.method, self.to
        );
        for (name, value) in &self.headers {
            page.push_str(&format!("&header={}", encode(&format!("{name}: {value}"))));
        }
        if let Some(name) = self.server_name {
            page.push_str(&format!("&sni={name}"));
        }
        outcome(&pod.page(&page).await)
    }

    /// What a program in `client` gets: status, where it is sent to, and what who answered saw. `None` for no answer.
    async fn send(&self, client: &Pod, roots: &RootCertStore) -> Option<(u64, String, Value)> {
        if let Some(name) = self.server_name {
            let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.host());
            self.headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
            text.push_str("Content-Length: 0\r\nConnection: close\r\n\r\n");
            let to = self.to.parse().expect("an address");
            return client.run(https(to, name, roots.clone(), text)).await;
        }
        let method = Method::from_bytes(self.method.as_bytes()).expect("a method");
        let mut request = Request::new(method, &self.path).host(self.host());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = client.try_send(self.to, request).await.ok()?;
        let saw = serde_json::from_slice(&answer.body).unwrap_or_default();
        Some((u64::from(answer.status.as_u16()), answer.header("location").to_owned(), saw))
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn outcome(page: &str) -> Value {
    let told: Value = serde_json::from_str(page).unwrap_or_else(|_| panic!("{page}"));
    told["outcome"].clone()
}

/// Asks by HTTPS.
async fn https(
    to: SocketAddr,
    name: &'static str,
    roots: RootCertStore,
    request: String,
) -> Option<(u64, String, Value)> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(to).await.expect("a connection");
    let server = ServerName::try_from(name).expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // How it ends is not what this is about.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
    Some((status, location.to_owned(), serde_json::from_str(body).unwrap_or_default()))
}

/// The proxy of a pod, whose random numbers are counted along.
struct Counted<'p> {
    pod: &'p Pod,
    draws: Draws,
    /// Clusters that came up before: each draws a number for itself when it comes up first.
    known: BTreeSet<String>,
    /// The requests, and what was said of them.
    all: Vec<(MadeUp, Value)>,
}

impl Counted<'_> {
    fn of(pod: &Pod) -> Counted<'_> {
        Counted { pod, draws: Draws(SEED), known: BTreeSet::new(), all: Vec::new() }
    }

    fn come_up(&mut self, outcome: &Value) -> bool {
        let clusters = outcome["clusters"].as_array().cloned().unwrap_or_default();
        for cluster in &clusters {
            if self.known.insert(cluster.as_str().expect("a name").to_owned()) {
                self.draws.next();
            }
        }
        !clusters.is_empty()
    }

    /// Has a request explained and sent, and holds one against the other.
    async fn hold(&mut self, request: MadeUp, client: &Pod, roots: &RootCertStore) {
        // Which rule it is does not depend on draws.
        let first = request.explain(self.pod, 0, 0).await;
        if first["does"] == "passes_on" {
            self.hold_passed(&request, client, &first).await;
            return;
        }
        if first["does"] != "closes" {
            // Nobody says what the ID of a request is: two numbers make it.
            self.draws.next();
            self.draws.next();
        }
        let (draw, pick) = if self.come_up(&first) { (self.draws.next(), self.draws.next()) } else { (0, 0) };
        let outcome = request.explain(self.pod, draw, pick).await;
        let what = format!("{request:?}: {outcome:#}");
        let answer = request.send(client, roots).await;
        if outcome["does"] == "closes" {
            assert!(answer.is_none(), "{answer:?} to {what}");
            return;
        }
        let (status, location, saw) = answer.unwrap_or_else(|| panic!("no answer to {what}"));
        assert_eq!(status, said(&outcome).status, "{what}");
        assert_eq!(location, outcome["location"].as_str().unwrap_or_default(), "{what}");
        if outcome["does"] == "forwards" {
            assert_eq!(saw["name"], outcome["endpoint"], "{what}");
            assert_eq!(saw["path"], outcome["path"], "{what}");
            assert_eq!(saw["headers"]["host"][0], outcome["authority"], "{what}");
            assert_eq!(saw["method"], request.method, "{what}");
        }
        self.all.push((request, outcome));
    }

    /// Sends a request that nobody understands on its way.
    async fn hold_passed(&mut self, request: &MadeUp, client: &Pod, outcome: &Value) {
        self.passed(outcome);
        let answer = request.send(client, &RootCertStore::empty()).await;
        let (status, _, saw) = answer.unwrap_or_else(|| panic!("no answer to {request:?}"));
        let got = (status, &saw["name"], &saw["path"]);
        assert_eq!(
            got,
            (200, &outcome["endpoint"], &request.path.as_str().into()),
            "{request:?}: {outcome:#}"
        );
    }

    /// Counts the numbers that a connection draws.
    fn passed(&mut self, outcome: &Value) {
        self.come_up(outcome);
        // The cluster is drawn; the endpoint where the client does not choose it.
        self.draws.next();
        if outcome["cluster"].as_str().is_some_and(|cluster| cluster.starts_with("outbound|")) {
            self.draws.next();
        }
    }

    /// Has a connection explained and made by `talk`, which gives back the first word that it is told.
    async fn hold_connection(
        &mut self,
        (way, to, sni): (&str, &str, &str),
        talk: impl Future<Output = String>,
        who: &str,
    ) {
        let sni = if sni.is_empty() { String::new() } else { format!("&sni={sni}") };
        let page = format!("/explain?format=json&way={way}&tcp={to}{sni}");
        let outcome = outcome(&self.pod.page(&page).await);
        assert_eq!(outcome["does"], "passes_on", "{to}: {outcome:#}");
        self.passed(&outcome);
        let heard = talk.await;
        assert_eq!(heard, outcome["endpoint"].as_str().unwrap_or_default(), "{who} {to}: {outcome:#}");
    }

    /// Holds what the access log says against what was said of each request.
    async fn hold_logged(&self) -> BTreeSet<String> {
        let mark = |request: &MadeUp| format!("n={} HTTP/", request.number);
        let log = eventually("all is logged", || async {
            let log = self.pod.sidecar().stdout();
            self.all.iter().all(|(request, _)| log.contains(&mark(request))).then_some(log)
        })
        .await;
        let mut outcomes = BTreeSet::new();
        for (request, outcome) in &self.all {
            let done = logged(&log, &mark(request));
            assert_eq!(done, said(outcome), "{request:?}");
            outcomes.insert(format!("{} {} {}", done.status, done.route, done.endpoint));
        }
        outcomes
    }
}

/// What a server says that speaks first: its name.
async fn first_word(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    said.split(' ').next().unwrap_or_default().to_owned()
}

/// The certificate of the gateway, as the sample mesh names it.
fn secret(ca: &Ca) -> String {
    let pem = ca.issue("shop.example", |_| {});
    let [chain, key] = [&pem.chain, &pem.key].map(|text| BASE64.encode(text.as_bytes()));
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop-cert, namespace: istio-system}}\n\
         data: {{tls.crt: {chain}, tls.key: {key}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_goes_where_it_was_said() {
    const TEST: &str = "netns::captured::explained::what_is_captured_goes_where_it_was_said";
    let Some(shop) = shared::shop(TEST) else { return };
    let ca = Ca::new("edge");
    let own = support::Mesh::new().with("secret.yaml", &secret(&ca));
    let Some(network) = Network::new(TEST, &[&shop, &own.file("secret.yaml")]) else { return };
    let seed = SEED.to_string();
    let arguments = ["--allow-unenforced-security", "--seed", &seed];
    let mut web = network.pod("web-1.shop", &["10.244.1.10"]);
    web.redirect(&[]).await;
    network.sidecar(&mut web, &arguments).await;
    let mut ingress = network.pod("istio-ingressgateway-1.istio-system", &["10.244.1.90"]);
    network.gateway(&mut ingress, &arguments).await;
    let client = network.pod("client", &["192.0.2.7"]);

    let mut addresses: Vec<&str> = SERVERS.iter().map(|(address, ..)| *address).collect();
    addresses.push("10.244.1.51");
    addresses.dedup();
    let others = network.pod("others", &addresses);
    let mut apps = Vec::new();
    for (address, port, name) in SERVERS {
        apps.push(others.run(TestBackend::echo_at(at(address, port), name)).await);
    }
    others.run(named(at("10.244.1.51", 3306), "10.244.1.51:3306")).await;
    others.run(named(at("10.244.9.9", 2525), "10.244.9.9:2525")).await;
    let certificate = others.run(tls::serve(at("10.244.9.9", 4443), "10.244.9.9:4443")).await;
    for (port, name) in [(8080, "10.244.1.10:8080"), (7000, "10.244.1.10:7000")] {
        apps.push(web.run(TestBackend::echo_at(at("10.244.1.10", port), name)).await);
    }
    web.run(named(at("10.244.1.10", 3307), "10.244.1.10:3307")).await;

    let (roots, mut words) = (ca.store(), Draws(7));
    let mut sidecar = Counted::of(&web);
    for number in 0..OUTBOUND + INBOUND + CONNECTIONS {
        match number {
            ..OUTBOUND => {
                let (to, host) = *words.one(&SENT);
                let url: &'static str = format!("http://{host}").leak();
                let request = MadeUp::new(number, "outbound", to, url, &mut words);
                sidecar.hold(request, &web, &roots).await;
            }
            _ if number < OUTBOUND + INBOUND => {
                let to = words.of(&["10.244.1.10:8080", "10.244.1.10:7000"]);
                let request = MadeUp::new(number, "inbound", to, "http://web", &mut words);
                sidecar.hold(request, &client, &roots).await;
            }
            _ => match words.of(&["ledger", "stranger", "tls", "in"]) {
                "ledger" => {
                    let talk = web.run(first_word(at("10.96.0.14", 3306)));
                    sidecar.hold_connection(("outbound", "10.96.0.14:3306", ""), talk, "ledger").await;
                }
                "stranger" => {
                    let talk = web.run(first_word(at("10.244.9.9", 2525)));
                    sidecar.hold_connection(("outbound", "10.244.9.9:2525", ""), talk, "stranger").await;
                }
                "tls" => {
                    let hello = tls::hello(at("10.244.9.9", 4443), "db.example", certificate.clone());
                    // Its certificate has another name, so that the handshake ends: with whom, it says before.
                    let talk =
                        web.run(async move { hello.await.err().map(|_| "10.244.9.9:4443".to_owned()) });
                    let talk = async { talk.await.unwrap_or_default() };
                    let asked = ("outbound", "10.244.9.9:4443", "db.example");
                    Box::pin(sidecar.hold_connection(asked, talk, "tls")).await;
                }
                _ => {
                    let talk = client.run(first_word(at("10.244.1.10", 3307)));
                    sidecar.hold_connection(("inbound", "10.244.1.10:3307", ""), talk, "in").await;
                }
            },
        }
    }
    let met = sidecar.hold_logged().await;
    for expected in [
        "200 split 10.244.1.21:8080",
        "200 split 10.244.1.23:8080",
        "200 testers 10.244.1.23:8080",
        "308 moved -",
        "200 default 10.244.3.33:8080",
        "200 default 10.244.1.61:9200",
        "200 default 10.244.1.10:8080",
        "200 default 10.244.1.10:7000",
        "200 allow_any 10.244.9.9:8000",
    ] {
        assert!(met.contains(expected), "{expected} is not among {met:#?}");
    }

    let mut gateway = Counted::of(&ingress);
    for number in 0..AT_GATEWAY {
        let (to, url, server_name) = *words.one(&ASKED);
        let request = MadeUp { server_name, ..MadeUp::new(number, "gateway", to, url, &mut words) };
        gateway.hold(request, &client, &roots).await;
    }
    let met = gateway.hold_logged().await;
    assert!(
        met.iter().any(|it| it.starts_with("404 ")) && met.iter().any(|it| it.starts_with("200 ")),
        "{met:?}"
    );
    let by_https = gateway.all.iter().filter(|(request, _)| request.server_name.is_some()).count();
    println!("{} requests answered at the gateway, {by_https} of them by HTTPS: {met:?}", gateway.all.len());
    assert!(by_https > AT_GATEWAY / 10, "{by_https}");
}
