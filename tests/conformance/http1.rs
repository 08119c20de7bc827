//! Sends the table's bytes, and looks at both ends: what the client is answered, and what the upstream was sent.

use std::net::SocketAddr;
use std::time::Duration;

use support::strict::{self, Message, Read};
use support::{Mesh, Recorder, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::case::{Case, End};
use crate::requests;

/// Asks whether the connection still serves requests.
pub(crate) const PROBE: &str = "/probe";

/// Asks, on another connection, whether the upstream is still understood.
const BARRIER: &str = "/barrier";

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Status of each answer, in order, without 1xx.
    pub(crate) answers: Vec<u16>,
    /// What became of the connection.
    pub(crate) end: End,
    /// Complete requests that reached the upstream.
    pub(crate) reached: Vec<String>,
    /// The last of them.
    pub(crate) last: Option<Message>,
    /// Whether a request reached the upstream in part.
    pub(crate) cut: bool,
    /// What is wrong whatever the table says.
    pub(crate) violations: Vec<String>,
}

/// Sends a case to a proxy at `proxy` that forwards to `recorder`. When nothing comes for `quiet`, nothing will.
pub(crate) async fn observe(
    case: &Case,
    proxy: SocketAddr,
    recorder: &Recorder,
    quiet: Duration,
) -> Observed {
    let mut client = Client::connect(proxy, quiet, case.head).await;
    client.send(&case.bytes).await;
    let wanted = case.answers.len();
    while !client.ended() && client.answers.len() < wanted && client.read().await {}
    if case.end == End::Closed {
        while !client.ended() && client.read().await {}
    }
    let end = client.end(case.end).await;
    let mut violations = client.violations;
    let mut answers: Vec<u16> = client.answers.iter().map(|(status, _)| *status).collect();
    if end == End::Open {
        // The probe's.
        answers.pop();
    }
    drop((client.reader, client.writer));
    let reached = reached(proxy, recorder, quiet).await;
    violations.extend(reached.violations);
    let last = reached.requests.last().cloned();
    let requests = reached.requests.iter().map(in_short).collect();
    Observed { answers, end, reached: requests, last, cut: reached.cut, violations }
}

/// What reached the upstream.
pub(crate) struct Reached {
    /// Complete requests, without ours.
    pub(crate) requests: Vec<Message>,
    /// Whether there was one in part.
    pub(crate) cut: bool,
    /// What is no request.
    pub(crate) violations: Vec<String>,
}

/// What has reached `recorder` when another client has been served behind it.
pub(crate) async fn reached(proxy: SocketAddr, recorder: &Recorder, quiet: Duration) -> Reached {
    let mut violations = Vec::new();
    let mut barrier = Client::connect(proxy, quiet, false).await;
    barrier.send(get(BARRIER).as_bytes()).await;
    while !barrier.ended() && barrier.answers.is_empty() && barrier.read().await {}
    if barrier.answers != [(200, BARRIER.to_owned())] {
        violations.push(format!("another client is answered {:?}", barrier.answers));
    }
    let connections = eventually("what is sent in part is given up", || async {
        let connections = recorder.connections();
        let open = connections.iter().any(|connection| !connection.rest.is_empty() && !connection.closed);
        (!open).then(|| recorder.take())
    })
    .await;
    let cut =
        connections.iter().any(|connection| !connection.rest.is_empty() && connection.violation.is_none());
    violations.extend(connections.iter().filter_map(|connection| connection.violation.clone()));
    let requests = connections.into_iter().flat_map(|connection| connection.requests);
    let requests = requests.filter(|request| !matches!(request.first_line[1].as_str(), PROBE | BARRIER));
    Reached { requests: requests.collect(), cut, violations }
}

/// Method, authority, target, and the body if there is one.
pub(crate) fn in_short(request: &Message) -> String {
    let [method, target, _] = &request.first_line;
    let (host, body) = (request.header("host"), request.text());
    let body = if body.len() > 100 { format!("{} bytes", body.len()) } else { body };
    format!("{method} {host} {target} {body}").trim_end().to_owned()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: catalog\r\n\r\n")
}

/// A connection of the client.
struct Client {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    quiet: Duration,
    head: bool,
    bytes: Vec<u8>,
    closed: bool,
    /// Status and, for those of the upstream, the target that was answered.
    answers: Vec<(u16, String)>,
    violations: Vec<String>,
}

impl Client {
    async fn connect(to: SocketAddr, quiet: Duration, head: bool) -> Client {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (reader, writer) = stream.into_split();
        let (bytes, answers, violations) = <(Vec<u8>, _, _)>::default();
        Client { reader, writer, quiet, head, bytes, closed: false, answers, violations }
    }

