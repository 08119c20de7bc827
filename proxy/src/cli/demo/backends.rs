//! Echo backends: small HTTP servers on loopback addresses of their own, on a thread of their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread::JoinHandle;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use crate::admin::FullBody;
use crate::http::codec::guard::Guarded;
use crate::http::codec::{RequestHead, ResponseHead, h1};
use crate::net;

/// Response header in which a backend says who it is.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-demo-version");

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    /// Name of its pod.
    pub(super) pod: &'static str,
    /// Its service.
    pub(super) service: &'static str,
    /// Its version.
    pub(super) version: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// The backends of the demo.
#[derive(Debug)]
pub(super) struct Backends {
    /// All of them, also those that were killed.
    pub(super) all: Vec<Backend>,
    kill: mpsc::UnboundedSender<Kill>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Kill {
    pod: &'static str,
    done: oneshot::Sender<()>,
}

const PODS: [(&str, &str, &str); 5] = [
    ("web-1", "web", "v1"),
    ("catalog-v1-1", "catalog", "v1"),
    ("catalog-v1-2", "catalog", "v1"),
    ("catalog-v2-1", "catalog", "v2"),
    ("reviews-v1-1", "reviews", "v1"),
];

impl Backends {
    /// Starts them all.
    pub(super) fn start() -> io::Result<Backends> {
        let mut all = Vec::new();
        let mut sockets = Vec::new();
        for (last, (pod, service, version)) in (1..).zip(PODS) {
            // Linux owns all of 127.0.0.0/8, so that every pod has an address of its own.
            let socket = net::listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 10, last)), 0), false)?;
            let backend = Backend { pod, service, version, address: socket.local_addr()? };
            all.push(backend.clone());
            sockets.push((backend, socket));
        }
        let (kill, killed) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("backends".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, serve(sockets, killed));
        })?;
        Ok(Backends { all, kill, thread: Some(thread) })
    }

    /// Ends one at once: its connections are cut, new ones are refused.
    pub(super) async fn kill(&self, pod: &'static str) {
        let (done, killed) = oneshot::channel();
        if self.kill.send(Kill { pod, done }).is_ok() {
            // It is gone either way.
            let _ = killed.await;
        }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        let (kill, _) = mpsc::unbounded_channel();
        self.kill = kill;
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}

/// Serves until nobody can kill any more.
async fn serve(sockets: Vec<(Backend, TcpListener)>, mut kills: mpsc::UnboundedReceiver<Kill>) {
    let mut alive = JoinSet::new();
    let mut handles = Vec::new();
    for (backend, socket) in sockets {
        let pod = backend.pod;
        handles.push((pod, alive.spawn_local(accept(backend, socket))));
    }
    while let Some(Kill { pod, done }) = kills.recv().await {
        for (_, handle) in handles.iter().filter(|(name, _)| *name == pod) {
            handle.abort();
        }
        // The abort is carried out when the task is next looked at.
        let _ = alive.join_next().await;
        let _ = done.send(());
    }
}

async fn accept(backend: Backend, socket: TcpListener) {
    let backend = Rc::new(backend);
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else { return };
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let backend = backend.clone();
                connections.spawn_local(async move {
                    let handler = |head, _| { let answer = echo(&backend, &head); Some(async { answer }) };
                    // How a connection ends is no concern of an echo.
                    let (stream, limits) = (Guarded::alone(stream.into()), config::Limits::default());
                    drop(h1::server::serve(stream, &limits, handler, (std::future::pending(), true)).await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Says what was asked, and who answers.
fn echo(backend: &Backend, head: &RequestHead) -> (ResponseHead, FullBody) {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: serde_json::Map<String, serde_json::Value> =
        head.headers.iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
    let body = json!({
        "service": backend.service,
        "version": backend.version,
        "pod": backend.pod,
        "method": head.method.as_str(),
        "path": head.path.as_ref().map(ToString::to_string),
        "headers": headers,
    });
    let body = format!("{body}\n").into_bytes();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(SERVED_BY, HeaderValue::from_static(backend.version));
    (ResponseHead { status: StatusCode::OK, headers }, FullBody(Some(body.into())))
}
