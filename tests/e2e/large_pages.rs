//! Pages of the admin console in a large mesh: they are made while they are sent, so that they cost little memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use support::binary::{self, Weft};
use support::{Request, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Services of the mesh. A dump of it is some 30 MB.
const SERVICES: usize = 2_000;
/// What the pages of such a mesh may add to what the process takes at most.
const PAGES_KB_MAX: u64 = 20_000;

async fn start(directory: &tempfile::TempDir, more: &[&str]) -> Weft {
    let mut mesh = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
    for number in 0..SERVICES {
        let address = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        write!(
            mesh,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\n\
             spec: {{clusterIP: {address}, ports: [{{name: http, port: 8000}}]}}\n"
        )
        .unwrap();
    }
    fs::write(directory.path().join("mesh.yaml"), "outboundTrafficPolicy: {mode: ALLOW_ANY}\n").unwrap();
    fs::write(directory.path().join("services.yaml"), mesh).unwrap();
    let config = directory.path().to_str().unwrap();
    let arguments = [
        "--config",
        config,
        "--namespace",
        "shop",
        "--listen",
        "127.0.0.1:0=outbound:8000",
        "--workers",
        "1",
    ];
    Weft::run(&binary::weft(), &[&arguments, more].concat()).await
}

/// A figure of the process's memory, in KB.
fn memory(weft: &Weft, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", weft.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pages_take_no_memory_to_speak_of() {
    let directory = tempfile::tempdir().unwrap();
    let weft = start(&directory, &[]).await;
    // The peak begins anew.
    fs::write(format!("/proc/{}/clear_refs", weft.process()), "5").unwrap();
    let before = memory(&weft, "VmRSS");
    let dump = || async { Request::get("/config_dump").send(weft.admin()).await };
    let dumps = tokio::join!(dump(), dump(), dump());
    for dump in [&dumps.0, &dumps.1, &dumps.2] {
        assert_eq!((dump.status.as_u16(), dump.header("transfer-encoding")), (200, "chunked"));
        let bytes = u64::try_from(dump.body.len()).unwrap() / 1024;
        assert!(bytes > PAGES_KB_MAX / 4, "{bytes} KB are too little to tell anything");
        let Value::Array(configs) = dump.json()["configs"].take() else { panic!("no list") };
        assert_eq!(configs.len(), 5);
        let hosts = configs[3]["dynamic_route_configs"][0]["route_config"]["virtual_hosts"].as_array();
        assert!(hosts.is_some_and(|hosts| hosts.len() > SERVICES), "{hosts:?}");
    }
    let clusters = weft.json("/clusters?format=json").await;
    assert!(clusters["cluster_statuses"].as_array().is_some_and(|all| all.len() > SERVICES));
    for page in ["/clusters", "/routes", "/routes?format=json", "/listeners?format=json", "/findings"] {
        assert_eq!(Request::get(page).send(weft.admin()).await.status, 200, "{page}");
    }
    let peak = memory(&weft, "VmHWM");
    assert!(peak < before + PAGES_KB_MAX, "from {before} KB to {peak} KB");
}

/// What the page for people asks for is little, and says how much more there is.
#[tokio::test(flavor = "multi_thread")]
async fn filters_and_limits_choose_rows() {
    let directory = tempfile::tempdir().unwrap();
    let weft = start(&directory, &[]).await;
    let name = |number: usize| format!("outbound|8000||s{number}.shop.svc.cluster.local");
    let page = weft.json("/clusters?format=json&limit=20").await;
    assert_eq!(page["cluster_statuses"].as_array().unwrap().len(), 20);
    assert!(page["weft"]["matching"].as_u64().unwrap() > 2_000, "{}", page["weft"]);
    let page = weft.json("/clusters?format=json&limit=20&filter=s17%5B34%5D%5C.").await;
    let names: Vec<&str> =
        page["cluster_statuses"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!((names, page["weft"]["matching"].as_u64()), (vec![&*name(173), &*name(174)], Some(2)));
    assert_eq!(
        weft.page("/clusters?filter=s173%5C.").await.lines().next().unwrap().split("::").next(),
        Some(&*name(173))
    );
    let page = weft.json("/routes?format=json&limit=1&filter=s17%5B34%5D%5C.").await;
    assert_eq!((page["rules"].as_array().unwrap().len(), &page["matching"]), (1, &2.into()));
    assert_eq!(page["rules"][0]["route"]["route"]["cluster"], name(173));
    let text = weft.page("/routes?filter=s174%5C.").await;
    assert!(text.contains(&format!("-> {}\n", name(174))) && text.lines().count() == 1, "{text}");
    let page = weft.json("/listeners?format=json&filter=nothing").await;
    assert_eq!(page, serde_json::json!({ "listener_statuses": [], "weft": { "matching": 0 } }));
    let page = weft.json("/findings?format=json&limit=0").await;
    assert_eq!(page, serde_json::json!([]));
    for wrong in ["/clusters?limit=all", "/routes?filter=(", "/listeners?limit=1&limit=2"] {
        assert_eq!(Request::get(wrong).send(weft.admin()).await.status, 400, "{wrong}");
    }
}

/// Who asks for large pages and does not read them keeps others from large pages, for a time, and from nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn large_pages_at_once_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let weft =
        start(&directory, &["--limit", "page_streams_max=2", "--limit", "page_connections_max=4"]).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut reader = TcpStream::connect(weft.admin()).await.unwrap();
        reader
            .write_all(b"GET /config_dump HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut begin = [0; 12];
        reader.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        readers.push(reader);
    }
    let refused = Request::get("/config_dump").send(weft.admin()).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("page_streams_max"), "{}", refused.text());
    let reached = weft.metric("weft_limit_reached_total", &[("limit", "page_streams_max")]).await;
    assert_eq!(reached, Some(1.0));
    // Little is told all the same, and idle connections give their place rather than those.
    for _ in 0..8 {
        assert_eq!(Request::get("/clusters?limit=1").send(weft.admin()).await.status, 200);
    }
    let mut rest = Vec::new();
    readers.pop().unwrap().take(20_000_000).read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > 5_000_000, "{} bytes", rest.len());
    eventually("a place is free", || async {
        (Request::get("/config_dump").send(weft.admin()).await.status == 200).then_some(())
    })
    .await;
}

