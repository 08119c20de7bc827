//! A client: single requests for the tour, and a steady load with its figures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::backends::SERVED_BY;
use crate::http::codec::{Body, EmptyBody, Frame, RequestHead, Unread, Version, h1};
use crate::time;

/// Connections the load is spread over.
const CONNECTIONS: u32 = 8;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One keep-alive connection, made anew when it is gone.
pub(super) struct Client {
    address: SocketAddr,
    connection: Option<h1::client::Client>,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The version of the backend that answered; empty when the proxy did.
    pub(super) version: String,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Client {
    /// Of a server at `address`; it connects when it is first used.
    pub(super) fn new(address: SocketAddr) -> Client {
        Client { address, connection: None }
    }

    /// Asks, and reads the answer to its end.
    pub(super) async fn get(
        &mut self,
        path: &'static str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Answer, String> {
        let answer = tokio::time::timeout(TIMEOUT, self.ask(path, headers)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn ask(
        &mut self,
        path: &'static str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Answer, String> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => connect(self.address).await?,
        };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let head = RequestHead {
            method: Method::GET,
            version: Version::Http11,
            authority: Some(HeaderValue::from_static("catalog")),
            scheme: None,
            path: Some(PathAndQuery::from_static(path)),
            headers: headers.collect(),
        };
        let sent = connection.send(&head, EmptyBody).await;
        let (head, mut body) = sent.map_err(|failed| failed.error.to_string())?;
        let mut read = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            if let Frame::Data(data) = frame.map_err(|error| error.to_string())? {
                read.extend_from_slice(&data);
            }
        }
        self.connection = Some(connection);
        let version =
            head.headers.get(SERVED_BY).and_then(|version| version.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            version: version.to_owned(),
            headers: head.headers,
            body: read,
        })
    }
}

async fn connect(address: SocketAddr) -> Result<h1::client::Client, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(h1::client::Client::new(stream.into(), &Rc::default(), &Unread::unbounded()))
}

/// What a load has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// How long the answers of each version took.
    pub(super) answers: BTreeMap<String, Vec<Duration>>,
    /// Requests that got no 200.
    pub(super) failed: u64,
    /// What the first of them got.
    pub(super) first_failure: Option<String>,
}

impl Figures {
    /// All requests.
    pub(super) fn total(&self) -> u64 {
        self.answers.values().map(|answers| answers.len() as u64).sum::<u64>() + self.failed
    }

    /// The failures, with what the first was.
    pub(super) fn failures(&self) -> String {
        match &self.first_failure {
            Some(first) => format!("{} failed ({first})", self.failed),
            None => format!("{} failed", self.failed),
        }
    }

    fn enter(&mut self, answer: Result<Answer, String>, latency: Duration) {
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.answers.entry(answer.version).or_default().push(latency);
            }
            Ok(answer) => self.fail(format!("status {}", answer.status)),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(what);
    }
}

/// A steady load on catalog, as long as it lives.
pub(super) struct Load {
    figures: Rc<RefCell<Figures>>,
    _lanes: JoinSet<()>,
}

impl Load {
    /// Starts sending `rate` requests a second, evenly.
    pub(super) fn start(address: SocketAddr, rate: u32) -> Load {
        let figures = Rc::new(RefCell::new(Figures::default()));
        let mut lanes = JoinSet::new();
        let begin = time::now();
        for lane in 0..CONNECTIONS {
            let offset = Duration::from_secs(1) * lane / rate;
            lanes.spawn_local(run(
                address,
                begin + offset,
                Duration::from_secs(1) * CONNECTIONS / rate,
                figures.clone(),
            ));
        }
        Load { figures, _lanes: lanes }
    }

    /// What it has seen since it was last asked.
    pub(super) fn take(&self) -> Figures {
        std::mem::take(&mut self.figures.borrow_mut())
    }
}

async fn run(address: SocketAddr, begin: Instant, interval: Duration, figures: Rc<RefCell<Figures>>) {
    let mut client = Client::new(address);
    let mut next = begin;
    loop {
        tokio::time::sleep_until(next.into()).await;
        next += interval;
        let sent = time::now();
        let answer = client.get("/items", &[]).await;
        figures.borrow_mut().enter(answer, time::now().saturating_duration_since(sent));
    }
}
