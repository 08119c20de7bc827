//! Answers that rules give themselves: redirects and direct responses.

use support::mesh::virtual_service;
use support::{Answer, Mesh, Sides, TestProxy, ask};

async fn rules(rules: &[&str]) -> Sides {
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let (path, action) = rule.split_once(' ').expect("PATH ACTION");
            let kind = if path.ends_with('/') { "prefix" } else { "exact" };
            format!("  - {{match: [{{uri: {{{kind}: {path}}}}}], {action}}}\n")
        })
        .collect();
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .with("rules.yaml", &virtual_service("catalog", &rules.concat()));
    TestProxy::of(mesh).listen("catalog", 8000).both().await
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects() {
    let proxies = rules(&[
        "/plain redirect: {uri: /x}",
        "/host redirect: {uri: /x, authority: y}",
        "/host-port redirect: {authority: 'y:9'}",
        "/query redirect: {uri: '/x?z=1', redirectCode: 302, scheme: https}",
        "/all redirect: {uri: /x, authority: y, port: 8443, scheme: https, redirectCode: 307}",
        "/own-port redirect: {derivePort: FROM_REQUEST_PORT, redirectCode: 308}",
        "/default-port redirect: {derivePort: FROM_PROTOCOL_DEFAULT, scheme: https, redirectCode: 303}",
        "/port redirect: {port: 8080}",
        "/port80 redirect: {port: 80}",
        "/port443 redirect: {scheme: https, port: 443}",
        "/scheme redirect: {scheme: https}",
        "/old/ redirect: {uri: '%PREFIX()%/new/'}",
    ])
    .await;
    // Host and path, whether the client came by https, the status and the location.
    let table = [
        ("catalog/plain", false, 301, "http://catalog/x"),
        ("catalog/plain?q=1", false, 301, "http://catalog/x?q=1"),
        ("catalog:8000/plain", false, 301, "http://catalog:8000/x"),
        ("catalog/plain", true, 301, "https://catalog/x"),
        ("catalog:8000/host", false, 301, "http://y/x"),
        ("catalog:8000/host-port", false, 301, "http://y:9/host-port"),
        ("catalog/query?q=1", false, 302, "https://catalog/x?z=1"),
        ("catalog:80/query", false, 302, "https://catalog/x?z=1"),
        ("catalog/all?q=1", false, 307, "https://y:8443/x?q=1"),
        ("catalog/own-port", false, 308, "http://catalog:8000/own-port"),
        ("catalog:9/own-port", false, 308, "http://catalog:8000/own-port"),
        ("catalog:80/default-port", false, 303, "https://catalog/default-port"),
        ("catalog:9/port", false, 301, "http://catalog:8080/port"),
        ("[::1]:9/port", false, 301, "http://[::1]:8080/port"),
        ("catalog:9/port80", false, 301, "http://catalog:9/port80"),
        ("catalog:80/port443", false, 301, "https://catalog/port443"),
        ("catalog:80/scheme", false, 301, "https://catalog/scheme"),
        ("catalog:8000/scheme", false, 301, "https://catalog:8000/scheme"),
        ("[::1]:80/scheme", false, 301, "https://[::1]/scheme"),
        ("[::1]/scheme", false, 301, "https://[::1]/scheme"),
        // The scheme stays, and so does its port.
        ("catalog:443/scheme", true, 301, "https://catalog:443/scheme"),
        ("catalog/old/", false, 301, "http://catalog/new/"),
        ("catalog/old/a/b?c=d", false, 301, "http://catalog/new/a/b?c=d"),
    ];
    for side in proxies.each() {
        for (target, https, status, location) in table {
            let (host, path) = target.split_at(target.find('/').expect("a path"));
            let scheme = if https { "X-Forwarded-Proto: https\n" } else { "" };
            let answer =
                ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: {host}\n{scheme}\n")).await;
            assert_eq!(answer.status, status, "{}: {target}", side.name());
            assert_eq!(answer.header("location"), location, "{}: {target}", side.name());
            assert_eq!(answer.text(), "", "{}: {target}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_responses() {
    let proxies = rules(&[
        "/text directResponse: {status: 503, body: {string: down}}",
        "/bytes directResponse: {status: 200, body: {bytes: 'AP-_'}}",
        "/none directResponse: {status: 200}",
        "/204 directResponse: {status: 204}",
        "/201 directResponse: {status: 201, body: {string: made}}",
        "/301 directResponse: {status: 301}",
        "/headers directResponse: {status: 418, body: {string: tea}}, headers: {response: {set: {x-a: '%REQ(x-in)%', \
            server: mine}, add: {content-type: a/b}, remove: [content-type]}}",
    ])
    .await;
    let headers = |answer: &Answer| {
        ["content-type", "location", "x-a", "server"].map(|name| answer.header(name).to_owned())
    };
    let table: [(&str, u16, &[u8], [&str; 4]); 7] = [
        ("/text", 503, b"down", ["text/plain", "", "", "envoy"]),
        ("/bytes", 200, &[0, 255, 191], ["text/plain", "", "", "envoy"]),
        ("/none", 200, b"", ["", "", "", "envoy"]),
        ("/204", 204, b"", ["", "", "", "envoy"]),
        ("/201", 201, b"made", ["text/plain", "http://catalog/201", "", "envoy"]),
        ("/301?x", 301, b"", ["", "http://catalog/301?x", "", "envoy"]),
        ("/headers", 418, b"tea", ["a/b", "", "in", "envoy"]),
    ];
    for side in proxies.each() {
        for (path, status, body, expected) in table {
            let request = format!("GET {path} HTTP/1.1\nHost: catalog\nX-In: in\n\n");
            let answer = ask(side.listener(0), &request).await;
            assert_eq!((answer.status.as_u16(), &*answer.body), (status, body), "{}: {path}", side.name());
            assert_eq!(headers(&answer), expected, "{}: {path}", side.name());
            let answer = ask(side.listener(0), &request.replace("GET", "HEAD")).await;
            assert_eq!((answer.status.as_u16(), &*answer.body), (status, &b""[..]), "{}", side.name());
        }
    }
}

/// A gRPC client is told in gRPC's way.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_grpc() {
    let proxies = rules(&[
        "/503 directResponse: {status: 503, body: {string: 'down % \u{e9}'}}",
        "/200 directResponse: {status: 200}",
        "/403 directResponse: {status: 403, body: {string: no}}",
        "/redirect redirect: {uri: /x}",
    ])
    .await;
    let table = [
        ("/503", "14", "down %25 %C3%A9", ""),
        ("/200", "2", "", ""),
        ("/403", "7", "no", ""),
        ("/redirect", "2", "", "http://catalog/x"),
        ("/nothing", "12", "", ""),
    ];
    for side in proxies.each() {
        for (path, status, message, location) in table {
            let request = format!(
                "POST {path} HTTP/1.1\nHost: catalog\nContent-Type: application/grpc\nContent-Length: 0\n\n"
            );
            let answer = ask(side.listener(0), &request).await;
            let name = side.name();
            assert_eq!(answer.status, 200, "{name}: {path}");
            assert_eq!(answer.header("content-type"), "application/grpc", "{name}: {path}");
            assert_eq!(answer.header("grpc-status"), status, "{name}: {path}");
            assert_eq!(answer.header("grpc-message"), message, "{name}: {path}");
            assert_eq!(answer.header("location"), location, "{name}: {path}");
            assert_eq!(answer.text(), "", "{name}: {path}");
        }
    }
}

/// An answer that is given before the request has come in full ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_read_costs_its_connection() {
    let proxies = rules(&["/now directResponse: {status: 200, body: {string: now}}"]).await;
    for side in proxies.each() {
        let table = [
            ("POST /now HTTP/1.1\nHost: catalog\nContent-Length: 10\n\n12345", "close"),
            ("POST /now HTTP/1.1\nHost: catalog\nTransfer-Encoding: chunked\n\n", "close"),
            ("POST /now HTTP/1.1\nHost: catalog\nContent-Length: 0\n\n", ""),
        ];
        for (request, connection) in table {
            let answer = ask(side.listener(0), request).await;
            assert_eq!(answer.text(), "now", "{}", side.name());
            assert_eq!(answer.header("connection"), connection, "{}: {request}", side.name());
        }
    }
}
