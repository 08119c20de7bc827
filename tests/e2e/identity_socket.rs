//! The identity of a workload from a socket of its machine: by Envoy's secret discovery, or by the SPIFFE Workload API.

use std::sync::Arc;

use support::spiffe::{Says, Speaks, TestSocket};
use support::tls::Ca;
use support::{Request, TestBackend, TestProxy, eventually};
use weft::app::IdentitySource;

use crate::mutual::{CLIENT, SERVER, client_with, server_with};

fn identity(name: &str, ca: &Ca) -> Says {
    Says::Identity(name.to_owned(), ca.workload(name), ca.pem.clone())
}

async fn is_well(client: &TestProxy) -> bool {
    Request::get("/").send(client.listener(0)).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_renewed_and_never_replaced_by_a_worse_one() {
    for speaks in [Speaks::Discovery, Speaks::WorkloadApi] {
        let ca = Ca::new("mesh");
        let app = TestBackend::echo("app").await;
        let log = tempfile::tempdir().expect("a directory");
        let mut servers = TestSocket::new(speaks);
        servers.comes();
        servers.says(identity(SERVER, &ca));
        let source = IdentitySource::Socket(servers.path());
        let server = server_with(source, &app, false, &log.path().join("log")).await.ready().await;

        // The socket is not there yet, then says nothing, then what is no identity.
        let mut socket = TestSocket::new(speaks);
        let mut client = client_with(IdentitySource::Socket(socket.path()), server.listener(0), SERVER);
        client = client.set(|settings| {
            settings.limits.ca_retry_min_ms = 10;
            settings.limits.ca_retry_max_ms = 50;
            settings.limits.ca_answer_time_max_ms = 1_000;
        });
        let mut client = client.start();
        client.page_has("/ready", "has not come yet from the socket").await;
        socket.comes();
        client.page_has("/ready", "it did not answer within 1000ms").await;
        let wrong = [
            (Says::Denied, "no identity issued"),
            (Says::Garbage, if speaks == Speaks::Discovery { "cannot be read" } else { "is not one DER" }),
            (Says::Huge(2 << 20), "OutOfRange"),
        ];
        for (says, why) in &wrong {
            socket.says(says.clone());
            client.page_has("/ready", why).await;
        }
        socket.says(identity(CLIENT, &ca));
        client.becomes_ready().await;
        assert!(is_well(&client).await, "{speaks:?}");
        let certs: serde_json::Value = serde_json::from_str(&client.page("/certs").await).expect("JSON");
        assert!(certs["weft"]["identity_source"].as_str().is_some_and(|source| source.contains("socket")));

        // What is worse is found and not taken.
        let generation = client.generation().await;
        for (says, why) in &wrong {
            socket.says(says.clone());
            client.page_has("/findings", why).await;
            assert!(is_well(&client).await, "{speaks:?}: {says:?}");
        }
        assert_eq!(client.generation().await, generation, "nothing bad is served");
        if speaks == Speaks::Discovery {
            assert!(socket.refused.lock().iter().any(|why| why.contains("cannot be read")));
        }

        // Whoever serves goes and comes again with a new one.
        socket.goes().await;
        client.page_has("/findings", "identity-source").await;
        assert!(is_well(&client).await);
        socket.says(identity(CLIENT, &ca));
        socket.comes();
        client.generation_after(generation).await;
        eventually("nothing is found any more", || async {
            (!client.page("/findings").await.contains("identity-source")).then_some(())
        })
        .await;
        assert!(is_well(&client).await);
    }
}

/// What cannot be read ends the stream, and what a source has sends it again on the next: it is found all the while, though each
/// begins with the identity that there is, and no longer once nothing comes of the kind.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_every_stream_is_found_until_it_does_not() {
    const TIMES: f64 = 12.0;
    for speaks in [Speaks::Discovery, Speaks::WorkloadApi] {
        let ca = Ca::new("mesh");
        let mut socket = TestSocket::new(speaks);
        socket.comes();
        let own = identity(CLIENT, &ca);
        socket.says(own.clone());
        let source = IdentitySource::Socket(socket.path());
        let client = client_with(source, ([127, 0, 0, 1], 9).into(), SERVER).set(|settings| {
            settings.limits.ca_retry_min_ms = 200;
            settings.limits.ca_retry_max_ms = 200;
            settings.limits.ca_answer_time_max_ms = 2_000;
        });
        let client = client.ready().await;
        socket.says(Says::Both(Box::new([own.clone(), Says::Huge(2 << 20)])));
        client.page_has("/findings", "OutOfRange").await;
        let labels = [("reason", "too_large")];
        let failures = || async { client.metric("weft_identity_failures_total", &labels).await };
        while failures().await.is_none_or(|failures| failures < TIMES) {
            let findings = client.page("/findings").await;
            assert!(findings.contains("OutOfRange"), "{speaks:?}: {:?}: {findings}", failures().await);
        }
        for says in [own, identity(CLIENT, &ca)] {
            client.page_has("/findings", "OutOfRange").await;
            socket.says(says.clone());
            eventually("nothing is found any more", || async {
                (!client.page("/findings").await.contains("identity-source")).then_some(())
            })
            .await;
            socket.says(Says::Both(Box::new([says, Says::Huge(2 << 20)])));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_renewals_under_load_fail_no_request() {
    const RENEWALS: usize = 50;
    let ca = Arc::new(Ca::new("mesh"));
    let app = TestBackend::echo("app").await;
    let log = tempfile::tempdir().expect("a directory");
    let [mut servers, mut clients] = [Speaks::Discovery, Speaks::WorkloadApi].map(TestSocket::new);
    servers.comes();
    clients.comes();
    servers.says(identity(SERVER, &ca));
    clients.says(identity(CLIENT, &ca));
    let source = IdentitySource::Socket(servers.path());
    let server = server_with(source, &app, false, &log.path().join("log")).await.ready().await;
    let client =
        client_with(IdentitySource::Socket(clients.path()), server.listener(0), SERVER).ready().await;
    let (over, stopped) = tokio::sync::watch::channel(false);
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (to, stopped) = (client.listener(worker % 2), stopped.clone());
        load.spawn(async move {
            let mut answered = 0;
            while !*stopped.borrow() {
                let answer = Request::get("/").send(to).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered += 1;
            }
            answered
        });
    }
    for _ in 0..RENEWALS {
        let before = (client.generation().await, server.generation().await);
        servers.says(identity(SERVER, &ca));
        clients.says(identity(CLIENT, &ca));
        client.generation_after(before.0).await;
        server.generation_after(before.1).await;
    }
    over.send_replace(true);
    let mut answered = 0;
    while let Some(ended) = load.join_next().await {
        answered += ended.expect("it was answered");
    }
    assert!(answered > RENEWALS, "{answered}");
}
