//! What an operator does with a running proxy: looks at the process, takes it out of service, drains it, hears more of it.
//! Each is asked of Envoy too, where it is installed.

use std::fs;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use support::client::KeepAlive;
use support::mesh::virtual_service;
use support::{
    Answer, Connection, Mesh, Request, Side, Sides, TestBackend, TestProxy, Weft, Wire, binary, eventually,
};
use tokio::net::TcpStream;

async fn start() -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    (backend, TestProxy::of(mesh).listen("catalog", 8000).health_port().both().await)
}

/// A proxy whose graceful drains last this long.
async fn with_drain_time(drain_time: Duration) -> (TestBackend, TestProxy) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let start = TestProxy::of(mesh).listen("catalog", 8000).set(|settings| settings.drain_time = drain_time);
    (backend, start.ready().await)
}

async fn post(side: Side<'_>, path: &str) -> Answer {
    Request::new(Method::POST, path).send(side.admin()).await
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_about_the_process_have_envoys_keys() {
    let (_backend, proxies) = start().await;
    for side in proxies.each() {
        let page = |path: &'static str| async move { Request::get(path).send(side.admin()).await };
        let (name, address) = ("127.0.0.1_0", side.listener(0));
        assert_eq!(page("/listeners").await.text(), format!("{name}::{address}\n"), "{}", side.name());
        let mut listeners = page("/listeners?format=json").await.json();
        // What Envoy does not tell.
        let weft = |value: &mut Value| drop(value.as_object_mut().map(|fields| fields.remove("weft")));
        weft(&mut listeners);
        listeners["listener_statuses"].as_array_mut().into_iter().flatten().for_each(weft);
        let expected = serde_json::json!({ "listener_statuses": [{ "name": name, "local_address": {
            "socket_address": { "address": "127.0.0.1", "port_value": address.port() } } }] });
        assert_eq!(listeners, expected, "{}", side.name());
        assert_eq!(page("/certs").await.json(), serde_json::json!({ "certificates": [] }), "{}", side.name());
        let info = page("/server_info").await.json();
        let mut wanted =
            vec!["version", "state", "uptime_current_epoch", "uptime_all_epochs", "hot_restart_version"];
        wanted.extend(["command_line_options", "hot_restart_initializing", "node"]);
        wanted.sort_unstable();
        assert_eq!(keys(&info), wanted, "{}", side.name());
        assert_eq!(info["state"], "LIVE", "{}", side.name());
        assert_eq!(info["command_line_options"]["concurrency"], 1, "{}", side.name());
        let uptime = info["uptime_current_epoch"].as_str().and_then(|uptime| uptime.strip_suffix('s'));
        assert!(uptime.is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|it| it < 120)), "{info:#}");
        let memory = page("/memory").await.json();
        let wanted = ["allocated", "heap_size", "pageheap_free", "pageheap_unmapped", "total_physical_bytes"];
        let found: Vec<&str> = keys(&memory).into_iter().filter(|key| *key != "weft").collect();
        assert_eq!(found, [&wanted[..], &["total_thread_cache"]].concat(), "{}", side.name());
        let resident = memory["total_physical_bytes"].as_str().and_then(|bytes| bytes.parse::<u64>().ok());
        assert!(resident.is_some_and(|bytes| bytes > 1_000_000), "{}: {memory:#}", side.name());
    }
    let info = Request::get("/server_info").send(proxies.weft.admin()).await.json();
    assert!(info["node"]["id"].as_str().is_some_and(|id| id.starts_with("sidecar~10.244.1.10~")), "{info:#}");
    assert_eq!(info["node"]["metadata"]["NAMESPACE"], "shop");
    assert_eq!(info["command_line_options"]["drain_time"], "45s");
}

/// What changes something needs POST, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn changes_need_post() {
    let (_backend, proxies) = start().await;
    for path in ["/healthcheck/fail", "/healthcheck/ok", "/drain_listeners", "/logging?level=debug"] {
        for side in proxies.each() {
            for method in [Method::GET, Method::HEAD] {
                let answer = Request::new(method, path).send(side.admin()).await;
                assert_eq!(answer.status, 405, "{}: {path}", side.name());
            }
        }
        let answer = Request::get(path).send(proxies.weft.admin()).await;
        assert_eq!(answer.header("allow"), "POST", "{path}");
    }
    let cases = [
        ("/healthcheck/fail?now", "`now`: this page takes no parameters\n"),
        ("/drain_listeners?inbound", "`inbound` is not one of graceful, inboundonly, skip_exit\n"),
        ("/drain_listeners?graceful=false", "`graceful` takes no value; leave it out when it is not meant\n"),
        (
            "/drain_listeners?skip_exit",
            "skip_exit means nothing without graceful: say `?graceful&skip_exit`\n",
        ),
    ];
    for (path, expected) in cases {
        let answer = post(Side::Weft(&proxies.weft), path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (400, expected), "{path}");
    }
    // The log of this process is the test's.
    assert_eq!(post(Side::Weft(&proxies.weft), "/logging").await.status, 501);
    // None of it has changed anything.
    for side in proxies.each() {
        assert_eq!(Request::get("/ready").send(side.admin()).await.status, 200, "{}", side.name());
        assert_eq!(Request::get("/").send(side.listener(0)).await.status, 200, "{}", side.name());
    }
}

