//! What `/explain` says beforehand is what happens: 1,000 requests, made up from the words of the sample mesh, are explained,
//! then sent, and what was said is held against what the pods got, what the client got and what the access log says.
//!
//! The random draws are the same on both sides: the proxy begins its random numbers at a seed, and the test counts along.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;
use support::{Request, Weft, binary};

use crate::pods::{Pods, pod, shop};

const REQUESTS: usize = 1_000;
const SEED: u64 = 0x7765_6674;

/// Paths that the rules of the sample mesh tell apart.
pub(crate) const PATHS: [&str; 15] = [
    "/",
    "/items",
    "/items/7?x=1",
    "/itemsandmore",
    "/v1/items/7?x=1",
    "/v22/items/",
    "/v1/item",
    "/shop",
    "/shop/",
    "/?beta=1",
    "/elsewhere?beta=1&x=y",
    "/elsewhere?beta=2",
    "/a/../items",
    "//items",
    "/%2e%2e/x",
];

/// splitmix64, as the workers draw.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        self.one::<&'w str>(words)
    }

    /// One of these.
    pub(crate) fn one<'w, T>(&mut self, all: &'w [T]) -> &'w T {
        let count = u64::try_from(all.len()).expect("a few");
        &all[usize::try_from(self.next() % count).expect("an index")]
    }
}

/// A request that is made up.
#[derive(Debug)]
struct MadeUp {
    id: String,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl MadeUp {
    fn new(number: usize, words: &mut Draws) -> MadeUp {
        let mut headers = Vec::new();
        for (name, values) in [("x-user", ["tester", "somebody"]), ("x-chaos", ["on", "off"])] {
            if words.next().is_multiple_of(3) {
                headers.push((name, words.of(&values)));
            }
        }
        MadeUp {
            id: format!("made-up-{number}"),
            method: words.of(&["GET", "GET", "POST", "PUT", "DELETE"]),
            host: words.of(&[
                "catalog",
                "catalog",
                "catalog.shop",
                "CATALOG.shop.svc",
                "catalog.shop.svc.cluster.local:8000",
                "reviews",
                "reviews.shop:8000",
                "legacy.ops",
                "stranger.example",
            ]),
            path: words.of(&PATHS),
            headers,
        }
    }

    async fn send(&self, weft: &Weft) -> support::Answer {
        let method = Method::from_bytes(self.method.as_bytes()).expect("a method");
        let mut request = Request::new(method, self.path).host(self.host).header("x-request-id", &self.id);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.send(weft.listener(0)).await
    }

    /// What the running proxy says of it, with these draws.
    async fn explain(&self, weft: &Weft, draw: u64, pick: u64) -> Value {
        let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
        let url = encode(&format!("http://{}{}", self.host, self.path));
        let mut page =
            format!("/explain?format=json&method={}&url={url}&draw={draw}&pick={pick}", self.method);
        for (name, value) in &self.headers {
            page.push_str(&format!("&header={}", encode(&format!("{name}: {value}"))));
        }
        weft.json(&page).await["outcome"].clone()
    }
}

/// What the proxy was heard to do, in the words of an explanation.
#[derive(Debug, PartialEq)]
pub(crate) struct Done {
    pub(crate) status: u64,
    flags: String,
    details: String,
    cluster: String,
    pub(crate) endpoint: String,
    pub(crate) route: String,
}

/// The line of the access log about a request (Istio's text format), by a mark that no other has.
pub(crate) fn logged(log: &str, mark: &str) -> Done {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(mark)).collect();
    let [line] = lines[..] else { panic!("{mark} is logged {} times", lines.len()) };
    // The texts between the quotes: the request line comes first, then the failure, the client, its agent, the ID, ...
    let quoted: Vec<&str> = line.split('"').collect();
    let after_request: Vec<&str> = quoted[2].split_whitespace().collect();
    let rest: Vec<&str> = quoted.last().expect("an end").split_whitespace().collect();
    let host = quoted[quoted.len() - 2];
    Done {
        status: after_request[0].parse().expect("a status"),
        flags: after_request[1].to_owned(),
        details: after_request[2].to_owned(),
        endpoint: host.to_owned(),
        cluster: rest[0].to_owned(),
        route: (*rest.last().expect("a route")).to_owned(),
    }
}

