//! The flight recorder: how what has failed is told, found again, and counted.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use config::TcpDestinations;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use support::client::raw;
use support::declared::{any, chain, cluster, listener, tcp, to_tcp, update};
use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::net::TcpStream;

use crate::incidents::{mesh, with_status};
use crate::timeouts::black_hole;

/// What `/recorder` lists, newest first, once there are so many.
async fn recorded(proxy: &TestProxy, count: usize) -> Vec<Value> {
    eventually("it is recorded", || async {
        let page = proxy.page("/recorder?format=json").await;
        let page: Value = serde_json::from_str(&page).expect("JSON");
        let requests = page["requests"].as_array().expect("a list").clone();
        (requests.len() >= count).then_some(requests)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_told_with_where_it_wanted_to_go() {
    let nobody = TcpListener::bind(("127.9.9.9", 0)).expect("a port").local_addr().expect("an address");
    let resources =
        update(vec![listener("tcp", vec![to_tcp(any(), "ledger")])], [cluster("ledger", &[nobody])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let wanted = proxy.listener(0);
    raw(wanted, b"hello", Duration::from_secs(5)).await;
    let requests = recorded(&proxy, 1).await;
    assert_eq!(requests[0]["destination"], wanted.to_string());
    let number = requests[0]["record"].as_str().expect("a number").to_owned();
    let errors = proxy.page("/errors").await;
    let (to, id) = (format!(" to {wanted}, endpoint {nobody}, "), format!(", id {number}\n"));
    assert!(errors.contains(&to) && errors.contains(&id), "{errors}");
    let told = proxy.page(&format!("/recorder?id={number}")).await;
    for expected in [
        format!(" to {wanted}\nas "),
        format!("id: none; recorded as {number}\n"),
        "cause: TCP UF: ".to_owned(),
    ] {
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_several_requests_and_a_long_one() {
    let backend = with_status(StatusCode::INTERNAL_SERVER_ERROR).await;
    let mesh = mesh("http/8000", backend.address, "", "retries: {attempts: 0}");
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    for path in ["/one", "/two", "/three"] {
        Request::get(path).header("x-request-id", "same").send(proxy.listener(0)).await;
    }
    let requests = recorded(&proxy, 3).await;
    let told = proxy.page("/recorder?id=same").await;
    assert!(told.contains("/three\nas ") && told.contains("the newest of 3 with this ID\n"), "{told}");
    for (index, path) in [(1, "/two"), (2, "/one")] {
        let number = requests[index]["record"].as_str().expect("a number");
        assert!(told.contains(&format!("  other: {number} ")), "{told}");
        let other = proxy.page(&format!("/recorder?id={number}")).await;
        assert!(other.contains(&format!("{path}\nas ")) && !other.contains("newest"), "{other}");
    }
    let long = "z".repeat(2_000);
    Request::get("/long").header("x-request-id", &long).send(proxy.listener(0)).await;
    recorded(&proxy, 4).await;
    let told = proxy.page(&format!("/recorder?id={long}")).await;
    assert!(told.contains("/long\nas "), "{told}");
    let few = proxy.page("/recorder?format=json&filter=/t(wo|hree)&last=1").await;
    let few: Value = serde_json::from_str(&few).expect("JSON");
    assert_eq!(few["requests"].as_array().expect("a list").len(), 1);
    assert_eq!((&few["requests"][0]["path"], &few["matching"]), (&"/three".into(), &2.into()));
    let by_cause = proxy.page("/recorder?filter=^500").await;
    assert_eq!(by_cause.lines().filter(|line| line.contains(" GET ")).count(), 4, "{by_cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_recorded_with_its_answer() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = mesh("http/8000", backend.address, "", "timeout: 5s");
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let large = format!("GET / HTTP/1.1\r\nx-large: {}\r\n\r\n", "a".repeat(70_000));
    for (index, bytes, status, cause) in [
        (0, large.as_bytes(), 431, "431 DPE: head_bytes_max 61440 of this process"),
        (1, b"\x01\x02hello\r\n\r\n", 400, "400 DPE: the client did not speak HTTP: invalid request line"),
    ] {
        let answer = raw(proxy.listener(0), bytes, Duration::from_secs(5)).await;
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{status}");
        let requests = recorded(&proxy, index + 1).await;
        let newest = &requests[0];
        assert_eq!((&newest["status"], &newest["cause"]), (&status.into(), &cause.into()), "{newest:#}");
        assert_eq!(newest["destination"], proxy.listener(0).to_string());
        assert!(newest["took_us"].as_u64().is_some_and(|took| took > 0), "{newest:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_moves_in_its_file_is_the_same() {
    let backend = TestBackend::echo("catalog").await;
    let rules = virtual_service(
        "catalog",
        "  - {name: one, match: [{uri: {prefix: /one}}], route: [{destination: {host: nowhere}}]}\n  \
         - {name: two, route: [{destination: {host: nowhere}}]}",
    );
    let mesh = mesh("http/8000", backend.address, "", "").with("route.yaml", &rules);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let ask = |path: &'static str| Request::get(path).send(proxy.listener(0));
    for path in ["/one", "/two"] {
        assert_eq!(ask(path).await.status, 503);
    }
    proxy.publish("route.yaml", &format!("# moved\n# down\n{rules}")).await;
    assert_eq!(ask("/one").await.status, 503);
    recorded(&proxy, 3).await;
    let errors = proxy.page("/errors").await;
    // Two rules of one object are two causes.
    assert!(errors.starts_with("3 failures in the last hour, by 2 causes\n"), "{errors}");
    let first = errors.lines().find(|line| line.contains(" x ")).expect("a cause");
    assert!(first.starts_with("      2 x 503 NC: ") && first.contains("route.yaml:9) leads"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_request_is_told_as_it_was_decided() {
    let backend = with_status(StatusCode::SERVICE_UNAVAILABLE).await;
    let rules = virtual_service(
        "catalog",
        "  - {name: put, match: [{method: {exact: PUT}}], route: [{destination: {host: catalog}}]}\n  \
         - {name: testers, match: [{headers: {x-user: {exact: tester}}}], route: [{destination: {host: catalog}}]}\n  \
         - name: old\n    match: [{uri: {prefix: /old}}]\n    rewrite: {uri: /new, authority: other.example}\n    timeout: 5s\n    \
         retries: {attempts: 1, retryOn: 5xx}\n    headers: {request: {set: {x-a: y}}}\n    \
         route: [{destination: {host: catalog}}]",
    );
    let mesh = mesh("http/8000", backend.address, "", "").with("route.yaml", &rules);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let request = Request::get("/old/a").host("catalog").header("x-request-id", "night");
    assert_eq!(request.send(proxy.listener(0)).await.status, 503);
    let newest = recorded(&proxy, 1).await.remove(0);
    assert_eq!((&newest["authority"], &newest["path"]), (&"catalog".into(), &"/old/a".into()));
    assert_eq!(
        (&newest["sent_authority"], &newest["sent_path"]),
        (&"other.example".into(), &"/new/a".into())
    );
    let told = proxy.page("/recorder?id=night").await;
    let endpoint = backend.address;
    for expected in [
        "GET http://catalog/old/a\nas ".to_owned(),
        "  rule: 1 `put` does not apply: the method is `GET`, not `PUT`\n".to_owned(),
        "  rule: 2 `testers` does not apply: what it asks of header `x-user` does not hold; headers are not recorded\n".to_owned(),
        "\nrule: 3 `old` applies: path begins with `/old`\n    by VirtualService shop/catalog (".to_owned(),
        "  timeout: 5s\n  retries: 1 on 5xx".to_owned(),
        "  request: x-a: y is set by the rule\n".to_owned(),
        "rewrite: the upstream sees other.example /new/a\n".to_owned(),
        "  load balancing: LEAST_REQUEST (Istio default)\n".to_owned(),
        format!("candidate: {endpoint}, weight 1"),
        format!("attempt: 1, to {endpoint}: 503, after "),
        format!("endpoint: {endpoint}, the last of 2 attempts\n"),
        "=> forwarded with 503".to_owned(),
    ] {
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    }
    // What another generation would do with it is another question.
    let other = virtual_service("catalog", "  - {name: now, route: [{destination: {host: catalog}}]}");
    let now = proxy.publish("route.yaml", &other).await;
    let told = proxy.page("/recorder?id=night").await;
    for expected in [
        format!("decided, which is served no more: only what was recorded is told (generation {now} is served now"),
        "rule: 3 `old` of virtual host `catalog.shop.svc.cluster.local:8000`\n    by VirtualService shop/catalog (".to_owned(),
        "rewrite: the upstream sees other.example /new/a\n".to_owned(),
        format!("attempt: 1, to {endpoint}: 503, after "),
    ] {
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    }
    assert!(!told.contains("`now`") && !told.contains("timeout: "), "{told}");
}

/// What changes elsewhere leaves the telling of a request whole, and what changes of its own is told as far as it was recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_request_is_told_by_what_has_not_changed() {
    let backend = with_status(StatusCode::SERVICE_UNAVAILABLE).await;
    let rules = virtual_service(
        "catalog",
        "  - {name: put, match: [{method: {exact: PUT}}], route: [{destination: {host: catalog}}]}\n  \
         - {name: all, timeout: 5s, retries: {attempts: 0}, route: [{destination: {host: catalog}}]}",
    );
    let mesh = mesh("http/8000", backend.address, "connectionPool: {http: {http2MaxRequests: 77}}", "");
    let proxy = TestProxy::of(mesh.with("route.yaml", &rules)).listen_outbound(8000).ready().await;
    let request = Request::get("/").host("catalog").header("x-request-id", "night");
    assert_eq!(request.send(proxy.listener(0)).await.status, 503);
    recorded(&proxy, 1).await;
    let tells = async |then: &str, expected: &[&str]| {
        let told = proxy.page("/recorder?id=night").await;
        for expected in
            [then, "  rule: 1 `put` does not apply: the method is `GET`, not `PUT`\n", "  timeout: 5s\n"]
                .iter()
                .chain(expected)
        {
            assert!(told.contains(expected), "no `{expected}` in\n{told}");
        }
        told
    };
    let same =
        |now: u64| format!("generation: 1 decided; in {now}, which is served now, the rules are the same\n");
    let limit = "http2MaxRequests 77";
    tells("", &[limit]).await;
    // Another service of the same port: its virtual host is new in the same table.
    let pay = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: shop}\n\
               spec: {clusterIP: 10.96.9.9, ports: [{name: http, port: 8000}]}\n";
    let now = proxy.publish("pay.yaml", pay).await;
    tells(&same(now), &[limit]).await;
    let now = proxy.publish("pay.yaml", &pay.replace("10.96.9.9", "10.96.9.8")).await;
    tells(&same(now), &[limit]).await;
    // The cluster is another one, and its rules are the same.
    let policy = "  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 78}}}";
    let now = proxy.publish("rule.yaml", &destination_rule("catalog", policy)).await;
    let told =
        tells(&same(now), &["`, which is not as it was then\n    by DestinationRule shop/catalog ("]).await;
    assert!(!told.contains("http2MaxRequests"), "{told}");
    // That rules are as they were once more does not make them those that decided.
    let other = virtual_service("catalog", "  - {name: now, route: [{destination: {host: catalog}}]}");
    proxy.publish("route.yaml", &other).await;
    proxy.publish("route.yaml", &rules).await;
    let told = proxy.page("/recorder?id=night").await;
    assert!(
        told.contains("served no more: only what was recorded is told") && !told.contains("timeout"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_is_told_with_what_there_is() {
    let backend = TestBackend::echo("catalog").await;
    let rules =
        virtual_service("catalog", "  - {name: v2, route: [{destination: {host: catalog, subset: v2}}]}");
    let subsets = "  subsets: [{name: v1, labels: {version: v1}}]";
    let mesh = mesh("http/8000", backend.address, "", "")
        .with("route.yaml", &rules)
        .with("rule.yaml", &destination_rule("catalog", subsets));
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let request = Request::get("/").header("x-request-id", "night");
    assert_eq!(request.send(proxy.listener(0)).await.status, 503);
    recorded(&proxy, 1).await;
    let name = "outbound|8000|v2|catalog.shop.svc.cluster.local";
    let told = proxy.page("/recorder?id=night").await;
    for expected in [
        format!("cluster: there is no cluster `{name}`: no DestinationRule gives "),
        "the subset `v2`; it has v1\n    by VirtualService shop/catalog (".to_owned(),
        format!("=> answered by the proxy with 503 NC, cluster_not_found of {name}"),
    ] {
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    }
    proxy.publish("rule.yaml", &destination_rule("catalog", &subsets.replace("v1", "v2"))).await;
    let told = proxy.page("/recorder?id=night").await;
    assert!(told.contains(&format!("cluster: there was no cluster `{name}`\n")), "{told}");
}

/// Of what is not recorded nothing is made up.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_rule_did_not_apply_is_told_as_far_as_it_is_known() {
    let backend = with_status(StatusCode::SERVICE_UNAVAILABLE).await;
    let to = "route: [{destination: {host: catalog}}]";
    let rules = virtual_service(
        "catalog",
        &format!(
            "  - {{name: without, match: [{{withoutHeaders: {{x-b: {{}}}}, queryParams: {{q: {{exact: a}}}}}}], {to}}}\n  \
             - {{name: long, match: [{{uri: {{regex: '/long.*tail'}}, headers: {{x-c: {{exact: c}}}}}}], {to}}}\n  \
             - {{name: all, retries: {{attempts: 0}}, {to}}}"
        ),
    );
    let mesh = mesh("http/8000", backend.address, "", "").with("route.yaml", &rules);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let long = format!("/long{}tail", "x".repeat(2_000));
    for (id, path) in [("short", "/"), ("long", &long)] {
        let request = Request::get(path).header("x-request-id", id).header("x-b", "b");
        assert_eq!(request.send(proxy.listener(0)).await.status, 503);
    }
    recorded(&proxy, 2).await;
    let short = proxy.page("/recorder?id=short").await;
    for expected in [
        "rule: 1 `without` does not apply: what it asks of header `x-b` or query parameter `q` does not hold; headers are \
         not recorded\n",
        "rule: 2 `long` does not apply: path `/` does not match",
    ] {
        assert!(short.contains(expected), "no `{expected}` in\n{short}");
    }
    let long = proxy.page("/recorder?id=long").await;
    let expected = "rule: 2 `long` does not apply: what it asks of the path or header `x-c` does not hold; headers are not \
                    recorded, nor is all of a path as long\n";
    assert!(long.contains(expected), "no `{expected}` in\n{long}");
}

/// Whatever the port of the listener is, hosts are looked for at the one that it stands for.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_not_named_after_http() {
    let backend = TestBackend::echo("catalog").await;
    let proxy = TestProxy::of(mesh("tcp-x/8000", backend.address, "", "timeout: 5s"));
    let proxy = proxy.listen_outbound(8000).ready().await;
    for (host, object, expected) in [
        (
            "catalog:8000",
            "\n    by Service shop/catalog (",
            "`catalog` does not speak HTTP there: port 8000 is named `tcp-x`; a ",
        ),
        (
            "no.example",
            " (Istio default)\n",
            "no service that the workload sees has the host `no.example` on port 8000; outbound",
        ),
    ] {
        let page = format!("/explain?url=http://{}/&header=host:{host}", proxy.listener(0));
        let told = Request::new(http::Method::POST, &page).send(proxy.admin()).await.text();
        assert!(told.contains(&format!(", by the domain `*`: {expected}")), "{told}");
        assert!(told.contains(&format!("ALLOW_ANY lets it go{object}")), "{told}");
    }
}

/// A call that fails is answered 200 all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_of_grpc_is_a_failure() {
    let backend = TestBackend::new(|request: http::Request<_>| {
        let mut response = Response::new(Full::<Bytes>::default());
        let status = request.uri().path().trim_start_matches('/').to_owned();
        let status = HeaderValue::from_str(&status).expect("a status");
        response.headers_mut().insert("grpc-status", status);
        std::future::ready(response)
    })
    .await;
    let proxy = serve(backend.address).await;
    for status in ["0", "5", "13", "14"] {
        let request = Request::new(http::Method::POST, &format!("/{status}")).http2();
        let answer = request.header("content-type", "application/grpc").send(proxy.listener(0)).await;
        assert_eq!(answer.status, 200);
    }
    // What is no gRPC may say what it likes.
    Request::get("/13").http2().send(proxy.listener(0)).await;
    recorded(&proxy, 2).await;
    let errors = proxy.page("/errors").await;
    assert!(errors.starts_with("2 failures in the last hour, by 2 causes\n"), "{errors}");
    for status in [13, 14] {
        let cause = format!("      1 x grpc-status {status}: the upstream's own answer, from cluster ");
        assert!(errors.contains(&cause), "no `{cause}` in\n{errors}");
    }
}

async fn serve(backend: SocketAddr) -> TestProxy {
    let mesh = mesh("grpc/8000", backend, "", "retries: {attempts: 0}");
    TestProxy::of(mesh).listen("catalog", 8000).ready().await
}

/// Reasons that follow from what is declared are told as long as that is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_what_came_later() {
    let backend = TestBackend::echo("catalog").await;
    let to = "route: [{destination: {host: catalog, subset: v9}}]";
    let rules = virtual_service("catalog", &format!("  - {{name: v9, {to}}}"));
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh.with("route.yaml", &rules)).listen_outbound(8000).ready().await;
    for (id, host) in [("subset", "catalog"), ("host", "later")] {
        let request = Request::get("/").host(host).header("x-request-id", id);
        assert_eq!(request.send(proxy.listener(0)).await.status, 503, "{host}");
    }
    recorded(&proxy, 2).await;
    let told = async |id: &str| proxy.page(&format!("/recorder?id={id}")).await;
    let check = async |id: &str, has: &[&str], has_not: &[&str]| {
        let told = told(id).await;
        for (wanted, texts) in [(true, has), (false, has_not)] {
            for text in texts {
                assert_eq!(told.contains(text), wanted, "`{text}` in\n{told}");
            }
        }
    };
    check("subset", &["no DestinationRule gives ", "[dangling-subset]"], &[]).await;
    check("host", &["no service that the workload sees has the host `later`"], &[]).await;
    // The generation stays: nothing of what decides is another.
    let broken = destination_rule("reviews", "  bogus: 1").replace("name: reviews", "name: broken");
    proxy.mesh.write("broken.yaml", &broken);
    proxy.page_has("/findings", "shop/broken").await;
    assert_eq!(proxy.generation().await, 1);
    let gone = ["shop/broken", "[dangling-subset]", "no DestinationRule gives ", "\ngeneration: "];
    check("subset", &["cluster: there was no cluster `", "rule: 1 `v9` applies"], &gone).await;
    proxy.publish("rule.yaml", &destination_rule("catalog", "  subsets: [{name: v1, labels: {}}]")).await;
    let later = "apiVersion: v1\nkind: Service\nmetadata: {name: later, namespace: shop}\n\
                 spec: {clusterIP: 10.96.9.9, ports: [{name: tcp, port: 8000}]}\n";
    proxy.publish("later.yaml", later).await;
    check("subset", &["cluster: there was no cluster `", "\ngeneration: 1 decided"], &["it has v1"]).await;
    let host = ["by the domain `*`: outboundTrafficPolicy ALLOW_ANY lets it go\n"];
    check("host", &host, &["does not speak HTTP", "no service", "shop/later"]).await;
}

/// It is told of the generation that has led it where it went, whatever comes while it is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_of_the_generation_that_decided() {
    let open = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = open.local_addr().expect("an address");
    let filter = tcp(TcpDestinations::Cluster("ledger".into()), |proxy| {
        proxy.max_connection_duration = Some(Duration::from_secs(1));
    });
    let resources =
        update(vec![listener("tcp", vec![chain(any(), filter)])], [cluster("ledger", &[address])]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    let _client = TcpStream::connect(proxy.listener(0)).await.expect("the proxy accepts");
    proxy.page_has("/clusters", "ledger::default_priority::cx_active::1\n").await;
    let pay = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: shop}\n\
               spec: {clusterIP: 10.96.9.9, ports: [{name: http, port: 8000}]}\n";
    assert_eq!(proxy.publish("pay.yaml", pay).await, 2);
    let newest = recorded(&proxy, 1).await.remove(0);
    assert_eq!(newest["generation"], 1, "{newest:#}");
    assert_eq!(newest["cause"], "TCP DT: maxConnectionDuration 1s, cluster ledger");
    let told = proxy.page(&format!("/recorder?id={}", newest["record"].as_str().expect("a number"))).await;
    assert!(told.contains("\ngeneration: 1 decided, which is served no more"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_did_not_wait_for_is_told() {
    let (address, _hole) = black_hole();
    let mut ledger = cluster("ledger", &[address]);
    ledger.0.connect_timeout = Duration::from_millis(50);
    let resources = update(vec![listener("tcp", vec![to_tcp(any(), "ledger")])], [ledger]);
    let proxy =
        TestProxy::of(Mesh::new()).set(|settings| settings.static_resources = resources).ready().await;
    raw(proxy.listener(0), b"hello", Duration::from_secs(5)).await;
    let newest = recorded(&proxy, 1).await.remove(0);
    assert_eq!(newest["cause"], "TCP UF: connectTimeout 50ms (Istio default), cluster ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn causes_that_are_too_many_are_counted_as_a_limit() {
    let backend = TestBackend::echo("catalog").await;
    let nowhere = "route: [{destination: {host: nowhere}}]";
    let rules = virtual_service(
        "catalog",
        &format!(
            "  - {{name: one, match: [{{uri: {{prefix: /one}}}}], {nowhere}}}\n  - {{name: two, {nowhere}}}"
        ),
    );
    let mesh = mesh("http/8000", backend.address, "", "").with("route.yaml", &rules);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).limits(&[("recorder_causes_max", 1)]);
    let proxy = proxy.ready().await;
    for path in ["/one", "/two"] {
        assert_eq!(Request::get(path).send(proxy.listener(0)).await.status, 503);
    }
    proxy.reached("recorder_causes_max").await;
}
