//! The health port.

use std::time::Duration;

use http::Method;
use support::mesh::virtual_service;
use support::{Mesh, Request, TestBackend, TestProxy, Wire, eventually};

async fn start() -> (TestBackend, TestProxy) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).health_port().ready().await;
    (backend, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods() {
    let (_backend, proxy) = start().await;
    let cases = [
        (Method::GET, "/healthz/ready", 200),
        (Method::HEAD, "/healthz/ready", 200),
        // What a probe adds is nobody's business.
        (Method::GET, "/healthz/ready?verbose", 200),
        (Method::POST, "/healthz/ready", 405),
        (Method::GET, "/healthz", 200),
        (Method::PUT, "/healthz", 405),
        (Method::GET, "/", 404),
        (Method::GET, "/healthz/", 404),
        (Method::GET, "/config_dump", 404),
        (Method::POST, "/healthcheck/fail", 404),
    ];
    for (method, path, status) in cases {
        let answer = Request::new(method.clone(), path).send(proxy.health()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers.get("allow").is_some(), status == 405, "{method} {path}");
    }
}

/// The reason is told before there is a configuration, and while the proxy drains.
#[tokio::test(flavor = "multi_thread")]
async fn not_ready_says_why() {
    let mesh = Mesh::new().service("catalog", "http/8000");
    let mut proxy = TestProxy::of(mesh)
        .set(|settings| settings.workload.pod = Some(("late".to_owned(), "shop".to_owned())))
        .listen("catalog", 8000)
        .health_port()
        .start();
    let ready = |to| async move {
        let answer = Request::get("/healthz/ready").try_send(to).await.ok()?;
        Some((answer.status.as_u16(), answer.text()))
    };
    eventually("the Pod is missed", || async {
        let (status, why) = ready(proxy.health()).await?;
        assert_eq!(status, 503);
        why.contains("not ready: the configuration has no Pod `late`").then_some(())
    })
    .await;
    assert_eq!(Request::get("/healthz").send(proxy.health()).await.status, 200);
    proxy.mesh.write(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: shop}\nstatus: {podIP: 10.244.1.9}\n",
    );
    proxy.becomes_ready().await;
    assert_eq!(ready(proxy.health()).await, Some((200, "ok\n".to_owned())));
    // A connection keeps it from ending at once.
    let _open = Wire::connect(proxy.listener(0)).await;
    proxy.drain();
    eventually("it says that it drains", || async {
        ready(proxy.health())
            .await
            .filter(|answer| *answer == (503, "not ready: it is draining\n".to_owned()))
    })
    .await;
}

/// A compile may take seconds. Who asks for health, or for anything else, is answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the time that an answer takes is what is measured")]
async fn a_long_compile_keeps_nobody_waiting() {
    const SERVICES: usize = 6_000;
    let (_backend, proxy) = start().await;
    let before = proxy.generation().await;
    let large: String = (0..SERVICES)
        .map(|number| {
            let name = format!("s{number}");
            let rules = format!("  - route: [{{destination: {{host: {name}}}}}]\n");
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{ports: [{{name: http, port: 8000}}]}}\n---\n{}",
                virtual_service(&name, &rules)
            )
        })
        .collect();
    proxy.mesh.write("large.yaml", &large);
    let begin = std::time::Instant::now();
    let (mut longest, mut answers) = (Duration::ZERO, 0);
    while proxy.generation().await == before {
        let asked = std::time::Instant::now();
        assert_eq!(Request::get("/healthz/ready").send(proxy.health()).await.status, 200);
        assert_eq!(Request::get("/ready").send(proxy.admin()).await.status, 200);
        longest = longest.max(asked.elapsed());
        answers += 1;
        assert!(begin.elapsed() < Duration::from_secs(120), "it is never published");
    }
    let whole = begin.elapsed();
    println!("{answers} answers in {whole:?}, the longest after {longest:?}");
    assert!(
        longest < whole / 2,
        "an answer took {longest:?} of the {whole:?} until the change was published"
    );
}

/// Nobody is sent to listeners that are closed, or will be, whatever configuration comes later: they do not open again.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_drained_its_listeners_takes_no_traffic() {
    let drains = [
        // There are no inbound listeners here,
        ("?inboundonly", false),
        ("?inboundonly&graceful", false),
        // and those go on to accept.
        ("?graceful&skip_exit", false),
        ("", true),
        ("?graceful", true),
    ];
    for (query, is_over) in drains {
        let (_backend, proxy) = start().await;
        let drain = format!("/drain_listeners{query}");
        assert_eq!(Request::new(Method::POST, &drain).send(proxy.admin()).await.status, 200, "{drain}");
        let ready = async || Request::get("/healthz/ready").send(proxy.health()).await;
        if is_over {
            eventually("it is not ready any more", async || (ready().await.status == 503).then_some(()))
                .await;
        }
        for timeout in ["1s", "2s"] {
            let route = format!("  - {{timeout: {timeout}, route: [{{destination: {{host: catalog}}}}]}}\n");
            proxy.publish("rule.yaml", &virtual_service("catalog", &route)).await;
            let answer = ready().await;
            let expected = match is_over {
                true => (503, "not ready: the listeners are drained, by /drain_listeners\n"),
                false => (200, "ok\n"),
            };
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), expected, "{drain}");
        }
        // The process lives, and is what Envoy calls so.
        assert_eq!(Request::get("/healthz").send(proxy.health()).await.status, 200, "{drain}");
        assert_eq!(Request::get("/ready").send(proxy.admin()).await.status, 200, "{drain}");
    }
}
