//! The access log: each exit of a request is one line, with every field of Istio's format.

use std::net::SocketAddr;

use support::log::{FIELDS, Line};
use support::mesh::virtual_service;
use support::{Log, Mesh, Side, Sides, TestBackend, TestProxy, Wire, ask};

async fn shop() -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let rules = "  - {name: direct, match: [{uri: {exact: /direct}}], directResponse: {status: 200, body: {string: hi}}}\n  \
                 - {name: away, match: [{uri: {exact: /away}}], redirect: {uri: /x}}\n  \
                 - name: main\n    match: [{name: v1, uri: {prefix: /v1/}}]\n    rewrite: {uri: /, authority: new}\n    \
                 route: [{destination: {host: catalog}}]\n  \
                 - {match: [{uri: {exact: /echo}}], route: [{destination: {host: catalog}}]}\n";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", rules));
    let mesh = Log::configure(mesh, "");
    (backend, TestProxy::of(mesh).listen_outbound(8000).both().await)
}

/// What a field must be: the text itself, or the kind of it in angle brackets.
fn check(line: &Line, field: &str, expected: &str, case: &str) {
    let value = line.field(field);
    let holds = match expected {
        "<time>" => is_time(value),
        "<number>" => value.parse::<u64>().is_ok(),
        "<uuid>" => value.len() == 36 && value.split('-').count() == 5,
        "<address>" => value.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0),
        text => value == text,
    };
    assert!(holds, "{field} is {value:?}, not {expected:?}: {case}");
}

/// `2026-11-22T10:11:12.345Z`.
fn is_time(text: &str) -> bool {
    let shape: String =
        text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

const CATALOG: &str = "outbound|8000||catalog.shop.svc.cluster.local";

/// A request, and what its line says. Fields are those of the format; those not named are as in `USUAL`.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const USUAL: [(&str, &str); 24] = [
    ("start_time", "<time>"),
    ("method", "GET"),
    ("path", "/echo"),
    ("protocol", "HTTP/1.1"),
    ("response_code", "200"),
    ("response_flags", "-"),
    ("response_code_details", "via_upstream"),
    ("connection_termination_details", "-"),
    ("upstream_transport_failure_reason", "-"),
    ("bytes_received", "0"),
    ("bytes_sent", "<number>"),
    ("duration", "<number>"),
    ("upstream_service_time", "<number>"),
    ("x_forwarded_for", "-"),
    ("user_agent", "-"),
    ("request_id", "<uuid>"),
    ("authority", "catalog"),
    ("upstream_host", "<address>"),
    ("upstream_cluster", CATALOG),
    ("upstream_local_address", "<address>"),
    ("downstream_local_address", "<address>"),
    ("downstream_remote_address", "<address>"),
    ("requested_server_name", "-"),
    ("route_name", "-"),
];

/// What a line says of a request that went to no upstream.
const NOWHERE: [(&str, &str); 4] = [
    ("upstream_service_time", "-"),
    ("upstream_host", "-"),
    ("upstream_cluster", "-"),
    ("upstream_local_address", "-"),
];

const ANSWERED: &[Case] = &[
    ("GET /echo HTTP/1.1\nHost: catalog\n\n", &[]),
    (
        "POST /echo HTTP/1.1\nHost: catalog:8000\nUser-Agent: a b\nX-Request-Id: mine\nContent-Length: 5\n\nhello",
        &[
            ("method", "POST"),
            ("bytes_received", "5"),
            ("user_agent", "a b"),
            ("request_id", "mine"),
            ("authority", "catalog:8000"),
        ],
    ),
    // What the client said, and the rule by its name and its match's. A rewritten authority is logged as rewritten.
    (
        "GET /v1/items?x=1 HTTP/1.1\nHost: catalog\n\n",
        &[("path", "/v1/items?x=1"), ("authority", "new"), ("route_name", "main.v1")],
    ),
    // The last address of x-forwarded-for is taken for the client's, as it came through a proxy of the same pod.
    (
        "GET /echo HTTP/1.1\nHost: catalog\nX-Forwarded-For: 10.1.1.1, 10.2.2.2\n\n",
        &[("x_forwarded_for", "10.1.1.1, 10.2.2.2"), ("downstream_remote_address", "10.2.2.2:0")],
    ),
    ("GET /echo HTTP/1.1\nHost: catalog\nX-Forwarded-For: nonsense\n\n", &[("x_forwarded_for", "nonsense")]),
    ("HEAD /echo HTTP/1.1\nHost: catalog\n\n", &[("method", "HEAD"), ("bytes_sent", "0")]),
];

