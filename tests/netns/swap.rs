//! The sample mesh is edited while requests are on their way.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::client::KeepAlive;
use support::{Request, Weft, binary, eventually};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::pods::{Pods, assert_share, pod, shop};

/// Connections that ask, one request after the other.
const CONNECTIONS: usize = 8;

/// Answers from which a share is read.
const DRAWS: usize = 4000;

/// An answer, by what is of interest about it.
struct Drawn {
    /// Phase of the test in which it was asked for.
    asked_in: u64,
    pod: String,
    served_by: String,
}

/// Asks until it is told to stop; says what came.
async fn ask(
    to: std::net::SocketAddr,
    phase: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tell: mpsc::Sender<Drawn>,
) {
    let mut connection = KeepAlive::connect(to).await;
    while !stop.load(Ordering::Relaxed) {
        let asked_in = phase.load(Ordering::SeqCst);
        let answer = connection.send(Request::get("/items")).await;
        let answer = answer.unwrap_or_else(|why| panic!("a request failed: {why}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let drawn = Drawn { asked_in, pod: pod(&answer), served_by: answer.header("x-served-by").to_owned() };
        tell.send(drawn).await.expect("the test listens");
    }
}

/// Writes a file anew, as a whole, with one text in place of another, and waits until a generation follows from it.
async fn edit(weft: &Weft, file: &Path, changes: &[(&str, &str)]) {
    let generation = || async { weft.metric("weft_config_generation", &[]).await };
    let before = generation().await;
    let mut text = fs::read_to_string(file).expect("the file is there");
    for (old, new) in changes {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text = text.replace(old, new);
    }
    let draft = file.with_extension("draft");
    fs::write(&draft, text).expect("the draft is written");
    fs::rename(&draft, file).expect("the draft takes its place");
    eventually("a new generation is published", || async { (generation().await > before).then_some(()) })
        .await;
}

/// Draws that were asked for in this phase.
async fn draw(told: &mut mpsc::Receiver<Drawn>, phase: u64) -> Vec<Drawn> {
    let mut drawn = Vec::with_capacity(DRAWS);
    while drawn.len() < DRAWS {
        let next = told.recv().await.expect("a client is left");
        assert_eq!(next.served_by, if next.pod == "catalog-v2-1" { "v2" } else { "v1" }, "{}", next.pod);
        drawn.extend(Some(next).filter(|drawn| drawn.asked_in == phase));
    }
    drawn
}

/// Draws by a pod.
fn by(drawn: &[Drawn], pod: &str) -> usize {
    drawn.iter().filter(|drawn| drawn.pod == pod).count()
}

#[test]
fn weights_and_endpoints_change_under_load_without_a_failed_request() {
    const TEST: &str = "netns::swap::weights_and_endpoints_change_under_load_without_a_failed_request";
    let Some((shop, namespace)) = shop(TEST) else { return };
    let binary = binary::weft();
    let copy = tempfile::tempdir().expect("a temporary directory");
    for file in fs::read_dir(shop).expect("the sample mesh").flatten() {
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
    }
    namespace.run(|| async {
        let _pods = Pods::start().await;
        let directory = copy.path().to_str().expect("a path in text");
        let arguments = ["--config", directory, "--as", "web-1.shop", "--allow-unenforced-security"];
        let listener = ["--listen", "10.244.1.10:0=catalog.shop:8000"];
        let mut weft = Weft::run(&binary, &[&arguments[..], &listener].concat()).await;
        let (phase, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (tell, mut told) = mpsc::channel(64);
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(ask(weft.listener(0), phase.clone(), stop.clone(), tell.clone()));
        }
        drop(tell);

        let drawn = draw(&mut told, 0).await;
        assert_share(by(&drawn, "catalog-v2-1"), DRAWS, 10, "v2 before");
        assert_eq!(by(&drawn, "catalog-v1-2"), 0);

        let (istio, pods) = (copy.path().join("istio.yaml"), copy.path().join("pods.yaml"));
        edit(&weft, &istio, &[("weight: 90", "weight: 50"), ("weight: 10", "weight: 50")]).await;
        phase.store(1, Ordering::SeqCst);
        let drawn = draw(&mut told, 1).await;
        assert_share(by(&drawn, "catalog-v2-1"), DRAWS, 50, "v2 of 50 and 50");
        assert_eq!(by(&drawn, "catalog-v1-2"), 0);

        // The pod in this zone is no longer ready: the one in the other zone takes its part.
        let ready = "- addresses: [10.244.1.21]\n  conditions: {ready: true, serving: true,";
        let not_ready = "- addresses: [10.244.1.21]\n  conditions: {ready: false, serving: false,";
        edit(&weft, &pods, &[(ready, not_ready)]).await;
        phase.store(2, Ordering::SeqCst);
        let drawn = draw(&mut told, 2).await;
        assert_share(by(&drawn, "catalog-v1-2"), DRAWS, 50, "the pod of the other zone");
        assert_eq!(by(&drawn, "catalog-v1-1"), 0);

        stop.store(true, Ordering::Relaxed);
        while told.recv().await.is_some() {}
        clients.join_all().await;
        assert_eq!(weft.metric("weft_config_generation", &[]).await, Some(3.0));
        let good = weft.metric("istio_requests_total", &[("response_code", "200")]).await;
        assert_eq!(good, weft.metric("istio_requests_total", &[]).await);
        println!("requests: {good:?}");
        assert!(weft.terminate().await.success(), "{}", weft.log());
    });
}
