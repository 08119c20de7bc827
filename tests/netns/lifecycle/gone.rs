//! Clients want to go where nobody is any more.

use std::time::Duration;

use support::netns::at;
use support::{Mesh, Namespace, Request, TestBackend, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::mesh::{Condition, STRANGER, WEB, write};
use super::network::Network;

/// An address that no pod has any more: nothing answers there, not even that there is nobody.
const NOBODY: &str = "10.244.0.99";

/// How long the kernel asks for whoever has an address, and some.
const GIVES_UP_IN: Duration = Duration::from_secs(15);

#[test]
fn destinations_that_are_gone_end_their_own_connections_alone() {
    const TEST: &str = "netns::lifecycle::gone::destinations_that_are_gone_end_their_own_connections_alone";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let format = "accessLogFile: /dev/stdout\n\
            accessLogFormat: '%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_HOST%'\n";
        let mesh = Mesh::new().with("mesh.yaml", format);
        write(&mesh, &vec![(1, Condition::Ready)]);
        let stranger = network.stranger(STRANGER);
        let mut web = network.captured("web-1.shop", WEB, mesh.directory(), &[]).await;
        let alive = at(STRANGER, 8080);
        let _backend = stranger.run(TestBackend::echo_at(alive, "alive")).await;
        let (nobody, refuses) = (at(NOBODY, 5432), at(STRANGER, 5432));
        web.run(async move {
            for gone in [nobody, refuses] {
                // The kernel of the pod connects it to the sidecar, and there it ends.
                let mut client = TcpStream::connect(gone).await.expect("the sidecar accepts");
                let mut buffer = [0; 1];
                let end = tokio::time::timeout(GIVES_UP_IN, client.read(&mut buffer));
                tokio::pin!(end);
                let ended = loop {
                    tokio::select! {
                        ended = &mut end => break ended.expect("it ends in time"),
                        answer = Request::get("/").send(alive) => assert_eq!(answer.status, 200),
                    }
                };
                assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            }
        })
        .await;
        let refused = [("response_flags", "UF"), ("request_protocol", "tcp")];
        let is_counted = || async {
            (web.metric("istio_tcp_connections_closed_total", &refused).await >= 2.0).then_some(())
        };
        eventually("they are counted", is_counted).await;
        web.sidecar_mut().terminate().await;
        let log = web.sidecar().stdout();
        for gone in [nobody, refuses] {
            let line = log.lines().find(|line| line.ends_with(&gone.to_string())).unwrap_or_default();
            assert!(line.starts_with("UF ") && !line.starts_with("UF -"), "{gone}: {log}");
        }
    });
}
