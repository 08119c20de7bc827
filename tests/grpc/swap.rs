//! Streams that live through many generations of the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::mesh::{destination_rule, virtual_service};
use support::{Mesh, TestProxy, eventually};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Request;

use support::grpc::{Client, EchoServer, numbered};

/// Generations that are published while the streams run.
const SWAPS: u64 = 200;

/// How many messages each stream has exchanged.
type Counts = Arc<[AtomicU64; 16]>;

/// Rules of the service `echo` that differ from one generation to the next by weights and a header.
fn rules(number: u64) -> String {
    let weight = number % 101;
    let rules = format!(
        "  - route:\n    - {{destination: {{host: echo, subset: v1}}, weight: {weight}}}\n    \
         - {{destination: {{host: echo, subset: v2}}, weight: {}}}\n    \
         headers: {{response: {{set: {{x-number: '{number}'}}}}}}\n",
        100 - weight
    );
    virtual_service("echo", &rules)
        + "---\n"
        + &destination_rule(
            "echo",
            "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]",
        )
}

/// Another service, whose endpoints come and go; and one of `echo` that is in no subset.
fn others(number: u64) -> String {
    let slice = |service: &str, port: &str, count: u64| {
        let addresses: Vec<String> = (0..count)
            .map(|n| format!("- {{addresses: [127.9.9.{}], conditions: {{ready: true}}}}", n + 1))
            .collect();
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-more\n  \
             namespace: shop\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\n\
             endpoints:\n{}\nports:\n- {{name: {port}, port: 9}}\n",
            addresses.join("\n")
        )
    };
    slice("other", "http", 1 + number % 5) + "---\n" + &slice("echo", "grpc", 1 + number % 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn long_streams_do_not_notice_that_tables_are_swapped() {
    let (one, two) = (EchoServer::start(), EchoServer::start());
    let mesh = Mesh::new()
        .service("echo", "grpc/9090")
        .service("other", "http/8000")
        .endpoint("echo", "grpc", "v1", one.address)
        .endpoint("echo", "grpc", "v2", two.address)
        .with("rules.yaml", &rules(50));
    let proxy = TestProxy::of(mesh).listen("echo", 9090).ready().await;
    let to = proxy.listener(0);
    let counts = Counts::default();
    let (end, ended) = watch::channel(false);
    let mut streams = JoinSet::new();
    for index in 0..counts.len() {
        let (client, counts, ended) = (Client::connect(to).await, counts.clone(), ended.clone());
        let count = move |count| counts[index].store(count, Ordering::Relaxed);
        streams.spawn(client.converse(count, ended));
    }
    all_go_on(&counts).await;
    let mut asking = Client::connect(to).await;
    let first = proxy.generation().await;
    for number in 1..=SWAPS {
        proxy.mesh.write("others.yaml", &others(number));
        proxy.publish("rules.yaml", &rules(number)).await;
        // The rules may have come a generation after the endpoints.
        let wanted = number.to_string();
        eventually("the new rules hold", || {
            let (mut asking, wanted) = (asking.clone(), &wanted);
            async move {
                let reply = asking.unary(Request::new(numbered(number))).await.expect("a reply");
                assert_eq!(reply.get_ref(), &numbered(number));
                (reply.metadata().get("x-number")?.as_bytes() == wanted.as_bytes()).then_some(())
            }
        })
        .await;
    }
    assert!(proxy.generation().await >= first + SWAPS);
    all_go_on(&counts).await;
    end.send_replace(true);
    let totals = streams.join_all().await;
    println!("messages exchanged by each stream: {totals:?}");
    asking.unary(Request::new(numbered(0))).await.expect("a reply");
}

/// Waits until every stream has exchanged another message.
async fn all_go_on(counts: &Counts) {
    let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    eventually("every stream goes on", || async {
        let gone_on = |(count, before): (&AtomicU64, &u64)| count.load(Ordering::Relaxed) > before + 1;
        counts.iter().zip(&before).all(gone_on).then_some(())
    })
    .await;
}
