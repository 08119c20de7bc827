//! The three parts against each other, on free loopback ports.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::connection::Request;
use crate::cpu::Watched;
use crate::drive::{Pace, Plan, run};
use crate::http2::hpack::Prepared;
use crate::{ask, backend, floor};

fn start_backend() -> SocketAddr {
    let addresses = [
        ("v1".to_owned(), Ipv4Addr::new(127, 0, 0, 2).into()),
        ("v2".to_owned(), Ipv4Addr::LOCALHOST.into()),
    ];
    let versions = backend::bind(&addresses).unwrap();
    let first = versions.first().unwrap().listener.local_addr().unwrap();
    assert_eq!(first.port(), versions.last().unwrap().listener.local_addr().unwrap().port());
    thread::spawn(move || backend::serve(&versions, 100));
    first
}

fn start_floor(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || floor::forward(&listener, target));
    address
}

/// A server that gives each connection one scripted answer and closes it.
fn start_scripted(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut request = [0; 1024];
                if stream.read(&mut request).is_ok_and(|count| count > 0) {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn plan(target: SocketAddr, pace: Pace, requests_max: u64) -> Plan {
    Plan {
        target,
        connections: 4,
        pace,
        warm_up_ns: 10 * MILLISECOND_NS,
        window_ns: 10 * SECOND_NS,
        requests_max: Some(requests_max),
        request: Request::Http1(b"GET /items/7 HTTP/1.1\r\nHost: catalog\r\n\r\n".to_vec()),
        body_bytes: backend::BODY_BYTES,
        watched: vec![Watched { name: "own".to_owned(), pids: vec![std::process::id()] }],
    }
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {report}"))
}

fn http2(streams: usize) -> Request {
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/items/7"), (":authority", "catalog")];
    Request::Http2 { head: Prepared::new(&head), streams }
}

fn check(target: SocketAddr, pace: Pace, request: Request) {
    let report = run(&Plan { request, ..plan(target, pace, 200) }).unwrap().0;
    assert_eq!(number(&report, "/errors"), 0, "{report}");
    assert!(number(&report, "/requests") >= 200, "{report}");
    // What is answered behind the end of the window is not measured: on a busy machine that may be some.
    assert!(number(&report, "/latency_ns/count") >= 100, "{report}");
    assert!(number(&report, "/latency_ns/p50") > 0, "{report}");
    assert!(number(&report, "/latency_ns/p99") >= number(&report, "/latency_ns/p50"), "{report}");
    assert!(number(&report, "/cpu_ns/own") > 0, "{report}");
    assert!(number(&report, "/window_ns") < 10 * SECOND_NS, "{report}");
}

#[test]
fn both_paces_reach_the_backend_directly_and_through_the_floor() {
    let backend = start_backend();
    let floor = start_floor(backend);
    for target in [backend, floor] {
        for pace in [Pace::Flood, Pace::Even { rate: 2000 }] {
            check(target, pace, plan(target, pace, 1).request);
            check(target, pace, http2(16));
        }
    }
}

#[test]
fn a_backend_that_takes_fewer_streams_than_asked_for_is_an_error() {
    let report = run(&Plan { request: http2(101), ..plan(start_backend(), Pace::Flood, 1) });
    let text = report.map_or_else(|error| error.to_string(), |report| report.0.to_string());
    assert!(text.contains("fewer streams at once"), "{text}");
}

/// What `ask` says to a question.
fn asked(target: SocketAddr, questions: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    ask::run(target, questions.as_bytes(), &mut answers).unwrap();
    String::from_utf8(answers).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn more_may_be_asked_than_the_first_window_holds() {
    let answers = asked(start_backend(), &"{\"path\": \"/a\"}\n".repeat(600));
    assert_eq!(answers.len(), 600);
}

#[test]
fn questions_over_http2_are_answered_on_one_connection() {
    let answers = asked(
        start_backend(),
        "{\"path\": \"/a?echo=x-a\", \"headers\": {\"x-a\": \"yes\"}}\n{\"path\": \"/-/state\"}\n",
    );
    let text = |at: usize, path: &str| answers[at].pointer(path).and_then(Value::as_str).unwrap();
    assert_eq!((text(0, "/headers/:status"), text(1, "/headers/content-length")), ("200", "128"));
    assert!(text(0, "/body").starts_with("v1 yes .") && text(0, "/body").len() == backend::BODY_BYTES);
    assert!(text(1, "/body").starts_with("v1 0/1 ."), "{}", text(1, "/body"));
}

#[test]
fn the_even_pace_holds_its_rate() {
    let report = run(&plan(start_backend(), Pace::Even { rate: 500 }, 100)).unwrap().0;
    let rate = report.pointer("/requests_per_second").and_then(Value::as_f64).unwrap();
    assert!(rate < 600.0, "{report}");
}

#[test]
fn the_floor_carries_more_than_its_buffers_hold() {
    let sink = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut near = TcpStream::connect(start_floor(sink.local_addr().unwrap())).unwrap();
    let (mut far, _) = sink.accept().unwrap();
    const BYTES: usize = 64 * 1024 * 1024;
    let writer = thread::spawn(move || {
        near.write_all(&vec![7; BYTES]).unwrap();
        near
    });
    let mut received = vec![0; BYTES];
    far.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    let mut near = writer.join().unwrap();
    far.write_all(b"back").unwrap();
    let mut back = [0; 4];
    near.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"back");
}

#[test]
fn wrong_answers_are_errors() {
    let cases = [
        "HTTP/1.1 503 No\r\ncontent-length: 128\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "",
    ];
    for answer in cases {
        let target = start_scripted(answer);
        for request in [plan(target, Pace::Flood, 1).request, http2(4)] {
            let pace = plan(target, Pace::Even { rate: 100 }, 5);
            let wrong = match run(&Plan { window_ns: 50 * MILLISECOND_NS, request, ..pace }) {
                Ok(report) => number(&report.0, "/errors") > 0,
                Err(error) => error.to_string().starts_with("gave up after"),
            };
            assert!(wrong, "{answer:?}");
        }
    }
}

#[test]
fn a_missing_target_or_process_fails_the_run() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert!(run(&plan(free, Pace::Flood, 1)).is_err());
    let gone = vec![Watched { name: "gone".to_owned(), pids: vec![u32::MAX] }];
    assert!(run(&Plan { watched: gone, ..plan(start_backend(), Pace::Flood, 1) }).is_err());
}
