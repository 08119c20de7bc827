//! Where strangers connect: who is said to ask, to the upstream and in logs, with and without trusted proxies before us.

use std::sync::Arc;

use config::format::Format;
use config::{ForwardClientCert, HeaderAppendAction, HeaderToAdd, NetworkFilter, Route, RouteSource};
use http::HeaderName;
use support::declared::{any, chain, cluster, listener, manager, update};
use support::{Answer, Mesh, Side, TestBackend, TestProxy, ask};

/// The header by which the upstream is told what logs say of the client.
const CLIENT: &str = "x-client";

/// A listener where strangers connect, with so many trusted proxies before it.
fn edge(name: &str, hops: u32, forward_client_cert: ForwardClientCert) -> config::Listener {
    edge_with(name, hops, forward_client_cert, Vec::new())
}

/// The same, where these routes come first.
fn edge_with(
    name: &str,
    hops: u32,
    forward_client_cert: ForwardClientCert,
    first: Vec<Route>,
) -> config::Listener {
    let mut manager = manager("app");
    manager.use_remote_address = true;
    manager.xff_num_trusted_hops = hops;
    manager.forward_client_cert = forward_client_cert;
    if let RouteSource::Inline(routes) = &mut manager.routes {
        let routes = Arc::make_mut(routes);
        let host = Arc::make_mut(routes.virtual_hosts.first_mut().expect("a virtual host"));
        let route = host.routes.first_mut().expect("a route");
        route.headers.get_or_insert_default().request_add.push(HeaderToAdd {
            name: HeaderName::from_static(CLIENT),
            value: Format::parse("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%").expect("a format"),
            action: HeaderAppendAction::OverwriteIfExistsOrAdd,
        });
        host.routes.splice(..0, first);
    }
    listener(name, vec![chain(any(), NetworkFilter::Http(Arc::new(manager)))])
}

fn saw(answer: &Answer, name: &str) -> String {
    match answer.json()["headers"][name].as_array() {
        Some(values) => {
            let values: Vec<&str> = values.iter().map(|value| value.as_str().unwrap_or_default()).collect();
            values.join(" & ")
        }
        None => "-".to_owned(),
    }
}

/// What a request says, and what the upstream sees. Our own address is `ME`.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const NOBODY_TRUSTED: &[Case] = &[
    (
        "",
        &[
            ("x-forwarded-for", "ME"),
            ("x-forwarded-proto", "http"),
            ("x-envoy-external-address", "127.0.0.1"),
        ],
    ),
    ("", &[(CLIENT, "127.0.0.1"), ("x-envoy-internal", "-")]),
    (
        "x-forwarded-for: 10.0.0.1\nx-forwarded-proto: https\n",
        &[("x-forwarded-for", "10.0.0.1,ME"), ("x-forwarded-proto", "http"), (CLIENT, "127.0.0.1")],
    ),
    ("x-envoy-external-address: 1.1.1.1\n", &[("x-envoy-external-address", "127.0.0.1")]),
    // What only the mesh may say.
    (
        "x-envoy-original-path: /o\nx-envoy-decorator-operation: o\n",
        &[("x-envoy-original-path", "-"), ("x-envoy-decorator-operation", "-")],
    ),
    (
        "x-envoy-downstream-service-cluster: c\nx-envoy-downstream-service-node: n\n",
        &[("x-envoy-downstream-service-cluster", "-"), ("x-envoy-downstream-service-node", "-")],
    ),
    // Nor can it be taken off by a client that knows its name.
    ("connection: x-envoy-external-address\n", &[("x-envoy-external-address", "127.0.0.1")]),
    ("x-forwarded-client-cert: By=me\n", &[("x-forwarded-client-cert", "-")]),
];

