//! gRPC's own interop suite: its Go client and server on both sides of a proxy.

use std::path::PathBuf;
use std::process::Stdio;

use support::backend::own_address;
use support::skip::skip;
use support::{Mesh, TestProxy, eventually};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::tools::run;

/// Environment variable that names the directory with the suite's `client` and `server`.
const INTEROP: &str = "WEFT_GRPC_INTEROP";

/// The cases of the suite that need neither TLS nor a cloud.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_interop_suite_passes() {
    let Some(directory) = std::env::var_os(INTEROP).map(PathBuf::from) else {
        skip(
            "interop::grpc::the_interop_suite_passes@no-grpc-interop",
            &format!(
                "set {INTEROP} to a directory with what `GOBIN=DIRECTORY go install \
                 google.golang.org/grpc/interop/client@latest google.golang.org/grpc/interop/server@latest` builds"
            ),
        );
        return;
    };
    // It listens on all addresses, so only the port has to be free.
    let address = std::net::TcpListener::bind((own_address(), 0)).and_then(|socket| socket.local_addr());
    let address = address.expect("a port");
    let mut server = Command::new(directory.join("server"));
    server.args(["-use_tls=false".to_owned(), format!("-port={}", address.port())]);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _server = server.spawn().expect("the server starts");
    eventually("the server listens", || async { TcpStream::connect(address).await.ok() }).await;
    let mesh = Mesh::new().service("interop", "grpc/9090").endpoint("interop", "grpc", "v1", address);
    let proxy = TestProxy::of(mesh).listen("interop", 9090).ready().await;
    let to = proxy.listener(0);
    let to = [format!("-server_host={}", to.ip()), format!("-server_port={}", to.port())];
    for case in CASES {
        let case =
            [format!("-test_case={case}"), "-use_tls=false".to_owned(), "-soak_iterations=200".to_owned()];
        run(&directory.join("client"), to.iter().chain(&case), b"").await;
        println!("{}: passed", case[0]);
    }
}
