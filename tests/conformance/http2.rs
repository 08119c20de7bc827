//! HTTP/2 frames to an HTTP/1 upstream: what one version allows must not become another request in the other.

use std::net::SocketAddr;
use std::time::Duration;

use support::frames::{self, END_STREAM};
use support::strict::Message;
use support::{Mesh, Recorder, TestProxy};

use crate::case::End;
use crate::{cut, http1, streams};

/// The stream on which it is asked whether the connection still serves.
const PROBE_STREAM: u32 = 0x1001;

/// The stream of a case's request.
pub(crate) const STREAM: u32 = 1;

/// What a client sends on one connection after its preface, what comes back, and what reaches the upstream.
#[derive(Debug, Clone)]
pub(crate) struct StreamCase {
    /// What is special about it; unique.
    pub(crate) name: &'static str,
    /// The section that decides, of RFC 9113 where nothing else stands before it.
    pub(crate) rule: &'static str,
    /// Frames.
    pub(crate) bytes: Vec<u8>,
    /// What comes back on [`STREAM`].
    pub(crate) outcome: Outcome,
    /// What becomes of the connection.
    pub(crate) end: End,
    /// Complete requests that reach the upstream, as in the other table.
    pub(crate) reached: Vec<String>,
    /// Whether a request may reach the upstream in part.
    pub(crate) may_be_cut: bool,
    /// Headers the request must have at the upstream, and names it must not have.
    pub(crate) sees: Vec<(&'static str, &'static str)>,
    pub(crate) hides: Vec<&'static str>,
    /// Why this is not what the rule prefers, where it is not.
    pub(crate) deviation: Option<&'static str>,
}

/// What comes back on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer.
    Status(u16),
    /// RST_STREAM.
    Reset,
    /// GOAWAY with an error, for the whole connection.
    Goaway,
    /// Nothing yet.
    Nothing,
}

/// What came of a case.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) outcome: Outcome,
    pub(crate) end: End,
    pub(crate) reached: Vec<String>,
    last: Option<Message>,
    cut: bool,
    violations: Vec<String>,
}

/// Sends a case to a proxy at `proxy` that forwards to `recorder`. When nothing comes for `quiet`, nothing will.
pub(crate) async fn observe(
    case: &StreamCase,
    proxy: SocketAddr,
    recorder: &Recorder,
    quiet: Duration,
) -> Observed {
    let mut client = frames::Client::connect(proxy).await;
    client.send(&[frames::hello(), case.bytes.clone()].concat()).await;
    if case.outcome != Outcome::Nothing {
        client.read_to_end(STREAM, quiet).await;
    }
    let outcome = match (client.streams.get(&STREAM), client.goaway) {
        (_, Some(code)) if code != 0 => Outcome::Goaway,
        (Some(frames::Stream { status: Some(status), .. }), _) => Outcome::Status(*status),
        (Some(frames::Stream { reset: Some(_), .. }), _) => Outcome::Reset,
        _ => Outcome::Nothing,
    };
    let end = if case.end == End::Waiting { End::Waiting } else { end(&mut client, quiet).await };
    drop(client);
    let http1::Reached { requests, cut, violations } = http1::reached(proxy, recorder, quiet).await;
    let reached = requests.iter().map(http1::in_short).collect();
    Observed { outcome, end, reached, last: requests.into_iter().next(), cut, violations }
}

/// Finds out whether the connection still serves.
async fn end(client: &mut frames::Client, quiet: Duration) -> End {
    let probe = [
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", b"http"),
        (b":authority", b"catalog"),
        (b":path", http1::PROBE.as_bytes()),
    ];
    if client.goaway.is_some_and(|code| code != 0) {
        while !client.closed && client.read(quiet).await {}
    }
    if !client.closed {
        client.send(&frames::headers(PROBE_STREAM, END_STREAM, &probe)).await;
        client.read_to_end(PROBE_STREAM, quiet).await;
    }
    match client.streams.get(&PROBE_STREAM) {
        Some(stream) if stream.status == Some(200) && stream.ended => End::Open,
        _ if client.closed => End::Closed,
        _ => End::Waiting,
    }
}

fn judge(case: &StreamCase, observed: &Observed) -> Vec<String> {
    let mut wrong = observed.violations.clone();
    let mut compare = |what: &str, same: bool, saw: String, wants: String| {
        if !same {
            wrong.push(format!("{what} {saw} instead of {wants}"));
        }
    };
    let (saw, wants) = (&observed.outcome, &case.outcome);
    compare("outcome", saw == wants, format!("{saw:?}"), format!("{wants:?}"));
    compare("end", observed.end == case.end, format!("{:?}", observed.end), format!("{:?}", case.end));
    let (saw, wants) = (&observed.reached, &case.reached);
    compare("reached", saw == wants, format!("{saw:?}"), format!("{wants:?}"));
    if observed.cut && !case.may_be_cut {
        wrong.push("a request reached the upstream in part".to_owned());
    }
    if let Some(last) = &observed.last {
        wrong.extend(http1::judge_fields(last, &case.sees, &case.hides));
    }
    wrong
}

async fn check(cases: Vec<StreamCase>) {
    let recorder = Recorder::new().await;
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", recorder.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let mut failures = Vec::new();
    for case in cases {
        for (way, case) in [("whole", Some(case.clone())), ("cut", cut::case(&case))] {
            let Some(case) = case else { continue };
            let observed = observe(&case, proxy.listener(0), &recorder, support::PATIENCE / 4).await;
            let wrong = judge(&case, &observed);
            if !wrong.is_empty() {
                failures.push(format!("{}, {way} ({}): {}", case.name, case.rule, wrong.join("; ")));
            }
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
                check(streams::$name::cases()).await;
            }
        )+

        /// All parts.
        pub(crate) fn all() -> Vec<StreamCase> {
            [$(streams::$name::cases()),+].concat()
        }
    };
}

tables!(pseudo, fields, bodies);