    /// Sends while reading, since the other side may answer and close before it has read everything.
    async fn send(&mut self, bytes: &[u8]) {
        let Client { reader, writer, bytes: read, closed, .. } = self;
        let mut writing = std::pin::pin!(writer.write_all(bytes));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                // What cannot be written any more shows in what is answered.
                _ = &mut writing => break,
                count = reader.read(&mut buffer) => match count {
                    Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                    _ => {
                        *closed = true;
                        break;
                    }
                },
            }
        }
        self.parse();
    }

    fn ended(&self) -> bool {
        self.closed
    }

    /// Reads once; `false` when nothing came.
    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match tokio::time::timeout(self.quiet, self.reader.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => {
                self.bytes.extend_from_slice(&buffer[..count]);
                self.parse();
                true
            }
            Ok(_) => {
                self.closed = true;
                if !self.bytes.is_empty() {
                    self.violations.push("an answer ends early".to_owned());
                }
                true
            }
            Err(_) => false,
        }
    }

    fn parse(&mut self) {
        while !self.bytes.is_empty() {
            match strict::response(&self.bytes, self.head) {
                Ok(Read::Complete(answer, length)) => {
                    self.bytes.drain(..length);
                    let status = answer.first_line[1].parse().expect("three digits");
                    if status >= 200 {
                        self.answers.push((status, answer.header("x-target")));
                    }
                }
                Ok(Read::Partial) => return,
                Err(violation) => {
                    let text = String::from_utf8_lossy(&self.bytes).into_owned();
                    self.violations.push(format!("the client is answered {text:?}: {violation}"));
                    self.bytes.clear();
                }
            }
        }
    }

    /// Finds out what became of the connection, where `expected` says how to look.
    async fn end(&mut self, expected: End) -> End {
        if self.closed {
            return End::Closed;
        }
        if expected == End::Waiting {
            return End::Waiting;
        }
        self.head = false;
        let before = self.answers.len();
        self.send(get(PROBE).as_bytes()).await;
        while !self.closed && self.answers.len() == before && self.read().await {}
        match self.answers.last() {
            Some((200, target)) if target == PROBE => End::Open,
            _ if self.closed => End::Closed,
            _ => End::Waiting,
        }
    }
}

/// Compares what came of a case with what the table says.
fn judge(case: &Case, observed: &Observed) -> Vec<String> {
    let mut wrong = observed.violations.clone();
    let mut compare = |what: &str, same: bool, saw: String, wants: String| {
        if !same {
            wrong.push(format!("{what} {saw} instead of {wants}"));
        }
    };
    let (saw, wants) = (&observed.answers, &case.answers);
    compare("answers", saw == wants, format!("{saw:?}"), format!("{wants:?}"));
    compare("end", observed.end == case.end, format!("{:?}", observed.end), format!("{:?}", case.end));
    let (saw, wants) = (&observed.reached, &case.reached);
    compare("reached", saw == wants, format!("{saw:?}"), format!("{wants:?}"));
    if observed.cut && !case.may_be_cut {
        wrong.push("a request reached the upstream in part".to_owned());
    }
    if let Some(last) = &observed.last {
        wrong.extend(judge_fields(last, &case.sees, &case.hides));
    }
    wrong
}

/// Compares the fields of a request at the upstream with what they are to be.
pub(crate) fn judge_fields(request: &Message, sees: &[(&str, &str)], hides: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, value) in sees {
        let all: Vec<_> =
            request.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value).collect();
        if all != [value.as_bytes()] {
            let all: Vec<_> = all.into_iter().map(|value| String::from_utf8_lossy(value)).collect();
            wrong.push(format!("the upstream sees {name} as {all:?}"));
        }
    }
    for name in hides.iter().chain(&["connection", "keep-alive", "proxy-connection", "upgrade"]) {
        if request.headers.iter().chain(&request.trailers).any(|(found, _)| found == name) {
            wrong.push(format!("the upstream sees {name}"));
        }
    }
    wrong
}

async fn check(cases: Vec<Case>) {
    let recorder = Recorder::new().await;
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", recorder.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let mut failures = Vec::new();
    for case in cases {
        let observed = observe(&case, proxy.listener(0), &recorder, Duration::from_millis(700)).await;
        let wrong = judge(&case, &observed);
        if !wrong.is_empty() {
            failures.push(format!("{} ({}): {}", case.name, case.rule, wrong.join("; ")));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n  {}", failures.len(), failures.join("\n  "));
}

/// One test for each part of the table.
macro_rules! tables {
    ($($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                check(requests::$name::cases()).await;
            }
        )+

        /// All parts.
        pub(crate) fn all() -> Vec<Case> {
            [$(requests::$name::cases()),+].concat()
        }
    };
}

tables!(
    body_length,
    chunked,
    request_line,
    target,
    fields,
    host,
    hop_by_hop,
    sizes,
    connections,
    expectations
);

#[test]
fn the_table_is_large() {
    assert!(all().len() >= 200, "{} cases", all().len());
}
