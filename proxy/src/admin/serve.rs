//! How pages are served: a socket, a thread of its own, and bounds on those who ask.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use crate::http::codec::guard::Guarded;
use crate::http::codec::{Body, Frame, RequestHead, ResponseHead, StreamError, h1};

/// Bounds that keep those who ask from locking each other out: a probe of readiness must find a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections_max: usize,
    /// How long a connection is kept; the request in flight is answered, and one that never asks is cut. An answer that is
    /// still being made may take as long as it takes: the hook before a stop lasts as long as its application needs.
    pub(super) connection_age_max: Duration,
}

const LIMITS: Limits = Limits { connections_max: 64, connection_age_max: Duration::from_secs(60) };

/// How long accepting pauses after a failure that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// The methods that are allowed, of a page that refuses another.
    pub(crate) allow: Option<&'static str>,
}

impl Page {
    pub(crate) fn text(status: StatusCode, body: String) -> Page {
        Page { status, content_type: "text/plain; charset=UTF-8", body: body.into_bytes(), allow: None }
    }

    pub(super) fn json(value: &serde_json::Value) -> Page {
        match serde_json::to_vec_pretty(value) {
            Ok(body) => Page { status: StatusCode::OK, content_type: "application/json", body, allow: None },
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// What is refused because of its method.
    pub(crate) fn only(allow: &'static str, why: &str) -> Page {
        let mut page = Page::text(StatusCode::METHOD_NOT_ALLOWED, format!("{why}\n"));
        page.allow = Some(allow);
        page
    }

    fn answer(self, method: &Method) -> (ResponseHead, FullBody) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        // What is shown here is text that others wrote.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let body = if *method == Method::HEAD { Vec::new() } else { self.body };
        (ResponseHead { status: self.status, headers }, FullBody(Some(body.into())))
    }
}

/// An answer, when it is there.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Page>>>;

/// What answers requests; it is told who asks.
pub(crate) type Answers = Rc<dyn Fn(RequestHead, SocketAddr) -> Answer>;

/// Answers that are there at once.
pub(crate) fn at_once(answer: impl Fn(&RequestHead) -> Page + 'static) -> Answers {
    Rc::new(move |head, _| Box::pin(std::future::ready(answer(&head))))
}

/// A thread that answers until this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Answers what comes by `socket` with what `make` makes, on a thread of this name.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn start(
        name: &'static str,
        socket: std::net::TcpListener,
        make: impl FnOnce() -> Answers + Send + 'static,
    ) -> io::Result<Serving> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    error = serve(socket, make(), LIMITS) => {
                        tracing::error!(%error, listener = name, "nobody is answered there any more");
                    }
                    _ = ended => {}
                }
            });
        })?;
        Ok(Serving { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Only a panic of the thread is an error, and it has been reported then.
            let _ = thread.join();
        }
    }
}

/// Serves within `limits`. Ends only when the event loop does.
pub(super) async fn serve(socket: std::net::TcpListener, answers: Answers, limits: Limits) -> io::Error {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let permits = Rc::new(Semaphore::new(limits.connections_max));
    loop {
        let Ok(permit) = semaphore(&permits).await else { return io::Error::other("it was closed") };
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the operator's pages cannot be asked for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answers = answers.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let busy = Cell::new(false);
            let handler = |head: RequestHead, _| {
                let (method, answer) = (head.method.clone(), answers(head, peer));
                busy.set(true);
                let busy = &busy;
                async move {
                    let answer = answer.await;
                    busy.set(false);
                    answer.answer(&method)
                }
            };
            let cut = async {
                loop {
                    tokio::time::sleep(limits.connection_age_max * 2).await;
                    if !busy.get() {
                        return;
                    }
                }
            };
            let old = tokio::time::sleep(limits.connection_age_max);
            let (stream, heads) = (Guarded::alone(stream), config::Limits::default());
            // An operator who leaves in the middle of an answer, or never asks, is no one's concern.
            tokio::select! {
                _ = h1::server::serve(stream, &heads, handler, (old, true)) => {}
                () = cut => {}
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

    use super::*;

    /// Those who connect and say nothing give their place to those who ask.
    #[tokio::test]
    async fn idle_connections_lock_nobody_out() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let limits = Limits { connections_max: 2, connection_age_max: Duration::from_millis(20) };
        let local = LocalSet::new();
        let answers = at_once(|_| Page::text(StatusCode::OK, "asked\n".to_owned()));
        local.spawn_local(serve(socket, answers, limits));
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

    /// The hook before a stop may last longer than any connection that waits.
    #[tokio::test]
    async fn an_answer_that_takes_long_is_waited_for() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let limits = Limits { connections_max: 2, connection_age_max: Duration::from_millis(10) };
        let local = LocalSet::new();
        let answers: Answers = Rc::new(move |_, _| {
            Box::pin(async move {
                tokio::time::sleep(limits.connection_age_max * 10).await;
                Page::text(StatusCode::OK, "late\n".to_owned())
            })
        });
        local.spawn_local(serve(socket, answers, limits));
        let asks = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("late\n"), "{text}");
        };
        local.run_until(tokio::time::timeout(Duration::from_secs(20), asks)).await.unwrap();
    }
}
