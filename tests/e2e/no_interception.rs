//! A sidecar whose pod's traffic is not redirected: clients connect to it by themselves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use config::compile::Mode;
use http::Method;
use support::mesh::virtual_service;
use support::tls::{Ca, Files, believing_in, handshake};
use support::{Mesh, Request, TestBackend, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use weft::app::Agent;

/// An address of loopback that nobody has.
pub(crate) fn free() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.local_addr().expect("an address")
}

/// A sidecar with these objects, in a pod whose annotation says that nothing is redirected.
pub(crate) async fn sidecar(mesh: Mesh) -> TestProxy {
    sidecar_with(mesh, None).await
}

/// The same with an identity.
async fn sidecar_with(mesh: Mesh, identity: Option<&Files>) -> TestProxy {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-1\n  namespace: shop\n  labels: {app: client}\n\
        \x20 annotations: {sidecar.istio.io/interceptionMode: NONE}\nstatus: {podIP: 127.0.0.1, podIPs: [{ip: 127.0.0.1}]}\n";
    let proxy = TestProxy::of(mesh.with("web.yaml", pod)).set(|settings| {
        settings.mode = Mode::Sidecar;
        settings.agent = Some(Agent::new(0, "", "", None).expect("nothing is told"));
        settings.workload.pod = Some(("web-1".to_owned(), "shop".to_owned()));
        settings.workload.environment.identity = identity.map(|files| files.identity().into());
    });
    proxy.ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn its_ports_are_those_of_services_and_of_its_sidecar_object() {
    let (catalog, web) = (TestBackend::echo("catalog").await, TestBackend::echo("web").await);
    let (outside, inside) = (free(), free());
    let mesh = Mesh::new()
        .service("catalog", &format!("http/{}", outside.port()))
        .endpoint("catalog", "http", "v1", catalog.address)
        .with("rules.yaml", &virtual_service("catalog", "  - rewrite: {uri: /rewritten}\n    route: [{destination: {host: catalog}}]"))
        .with(
            "sidecar.yaml",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: web, namespace: shop}}\nspec:\n\
                 \x20 egress: [{{hosts: ['*/*']}}]\n\
                 \x20 ingress: [{{port: {{number: {}, protocol: HTTP, name: http}}, defaultEndpoint: '{}'}}]\n",
                inside.port(),
                web.address,
            ),
        );
    let proxy = sidecar(mesh).await;
    let ask = async |to: SocketAddr, host: &str| Request::get("/").host(host).send(to).await;
    // Out by loopback and the port of the service, by its rules; in by the port that the Sidecar object lists.
    let saw = ask(outside, "catalog").await.json();
    assert_eq!((saw["name"].as_str(), saw["path"].as_str()), (Some("catalog"), Some("/rewritten")));
    assert_eq!(ask(inside, "anything").await.json()["name"], "web");
    let inbound = [("reporter", "destination"), ("response_code", "200")];
    assert_eq!(proxy.metric("istio_requests_total", &inbound).await, Some(1.0));
    let page = proxy.page("/listeners").await;
    assert!(!page.contains("virtual") && !page.contains("15001"), "{page}");
}

/// One port that is somebody else's says nothing about the others: nobody's traffic is redirected to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_hinders_no_other() {
    let catalog = TestBackend::echo("catalog").await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (port, outside) = (taken.local_addr().expect("an address").port(), free());
    let mesh = Mesh::new()
        .service("catalog", &format!("http/{}", outside.port()))
        .endpoint("catalog", "http", "v1", catalog.address)
        .service_at("more", &format!("http/{port}"), "10.96.0.2")
        .endpoint("more", "http", "v1", catalog.address);
    let proxy = sidecar(mesh).await;
    assert_eq!(Request::get("/").host("catalog").send(outside).await.status, 200);
    // It is tried again with the next change.
    drop(taken);
    proxy.publish("rules.yaml", &virtual_service("more", "  - route: [{destination: {host: more}}]")).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("the port is the sidecar's", || async {
        Request::get("/").host("more").try_send(at).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

/// A port that a Sidecar asks for, for which mutual TLS is wanted of everybody.
fn strict(web: &TestBackend, inside: SocketAddr) -> Mesh {
    Mesh::new()
        .with(
            "sidecar.yaml",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: web, namespace: shop}}\nspec:\n\
                 \x20 ingress: [{{port: {{number: {}, protocol: HTTP, name: http}}, defaultEndpoint: '{}'}}]\n",
                inside.port(),
                web.address,
            ),
        )
        .with(
            "peers.yaml",
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: all, namespace: shop}\n\
             spec: {mtls: {mode: STRICT}}\n",
        )
}