/// A browser that runs beside the proxy does nothing for pages of others, and shows them nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_change_and_read_nothing() {
    let proxy = TestProxy::of(Mesh::new()).ready().await;
    let admin = proxy.admin();
    let own = admin.to_string();
    let ask = async |method: Method, path: &str, host: &str, origin: &str| {
        let request = Request::new(method, path).host(host);
        let request = if origin.is_empty() { request } else { request.header("origin", origin) };
        request.send(admin).await
    };
    let localhost = format!("localhost:{}", admin.port());
    for path in ["/healthcheck/fail", "/drain_listeners", "/logging?level=debug", "/explain?url=http://a"] {
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1", &format!("http://{localhost}")] {
            let refused = ask(Method::POST, path, &own, origin).await;
            assert_eq!(refused.status, 403, "{path} {origin}");
            assert!(refused.text().contains("without `Origin`"), "{}", refused.text());
        }
        // The name of others may lead here.
        let rebound = ask(Method::POST, path, "evil.example:15000", "http://evil.example:15000").await;
        assert_eq!(rebound.status, 403, "{path}");
    }
    assert_eq!(ask(Method::GET, "/config_dump", "evil.example", "").await.status, 403);
    assert_eq!(proxy.page("/ready").await, "LIVE\n");
    for (host, origin) in [
        (&*own, ""),
        (&*own, &*format!("http://{own}")),
        (&*localhost, &*format!("http://{localhost}")),
        ("web.shop.svc.cluster.local:15000", ""),
    ] {
        assert_eq!(ask(Method::POST, "/healthcheck/ok", host, origin).await.status, 200, "{host} {origin}");
        assert_eq!(ask(Method::GET, "/config_dump", host, origin).await.status, 200, "{host} {origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_and_recovers() {
    let (_backend, proxies) = start().await;
    for side in proxies.each() {
        let name = side.name();
        let mut client = KeepAlive::connect(side.listener(0)).await;
        let before = client.send(Request::get("/")).await.expect("an answer");
        assert_eq!(before.header("connection"), "", "{name}");
        let answer = post(side, "/healthcheck/fail").await;
        assert_eq!((answer.status.as_u16(), answer.text().trim_end()), (200, "OK"), "{name}");
        let ready = Request::get("/ready").send(side.admin()).await;
        assert_eq!((ready.status.as_u16(), ready.text().lines().next()), (503, Some("DRAINING")), "{name}");
        let info = Request::get("/server_info").send(side.admin()).await.json();
        assert_eq!(info["state"], "DRAINING", "{name}");
        // It goes on to serve, and sends its clients away.
        let after = client.send(Request::get("/")).await.expect("an answer");
        assert_eq!((after.status.as_u16(), after.header("connection")), (200, "close"), "{name}");
        let client = Connection::http2(side.listener(0)).await;
        eventually(&format!("a client of {name} over HTTP/2 is told by GOAWAY"), || {
            let asked = client.share();
            async move { asked?.send(Request::get("/")).await.is_err().then_some(()) }
        })
        .await;
        assert_eq!(post(side, "/healthcheck/ok").await.status, 200, "{name}");
        let ready = Request::get("/ready").send(side.admin()).await;
        assert_eq!((ready.status.as_u16(), ready.text().lines().next()), (200, Some("LIVE")), "{name}");
        let mut client = KeepAlive::connect(side.listener(0)).await;
        let again = client.send(Request::get("/")).await.expect("an answer");
        assert_eq!(again.header("connection"), "", "{name}");
        let mut client = Connection::http2(side.listener(0)).await;
        for _ in 0..10 {
            assert_eq!(client.send(Request::get("/")).await.expect("an answer").status, 200, "{name}");
        }
    }
    // The health port says the same.
    let side = Side::Weft(&proxies.weft);
    let ready = || Request::get("/healthz/ready").send(proxies.weft.health());
    post(side, "/healthcheck/fail").await;
    let expected = "not ready: /healthcheck/fail was posted; POST /healthcheck/ok takes it back\n";
    assert_eq!((ready().await.status.as_u16(), ready().await.text().as_str()), (503, expected));
    assert_eq!(Request::get("/healthz").send(proxies.weft.health()).await.status, 200);
    post(side, "/healthcheck/ok").await;
    assert_eq!(ready().await.status, 200);
}

/// Without `graceful` the sockets are closed at once, and connections that are there live on.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_drained() {
    let (_backend, proxies) = start().await;
    for side in proxies.each() {
        let name = side.name();
        let mut client = KeepAlive::connect(side.listener(0)).await;
        assert_eq!(client.send(Request::get("/")).await.expect("an answer").status, 200, "{name}");
        // An explicit listener is an outbound one.
        assert_eq!(post(side, "/drain_listeners?inboundonly").await.status, 200, "{name}");
        assert_eq!(Request::get("/").send(side.listener(0)).await.status, 200, "{name}");
        let answer = post(side, "/drain_listeners").await;
        assert_eq!((answer.status.as_u16(), answer.text().trim_end()), (200, "OK"), "{name}");
        eventually("nobody listens any more", || async {
            TcpStream::connect(side.listener(0)).await.is_err().then_some(())
        })
        .await;
        assert_eq!(client.send(Request::get("/")).await.expect("an answer").status, 200, "{name}");
        assert_eq!(Request::get("/ready").send(side.admin()).await.status, 200, "{name}");
        assert!(Request::get("/listeners").send(side.admin()).await.text().contains("127.0.0.1"), "{name}");
    }
}

