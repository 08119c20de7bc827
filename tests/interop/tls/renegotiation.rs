//! A client that wants to negotiate anew, on a connection of TLS 1.2.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Gateway, get, s_client};
use crate::tools::find;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_negotiated_anew() {
    let Some(openssl) = find("openssl", "interop::tls::renegotiation::nothing_is_negotiated_anew") else {
        return;
    };
    let gateway = Gateway::start().await;
    let to = gateway.address.to_string();
    let arguments = ["s_client", "-connect", &to, "-servername", "ecdsa.example", "-tls1_2"];
    let mut client = Command::new(&openssl)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl starts");
    let mut stdin = client.stdin.take().expect("a pipe");
    let mut stdout = client.stdout.take().expect("a pipe");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("Verify return code") {
        assert!(stdout.read_buf(&mut heard).await.expect("what it says") > 0, "it ends before");
    }
    // By an R of its own on a line it begins.
    stdin.write_all(b"R\n").await.expect("it listens");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut stderr = client.stderr.take().expect("a pipe");
    let reading = async { tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err)) };
    let ended = tokio::time::timeout(support::PATIENCE, reading).await;
    let err = String::from_utf8_lossy(&err);
    assert!(ended.is_ok(), "{err} {}", String::from_utf8_lossy(&out));
    assert!(err.contains("RENEGOTIATING") && err.contains("no renegotiation"), "{err}");
    let shakes = gateway.proxy.metric("envoy_listener_ssl_handshake", &[]).await;
    assert_eq!(shakes, Some(1.0));
    // Others are served.
    let host = "ecdsa.example";
    let (_, said) = s_client(&openssl, gateway.address, &["-servername", host], &get(host)).await;
    assert!(said.text().contains("HTTP/1.1 200"), "{}", said.text());
}
