//! Access logs that cannot be written, or not at once: lines are lost and counted, those that are written are whole, and it goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::{Mesh, Request, TestBackend, TestProxy, Weft, binary, eventually};

const DROPPED: &str = "weft_access_log_dropped_lines_total";

/// A service whose requests are logged there, by their paths.
async fn catalog(log: &Path) -> (TestBackend, Mesh) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    (backend, mesh.with("mesh.yaml", &config(log)))
}

fn config(log: &Path) -> String {
    format!("accessLogFile: {}\naccessLogFormat: '<%REQ(:PATH)%>'\n", log.display())
}

/// A pipe that is read when this is read.
fn pipe(log: &Path) -> File {
    mkfifoat(CWD, log, Mode::RUSR | Mode::WUSR).expect("a pipe");
    // Who may write to it too waits for nobody to open it.
    let flags = OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(log).expect("it opens")
}

/// What is in the pipe, behind what was read of it before.
fn read_on(mut pipe: &File, read: &mut Vec<u8>) -> String {
    // It ends with what is there now, told as an error.
    let _ = pipe.read_to_end(read);
    String::from_utf8_lossy(read).into_owned()
}

/// A metric that is a whole number.
fn number(metric: Option<f64>) -> usize {
    metric.unwrap_or_default().to_string().parse().expect("a whole number")
}

/// The paths that are logged; every line is whole.
fn lines(text: &str) -> Vec<&str> {
    let whole = |line| {
        let line: Option<&str> = str::strip_suffix(line, ">\n");
        line.and_then(|line| line.strip_prefix('<')).filter(|line| !line.contains(['<', '>']))
    };
    text.split_inclusive('\n')
        .map(|line| whole(line).unwrap_or_else(|| panic!("half a line: {line:?}")))
        .collect()
}

/// Files of the process have no room for a while, and have it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_had_no_room_goes_on_with_whole_lines() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let (_backend, mesh) = catalog(&log).await;
    let config = mesh.directory().display().to_string();
    let arguments = ["--config", &config, "--namespace", "shop", "--listen", "127.0.0.1:0=catalog.shop:8000"];
    let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let weft = Weft::run_by(&ignoring, &binary::weft(), &arguments).await;
    let get = |path: &str| Request::get(path).send(weft.listener(0));
    let room = |bytes: Option<u64>| {
        let process = Pid::from_raw(weft.process() as i32);
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(process, Resource::Fsize, limit).expect("a process may be given less");
    };
    let text = || fs::read_to_string(&log).unwrap_or_default();
    // Longer than what the process has logged of itself.
    let first = format!("/first-{}", "x".repeat(50_000));
    get(&first).await;
    let written = || async { Some(text().len() as u64).filter(|length| *length > 50_000) };
    let length = eventually("the first line", written).await;

    room(Some(length + 100));
    let second = format!("/second-{}", "y".repeat(1_000));
    get(&second).await;
    let told = |what: &'static str| {
        let log = || weft.log();
        async move { eventually(what, || async { log().contains(what).then_some(()) }).await }
    };
    told("the access log cannot be written; lines are lost until it can").await;
    assert_eq!(text().len() as u64, length + 100);
    let mut sent = 2;
    let dropped = || async { number(weft.metric(DROPPED, &[]).await) };
    eventually("lines are lost", || {
        sent += 1;
        async {
            get("/lost").await;
            (dropped().await > 0).then_some(())
        }
    })
    .await;

    room(None);
    eventually("it is written again", || {
        sent += 1;
        async {
            get("/again").await;
            text().ends_with("</again>\n").then_some(())
        }
    })
    .await;
    told("the access log is written again").await;
    eventually("each line is written or counted", || async {
        (text().ends_with('\n') && lines(&text()).len() + dropped().await == sent).then_some(())
    })
    .await;
    let text = text();
    assert_eq!(lines(&text)[..2], [&first, &second]);
    assert_eq!(weft.log().matches("the access log cannot be written").count(), 1);
}

/// A file that cannot be made is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_could_not_be_opened_is_opened_when_it_can() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("later/log");
    let (_backend, mesh) = catalog(&log).await;
    let weft = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    eventually("lines are lost", || async {
        Request::get("/lost").send(weft.listener(0)).await;
        (weft.metric(DROPPED, &[]).await > Some(0.0)).then_some(())
    })
    .await;
    fs::create_dir(directory.path().join("later")).expect("a directory");
    eventually("lines are written", || async {
        Request::get("/written").send(weft.listener(0)).await;
        fs::read_to_string(&log).ok().filter(|text| text.contains("</written>\n"))
    })
    .await;
}

/// Long lines for a pipe that nobody reads are bounded by what they take. Who reads at last finds whole ones.
#[tokio::test(flavor = "multi_thread")]
async fn long_lines_that_nobody_reads_take_no_more_memory_than_they_may() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let pipe = pipe(&log);
    let (_backend, mesh) = catalog(&log).await;
    let limits = [("access_log_queued_bytes_max", 262_144)];
    let weft = TestProxy::of(mesh).listen("catalog", 8000).limits(&limits).ready().await;
    let long = format!("/{}", "x".repeat(50_000));
    let mut sent = 0;
    for _ in 0..12 {
        Request::get(&long).send(weft.listener(0)).await;
        sent += 1;
    }
    weft.reached("access_log_queued_bytes_max").await;
    let dropped = || async { number(weft.metric(DROPPED, &[]).await) };
    assert!(dropped().await >= 4, "{}", dropped().await);

    let mut read = Vec::new();
    let all = eventually("each line is read or counted", || {
        let text = read_on(&pipe, &mut read);
        let dropped = dropped();
        async move { (text.ends_with('\n') && text.lines().count() + dropped.await == sent).then_some(text) }
    })
    .await;
    assert!(lines(&all).iter().all(|line| *line == long));
}

/// What nobody reads yet, and is more than a pipe holds, waits. Another log is written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn lines_wait_for_who_reads_late_and_hold_up_no_other_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (log, other) = (directory.path().join("log"), directory.path().join("other"));
    let pipe = pipe(&log);
    let (_backend, mesh) = catalog(&log).await;
    let limits = [("access_log_queued_bytes_max", 8 << 20)];
    let weft = TestProxy::of(mesh).listen("catalog", 8000).limits(&limits).ready().await;
    let long = format!("/{}", "x".repeat(10_000));
    for _ in 0..100 {
        Request::get(&long).send(weft.listener(0)).await;
    }
    weft.publish("mesh.yaml", &config(&other)).await;
    let mut sent = 100;
    let text = eventually("the other log is written", || {
        sent += 1;
        async {
            Request::get("/other").send(weft.listener(0)).await;
            fs::read_to_string(&other).ok().filter(|text| text.contains("</other>\n"))
        }
    })
    .await;
    assert!(lines(&text).iter().all(|line| *line == "/other"));

    let mut read = Vec::new();
    let all = eventually("each line is read", || {
        let text = read_on(&pipe, &mut read);
        let other = fs::read_to_string(&other).unwrap_or_default();
        let whole = text.ends_with('\n') && other.ends_with('\n');
        let count = text.lines().count() + other.lines().count();
        async move { (whole && count == sent).then_some(text) }
    })
    .await;
    assert!(lines(&all)[..100].iter().all(|line| *line == long));
    assert_eq!(number(weft.metric(DROPPED, &[]).await), 0);
}