const NOT_FORWARDED: &[Case] = &[
    (
        "GET /direct HTTP/1.1\nHost: catalog\n\n",
        &[
            ("path", "/direct"),
            ("response_code_details", "direct_response"),
            ("bytes_sent", "2"),
            ("route_name", "direct"),
        ],
    ),
    (
        "GET /away HTTP/1.1\nHost: catalog\n\n",
        &[
            ("path", "/away"),
            ("response_code", "301"),
            ("response_code_details", "direct_response"),
            ("bytes_sent", "0"),
            ("route_name", "away"),
        ],
    ),
    (
        "GET /nothing HTTP/1.1\nHost: catalog\n\n",
        &[
            ("path", "/nothing"),
            ("response_code", "404"),
            ("response_flags", "NR"),
            ("response_code_details", "route_not_found"),
            ("bytes_sent", "0"),
        ],
    ),
    (
        "GET /echo HTTP/1.1\n\n",
        &[
            ("authority", "-"),
            ("response_code", "400"),
            ("response_code_details", "missing_host_header"),
            ("bytes_sent", "0"),
            ("request_id", "-"),
        ],
    ),
    (
        "GET /a%00b HTTP/1.1\nHost: catalog\n\n",
        &[
            ("path", "/a%00b"),
            ("response_code", "400"),
            ("response_code_details", "path_normalization_failed"),
            ("bytes_sent", "0"),
            ("request_id", "-"),
        ],
    ),
];