/// The same, as it was said before.
pub(crate) fn said(outcome: &Value) -> Done {
    let text = |name: &str| outcome[name].as_str().unwrap_or("-").to_owned();
    let forwards = outcome["does"] == "forwards";
    Done {
        status: if forwards { 200 } else { outcome["status"].as_u64().expect("a status") },
        flags: text("flags"),
        details: if forwards { "via_upstream".to_owned() } else { text("details") },
        cluster: text("cluster"),
        endpoint: text("endpoint"),
        route: text("route"),
    }
}

#[test]
fn a_thousand_requests_go_where_it_was_said() {
    let Some((shop, namespace)) = shop("netns::explained::a_thousand_requests_go_where_it_was_said") else {
        return;
    };
    let binary = binary::weft();
    namespace.run(|| async {
        let pods = Pods::start().await;
        let (shop, seed) = (shop.to_str().expect("a path in text"), SEED.to_string());
        let arguments = ["--config", shop, "--as", "web-1.shop", "--listen", "10.244.1.10:0=outbound:8000"];
        let more = ["--workers", "1", "--seed", &seed, "--allow-unenforced-security"];
        let mut weft = Weft::run(&binary, &[&arguments[..], &more].concat()).await;
        let (mut draws, mut words) = (Draws(SEED), Draws(1));
        let (mut known, mut all) = (BTreeSet::new(), Vec::new());
        let mut forwarded = 0;
        for number in 0..REQUESTS {
            let request = MadeUp::new(number, &mut words);
            // Which rule it is does not depend on draws. Each cluster that comes up for the first time draws a number
            // for itself; then the destination is drawn, if the rule forwards, and the endpoint.
            let clusters = request.explain(&weft, 0, 0).await["clusters"].clone();
            let clusters = clusters.as_array().cloned().unwrap_or_default();
            for cluster in &clusters {
                if known.insert(cluster.as_str().expect("a name").to_owned()) {
                    draws.next();
                }
            }
            let (draw, pick) = if clusters.is_empty() { (0, 0) } else { (draws.next(), draws.next()) };
            let outcome = request.explain(&weft, draw, pick).await;
            let answer = request.send(&weft).await;
            let what = format!("{request:?}: {outcome:#}");
            if outcome["does"] == "forwards" {
                forwarded += 1;
                let saw = answer.json();
                let address = outcome["endpoint"].as_str().expect("an endpoint");
                assert_eq!(pods.address(&pod(&answer)), address, "{what}");
                assert_eq!(saw["path"], outcome["path"], "{what}");
                assert_eq!(saw["headers"]["host"][0], outcome["authority"], "{what}");
                assert_eq!(saw["method"], request.method, "{what}");
            }
            assert_eq!(u64::from(answer.status.as_u16()), said(&outcome).status, "{what}");
            assert_eq!(answer.header("location"), outcome["location"].as_str().unwrap_or_default(), "{what}");
            all.push((request, outcome));
        }
        assert_eq!(pods.served(""), forwarded);
        assert!(weft.terminate().await.success(), "{}", weft.log());
        let log = weft.stdout();
        let mut outcomes = BTreeSet::new();
        for (request, outcome) in &all {
            let done = logged(&log, &format!("\"{}\"", request.id));
            assert_eq!(done, said(outcome), "{request:?}");
            outcomes.insert(format!("{} {} {}", done.status, done.route, done.endpoint));
        }
        // Every rule of the mesh was met, both subsets of the one that splits, and every pod of the service that has three.
        let expected = [
            "200 default 10.244.1.31:8080",
            "200 default 10.244.1.71:8080",
            "200 default 10.244.2.32:8080",
            "200 default 10.244.3.33:8080",
            "200 fault 10.244.1.21:8080",
            "200 old-paths 10.244.1.21:8080",
            "200 split 10.244.1.21:8080",
            "200 split 10.244.1.23:8080",
            "200 testers 10.244.1.23:8080",
            "308 moved -",
            "503 allow_any -",
        ];
        assert_eq!(outcomes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    });
}
