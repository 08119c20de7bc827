//! A proxy that runs as a user whom the redirect rules do not leave alone: its own connections come back to it, and are refused
//! there instead of being made again.

use std::fs;

use support::netns::at;
use support::{Mesh, Namespace, Request, TestBackend, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh::{CATALOG, Condition, STRANGER, WEB, address, write};
use super::network::Network;
use super::websocket::{ECHO, server};

/// Open files of a proxy that does next to nothing are fewer.
const FILES_MAX: usize = 100;

#[test]
fn a_connection_that_comes_back_is_refused() {
    const TEST: &str = "netns::lifecycle::looped::a_connection_that_comes_back_is_refused";
    let Some(network) = Network::new(TEST) else { return };
    let Some(outside) = Namespace::new(TEST) else { return };
    outside.run(|| async {
        let format = "accessLogFile: /dev/stdout\naccessLogFormat: 'LOG %RESPONSE_CODE_DETAILS% %DOWNSTREAM_LOCAL_ADDRESS%'\n";
        let mesh = Mesh::new().with("mesh.yaml", format);
        write(&mesh, &vec![(1, Condition::Ready)]);
        let stranger = network.stranger(STRANGER);
        stranger.run(server(at(STRANGER, ECHO))).await;
        let catalog = network.pod("catalog-1.shop", &[&address(1)]);
        let _backend = catalog.run(TestBackend::echo_at(at(&address(1), 8080), "catalog")).await;
        let mut web = network.pod("web-1.shop", &[WEB]);
        // The rules are for a user that it is not.
        web.redirect(&[]).await;
        let directory = mesh.directory().display().to_string();
        network.start(&mut web, &[], "sidecar", &["--config", &directory]).await;
        let files = || {
            let directory = format!("/proc/{}/fd", web.sidecar().process());
            fs::read_dir(directory).expect("it runs").count()
        };
        let ended = web.run(async {
            let mut client = TcpStream::connect(at(STRANGER, ECHO)).await.expect("the sidecar accepts");
            client.write_all(b"x").await.expect("it is taken");
            client.read(&mut [0; 1]).await
        });
        assert!(matches!(ended.await, Ok(0) | Err(_)), "there is no way out of the pod");
        assert!(files() < FILES_MAX, "{}", files());
        let answer = web.run(Request::get("/").host("catalog").send(at(CATALOG, 8000))).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let few = || async { (files() < FILES_MAX).then_some(()) };
        eventually("no connections are left", few).await;
        let why = "they do not exclude uid 0; run the proxy as uid 1337, or apply the rules with -u 0";
        eventually("it says why", || async { web.log().contains(why).then_some(()) }).await;
        web.sidecar_mut().terminate().await;
        let log = web.sidecar().stdout();
        let line = format!("LOG redirected_to_its_own_proxy {}", at(STRANGER, ECHO));
        assert!(log.lines().any(|found| found == line), "{log}");
    });
}