/// However many series there are, and however many ask for them and do not read.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_take_no_memory_to_speak_of() {
    let directory = tempfile::tempdir().unwrap();
    let weft = start(&directory, &[]).await;
    for number in 0..1_000 {
        let host = format!("u{number}.{}", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
        Request::get("/").host(&host).send(weft.listener(0)).await;
    }
    fs::write(format!("/proc/{}/clear_refs", weft.process()), "5").unwrap();
    let before = memory(&weft, "VmRSS");
    let (mut readers, mut begun) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let mut reader = TcpStream::connect(weft.admin()).await.unwrap();
        let ask = b"GET /stats/prometheus HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        reader.write_all(ask).await.unwrap();
        let mut begin = [0; 12];
        reader.read_exact(&mut begin).await.unwrap();
        begun.push(String::from_utf8(begin[9..].to_vec()).unwrap());
        readers.push(reader);
    }
    assert_eq!(begun, [["200"; 4].as_slice(), &["503"; 8]].concat());
    readers.remove(0);
    let page = eventually("a place is free", || async {
        Some(Request::get("/stats/prometheus").send(weft.admin()).await).filter(|page| page.status == 200)
    });
    let page = page.await;
    let bytes = u64::try_from(page.body.len()).unwrap() / 1024;
    assert!(bytes > PAGES_KB_MAX, "{bytes} KB are too little to tell anything");
    assert_eq!(page.text().matches("\n# TYPE istio_requests_total counter\n").count(), 1);
    assert!(page.text().matches("\nistio_request_duration_milliseconds_count{").count() >= 1_000);
    let coded = Request::get("/stats/prometheus").header("accept-encoding", "gzip").send(weft.admin()).await;
    assert_eq!((coded.header("content-encoding"), coded.header("transfer-encoding")), ("gzip", "chunked"));
    assert!(coded.body.len() * 10 < page.body.len(), "{} bytes", coded.body.len());
    let peak = memory(&weft, "VmHWM");
    assert!(peak < before + PAGES_KB_MAX, "from {before} KB to {peak} KB");
}
