//! The page of the admin console, as a browser shows it: headless Chromium, skipped loudly where there is none.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use config::compile::Mode;
use support::mesh::virtual_service;
use support::skip::skip;
use support::{Mesh, Request, TestBackend, TestProxy, eventually};

/// How long the browser may take.
const BROWSER_TIME: Duration = Duration::from_secs(120);

/// The browser, if this machine has one.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("chromium")).find(|program| program.is_file())
}

/// The document of a page once its script has done its work.
async fn document(browser: &PathBuf, url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let profile = format!("--user-data-dir={}", profile.path().display());
    let browsing = tokio::process::Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"])
        .args([&profile, url])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(BROWSER_TIME, browsing).await.expect("in time").expect("the browser runs");
    String::from_utf8(output.stdout).expect("text")
}

/// A sidecar's page tells what its listeners do with connections, and the rules of what comes in.
#[tokio::test(flavor = "multi_thread")]
async fn filter_chains_and_inbound_rules_are_shown() {
    let Some(browser) = chromium() else {
        skip("e2e::page::filter_chains_and_inbound_rules_are_shown", "no chromium; take it from Debian");
        return;
    };
    let backend = TestBackend::echo("web").await;
    let port = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("an address").port()
    };
    let (http, tcp, inside) = (port(), port(), port());
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-1\n  namespace: shop\n  labels: {app: client}\n\
        \x20 annotations: {sidecar.istio.io/interceptionMode: NONE}\nstatus: {podIP: 127.0.0.1, podIPs: [{ip: 127.0.0.1}]}\n";
    let sidecar = format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: web, namespace: shop}}\nspec:\n\
         \x20 egress: [{{hosts: ['*/*']}}]\n\
         \x20 ingress: [{{port: {{number: {inside}, protocol: HTTP, name: http}}, defaultEndpoint: '{}'}}]\n",
        backend.address,
    );
    let mesh = Mesh::new()
        .service("catalog", &format!("http/{http}"))
        .service_at("orders", &format!("tcp-db/{tcp}"), "10.96.0.2")
        .with("pod.yaml", pod)
        .with("sidecar.yaml", &sidecar);
    let proxy = TestProxy::of(mesh)
        .set(|settings| {
            settings.mode = Mode::Sidecar;
            settings.workload.pod = Some(("web-1".to_owned(), "shop".to_owned()));
        })
        .ready()
        .await;
    let page = document(&browser, &format!("http://{}/", proxy.admin())).await;
    let section = |name: &str| {
        let begin = page.split_once(&format!("<section id=\"{name}\">")).expect("the section").1;
        begin.split_once("</section>").expect("its end").0
    };
    let (listeners, routes) = (section("listeners"), section("routes"));
    let contains =
        |text: &str, expected: &str| assert!(text.contains(expected), "no `{expected}` in\n{text}");
    contains(listeners, &format!("HTTP by the routes {http}"));
    contains(listeners, &format!("bytes to outbound|{tcp}||orders.shop.svc.cluster.local"));
    contains(listeners, &format!("HTTP by the routes inbound|{inside}||"));
    contains(routes, &format!("inbound|{inside}||</td>"));
    contains(routes, &format!("outbound|{http}||catalog.shop.svc.cluster.local</td>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_drawn_as_a_path() {
    let Some(browser) = chromium() else {
        skip("e2e::page::a_request_is_drawn_as_a_path", "no chromium; take it from Debian");
        return;
    };
    let backend = TestBackend::new(|request| async move {
        let status = if request.uri().path() == "/broken" { 503 } else { 200 };
        let mut answer = http::Response::new(http_body_util::Full::default());
        *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        answer
    })
    .await;
    let rules = "  - {name: beta, match: [{headers: {x-user: {exact: tester}}}], route: [{destination: {host: nowhere}}]}\n  \
                 - {name: gone, match: [{uri: {prefix: /gone}}], route: [{destination: {host: nowhere}}]}\n  \
                 - {name: all, route: [{destination: {host: catalog}}]}";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("route.yaml", &virtual_service("catalog", rules));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let failing = Request::get("/gone").header("x-request-id", "night").send(proxy.listener(0)).await;
    assert_eq!(failing.status, 503);
    eventually("it is recorded", || async { proxy.page("/errors").await.contains("id night").then_some(()) })
        .await;

    let admin = proxy.admin();
    let asking = |query: &str| -> String {
        let encoded = query.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        format!("http://{admin}/?explain={encoded}")
    };
    let query = "url=http://catalog:8000/items&header=x-user: <b>bold</b>";
    let good = document(&browser, &asking(query)).await;
    let contains = |page: &str, expected: &[&str]| {
        for expected in expected {
            assert!(page.contains(expected), "no `{expected}` in\n{page}");
        }
    };
    let endpoint = backend.address.to_string();
    contains(
        &good,
        &[
            // All of it was asked for and shown.
            "data-ready=\"yes\"",
            "LIVE, up ",
            // The path, from the client to the endpoint, with the rule that was left behind.
            "GET http://catalog:8000/items</li>",
            "<b>virtual host</b>",
            "2 `gone` does not apply: path `/items` does not begin with `/gone`",
            "<b>rule</b>3 `all` applies",
            "VirtualService shop/catalog (",
            &format!("<li class=\"end good\"><b>forwards</b>forwards · {endpoint} · outbound|8000||catalog"),
            // What failed, the clusters with their figures, and what is wrong.
            "503 NC: there is no cluster outbound|8000||nowhere.shop.svc.cluster.local",
            ">night</button>",
            &format!("{endpoint}, 0 in flight"),
            "<span>warning</span>",
        ],
    );
    // What a client says is text, whatever it looks like.
    assert!(good.contains("is `&lt;b&gt;bold&lt;/b&gt;`") && !good.contains("<b>bold</b>"), "{good}");
    let bad = document(&browser, &asking("url=http://catalog:8000/gone")).await;
    contains(&bad, &["<li class=\"end bad\"><b>answers</b>answers · 503 · NC · cluster_not_found"]);
    let wrong = document(&browser, &asking("url=catalog")).await;
    contains(&wrong, &["`catalog` does not begin with http://"]);
    // What the upstream itself answered is a failure too.
    let failing = Request::get("/broken").host("catalog").header("x-request-id", "day");
    assert_eq!(failing.send(proxy.listener(0)).await.status, 503);
    eventually("it is recorded", || async { proxy.page("/errors").await.contains("id day").then_some(()) })
        .await;
    let recorded = document(&browser, &format!("http://{admin}/?id=day")).await;
    contains(
        &recorded,
        &["<li class=\"end bad\"><b>forwards</b>forwards · 503", "<p id=\"outcome\" class=\"bad\">"],
    );
    let bytes = document(&browser, &asking("tcp=192.0.2.1:3306")).await;
    contains(&bytes, &["TCP to 192.0.2.1:3306</li>"]);
    for (page, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = Request::get(page).send(admin).await;
        assert!(answer.header("content-type").starts_with(kind), "{page}");
    }
}
