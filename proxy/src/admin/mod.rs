//! The admin console: what an operator may ask a running proxy. Paths and forms are Envoy's where Envoy has them.

mod clusters;
mod config_dump;
mod gauges;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::config_dump::{Refusal, Selection};
use crate::control::Status;
use crate::http::codec::guard::Guarded;
use crate::http::codec::{Body, Frame, RecvBody, RequestHead, ResponseHead, StreamError, h1};
use crate::snapshot::Reader;
use crate::telemetry::Registry;
pub(crate) use gauges::Gauges;

/// Bounds that keep those who ask from locking each other out: a probe of readiness must find a place.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at once.
    connections_max: usize,
    /// How long a connection is kept; the request in flight is answered, and one that never asks is cut.
    connection_age_max: Duration,
}

const LIMITS: Limits = Limits { connections_max: 64, connection_age_max: Duration::from_secs(60) };

/// How long accepting pauses after a failure that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the console shows.
pub(crate) struct Console {
    /// What the control thread knows.
    pub(crate) status: Rc<Status>,
    /// What is served.
    pub(crate) reader: Reader,
    /// All numbers.
    pub(crate) registry: Arc<Registry>,
    /// Those of clusters that are written only when they are asked for.
    pub(crate) gauges: Gauges,
}

/// A page and what it tells, for `/help`.
const PAGES: [(&str, &str); 6] = [
    ("/clusters", "clusters and their endpoints with live figures; ?format=json"),
    (
        "/config_dump",
        "the declared configuration, as Envoy's, with its origins; ?resource=FIELD, ?name_regex=RE",
    ),
    ("/findings", "what is wrong or not honoured in the configuration; ?format=json"),
    ("/help", "this list"),
    ("/ready", "200 when a configuration is served, 503 and the reason otherwise"),
    ("/stats/prometheus", "metrics in Prometheus' text format"),
];

