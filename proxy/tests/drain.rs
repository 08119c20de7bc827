//! How `weft run` ends: SIGTERM drains, a second signal ends at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};

use process::{Backend, HELLO, PATIENCE, Weft, answer, eventually, get, mesh, send};

const GET: &str = "GET / HTTP/1.1\r\nhost: catalog\r\n\r\n";

/// A proxy before one backend, and where both listen. It has one worker: of several, one may hear of the end before another.
fn start() -> (Backend, Weft, SocketAddr, SocketAddr, tempfile::TempDir) {
    let backend = Backend::start();
    let directory = tempfile::tempdir().unwrap();
    mesh(directory.path(), backend.address);
    let config = directory.path().to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0=catalog.shop:8000"];
    let workers = ["--workers", "1"];
    let mut weft =
        Weft::run(&[&["--config", config, "--namespace", "shop"], &listen[..], &workers[..]].concat());
    let bound = weft.ready();
    let (_, listener) = bound.listeners[0];
    (backend, weft, listener, bound.admin, directory)
}

#[expect(clippy::disallowed_methods, reason = "the time that another process takes")]
fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = what();
    (result, begin.elapsed())
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    for signal in ["TERM", "INT"] {
        let (backend, mut weft, listener, admin, _directory) = start();
        let idle = send(listener, GET);
        backend.request().write_all(HELLO).unwrap();
        assert!(!answer(&idle).0.contains("connection: close"));
        let stream = send(listener, GET);
        let mut request = backend.request();
        weft.signal(signal);
        // Readiness fails while the request is still there.
        let (status, why) =
            eventually("readiness fails", || Some(get(admin, "/ready")).filter(|(status, _)| *status != 200));
        assert_eq!((status, why.as_str()), (503, "DRAINING\nnot ready: it is draining\n"));
        // What is idle is closed.
        assert_eq!((&idle).read(&mut [0; 16]).unwrap(), 0);
        assert!(weft.has_ended().is_none());
        request.write_all(HELLO).unwrap();
        let (head, body) = answer(&stream);
        assert_eq!(body, "hello");
        assert!(head.contains("connection: close"), "{head}");
        let (status, took) = timed(|| weft.ended());
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(4), "{took:?} though nothing was left");
        assert!(TcpStream::connect(listener).is_err());
    }
}