/// With `graceful` the connections are told first.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_drain_tells_connections_first() {
    let (_backend, proxy) = with_drain_time(Duration::from_millis(300)).await;
    let side = Side::Weft(&proxy);
    let mut idle = Wire::connect(proxy.listener(0)).await;
    idle.request("GET / HTTP/1.1\nHost: catalog\n\n").await;
    assert_eq!(idle.answer(false).await.status, 200);
    // Of inbound listeners there are none.
    assert_eq!(post(side, "/drain_listeners?inboundonly&graceful").await.status, 200);
    assert_eq!(Request::get("/").send(proxy.listener(0)).await.header("connection"), "");
    assert_eq!(post(side, "/drain_listeners?graceful").await.status, 200);
    assert!(idle.rest().await.is_empty(), "an idle connection is closed");
    eventually("nobody listens any more", || async {
        TcpStream::connect(proxy.listener(0)).await.is_err().then_some(())
    })
    .await;
}

/// With `skip_exit` that is all.
#[tokio::test(flavor = "multi_thread")]
async fn skip_exit_leaves_the_listeners_open() {
    let (_backend, proxy) = with_drain_time(Duration::ZERO).await;
    assert_eq!(post(Side::Weft(&proxy), "/drain_listeners?graceful&skip_exit").await.status, 200);
    let closes = || async {
        let mut client = KeepAlive::connect(proxy.listener(0)).await;
        let answer = client.send(Request::get("/")).await.expect("an answer");
        assert_eq!(answer.status, 200);
        client.send(Request::get("/")).await.is_err().then_some(())
    };
    eventually("connections get one answer", closes).await;
    // The control thread has come round since, and a drain without it would be over.
    let rule = virtual_service("catalog", "  - route: [{destination: {host: catalog}}]\n");
    proxy.publish("rule.yaml", &rule).await;
    eventually("connections get one answer still", closes).await;
}

/// Kilobytes of files that a process has resident: of its program, and of libraries.
fn resident_of_files_kb(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("the kernel tells");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_lets_go_of_what_only_its_start_needed_and_serves_on() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let directory = mesh.directory().display().to_string();
    let arguments =
        ["--config", &directory, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    let weft = Weft::run(&binary::weft(), &arguments).await;
    let at_start = resident_of_files_kb(weft.process());
    let let_go = || async {
        let now = resident_of_files_kb(weft.process());
        (now < at_start * 2 / 3).then_some(())
    };
    eventually("most pages of the program are let go", let_go).await;
    for _ in 0..3 {
        assert_eq!(Request::get("/items").send(weft.listener(0)).await.status, 200);
    }
    // The same after a change.
    mesh.write("more.yaml", &virtual_service("catalog", "  - route: [{destination: {host: catalog}}]"));
    eventually("the change is served", || async {
        weft.metric("weft_config_generation", &[]).await.filter(|generation| *generation >= 2.0)
    })
    .await;
    eventually("pages are let go again", let_go).await;
    assert_eq!(Request::get("/items").send(weft.listener(0)).await.status, 200);
}
