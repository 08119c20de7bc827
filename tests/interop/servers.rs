//! nginx and Python's http.server behind a proxy.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use support::backend::own_address;
use support::client::KeepAlive;
use support::{Mesh, Request, TestProxy, eventually};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::clients::body;
use crate::tools::find;

/// A server that is a process of its own. It ends with the value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    _child: Child,
}

impl Server {
    /// Starts a command whose server listens on `address`, and waits until it does.
    pub(super) async fn start(mut command: Command, address: SocketAddr) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = command.kill_on_drop(true).spawn().expect("the server starts");
        eventually("the server listens", || async { TcpStream::connect(address).await.ok() }).await;
        Server { address, _child: child }
    }

    /// nginx with the files of a directory, and these settings.
    async fn nginx(tool: &Path, files: &Path, settings: &str) -> Server {
        let address = free_address();
        let home = files.join(".nginx");
        fs::create_dir(&home).expect("a directory");
        let configuration = format!(
            "daemon off; master_process off; pid {home}/pid; error_log stderr error;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off; log_not_found off; client_body_temp_path {home}; proxy_temp_path {home};\n  \
             fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};\n  {settings}\n  \
             server {{ listen {address}; root {files}; }}\n}}\n",
            home = home.display(),
            files = files.display(),
        );
        fs::write(home.join("nginx.conf"), configuration).expect("the configuration is written");
        let mut command = Command::new(tool);
        command.arg("-p").arg(&home).arg("-c").arg(home.join("nginx.conf"));
        Server::start(command, address).await
    }

    /// Python's http.server with the files of a directory, in a version of HTTP.
    async fn python(tool: &Path, files: &Path, version: &str) -> Server {
        let address = free_address();
        let script = format!(
            "import http.server\n\
             class Handler(http.server.SimpleHTTPRequestHandler):\n    protocol_version = '{version}'\n    \
             def log_message(self, *_): pass\n\
             http.server.ThreadingHTTPServer(('{}', {}), Handler).serve_forever()\n",
            address.ip(),
            address.port()
        );
        let mut command = Command::new(tool);
        command.arg("-c").arg(script).current_dir(files);
        Server::start(command, address).await
    }
}

/// An address on which nothing listens: its IP address is nobody else's.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind((own_address(), 0)).and_then(|listener| listener.local_addr()).expect("a port")
}

async fn proxy_before(server: &Server) -> TestProxy {
    let mesh = Mesh::new().service("files", "http/8000").endpoint("files", "http", "v1", server.address);
    TestProxy::of(mesh).listen("files", 8000).ready().await
}

/// A directory with files of some lengths, named by them.
fn files(lengths: &[usize]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for length in lengths {
        fs::write(directory.path().join(length.to_string()), body(*length)).expect("the file is written");
    }
    directory
}

/// Fetches every file over both versions of HTTP, whole and in part.
async fn fetch(proxy: &TestProxy, lengths: &[usize], ranges: bool) {
    for &length in lengths {
        for http2 in [false, true] {
            let request = Request::get(&format!("/{length}"));
            let request = if http2 { request.http2() } else { request };
            let answer = request.clone().send(proxy.listener(0)).await;
            assert_eq!(answer.status, 200, "{length}");
            assert!(answer.body == body(length), "{length} bytes come as they are, http2: {http2}");
            let missing = Request::get("/missing").send(proxy.listener(0)).await;
            assert_eq!(missing.status, 404);
            if ranges && length > 1000 {
                let part = request.header("range", "bytes=500-999").send(proxy.listener(0)).await;
                assert_eq!(part.status, 206);
                assert!(part.body == body(length)[500..1000], "a part of {length} bytes");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_files() {
    let Some(tool) = find("nginx", "interop::servers::nginx_serves_files") else { return };
    const LENGTHS: [usize; 5] = [0, 1, 4096, 100_000, 20 * 1024 * 1024];
    let directory = files(&LENGTHS);
    let server = Server::nginx(&tool, directory.path(), "sendfile on;").await;
    let proxy = proxy_before(&server).await;
    fetch(&proxy, &LENGTHS, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nginx_ends_after_some_requests_lose_none() {
    const TEST: &str = "interop::servers::connections_that_nginx_ends_after_some_requests_lose_none";
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 250;
    /// Requests after which nginx ends a connection.
    const KEEPALIVE: usize = 7;
    let Some(tool) = find("nginx", TEST) else { return };
    let directory = files(&[100]);
    let settings = format!("keepalive_requests {KEEPALIVE};");
    let server = Server::nginx(&tool, directory.path(), &settings).await;
    let proxy = proxy_before(&server).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let to = proxy.listener(0);
        clients.spawn(async move {
            let mut connection = KeepAlive::connect(to).await;
            for _ in 0..REQUESTS {
                let answer = connection.send(Request::get("/100")).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        });
    }
    clients.join_all().await;
    let connections = proxy.metric("envoy_cluster_upstream_cx_total", &[]).await.unwrap_or(0.0);
    println!("{connections} connections for {} requests", CLIENTS * REQUESTS);
    assert!(connections >= (CLIENTS * REQUESTS / KEEPALIVE) as f64, "{connections}");
    // Nothing was tried twice, either.
    assert_eq!(proxy.metric("envoy_cluster_upstream_rq_retry", &[]).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_serves_files_in_both_versions_of_http_1() {
    const TEST: &str = "interop::servers::python_serves_files_in_both_versions_of_http_1";
    const LENGTHS: [usize; 4] = [0, 1, 100_000, 5 * 1024 * 1024];
    let Some(tool) = find("python3", TEST) else { return };
    let directory = files(&LENGTHS);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let server = Server::python(&tool, directory.path(), version).await;
        let proxy = proxy_before(&server).await;
        fetch(&proxy, &LENGTHS, false).await;
    }
}
