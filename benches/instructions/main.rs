//! Instructions that weft takes for what it does all day, counted by valgrind. `gate` beside this runs them and
//! compares with `budgets`. Each benchmark does its work [`TIMES`] times, those of `compilation` once.
//!
//! Counts repeat: one thread does the work, in the order of its events; its peers are other threads, which are not
//! counted; and nothing is random, see [`getrandom`].

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot run ends")]
#![allow(missing_docs, unused_qualifications, reason = "the benchmark macros write code of their own style")]

mod http2;
mod mesh;
mod peers;

use std::hint::black_box;
use std::time::Duration;

use config::compile::ListenTarget;
use gungraun::prelude::*;
use gungraun::{Callgrind, library_benchmark_group, main};
use http::uri::PathAndQuery;
use weft::bench::{self, Answered, Proxy, Request};

use peers::Exchanges;

/// How often each benchmark does its work.
const TIMES: usize = 1_000;

/// How long a benchmark may wait for its peers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the standard library, and by it tokio, takes its random numbers from: here the seeds of all hash tables and
/// of the order in which branches are polled are the same in every run. The standard library names this symbol weakly
/// so that it can be replaced.
///
/// # Safety
///
/// `buffer` must have room for `length` bytes.
#[expect(unsafe_code, reason = "this is how the standard library's source of seeds is replaced")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives room for `length` bytes.
    unsafe { std::ptr::write_bytes(buffer, 0x5a, length) };
    isize::try_from(length).unwrap_or(-1)
}

// A request, from the socket to the rule, the endpoint, the other socket, and back.
#[library_benchmark]
#[bench::http1(args = (), setup = peers::http1, teardown = peers::check)]
#[bench::http2(args = (), setup = peers::http2, teardown = peers::check)]
#[bench::logged(args = (), setup = peers::logged, teardown = peers::check)]
fn exchange(exchanges: Exchanges) -> Exchanges {
    exchanges.run()
}

// Which rule a request goes by.
#[library_benchmark]
#[bench::five_rules(args = (), setup = five_rules)]
#[bench::few_hosts(args = (5), setup = hosts)]
#[bench::many_hosts(args = (5_000), setup = hosts)]
fn route((proxy, requests): (Proxy, Vec<Request>)) -> (Proxy, Vec<Request>) {
    for request in requests.iter().cycle().take(TIMES) {
        black_box(proxy.route(black_box(request))).expect("a rule");
    }
    (proxy, requests)
}

// Which endpoint a request goes to.
#[library_benchmark]
#[bench::least_request(args = (10), setup = endpoints)]
#[bench::of_many(args = (10_000), setup = endpoints)]
fn pick<F: FnMut(u64) -> Option<usize>>(mut picker: F) -> F {
    for random in 0..TIMES as u64 {
        black_box(picker(black_box(random.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).expect("an endpoint");
    }
    picker
}

// What is matched of a path.
#[library_benchmark]
#[bench::plain(PathAndQuery::from_static("/v1/items/4711/reviews?page=2&size=50"))]
#[bench::dots(PathAndQuery::from_static("/v1/items/../%69tems/./4711/reviews?page=2&size=50"))]
fn normalize(path: PathAndQuery) -> PathAndQuery {
    for _ in 0..TIMES {
        drop(black_box(bench::normalize(black_box(&path))).expect("a path"));
    }
    path
}

// A line of the access log, in Istio's format.
#[library_benchmark]
#[bench::line(args = (), setup = answered)]
fn log((answered, mut out): (Answered, Vec<u8>)) -> (Answered, Vec<u8>) {
    for _ in 0..TIMES {
        out.clear();
        answered.log(black_box(&mut out));
    }
    (answered, out)
}

// From YAML to what decides about requests.
#[library_benchmark]
#[bench::five_rules(args = (mesh::five_rules("127.0.0.1:8000"), mesh::catalog()))]
#[bench::hundred_services(args = (mesh::routed_services(100), mesh::outbound()))]
fn compilation(mesh: String, target: ListenTarget) -> bench::Compilation {
    bench::build(&[("mesh.yaml", ""), ("objects.yaml", &mesh)], target).expect("a mesh")
}

fn five_rules() -> (Proxy, Vec<Request>) {
    let proxy = proxy(&mesh::five_rules("127.0.0.1:8000"), "", mesh::catalog());
    let request =
        Request::get("catalog", "/v1/things/4711?page=2", &[("user-agent", "bench"), ("x-user", "other")]);
    let request = request.expect("a request");
    assert_eq!(proxy.route(&request), Some((0, 4)));
    (proxy, vec![request])
}

/// Requests for some of so many services.
fn hosts(count: usize) -> (Proxy, Vec<Request>) {
    let proxy = proxy(&mesh::services(count), "", mesh::outbound());
    let request = |number: usize| {
        let host = format!("service-{:04}.shop.svc.cluster.local:8000", number * 37 % count);
        Request::get(&host, "/items/4711", &[]).expect("a request")
    };
    let requests: Vec<Request> = (0..100).map(request).collect();
    for request in &requests {
        assert!(proxy.route(request).is_some());
    }
    (proxy, requests)
}

fn endpoints(count: usize) -> impl FnMut(u64) -> Option<usize> {
    let proxy = proxy(&mesh::one_service(count), "", mesh::catalog());
    proxy.picker("outbound|8000||catalog.shop.svc.cluster.local").expect("a cluster")
}

fn answered() -> (Answered, Vec<u8>) {
    let proxy = proxy(&mesh::five_rules("127.0.0.1:8000"), mesh::LOGGED, mesh::catalog());
    let request =
        Request::get("catalog", "/v1/things/4711?page=2", &[("user-agent", "bench")]).expect("a request");
    let answered = proxy.answered(&request).expect("an answer");
    let mut out = Vec::new();
    answered.log(&mut out);
    assert!(out.starts_with(b"[20") && out.ends_with(b"\n"), "{}", String::from_utf8_lossy(&out));
    // What it holds of the proxy keeps the writer of logs alive.
    std::mem::forget(proxy);
    (answered, out)
}

/// A proxy for these objects and this MeshConfig.
fn proxy(objects: &str, mesh_config: &str, target: ListenTarget) -> Proxy {
    let compiled = bench::build(&[("mesh.yaml", mesh_config), ("objects.yaml", objects)], target);
    Proxy::new(compiled.expect("a mesh")).expect("a proxy")
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [exchange, route, pick, normalize, log, compilation]
);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = instructions
);
