//! What rules change in a request on its way to the upstream and in a response on its way back.

use http::Method;
use support::mesh::virtual_service;
use support::{Answer, Mesh, Request, ScriptedBackend, Sides, TestBackend, TestProxy, ask};

async fn rules(rules: &[&str]) -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let rules: String = rules.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", &rules));
    (backend, TestProxy::of(mesh).listen("catalog", 8000).both().await)
}

const CATALOG: &str = "route: [{destination: {host: catalog}}]";

/// What the upstream saw of a header, `-` for nothing.
fn saw(answer: &Answer, name: &str) -> String {
    let values = answer.json()["headers"][name].as_array().cloned().unwrap_or_default();
    let values: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
    if values.is_empty() { "-".to_owned() } else { values.join(" & ") }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_hosts() {
    let rule =
        |matches: &str, rewrite: &str| format!("match: [{{{matches}}}], rewrite: {{{rewrite}}}, {CATALOG}");
    let written = [
        rule("uri: {prefix: /pre/}", "uri: /"),
        rule("uri: {prefix: /word}", "uri: /b"),
        rule("uri: {prefix: /CASE}, ignoreUriCase: true", "uri: /b"),
        rule("uri: {prefix: /cut}", "uri: /"),
        rule("uri: {exact: /whole}", "uri: /b, authority: new.example"),
        rule("uri: {regex: '/rex.*'}", "uri: /b"),
        rule(
            "uri: {prefix: /groups}",
            "uriRegexRewrite: {match: '/groups/([^/]+)/(.*)', rewrite: '/\\2/x/\\1'}",
        ),
        rule("uri: {prefix: /every}", "uriRegexRewrite: {match: 'a', rewrite: 'b'}"),
        rule("uri: {prefix: /query}", "uriRegexRewrite: {match: '^/query', rewrite: '/q?y=1'}"),
        rule("uri: {prefix: /host}", "authority: 'new.example:81'"),
        rule("uri: {prefix: /broken}", "uriRegexRewrite: {match: '^/broken', rewrite: x}"),
    ];
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    let (_backend, proxies) = rules(&written).await;
    // Path, path and host at the upstream.
    let table = [
        ("/pre/a", "/a", "catalog"),
        ("/pre/", "/", "catalog"),
        ("/pre//x", "//x", "catalog"),
        ("/word", "/b", "catalog"),
        ("/word/c?x=/word", "/b/c?x=/word", "catalog"),
        ("/wordy", "/by", "catalog"),
        ("/case/x", "/b/x", "catalog"),
        ("/Cased", "/bd", "catalog"),
        ("/cut/x", "//x", "catalog"),
        ("/cut", "/", "catalog"),
        ("/whole?q=1", "/b?q=1", "new.example"),
        ("/rex1", "/b", "catalog"),
        ("/rex/a?b=c", "/b?b=c", "catalog"),
        ("/groups/a/b", "/b/x/a", "catalog"),
        ("/groups/a/b?c=/groups/1/2", "/b/x/a?c=/groups/1/2", "catalog"),
        ("/groups/a", "/groups/a", "catalog"),
        ("/every/aa?a=a", "/every/bb?a=a", "catalog"),
        ("/query", "/q?y=1", "catalog"),
        ("/query?x=1", "/q?y=1?x=1", "catalog"),
        ("/host/x", "/host/x", "new.example:81"),
    ];
    for side in proxies.each() {
        let name = side.name();
        for (path, new_path, host) in table {
            let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            assert_eq!(answer.json()["path"], new_path, "{name}: {path}");
            assert_eq!(saw(&answer, "host"), host, "{name}: {path}");
            // What the client said is kept where it was rewritten.
            let original = if path.starts_with("/host") { "-" } else { path };
            assert_eq!(saw(&answer, "x-envoy-original-path"), original, "{name}: {path}");
            let original = if host == "catalog" { "-" } else { "catalog" };
            assert_eq!(saw(&answer, "x-envoy-original-host"), original, "{name}: {path}");
        }
        // What would be no path goes to no upstream.
        let answer = ask(side.listener(0), "GET /broken/x HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(answer.status, 400, "{name}");
    }
}

/// Headers of a request that is changed.
const REQUEST: &str = "GET /h?x HTTP/1.1\nHost: catalog\nX-In: in\nX-Rm: 1\nX-Both: 1\nX-D-Rm: 1\nX-Set: old\nX-Add: old\n\
                       User-Agent: ua\nX-Miss: old\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn request_headers() {
    let (_backend, proxies) = rules(&[&format!(
        "headers: {{request: {{set: {{x-set: rule, x-empty: '', x-percent: '100%%', x-dynamic: '%REQ(x-in)%', \
         x-miss: '%REQ(x-none)%', x-mixed: 'a-%REQ(x-none)%-b', x-protocol: '%PROTOCOL%', x-host: '%REQ(:authority)%', \
         x-path: '%REQ(:path)%', x-method: '%REQ(:method)%', x-rule: '%ROUTE_NAME%', \
         x-ip: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}, add: {{x-add: rule, x-both: again}}, \
         remove: [x-rm, x-both, user-agent, x-request-id]}}}}, {CATALOG}"
    )])
    .await;
    let expected = [
        ("x-set", "rule"),
        ("x-add", "old & rule"),
        ("x-rm", "-"),
        // Removal comes first.
        ("x-both", "again"),
        ("user-agent", "-"),
        ("x-request-id", "-"),
        ("x-percent", "100%"),
        ("x-dynamic", "in"),
        ("x-protocol", "HTTP/1.1"),
        ("x-host", "catalog"),
        ("x-path", "/h?x"),
        ("x-method", "GET"),
        ("x-ip", "127.0.0.1"),
        // What comes out empty is not written, and what was there stays.
        ("x-empty", "-"),
        ("x-miss", "old"),
        ("x-mixed", "a--b"),
        ("x-rule", "-"),
    ];
    for side in proxies.each() {
        let answer = ask(side.listener(0), REQUEST).await;
        for (name, value) in expected {
            assert_eq!(saw(&answer, name), value, "{}: {name}", side.name());
        }
    }
}

/// A rule and its destinations may both change headers: of several destinations the destination comes first, so that
/// the rule has the last word; an only destination comes after its rule.
#[tokio::test(flavor = "multi_thread")]
async fn rules_and_destinations() {
    let headers = |level: &str| {
        format!(
            "headers: {{request: {{set: {{x-set: {level}}}, add: {{x-add: {level}}}, remove: [x-rm-{level}]}}, \
             response: {{set: {{x-set: {level}}}, add: {{x-add: {level}}}}}}}"
        )
    };
    let destination = format!("destination: {{host: catalog}}, {}", headers("destination"));
    let rule = headers("rule");
    let (_backend, proxies) = rules(&[
        &format!("match: [{{uri: {{prefix: /one}}}}], {rule}, route: [{{{destination}}}]"),
        &format!("{rule}, route: [{{weight: 1, {destination}}}, {{weight: 1, {destination}}}]"),
    ])
    .await;
    for side in proxies.each() {
        for (path, set, add) in
            [("/one", "destination", "rule & destination"), ("/several", "rule", "destination & rule")]
        {
            let request =
                format!("GET {path} HTTP/1.1\nHost: catalog\nX-Rm-Rule: 1\nX-Rm-Destination: 1\n\n");
            let answer = ask(side.listener(0), &request).await;
            let name = side.name();
            assert_eq!(saw(&answer, "x-set"), set, "{name}: {path}");
            assert_eq!(saw(&answer, "x-add"), add, "{name}: {path}");
            assert_eq!(saw(&answer, "x-rm-rule"), "-", "{name}: {path}");
            assert_eq!(saw(&answer, "x-rm-destination"), "-", "{name}: {path}");
            assert_eq!(answer.header("x-set"), set, "{name}: {path}");
            let added: Vec<_> = answer.headers.get_all("x-add").iter().collect();
            // Envoy does not promise in which order the values of one header come out.
            assert_eq!(added.len(), 2, "{name}: {path}: {added:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_destinations() {
    let (_backend, proxies) = rules(&[
        &format!("match: [{{uri: {{prefix: /rule}}}}], headers: {{request: {{set: {{host: rule.example}}}}}}, {CATALOG}"),
        "route: [{destination: {host: catalog}, weight: 1, headers: {request: {set: {host: destination.example}}}}, \
         {destination: {host: catalog}, weight: 1, headers: {request: {set: {host: destination.example}}}}]",
    ])
    .await;
    for side in proxies.each() {
        for (path, host, original) in
            [("/rule", "rule.example", "catalog"), ("/destination", "destination.example", "-")]
        {
            let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            assert_eq!(saw(&answer, "host"), host, "{}: {path}", side.name());
            assert_eq!(saw(&answer, "x-envoy-original-host"), original, "{}: {path}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn response_headers() {
    let backend = ScriptedBackend::answers(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-set: app\r\nx-add: app\r\nx-rm: app\r\nx-keep: app\r\n\r\nok",
    )
    .await;
    let rule = "  - headers: {response: {set: {x-set: rule, x-request: '%REQ(x-in)%', x-path: '%REQ(:path)%', \
                x-code: '%RESPONSE_CODE%', x-flags: '%RESPONSE_FLAGS%', x-details: '%RESPONSE_CODE_DETAILS%', \
                x-cluster: '%UPSTREAM_CLUSTER%', x-keep: '%RESP(x-none)%', server: rule, x-copy: '%RESP(x-add)%'}, \
                add: {x-add: rule}, remove: [x-rm]}}\n    rewrite: {uri: /new}\n    \
                route: [{destination: {host: catalog}}]";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", rule));
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    let expected = [
        ("x-set", "rule"),
        ("x-rm", ""),
        ("x-keep", "app"),
        ("x-copy", "app"),
        ("x-request", "in"),
        ("x-path", "/new"),
        ("x-code", "200"),
        ("x-flags", "-"),
        ("x-details", "via_upstream"),
        ("x-cluster", "outbound|8000||catalog.shop.svc.cluster.local"),
        ("server", "envoy"),
    ];
    for side in proxies.each() {
        let answer = ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\nX-In: in\n\n").await;
        for (name, value) in expected {
            assert_eq!(answer.header(name), value, "{}: {name}", side.name());
        }
        let added: Vec<_> = answer.headers.get_all("x-add").iter().collect();
        assert_eq!(added, ["app", "rule"], "{}", side.name());
    }
}

/// A proxy with this rule before an echo at this port, such as `http2/8000`.
async fn before(port: &str, rule: &str) -> (TestBackend, TestProxy) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new()
        .service("catalog", port)
        .endpoint("catalog", port.split('/').next().expect("a protocol"), "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", &format!("  - {{{rule}}}\n")));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    (backend, proxy)
}

/// What is about one connection or says where a message ends is the proxy's to tell, whatever a rule says. Envoy writes it, and
/// its upstream waits for a body that does not come.
#[tokio::test(flavor = "multi_thread")]
async fn framing_is_not_changed() {
    let own =
        "content-length: '77', connection: x-b, transfer-encoding: gzip, upgrade: a, keep-alive: b, te: gzip";
    let rule = format!(
        "headers: {{request: {{set: {{{own}}}}}, response: {{set: {{{own}, x-a: 'yes'}}}}}}, {CATALOG}"
    );
    for port in ["http/8000", "http2/8000"] {
        let (_backend, proxy) = before(port, &rule).await;
        for http2 in [false, true] {
            let mut request = Request::new(Method::POST, "/").host("catalog").body("four");
            if http2 {
                request = request.http2();
            }
            let told = format!("{port} {http2}");
            let answer = request.send(proxy.listener(0)).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-a")), (200, "yes"), "{told}");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{told}");
            let seen = ["content-length", "upgrade", "keep-alive", "te"].map(|name| saw(&answer, name));
            assert_eq!((seen.join(" ").as_str(), answer.header("te")), ("4 - - -", ""), "{told}");
        }
    }
}

/// That it takes trailers may be said of a request, to whatever upstream.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_may_be_asked_for() {
    let rule = format!(
        "headers: {{request: {{set: {{te: trailers}}}}, response: {{set: {{te: trailers}}}}}}, {CATALOG}"
    );
    for port in ["http/8000", "http2/8000"] {
        let (_backend, proxy) = before(port, &rule).await;
        let answer = Request::get("/").host("catalog").http2().send(proxy.listener(0)).await;
        assert_eq!((saw(&answer, "te").as_str(), answer.header("te")), ("trailers", ""), "{port}");
    }
}

/// Errors that come of carrying out a rule are changed like its answers, and by its destination, too.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_changed_like_answers() {
    let headers = |level: &str| format!("headers: {{response: {{set: {{x-{level}: '%RESPONSE_CODE%'}}}}}}");
    let destination = |host: &str| format!("{{destination: {{host: {host}}}, {}}}", headers("destination"));
    let rule = |path: &str, routes: &str, more: &str| {
        format!("  - {{match: [{{uri: {{exact: {path}}}}}], {}, route: [{routes}]{more}}}\n", headers("rule"))
    };
    let slow = ScriptedBackend::new(|mut peer| async move { drop(peer.rest().await) }).await;
    let written = [
        rule("/unhealthy", &destination("catalog"), ""),
        rule(
            "/unhealthy-split",
            &format!("{0}, {0}", destination("catalog").replace("}, h", "}, weight: 1, h")),
            "",
        ),
        rule("/no-cluster", &destination("absent"), ""),
        rule("/slow", &destination("slow"), ", timeout: 50ms"),
    ];
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .service("slow", "http/8000")
        .endpoint("slow", "http", "v1", slow.address)
        .with("rules.yaml", &virtual_service("catalog", &written.concat()));
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    let table = [
        ("/unhealthy", 503, ["0", "0"]),
        ("/unhealthy-split", 503, ["0", "0"]),
        ("/no-cluster", 503, ["0", "0"]),
        ("/slow", 504, ["0", "0"]),
        ("/nothing", 404, ["", ""]),
    ];
    for side in proxies.each() {
        for (path, status, expected) in table {
            let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            let seen = ["x-rule", "x-destination"].map(|name| answer.header(name));
            assert_eq!((answer.status.as_u16(), seen), (status, expected), "{}: {path}", side.name());
        }
    }
}