/// An answer.
struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Page {
    fn text(status: StatusCode, body: String) -> Page {
        Page { status, content_type: "text/plain; charset=UTF-8", body: body.into_bytes() }
    }

    fn json(value: &serde_json::Value) -> Page {
        match serde_json::to_vec_pretty(value) {
            Ok(body) => Page { status: StatusCode::OK, content_type: "application/json", body },
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

/// Serves the console. Ends only when the event loop does.
pub(crate) async fn serve(socket: std::net::TcpListener, console: Rc<Console>) -> io::Error {
    serve_within(socket, console, LIMITS).await
}

async fn serve_within(socket: std::net::TcpListener, console: Rc<Console>, limits: Limits) -> io::Error {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let permits = Rc::new(Semaphore::new(limits.connections_max));
    loop {
        let Ok(permit) = semaphore(&permits).await else { return io::Error::other("the console was closed") };
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin console cannot accept connections now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let console = console.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let handler = |head, body| {
                let console = console.clone();
                async move { console.answer(&head, body, remote) }
            };
            let old = tokio::time::sleep(limits.connection_age_max);
            let (stream, heads) = (Guarded::alone(stream), config::Limits::default());
            // An operator who leaves in the middle of an answer, or never asks, is no one's concern.
            tokio::select! {
                _ = h1::server::serve(stream, &heads, handler, old) => {}
                () = tokio::time::sleep(limits.connection_age_max * 2) => {}
            }
        });
    }
}

/// A place for one more connection.
async fn semaphore(permits: &Rc<Semaphore>) -> Result<impl Sized + use<>, tokio::sync::AcquireError> {
    /// Gives the place back.
    struct Permit(Rc<Semaphore>);
    impl Drop for Permit {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }
    permits.acquire().await?.forget();
    Ok(Permit(permits.clone()))
}

impl Console {
    fn answer(&self, head: &RequestHead, _: RecvBody, _: SocketAddr) -> (ResponseHead, FullBody) {
        let readable = matches!(head.method, Method::GET | Method::HEAD);
        let mut page = self.page(head);
        if !readable && page.status != StatusCode::NOT_FOUND {
            let what = "only GET and HEAD; nothing here changes anything\n".to_owned();
            page = Page::text(StatusCode::METHOD_NOT_ALLOWED, what);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        // What is shown here is text that others wrote.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(page.body.len()));
        if page.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let body = if head.method == Method::HEAD { Vec::new() } else { page.body };
        (ResponseHead { status: page.status, headers }, FullBody(Some(body.into())))
    }

    fn page(&self, head: &RequestHead) -> Page {
        let path = head.path.as_ref().map_or("/", |path| path.path());
        let query = head.path.as_ref().and_then(|path| path.query()).unwrap_or("");
        let json = query.split('&').any(|parameter| parameter == "format=json");
        match path {
            "/" | "/help" => Page::text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/stats/prometheus" => self.stats(),
            "/clusters" if json => Page::json(&clusters::json(&self.reader.load())),
            "/clusters" => Page::text(StatusCode::OK, clusters::text(&self.reader.load())),
            "/config_dump" => self.config_dump(query),
            "/findings" if json => self.findings_json(),
            "/findings" => self.findings(),
            _ => Page::text(StatusCode::NOT_FOUND, format!("there is no `{path}` here\n\n{}", help())),
        }
    }

    /// Envoy's `/ready`: `LIVE` when ready. What an operator must know besides follows it.
    fn ready(&self) -> Page {
        if let Some(why) = self.status.not_ready() {
            let state = if self.status.is_draining() { "DRAINING" } else { "PRE_INITIALIZING" };
            return Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\nnot ready: {why}\n"));
        }
        let mut text = "LIVE\n".to_owned();
        let endpoints = self.reader.load().tls_endpoints();
        if self.status.allow_unenforced_security {
            text.push_str(&format!(
                "unenforced security: --allow-unenforced-security sends in plain text what asks for TLS ({endpoints} \
                 endpoints)\n"
            ));
        } else if endpoints > 0 {
            text.push_str(&format!(
                "not enforced: {endpoints} endpoints ask for TLS, which weft cannot speak yet; requests to them are \
                 answered 503\n"
            ));
        }
        Page::text(StatusCode::OK, text)
    }

    fn stats(&self) -> Page {
        let snapshot = self.reader.load();
        self.status.refresh_metrics(&snapshot);
        self.gauges.refresh(&snapshot);
        match self.registry.encode() {
            Ok(text) => Page {
                status: StatusCode::OK,
                content_type: "text/plain; version=0.0.4",
                body: text.into_bytes(),
            },
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn config_dump(&self, query: &str) -> Page {
        let Some(published) = self.status.last_published() else {
            return Page::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no configuration is served yet; see /ready\n".to_owned(),
            );
        };
        let dump = Selection::of(query).and_then(|selection| {
            config_dump::page(&published.resources, &published.proxy, self.status.generation(), &selection)
        });
        match dump {
            Ok(dump) => Page::json(&dump),
            Err(Refusal::Malformed(what)) => Page::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
            Err(Refusal::NotFound(what)) => Page::text(StatusCode::NOT_FOUND, format!("{what}\n")),
        }
    }

    fn findings(&self) -> Page {
        let findings = self.status.all_findings();
        if findings.is_empty() {
            return Page::text(
                StatusCode::OK,
                "nothing to say: everything is honoured as it is written\n".to_owned(),
            );
        }
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Page::text(StatusCode::OK, format!("{}\n", lines.join("\n")))
    }

    fn findings_json(&self) -> Page {
        match serde_json::to_value(self.status.all_findings()) {
            Ok(findings) => Page::json(&findings),
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn help() -> String {
    let mut text = String::from("weft admin console\n\n");
    for (path, what) in PAGES {
        text.push_str(&format!("  {path:<20} {what}\n"));
    }
    text
}

/// A body that is known in full.
pub(crate) struct FullBody(pub(crate) Option<Bytes>);

impl Body for FullBody {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, StreamError>>> {
        Poll::Ready(self.0.take().map(|body| Ok(Frame::Data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }

    fn exact_length(&self) -> Option<u64> {
        Some(self.0.as_ref().map_or(0, |body| body.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::LocalSet;

    use super::*;
    use crate::snapshot::Publisher;

    /// Those who connect and say nothing give their place to those who ask.
    #[tokio::test]
    async fn idle_connections_lock_nobody_out() {
        let registry = Registry::new();
        let status = Rc::new(Status::new(&registry, false));
        let console = Rc::new(Console {
            status,
            reader: Publisher::new().reader(),
            gauges: Gauges::new(&registry),
            registry,
        });
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let limits = Limits { connections_max: 2, connection_age_max: Duration::from_millis(20) };
        let local = LocalSet::new();
        local.spawn_local(serve_within(socket, console, limits));
        let asks = async {
            let mut idle = Vec::new();
            for _ in 0..limits.connections_max {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            // One has asked once and goes on to be connected.
            let ask = b"GET /help HTTP/1.1\r\nhost: a\r\n\r\n";
            idle[0].write_all(ask).await.unwrap();
            let mut asked = TcpStream::connect(address).await.unwrap();
            asked.write_all(b"GET /help HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            asked.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
            // Both are closed by now, or will be.
            for mut idle in idle {
                idle.read_to_end(&mut Vec::new()).await.unwrap();
            }
        };
        local.run_until(tokio::time::timeout(Duration::from_secs(20), asks)).await.unwrap();
    }
}
