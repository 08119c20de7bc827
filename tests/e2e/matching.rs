//! Which rule applies: every condition that a VirtualService may set.

use support::mesh::virtual_service;
use support::{Mesh, Sides, TestProxy, ask};

/// Rules that answer with their own name; a request that meets none is answered 404. Each is `NAME MATCH`.
async fn rules(rules: &[&str]) -> Sides {
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let (name, matches) = rule.split_once(' ').expect("NAME MATCH");
            format!("  - {{match: [{matches}], directResponse: {{status: 200, body: {{string: {name}}}}}}}\n")
        })
        .collect();
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .with("rules.yaml", &virtual_service("catalog", &rules.concat()));
    TestProxy::of(mesh).listen("catalog", 8000).both().await
}

/// Requests as `METHOD PATH [HEADER; HEADER...]` and the name of the rule that answers, or `-`.
async fn check(proxies: &Sides, table: &[(&str, &str)]) {
    for side in proxies.each() {
        for (request, expected) in table {
            let (line, headers) = request.split_once(" [").unwrap_or((request, ""));
            let headers = headers.trim_end_matches(']').split("; ").filter(|header| !header.is_empty());
            let mut host = "Host: catalog\n";
            let mut text = format!("{line} HTTP/1.1\n");
            for header in headers {
                if header.starts_with("Host:") {
                    host = "";
                }
                text += &format!("{header}\n");
            }
            let answer = ask(side.listener(0), &format!("{text}{host}\n")).await;
            let seen = match answer.status.as_u16() {
                200 => answer.text(),
                404 => "-".to_owned(),
                other => panic!("{}: {request}: {other}", side.name()),
            };
            assert_eq!(seen, *expected, "{}: {request}", side.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths() {
    let proxies = rules(&[
        "exact {uri: {exact: /exact}}",
        "case-exact {uri: {exact: /CaseExact}, ignoreUriCase: true}",
        "case-prefix {uri: {prefix: /CasePrefix}, ignoreUriCase: true}",
        "regex {uri: {regex: '/re[0-9]+/.*'}}",
        "prefix {uri: {prefix: /prefix}}",
        "slash {uri: {prefix: /slash/}}",
    ])
    .await;
    let table = [
        ("GET /exact", "exact"),
        ("GET /exact?x=1", "exact"),
        ("GET /exact/", "-"),
        ("GET /Exact", "-"),
        ("GET /exactly", "-"),
        ("GET /caseexact", "case-exact"),
        ("GET /CASEEXACT?x", "case-exact"),
        ("GET /caseexactx", "-"),
        ("GET /caseprefixed/x", "case-prefix"),
        ("GET /re1/x", "regex"),
        ("GET /re12/x?y", "regex"),
        ("GET /re12/?y", "regex"),
        ("GET /re/x", "-"),
        ("GET /x/re1/x", "-"),
        ("GET /prefix", "prefix"),
        ("GET /prefixed", "prefix"),
        ("GET /prefix/a", "prefix"),
        ("GET /slash", "-"),
        ("GET /slash/", "slash"),
        ("OPTIONS *", "-"),
    ];
    check(&proxies, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn method_scheme_and_authority() {
    let proxies = rules(&[
        "delete {method: {exact: DELETE}}",
        "pt {method: {regex: 'P.*T'}}",
        "https {scheme: {exact: https}}",
        "authority {authority: {exact: 'catalog:8000'}}",
        "authority-prefix {authority: {prefix: 'auth.'}}",
        "host-header {headers: {host: {regex: '.*[.]org'}}}",
    ])
    .await;
    let table = [
        ("GET /", "-"),
        ("DELETE /", "delete"),
        ("POST / [Content-Length: 0]", "pt"),
        ("PUT / [Content-Length: 0]", "pt"),
        ("PATCH / [Content-Length: 0]", "-"),
        ("GET / [X-Forwarded-Proto: https]", "https"),
        ("GET https://catalog/", "https"),
        ("GET http://catalog/", "-"),
        ("GET http://catalog/ [X-Forwarded-Proto: https]", "-"),
        ("GET / [Host: catalog:8000]", "authority"),
        ("GET / [Host: catalog:80]", "-"),
        ("GET / [Host: CATALOG:8000]", "-"),
        ("GET / [Host: auth.x]", "authority-prefix"),
        ("GET / [Host: Auth.x]", "-"),
        ("GET / [Host: a.org]", "host-header"),
        // A scheme that says nothing is no scheme, and no rule applies to it.
        ("DELETE / [X-Forwarded-Proto: ]", "-"),
    ];
    check(&proxies, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers() {
    let proxies = rules(&[
        "exact {headers: {x-exact: {exact: a}}}",
        "prefix {headers: {x-prefix: {prefix: ab}}}",
        "regex {headers: {x-regex: {regex: 'a+b'}}}",
        "present {headers: {x-present: {}}}",
        "empty {headers: {x-empty: {exact: ''}}}",
        "joined {headers: {x-joined: {exact: 'a,b'}}}",
        "cookie {headers: {cookie: {regex: '.*user=a.*'}}}",
    ])
    .await;
    let table = [
        ("GET / [x-exact: a]", "exact"),
        ("GET / [X-EXACT: a]", "exact"),
        ("GET / [x-exact: A]", "-"),
        ("GET / [x-exact: ab]", "-"),
        ("GET / [x-exact: ]", "-"),
        ("GET / [x-prefix: abc]", "prefix"),
        ("GET / [x-prefix: a]", "-"),
        ("GET / [x-regex: aab]", "regex"),
        ("GET / [x-regex: aabb]", "-"),
        ("GET / [x-present: ]", "present"),
        ("GET / [x-present: 1]", "present"),
        ("GET / [x-empty: ]", "empty"),
        ("GET / [x-empty: 1]", "-"),
        ("GET / [cookie: a=1;user=a]", "cookie"),
        // Several of one name: each is looked at by itself, and one is enough.
        ("GET / [x-exact: a; x-exact: b]", "exact"),
        ("GET / [x-exact: b; x-exact: a]", "exact"),
        ("GET / [x-exact: a,b]", "-"),
        ("GET / [x-prefix: zz; x-prefix: ab]", "prefix"),
        ("GET / [x-joined: a; x-joined: b]", "-"),
        ("GET / [x-joined: a,b]", "joined"),
        ("GET / [cookie: a=1; cookie: user=a]", "cookie"),
    ];
    check(&proxies, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_headers() {
    let proxies = rules(&[
        "exact {uri: {prefix: /exact}, withoutHeaders: {x-not: {exact: a}}}",
        "prefix {uri: {prefix: /prefix}, withoutHeaders: {x-not: {prefix: a}}}",
        "regex {uri: {prefix: /regex}, withoutHeaders: {x-not: {regex: 'a.*'}}}",
        "present {uri: {prefix: /present}, withoutHeaders: {x-not: {}}}",
        "anything {uri: {prefix: /anything}, withoutHeaders: {x-not: {regex: '*'}}}",
    ])
    .await;
    let table = [
        ("GET /exact", "exact"),
        ("GET /exact [x-not: a]", "-"),
        ("GET /exact [x-not: b]", "exact"),
        ("GET /exact [x-not: ]", "exact"),
        ("GET /exact [x-not: b; x-not: a]", "-"),
        ("GET /exact [x-not: b; x-not: c]", "exact"),
        ("GET /prefix", "prefix"),
        ("GET /prefix [x-not: ab]", "-"),
        ("GET /prefix [x-not: b]", "prefix"),
        ("GET /regex", "regex"),
        ("GET /regex [x-not: ab]", "-"),
        ("GET /regex [x-not: b]", "regex"),
        ("GET /present", "present"),
        ("GET /present [x-not: ]", "-"),
        ("GET /present [x-not: b]", "-"),
        ("GET /anything", "anything"),
        ("GET /anything [x-not: b]", "-"),
    ];
    check(&proxies, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_parameters() {
    let proxies = rules(&[
        "exact {queryParams: {q: {exact: a}}}",
        "prefix {queryParams: {q: {prefix: b}}}",
        "regex {queryParams: {q: {regex: '[0-9]+'}}}",
        "present {queryParams: {p: {}}}",
        "empty {queryParams: {e: {exact: ''}}}",
    ])
    .await;
    let table = [
        ("GET /?q=a", "exact"),
        ("GET /?q=A", "-"),
        ("GET /?Q=a", "-"),
        ("GET /?x=1&q=a&y", "exact"),
        ("GET /?&q=a", "exact"),
        ("GET /?q=ba", "prefix"),
        ("GET /?q=12", "regex"),
        ("GET /?q=1a", "-"),
        ("GET /?q", "-"),
        ("GET /?p", "present"),
        ("GET /?p=", "present"),
        ("GET /?p=1", "present"),
        ("GET /?e", "empty"),
        ("GET /?e=", "empty"),
        ("GET /?e=1", "-"),
        // The first of one name counts.
        ("GET /?q=a&q=c", "exact"),
        ("GET /?q=c&q=a", "-"),
        ("GET /?q=a=b", "-"),
        // Nothing is decoded.
        ("GET /?q=%61", "-"),
        ("GET /?%71=a", "-"),
        ("GET /?q=b+c", "prefix"),
    ];
    check(&proxies, &table).await;
}

/// What is known of this proxy decides when rules are compiled, not when requests come.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_the_client() {
    let proxies = rules(&[
        "other-port {port: 9000}",
        "other-labels {sourceLabels: {app: other}}",
        "other-namespace {sourceNamespace: other}",
        "gateway {gateways: [gateway]}",
        "all {uri: {exact: /all}, sourceLabels: {app: client}, sourceNamespace: shop, gateways: [mesh], port: 8000}",
        "gateway-or-mesh {uri: {exact: /either}, gateways: [gateway, mesh]}",
    ])
    .await;
    let table = [("GET /", "-"), ("GET /all", "all"), ("GET /either", "gateway-or-mesh")];
    check(&proxies, &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_and_items_are_or_and_the_first_rule_wins() {
    let proxies = rules(&[
        "and {uri: {prefix: /and}, method: {exact: GET}, headers: {x-and: {exact: '1'}}, queryParams: {q: {exact: '1'}}}",
        "or {uri: {exact: /or1}}, {uri: {exact: /or2}}",
        "first {uri: {prefix: /a}}",
        "second {uri: {prefix: /a/b}}",
    ])
    .await;
    let table = [
        ("GET /and?q=1 [x-and: 1]", "and"),
        ("GET /and [x-and: 1]", "first"),
        ("GET /and?q=1", "first"),
        ("POST /and?q=1 [x-and: 1; Content-Length: 0]", "first"),
        ("GET /or1", "or"),
        ("GET /or2", "or"),
        ("GET /or3", "-"),
        ("GET /a/b", "first"),
    ];
    check(&proxies, &table).await;
}

/// Rules may be written elsewhere: a delegate's are taken in where they fit.
#[tokio::test(flavor = "multi_thread")]
async fn delegates() {
    let root = virtual_service(
        "catalog",
        "  - match: [{uri: {prefix: /team}}]\n    delegate: {name: team}\n  \
         - directResponse: {status: 200, body: {string: root}}",
    );
    let team = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: team, namespace: shop}\n\
                spec:\n  http:\n  - match: [{uri: {prefix: /team/a}}]\n    \
                directResponse: {status: 200, body: {string: a}}\n  \
                - match: [{uri: {prefix: /elsewhere}}]\n    \
                directResponse: {status: 200, body: {string: elsewhere}}\n";
    let mesh = Mesh::new().service("catalog", "http/8000").with("rules.yaml", &format!("{root}---\n{team}"));
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    check(&proxies, &[("GET /team/a/x", "a"), ("GET /team/b", "root"), ("GET /elsewhere", "root")]).await;
}
