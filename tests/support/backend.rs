//! Servers for the proxy to forward to.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server on loopback that speaks HTTP/1 and HTTP/2. It ends, and cuts its connections, with the value.
#[derive(Debug)]
pub struct TestBackend {
    /// Where it listens.
    pub address: SocketAddr,
    served: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl TestBackend {
    /// Answers every request with what it saw, as JSON: `name`, `method`, `path`, `version`, `headers` (a list of
    /// values for each name), `body`.
    pub async fn echo(name: &'static str) -> TestBackend {
        TestBackend::echo_at((own_address(), 0).into(), name).await
    }

    /// The same, on an address of one's own.
    pub async fn echo_at(address: SocketAddr, name: &'static str) -> TestBackend {
        TestBackend::new_at(address, move |request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let saw = json!({
                "name": name,
                "method": head.method.as_str(),
                "path": head.uri.path_and_query().map(ToString::to_string),
                "authority": head.uri.authority().map(ToString::to_string),
                "version": format!("{:?}", head.version),
                "headers": headers(&head.headers),
                "body": String::from_utf8_lossy(&body),
            });
            Response::new(Full::new(Bytes::from(saw.to_string())))
        })
        .await
    }

    /// Answers by a function.
    pub async fn new<H, F>(handler: H) -> TestBackend
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        TestBackend::new_at((own_address(), 0).into(), handler).await
    }

    /// The same, on an address of one's own.
    pub async fn new_at<H, F>(address: SocketAddr, handler: H) -> TestBackend
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::new(AtomicU64::new(0));
        let counted = served.clone();
        let accepted = Arc::new(AtomicU64::new(0));
        let accepted_counted = accepted.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        accepted_counted.fetch_add(1, Ordering::Relaxed);
                        let (handler, counted) = (handler.clone(), counted.clone());
                        connections.spawn(async move {
                            let service = service_fn(move |request| {
                                counted.fetch_add(1, Ordering::Relaxed);
                                let answer = handler(request);
                                async { Ok::<_, Infallible>(answer.await) }
                            });
                            let server = auto::Builder::new(TokioExecutor::new());
                            // How a connection ends is the test's concern, not the server's.
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        TestBackend { address, served, accepted, task }
    }

    /// Requests it has got.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Connections it has got.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for TestBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address of loopback that no other backend of this process has, as every pod has an address of its own.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % 0xff_0000;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + next)
}

/// Headers as JSON: a list of values for each name.
fn headers(headers: &HeaderMap) -> Value {
    let of = |name: &http::HeaderName| {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let all = headers.keys().map(|name| (name.to_string(), of(name)));
    Value::Object(all.collect())
}