#[test]
fn a_request_that_takes_too_long_is_cut() {
    let (backend, mut weft, listener, _, _directory) = start();
    let mut stream = send(listener, GET);
    let request = backend.request();
    weft.signal("TERM");
    let (status, took) = timed(|| weft.ended());
    assert_eq!(status.code(), Some(0));
    assert!((Duration::from_millis(4_900)..Duration::from_secs(8)).contains(&took), "{took:?}");
    assert!(weft.log().contains("drained connections=1"), "{}", weft.log());
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    drop(request);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (backend, mut weft, listener, admin, _directory) = start();
    let _stream = send(listener, GET);
    let _request = backend.request();
    weft.signal("TERM");
    eventually("it drains", || (get(admin, "/ready").0 == 503).then_some(()));
    assert!(weft.has_ended().is_none());
    let (status, took) = timed(|| {
        weft.signal("TERM");
        weft.ended()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn without_requests_and_before_it_is_ready_it_ends_at_once() {
    let (_backend, mut weft, _, _, _directory) = start();
    let (status, took) = timed(|| {
        weft.signal("TERM");
        weft.ended()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let mut waiting = Weft::run(&["--config", "/nowhere/at/all"]);
    eventually("it waits", || (get(waiting.admin(), "/ready").0 == 503).then_some(()));
    waiting.signal("TERM");
    assert_eq!(waiting.ended().code(), Some(0));
}

#[test]
fn http2_clients_are_told_by_goaway() {
    let (_backend, mut weft, listener, _, _directory) = start();
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The preface and empty SETTINGS.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut told = Vec::new();
    let mut frame = || -> Option<u8> {
        let mut header = [0; 9];
        stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).ok()?;
        match (header[3], header[4]) {
            // SETTINGS and PING are acknowledged.
            (4, 0) => stream.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap(),
            (6, 0) => {
                stream.write_all(b"\0\0\x08\x06\x01\0\0\0\0").unwrap();
                stream.write_all(&payload).unwrap();
            }
            _ => {}
        }
        Some(header[3])
    };
    assert_eq!(frame(), Some(4));
    weft.signal("TERM");
    while let Some(kind) = frame() {
        told.push(kind);
    }
    assert!(told.contains(&7), "no GOAWAY among {told:?}");
    assert_eq!(weft.ended().code(), Some(0));
}

/// Access logs go to a pipe that nobody reads. The end waits for them as long as a limit says, and a second signal waits for
/// nothing.
#[test]
fn an_access_log_that_nobody_reads_does_not_keep_the_process() {
    for (limit, signals) in [("access_log_end_time_max_ms=100", 1), ("access_log_end_time_max_ms=600000", 2)]
    {
        let directory = tempfile::tempdir().unwrap();
        mesh(directory.path(), ([127, 0, 0, 1], 9).into());
        std::fs::write(directory.path().join("mesh.yaml"), "accessLogFile: /dev/stdout\n").unwrap();
        let (config, listen) = (directory.path().to_str().unwrap(), "127.0.0.1:0=outbound:8000");
        let arguments = ["--config", config, "--namespace", "shop", "--listen", listen, "--limit", limit];
        let mut weft = Weft::start(&arguments, |command| {
            command.stdout(Stdio::piped());
        });
        let bound = weft.ready();
        let request = format!("GET /{} HTTP/1.1\r\nhost: nowhere\r\n\r\n", "x".repeat(2_000));
        let mut stream = send(bound.listeners[0].1, "");
        for _ in 0..500 {
            stream.write_all(request.as_bytes()).unwrap();
            assert!(answer(&stream).0.starts_with("http/1.1 "));
        }
        drop(stream);
        weft.signal("TERM");
        if signals == 2 {
            eventually("it drains", || weft.log().contains("drained").then_some(()));
            assert!(weft.has_ended().is_none());
            weft.signal("TERM");
        }
        let (status, took) = timed(|| weft.ended());
        assert_eq!(status.code(), Some(0), "{limit}");
        assert!(took < Duration::from_secs(10), "{limit}: {took:?}");
    }
}

/// At the end one access log goes to a pipe that nobody reads. Another is complete before anybody does, and then that one is.
#[test]
fn an_access_log_that_nobody_reads_costs_another_nothing_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let [config, pipe, file] = ["config", "pipe", "file"].map(|name| directory.path().join(name));
    std::fs::create_dir(&config).unwrap();
    mesh(&config, ([127, 0, 0, 1], 9).into());
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&pipe).unwrap();
    let log_to = |path: &Path| {
        let format = "accessLogFormat: '<%REQ(:PATH)%>'";
        let text = format!("accessLogFile: {}\n{format}\n", path.display());
        std::fs::write(config.join("mesh.yaml"), text).unwrap();
    };
    log_to(&pipe);
    let limits = ["access_log_end_time_max_ms=600000", "access_log_queued_bytes_max=8388608"];
    let [end, queued] = limits.map(|limit| ["--limit", limit]);
    let run = ["--config", config.to_str().unwrap(), "--namespace", "shop", "--workers", "1"];
    let listen = ["--listen", "127.0.0.1:0=outbound:8000"];
    let mut weft = Weft::run(&[&run[..], &listen, &end, &queued].concat());
    let listener = weft.ready().listeners[0].1;
    let mut sent = 0;
    let mut request = |path: &str| {
        let stream = send(listener, &format!("GET {path} HTTP/1.1\r\nhost: nowhere\r\n\r\n"));
        assert!(answer(&stream).0.starts_with("http/1.1 "));
        sent += 1;
    };
    for _ in 0..100 {
        request(&format!("/{}", "x".repeat(2_000)));
    }
    let in_file = || std::fs::read_to_string(&file).unwrap_or_default();
    log_to(&file);
    eventually("the other file is logged to", || {
        request("/file");
        in_file().contains("</file>\n").then_some(())
    });
    for _ in 0..100 {
        request("/file");
    }
    request("/last");
    weft.signal("TERM");
    eventually("the file is complete", || in_file().ends_with("</last>\n").then_some(()));
    assert!(weft.has_ended().is_none());

    let mut read = Vec::new();
    eventually("it has ended", || {
        let _ = reader.read_to_end(&mut read);
        weft.has_ended()
    });
    let _ = reader.read_to_end(&mut read);
    let all = String::from_utf8(read).unwrap() + &in_file();
    assert_eq!(all.lines().count(), sent);
    assert!(all.lines().all(|line| line.starts_with("</") && line.ends_with('>')));
    assert_eq!(weft.ended().code(), Some(0));
}