async fn check_table(proxies: &Sides, table: &[Case], usual: &[(&str, &str)]) {
    for side in proxies.each() {
        let mut log = Log::of(&proxies.weft.mesh, side);
        for (request, _) in table {
            ask(side.listener(0), request).await;
        }
        for (request, fields) in table {
            let line = log.next().await;
            let case = format!("{}: {request}: {line:?}", side.name());
            for field in FIELDS {
                let named = |list: &[(&str, &'static str)]| {
                    list.iter().find(|(name, _)| *name == field).map(|(_, value)| *value)
                };
                let usual = usual.iter().find(|(name, _)| *name == field).map(|(_, value)| *value);
                let expected = named(fields).or(usual).or(named(&USUAL)).expect("every field is usual");
                check(&line, field, expected, &case);
            }
        }
        assert_eq!(log.unread(), "", "{}: one line a request", side.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_an_upstream() {
    let (_backend, proxies) = shop().await;
    check_table(&proxies, ANSWERED, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_our_own() {
    let (_backend, proxies) = shop().await;
    check_table(&proxies, NOT_FORWARDED, &NOWHERE).await;
}

/// A connection without a request, or with a part of one, is no request.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_not_logged() {
    let (_backend, proxies) = shop().await;
    let side = Side::Weft(&proxies.weft);
    for part in ["", "G", "GET / HTT", "GET / HTTP/1.1\r\nHost: catalog\r\n"] {
        let mut wire = Wire::connect(side.listener(0)).await;
        wire.send(part).await;
    }
    ask(side.listener(0), "GET /echo HTTP/1.1\nHost: catalog\n\n").await;
    let mut log = Log::of(&proxies.weft.mesh, side);
    assert_eq!(log.next().await.field("path"), "/echo");
    assert_eq!(log.unread(), "");
}

/// What rules change shows in formats of one's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_format_of_ones_own() {
    let backend = TestBackend::echo("catalog").await;
    let rule = "  - headers: {request: {set: {x-set: rule}}, response: {set: {x-back: back}}}\n    \
                rewrite: {uri: /new}\n    route: [{destination: {host: catalog}}]";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", rule));
    let format = "accessLogFormat: '%REQ(X-SET)% %REQ(X-IN):3% %RESP(X-BACK)% %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)% \
                  %REQ(X-NONE?X-IN)% %UPSTREAM_REQUEST_ATTEMPT_COUNT% 100%%'\n";
    let mesh = Log::configure(mesh, format);
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        ask(side.listener(0), "GET /old HTTP/1.1\nHost: catalog\nX-In: abcdef\n\n").await;
        let log = Log::of(&proxies.weft.mesh, side);
        let text = support::eventually("a line", || async {
            Some(log.unread()).filter(|text| text.ends_with('\n'))
        })
        .await;
        assert_eq!(text, format!("rule abc back /newold /old abcdef 1 100%\n"), "{}", side.name());
    }
}

/// Lines that are JSON objects: the same values under the same names, numbers as numbers, what is missing as null.
#[tokio::test(flavor = "multi_thread")]
async fn json_has_the_same_values() {
    let backend = TestBackend::echo("catalog").await;
    let rules = "  - {name: direct, match: [{uri: {exact: /direct}}], directResponse: {status: 200, body: {string: hi}}}\n  \
                 - {match: [{uri: {exact: /echo}}], route: [{destination: {host: catalog}}]}\n";
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("rules.yaml", &virtual_service("catalog", rules));
    let proxies =
        TestProxy::of(Log::configure(mesh, "accessLogEncoding: JSON\n")).listen_outbound(8000).both().await;
    let forwarded =
        "POST /echo HTTP/1.1\nHost: catalog\nUser-Agent: a \"b\" \\ \u{e9}\nContent-Length: 5\n\nhello";
    for side in proxies.each() {
        let mut log = Log::of(&proxies.weft.mesh, side);
        for request in [forwarded, "GET /direct HTTP/1.1\nHost: catalog\n\n", "GET /echo HTTP/1.1\n\n"] {
            ask(side.listener(0), request).await;
        }
        let mut lines = Vec::new();
        for _ in 0..3 {
            let text = log.next_text().await;
            let line: serde_json::Value = serde_json::from_str(&text).expect("a line is JSON");
            let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
            let mut fields = FIELDS;
            fields.sort_unstable();
            assert_eq!(keys, fields, "{}", side.name());
            // Envoy sorts them too, and writes no spaces.
            assert!(text.starts_with("{\"authority\":") && !text.contains("\": "), "{}: {text}", side.name());
            lines.push(line);
        }
        let of = |line: usize, fields: &[&str]| {
            fields.iter().map(|field| lines[line][field].to_string()).collect::<Vec<_>>().join(" ")
        };
        let name = side.name();
        let counts = ["response_code", "bytes_received", "response_flags", "response_code_details"];
        assert_eq!(of(0, &counts), "200 5 \"-\" \"via_upstream\"", "{name}");
        assert_eq!(lines[0]["user_agent"], "a \"b\" \\ \u{e9}", "{name}");
        assert_eq!(of(0, &["upstream_cluster"]), format!("\"{CATALOG}\""), "{name}");
        assert!(lines[0]["duration"].is_u64() && lines[0]["bytes_sent"].is_u64(), "{name}: {}", lines[0]);
        // A header's value is text, also where it is a number.
        assert!(lines[0]["upstream_service_time"].is_string(), "{name}: {}", lines[0]);
        assert!(is_time(lines[0]["start_time"].as_str().unwrap_or_default()), "{name}: {}", lines[0]);
        assert_eq!(of(0, &["route_name", "requested_server_name"]), "null null", "{name}");
        assert_eq!(of(1, &["route_name", "bytes_sent", "upstream_host"]), "\"direct\" 2 null", "{name}");
        assert_eq!(of(2, &counts), "400 0 \"-\" \"missing_host_header\"", "{name}");
        assert_eq!(of(2, &["authority", "request_id", "upstream_cluster"]), "null null null", "{name}");
    }
}

/// An object of one's own is written as Envoy writes it, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn json_of_ones_own() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let format = "accessLogEncoding: JSON\naccessLogFormat: '{\"z\": \"%PROTOCOL%\", \"a\": {\"n\": [\"%RESPONSE_CODE%\", 5, \
                  1.5, true, null, {}, \"x\"]}, \"mixed\": \"%REQ(:METHOD)% 100%% %REQ(X-NONE)% %BYTES_RECEIVED%\", \"cut\": \
                  \"%REQ(X-IN):3%\", \"none\": \"%REQ(X-NONE)%\", \"tries\": \"%UPSTREAM_REQUEST_ATTEMPT_COUNT%\"}'\n";
    let proxies = TestProxy::of(Log::configure(mesh, format)).listen("catalog", 8000).both().await;
    for side in proxies.each() {
        ask(side.listener(0), "GET / HTTP/1.1\nHost: catalog\nX-In: a\"bcdef\n\n").await;
        let line = Log::of(&proxies.weft.mesh, side).next_text().await;
        let expected = r#"{"a":{"n":[200,5,1.5,true,null,{},"x"]},"cut":"a\"b","mixed":"GET 100% - 0","none":null,"tries":1,"z":"HTTP/1.1"}"#;
        assert_eq!(line, expected, "{}", side.name());
    }
    let dump: serde_json::Value =
        serde_json::from_str(&proxies.weft.page("/config_dump?resource=dynamic_listeners").await)
            .expect("JSON");
    let listener = &dump["configs"][0]["active_state"]["listener"];
    let log = &listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][0]["typed_config"];
    assert_eq!(log["log_format"]["json_format"]["a"]["n"][1], 5, "{log:#}");
}