/// Who is refused in plain text hears of the object that wants TLS, by whichever way is asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_refuses_plain_text_is_named() {
    let ca = Ca::new("mesh");
    let files = Files::new(&ca);
    files.show(&ca.workload("spiffe://cluster.local/ns/shop/sa/default"));
    let (web, inside) = (TestBackend::echo("web").await, free());
    let mesh = strict(&web, inside);
    let proxy = sidecar_with(mesh, Some(&files)).await;
    assert!(Request::get("/").try_send(inside).await.is_err());
    let why = "mutual TLS is wanted (STRICT), by PeerAuthentication shop/all (";
    for page in ["/errors", "/recorder?id=@0-1"] {
        eventually(&format!("{page} has {why}"), || async {
            let told = proxy.page(page).await;
            (told.contains(why) && told.contains("peers.yaml:4)")).then_some(())
        })
        .await;
    }
}

/// How the mesh's own TLS is spoken is the mesh's to say, by that field alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_says_from_which_version_on_its_tls_is_spoken() {
    let ca = Ca::new("mesh");
    let files = Files::new(&ca);
    files.show(&ca.workload("spiffe://cluster.local/ns/shop/sa/default"));
    let shown = ca.workload("spiffe://cluster.local/ns/shop/sa/client");
    let web = TestBackend::echo("web").await;
    for (config, is_spoken) in [("{}", true), ("meshMTLS: {minProtocolVersion: TLSV1_3}", false)] {
        let inside = free();
        let mesh = strict(&web, inside).with("mesh.yaml", config);
        let proxy = sidecar_with(mesh, Some(&files)).await;
        for (version, is_spoken) in [(&TLS12, is_spoken), (&TLS13, true)] {
            let client = believing_in(&[version], &ca, Some(&shown), &["istio-http/1.1"]);
            let connected = handshake(client, inside, "outbound_.80_._.a.b").await;
            assert_eq!(connected.is_ok(), is_spoken, "{config} {version:?}");
            let Ok(mut stream) = connected else { continue };
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it is asked");
            let mut heard = [0; 12];
            stream.read_exact(&mut heard).await.expect("it is answered");
            assert_eq!(&heard, b"HTTP/1.1 200", "{config} {version:?}");
        }
        let refused = proxy.metric("weft_listener_tls_handshake_failures_total", &[]).await;
        assert_eq!(refused.unwrap_or_default(), f64::from(u8::from(!is_spoken)), "{config}");
    }
}

/// A port of the workload's that leads to the proxy gives nobody else its orders, whatever ports it has.
#[tokio::test(flavor = "multi_thread")]
async fn no_client_gives_orders_by_a_port_of_the_workload() {
    let (to_console, to_agent) = (free(), free());
    let proxy = sidecar(Mesh::new()).await;
    let ingress = [(to_console, proxy.admin()), (to_agent, proxy.agent())].map(|(inside, to)| {
        format!(
            "{{port: {{number: {}, protocol: HTTP, name: http}}, defaultEndpoint: '{to}'}}",
            inside.port()
        )
    });
    let object = format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: web, namespace: shop}}\nspec: {{ingress: [{}]}}\n",
        ingress.join(", "),
    );
    proxy.publish("sidecar.yaml", &object).await;
    let ask = async |request: Request, to: SocketAddr| {
        eventually("the port is the sidecar's", || async { request.clone().try_send(to).await.ok() })
            .await
            .status
    };
    assert_eq!(ask(Request::get("/clusters"), to_console).await, 503);
    assert_eq!(ask(Request::get("/healthz/ready"), to_agent).await, 200);
    assert_eq!(ask(Request::new(Method::POST, "/drain"), to_agent).await, 403);
    let told = proxy.page("/findings").await;
    assert!(told.contains("spec.ingress[0].defaultEndpoint") && told.contains("console"), "{told}");
    assert_eq!(Request::new(Method::POST, "/drain").send(proxy.agent()).await.status, 200);
}
