//! The pods of a service are replaced one by one while clients ask, and nobody notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::netns::at;
use support::{Connection, Mesh, Namespace, Request, TestBackend, eventually};
use tokio::task::JoinSet;

use super::mesh::{CATALOG, Condition, Pods, STRANGER, WEB, address, write};
use super::network::{Network, Pod};

/// Names of the pods, by number.
const NAMES: [&str; 5] = ["catalog-0", "catalog-1", "catalog-2", "catalog-3", "catalog-4"];

/// Connections over HTTP/1, and streams at once on the one connection over HTTP/2, to each of the ports.
const HTTP1_CLIENTS: usize = 2;
const HTTP2_STREAMS: usize = 3;

/// How often each client asks.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long a sidecar goes on for those who have not heard that it ends.
const DRAIN: [&str; 2] = ["--termination-drain-duration-s", "4"];

/// Answers of a pod after which those who choose it may learn that it ends.
const ANSWERS_MEANWHILE: u64 = 25;

/// A pod of `catalog`.
struct Replica {
    pod: Pod,
    backends: [TestBackend; 2],
}

impl Replica {
    /// Starts one, and waits until its kubelet would call it ready.
    async fn start(network: &Network, mesh: &Mesh, kubelet: &Pod, number: usize) -> Replica {
        let (name, address) = (NAMES[number], address(number));
        let pod = network.captured(&format!("{name}.shop"), &address, mesh.directory(), &DRAIN).await;
        let http = at(&address, 8080);
        let http2 = at(&address, 8081);
        let backends = pod.run(async move {
            [TestBackend::echo_at(http, name).await, TestBackend::echo_at(http2, name).await]
        });
        let replica = Replica { backends: backends.await, pod };
        let is_ready = || async { kubelet.sees_ready(&address).await.then_some(()) };
        eventually("the pod is ready", is_ready).await;
        replica
    }

    /// Requests it has got on each port.
    fn served(&self) -> [u64; 2] {
        [self.backends[0].served(), self.backends[1].served()]
    }

    /// Waits until it has got so many more on each port.
    async fn serves(&self, more: u64) {
        let before = self.served();
        let serves = || async {
            let all = self.served().iter().zip(before).all(|(now, before)| *now >= before + more);
            all.then_some(())
        };
        eventually("it is asked", serves).await;
    }
}

/// Asks until it is told to stop; how many answers each pod gave. Every one must be good.
async fn ask(mut connection: Connection, stop: Arc<AtomicBool>) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    let mut pace = tokio::time::interval(INTERVAL);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let answer = connection.send(Request::get("/items")).await;
        let answer = answer.unwrap_or_else(|why| panic!("a request failed: {why}, after {answers:?}"));
        assert_eq!(answer.status, 200, "{} after {answers:?}", answer.text());
        *answers.entry(answer.json()["name"].as_str().expect("a name").to_owned()).or_default() += 1;
    }
    answers
}

/// Clients in a pod that knows of no sidecar, of both ports of the service.
async fn clients(stop: Arc<AtomicBool>) -> JoinSet<BTreeMap<String, u64>> {
    let mut clients = JoinSet::new();
    for port in [8000, 8001] {
        let to = at(CATALOG, port);
        for _ in 0..HTTP1_CLIENTS {
            clients.spawn(ask(Connection::http1(to).await, stop.clone()));
        }
        let connection = Connection::http2(to).await;
        for _ in 0..HTTP2_STREAMS {
            clients.spawn(ask(connection.share().expect("HTTP/2"), stop.clone()));
        }
    }
    clients
}

#[test]
fn a_rolling_restart_loses_no_request() {
    const TEST: &str = "netns::lifecycle::restart::a_rolling_restart_loses_no_request";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| restart(&network));
}

async fn restart(network: &Network) {
    let mesh = Mesh::new();
    let mut pods: Pods = vec![(1, Condition::Ready), (2, Condition::Ready)];
    write(&mesh, &pods);
    let kubelet = network.stranger(STRANGER);
    let mut replicas = BTreeMap::new();
    for number in [1, 2] {
        replicas.insert(number, Replica::start(network, &mesh, &kubelet, number).await);
    }
    let web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
    let stop = Arc::<AtomicBool>::default();
    let mut clients = web.run(clients(stop.clone())).await;

    for (old, new) in [(1, 3), (2, 4)] {
        // The new pod is there before its Pod object has an address that anybody is told of.
        pods.push((new, Condition::Terminating));
        write(&mesh, &pods);
        let replica = Replica::start(network, &mesh, &kubelet, new).await;
        pods.last_mut().expect("it was added").1 = Condition::Ready;
        write(&mesh, &pods);
        replica.serves(1).await;
        replicas.insert(new, replica);

        let mut leaving = replicas.remove(&old).expect("it was started");
        leaving.pod.sidecar().tell_to_end();
        let address = address(old);
        let is_failing = || async { (!kubelet.sees_ready(&address).await).then_some(()) };
        eventually("readiness fails", is_failing).await;
        // It takes a while until everybody knows.
        leaving.serves(ANSWERS_MEANWHILE).await;
        pods.iter_mut().filter(|(number, _)| *number == old).for_each(|pod| pod.1 = Condition::Terminating);
        write(&mesh, &pods);
        let status = leaving.pod.sidecar_mut().ended().await;
        assert!(status.success(), "{status}: {}", leaving.pod.sidecar().log());
        drop(leaving);
        pods.retain(|(number, _)| *number != old);
        write(&mesh, &pods);
        if let Some(failed) = clients.try_join_next() {
            panic!("a client gave up: {failed:?}");
        }
        replicas[&new].serves(10).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = BTreeMap::<String, u64>::new();
    for (pod, count) in clients.join_all().await.into_iter().flatten() {
        *answers.entry(pod).or_default() += count;
    }
    assert_eq!(answers.keys().map(String::as_str).collect::<Vec<_>>(), NAMES[1..]);
    let total: u64 = answers.values().sum();
    let good = web.metric("istio_requests_total", &[("response_code", "200")]).await;
    assert_eq!(good.to_string(), total.to_string());
    assert_eq!(web.metric("istio_requests_total", &[]).await.to_string(), total.to_string());
    let retries = web.metric("envoy_cluster_upstream_rq_retry", &[]).await;
    println!("answers: {answers:?}, retries: {retries}");
}
