//! The same tables to a stock Envoy with the same resources. Where the two differ, `differences` says so and why.

use std::collections::BTreeMap;

use support::envoy::Envoy;
use support::{Mesh, Recorder, TestProxy};

use crate::case::{Case, End};
use crate::http2::{Outcome, StreamCase};
use crate::{http1, http2};

/// What differs: a line for each case, of its name, what weft does, what Envoy does, and why, separated by ` | `.
/// Lines that begin with `#` say something about those below.
const DIFFERENCES: &str = include_str!("differences");

/// Cases whose connection weft ends and Envoy does not, each with its reason. In all others where weft ends it, Envoy does, too:
/// its `override_stream_error_on_invalid_http_message` is false unless told otherwise.
const ENDED_BY_WEFT_ALONE: [(&str, &str); 1] =
    [("a :path with a byte above ASCII", "h2 takes it for an error of the connection; Envoy encodes it")];

/// What one of the two makes of a case: its answers in short, and what reaches the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    answers: String,
    reached: Vec<String>,
}

impl Verdict {
    fn of_requests(observed: &http1::Observed) -> Verdict {
        let classes: Vec<String> =
            observed.answers.iter().map(|status| format!("{}xx", status / 100)).collect();
        let answers = if classes.is_empty() { "nothing".to_owned() } else { classes.join(" ") };
        Verdict { answers, reached: observed.reached.clone() }
    }

    /// How a stream is refused, by an answer, an end of the stream or of the connection, is not compared: RFC 9113
    /// section 5.4.1 leaves it open.
    fn of_stream(observed: &http2::Observed) -> Verdict {
        let answers = match observed.outcome {
            Outcome::Status(status) if status < 300 => "2xx",
            _ => "refused",
        };
        Verdict { answers: answers.to_owned(), reached: observed.reached.clone() }
    }

    /// Whether it is a refusal: nothing good was answered.
    fn is_refusal(&self) -> bool {
        !self.answers.contains("2xx")
    }

    /// As [`DIFFERENCES`] has it.
    fn text(&self) -> String {
        let short =
            |reached: &String| reached.chars().take(60).flat_map(char::escape_debug).collect::<String>();
        let reached: Vec<String> = self.reached.iter().map(short).collect();
        format!("{} {}", self.answers, reached.join(" + ")).trim_end().to_owned()
    }

    /// How many answers a text of this form tells of.
    fn answers_in(text: &str) -> usize {
        text.split(' ').filter(|word| word.len() == 3 && word.ends_with("xx")).count()
    }
}

/// One line of [`DIFFERENCES`].
struct Difference {
    weft: &'static str,
    envoy: &'static str,
}

/// The lines that no case has used yet, and what is wrong so far.
struct Known {
    lines: BTreeMap<&'static str, Difference>,
    wrong: Vec<String>,
}

impl Known {
    fn read() -> Known {
        let lines = DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines = lines.map(|line| {
            let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [name, weft, envoy, reason] = parts[..] else { panic!("not four parts: {line}") };
            assert!(!reason.is_empty(), "no reason: {line}");
            (name, Difference { weft, envoy })
        });
        Known { lines: lines.collect(), wrong: Vec::new() }
    }

    /// Compares the verdicts on a case with its line, if it has one.
    fn judge(&mut self, name: &str, weft: &Verdict, envoy: &Verdict) {
        if envoy.is_refusal() && weft.reached.len() > envoy.reached.len() && !self.lines.contains_key(name) {
            self.wrong.push(format!("{name}: Envoy refuses it and weft forwards {:?}", weft.reached));
        }
        let differ = weft != envoy;
        let (weft, envoy) = (weft.text(), envoy.text());
        match self.lines.remove(name) {
            None if differ => self.wrong.push(format!("a new difference: {name} | {weft} | {envoy} | why?")),
            Some(_) if !differ => self.wrong.push(format!("no difference any more: {name}")),
            Some(line) if weft != line.weft || envoy != line.envoy => {
                self.wrong.push(format!("another difference: {name} | {weft} | {envoy} | why?"));
            }
            Some(_) | None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_envoy() {
    let recorder = Recorder::new().await;
    let mesh =
        Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", recorder.address);
    let start = TestProxy::of(mesh).listen("catalog", 8000);
    let Some(envoy) = Envoy::start(start.settings()).await else { return };
    let proxy = start.ready().await;
    let (weft, envoy) = (proxy.listener(0), envoy.listener(0));
    let mut known = Known::read();
    for case in http1::all() {
        let first = http1::observe(&case, weft, &recorder, support::PATIENCE).await;
        // How many answers to wait for is known; what becomes of the connection is not compared.
        let line = known.lines.get(case.name);
        let answers = line.map_or(case.answers.len(), |line| Verdict::answers_in(line.envoy));
        let asked = Case { answers: vec![0; answers], end: End::Waiting, ..case.clone() };
        let second = http1::observe(&asked, envoy, &recorder, support::PATIENCE).await;
        known.judge(case.name, &Verdict::of_requests(&first), &Verdict::of_requests(&second));
    }
    for case in http2::all() {
        let first = http2::observe(&case, weft, &recorder, support::PATIENCE).await;
        let ended = first.outcome == Outcome::Goaway;
        let end = if ended { End::Closed } else { End::Waiting };
        let asked = StreamCase { end, ..case.clone() };
        let second = http2::observe(&asked, envoy, &recorder, support::PATIENCE).await;
        known.judge(case.name, &Verdict::of_stream(&first), &Verdict::of_stream(&second));
        let alone = ENDED_BY_WEFT_ALONE.iter().any(|(name, _)| *name == case.name);
        if ended && alone == (second.end == End::Closed) {
            known.wrong.push(format!("{}: weft ends the connection, Envoy: {:?}", case.name, second.end));
        }
    }
    let Known { lines, mut wrong } = known;
    wrong.extend(lines.keys().map(|name| format!("no such case: {name}")));
    assert!(wrong.is_empty(), "{} in tests/conformance/differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn names_are_unique() {
    let requests = http1::all().into_iter().map(|case| case.name);
    let mut names: Vec<&str> = requests.chain(http2::all().into_iter().map(|case| case.name)).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