const TWO_TRUSTED: &[Case] = &[
    ("", &[("x-forwarded-for", "ME"), ("x-forwarded-proto", "http"), (CLIENT, "127.0.0.1")]),
    (
        "x-forwarded-for: 10.0.0.1, 10.0.0.2,10.0.0.3\nx-forwarded-proto: https\n",
        &[
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2,10.0.0.3,ME"),
            ("x-forwarded-proto", "https"),
            ("x-envoy-external-address", "10.0.0.2"),
            (CLIENT, "10.0.0.2"),
        ],
    ),
    (
        "x-forwarded-for: 10.0.0.1\nx-forwarded-for: fd00::2 , 10.0.0.3\n",
        &[("x-forwarded-for", "10.0.0.1,fd00::2 , 10.0.0.3,ME"), (CLIENT, "fd00::2")],
    ),
    // There are not so many, or it is no address: nobody but the connection tells.
    ("x-forwarded-for: 10.0.0.1\n", &[("x-envoy-external-address", "127.0.0.1"), (CLIENT, "127.0.0.1")]),
    ("x-forwarded-for: me, 10.0.0.1\n", &[("x-envoy-external-address", "127.0.0.1"), (CLIENT, "127.0.0.1")]),
    ("x-forwarded-for: 10.0.0.9, , 10.0.0.1\n", &[(CLIENT, "127.0.0.1")]),
    ("x-forwarded-for: 10.0.0.2, \n", &[(CLIENT, "10.0.0.2")]),
    // The certificate of who connects is no matter of trusted hops.
    ("x-forwarded-client-cert: By=me\n", &[("x-forwarded-client-cert", "-")]),
];

const ALWAYS_FORWARDED: &[Case] =
    &[("x-forwarded-client-cert: By=me\n", &[("x-forwarded-client-cert", "By=me"), (CLIENT, "127.0.0.1")])];

#[tokio::test(flavor = "multi_thread")]
async fn who_is_said_to_ask() {
    let app = TestBackend::echo("app").await;
    let listeners = vec![
        edge("a", 0, ForwardClientCert::SanitizeSet),
        edge("b", 2, ForwardClientCert::ForwardOnly),
        edge("c", 0, ForwardClientCert::AlwaysForwardOnly),
    ];
    let resources = update(listeners, [cluster("app", &[app.address])]);
    let proxies =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).both().await;
    for side in proxies.each() {
        for (index, cases) in [NOBODY_TRUSTED, TWO_TRUSTED, ALWAYS_FORWARDED].into_iter().enumerate() {
            for case in cases {
                check(side, index, case).await;
            }
        }
    }
}

async fn check(side: Side<'_>, index: usize, (headers, expected): &Case) {
    let answer =
        ask(side.listener(index), &format!("GET / HTTP/1.1\nHost: app\nx-request-id: mine\n{headers}\n"))
            .await;
    let told = format!("{} {index}: {headers:?}", side.name());
    assert_eq!(answer.status, 200, "{told}");
    assert_ne!(saw(&answer, "x-request-id"), "mine", "{told}");
    for (name, value) in *expected {
        let seen = saw(&answer, name);
        match value.strip_suffix("ME") {
            // Envoy has an address of the machine's instead of one of loopback.
            Some(before) if !side.is_weft() => {
                let own = seen.strip_prefix(before).unwrap_or_else(|| panic!("{told}: {seen}"));
                assert!(own.parse::<std::net::IpAddr>().is_ok(), "{told}: {seen}");
            }
            Some(before) => assert_eq!(seen, format!("{before}127.0.0.1"), "{told}: {name}"),
            None => assert_eq!(seen, *value, "{told}: {name}"),
        }
    }
}

/// Where HTTPS is required, everything is redirected but what a trusted proxy says has come by it.
#[tokio::test(flavor = "multi_thread")]
async fn who_came_by_https() {
    let app = TestBackend::echo("app").await;
    let required =
        |name, hops| edge_with(name, hops, ForwardClientCert::Sanitize, vec![Route::to_https(None)]);
    let resources = update(vec![required("a", 0), required("b", 1)], [cluster("app", &[app.address])]);
    let proxies =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).both().await;
    for side in proxies.each() {
        for (index, told, status) in [
            (0, "", 301),
            (0, "x-forwarded-proto: https\n", 301),
            (1, "", 301),
            (1, "x-forwarded-proto: http\n", 301),
            (1, "x-forwarded-proto: https\n", 200),
        ] {
            let answer = ask(side.listener(index), &format!("GET /x HTTP/1.1\nHost: app\n{told}\n")).await;
            assert_eq!(answer.status, status, "{} {index} {told:?}", side.name());
            let location = if status == 301 { "https://app/x" } else { "" };
            assert_eq!(answer.header("location"), location, "{} {index} {told:?}", side.name());
        }
    }
}
