//! The program itself, as a process: started, asked over plain sockets, told to end by signals.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How long something may take to become so before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `is_so` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let mut left = PATIENCE;
    loop {
        if let Some(found) = is_so() {
            return found;
        }
        left = left.checked_sub(LOOK_INTERVAL).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"));
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// A `weft run` that was started. It is killed with the value.
pub(crate) struct Weft {
    child: Child,
    /// What it wrote to stderr is written here.
    log: PathBuf,
    ready_file: PathBuf,
    _directory: tempfile::TempDir,
}

/// What a running proxy has bound.
pub(crate) struct Bound {
    pub(crate) admin: SocketAddr,
    /// The health port, by loopback.
    pub(crate) health: Option<SocketAddr>,
    /// Where names are answered.
    pub(crate) dns: Option<SocketAddr>,
    /// The agent's port, by loopback.
    pub(crate) agent: Option<SocketAddr>,
    /// The port of metrics, by loopback.
    pub(crate) prometheus: Option<SocketAddr>,
    pub(crate) listeners: Vec<(String, SocketAddr)>,
}

impl Weft {
    /// Starts it with these arguments besides `--ready-file` and an admin console on a free port.
    pub(crate) fn run(arguments: &[&str]) -> Weft {
        Weft::run_with(&[], arguments)
    }

    /// The same with these environment variables.
    pub(crate) fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Weft {
        Weft::start(arguments, |command| {
            command.envs(variables.iter().copied());
        })
    }

    /// The same with a command that is changed before it begins.
    pub(crate) fn start(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Weft {
        let directory = tempfile::tempdir().unwrap();
        let (log, ready_file) = (directory.path().join("log"), directory.path().join("ready.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command
            .args(["run", "--admin", "127.0.0.1:0", "--ready-file", ready_file.to_str().unwrap()])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap());
        change(&mut command);
        let child = command.spawn().unwrap();
        Weft { child, log, ready_file, _directory: directory }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self) -> Bound {
        let text = eventually("the ready file is written", || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            fs::read_to_string(&self.ready_file).ok()
        });
        let bound: Value = serde_json::from_str(&text).unwrap();
        let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let listeners = bound["listeners"].as_array().unwrap().iter();
        let listeners = listeners
            .map(|listener| (listener["target"].as_str().unwrap().to_owned(), address(&listener["address"])));
        let page = |name: &str| {
            bound.get(name).map(|told| {
                let everywhere: SocketAddr = address(told);
                assert!(everywhere.ip().is_unspecified(), "{everywhere}");
                SocketAddr::from(([127, 0, 0, 1], everywhere.port()))
            })
        };
        let dns = bound.get("dns").map(address);
        Bound {
            dns,
            admin: address(&bound["admin"]),
            health: page("health"),
            agent: page("agent"),
            prometheus: page("prometheus"),
            listeners: listeners.collect(),
        }
    }

    /// Whether the ready file is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_file.exists()
    }

    /// Where the admin console listens, as the log tells before the proxy is ready.
    pub(crate) fn admin(&self) -> SocketAddr {
        eventually("the log tells the admin console", || {
            let log = self.log();
            let (_, after) = log.split_once("started admin=")?;
            after.lines().next()?.parse().ok()
        })
    }

    /// How many of its threads have a name that begins so.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|found| found.starts_with(name)).count()
    }

    /// The most memory it has held so far, in KiB.
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM")
    }

    /// A size of its memory, by the name that the kernel gives it in `/proc/PID/status`, in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        size.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends it a signal, `TERM` or `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Whether it has ended, and how.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Weft {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the head of a request and leaves the connection as it is.
pub(crate) fn send(to: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads one answer that has a `Content-Length`, or comes in chunks: its head in lower case, and its body.
pub(crate) fn answer(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the connection ended after {head:?}");
    }
    let head = head.to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        return (head, chunks(reader));
    }
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// The body that comes in chunks (RFC 9112 section 7.1).
fn chunks(mut reader: impl BufRead) -> String {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let at = body.len();
        body.resize(at + size + 2, 0);
        reader.read_exact(&mut body[at..]).unwrap();
        body.truncate(at + size);
        if size == 0 {
            return String::from_utf8(body).unwrap();
        }
    }
}

/// GET of a path: the status and the body.
pub(crate) fn get(to: SocketAddr, path: &str) -> (u16, String) {
    ask("GET", to, path)
}

/// A request without a body: the status and the body of the answer.
pub(crate) fn ask(method: &str, to: SocketAddr, path: &str) -> (u16, String) {
    let stream = send(to, &format!("{method} {path} HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n"));
    let (head, body) = answer(&stream);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// A server that answers each request on a connection of its own when it is told to.
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    requests: std::sync::mpsc::Receiver<TcpStream>,
}

impl Backend {
    /// Starts it.
    pub(crate) fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, requests) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut reader = BufReader::new(&stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                if tell.send(stream).is_err() {
                    return;
                }
            }
        });
        Backend { address, requests }
    }

    /// Waits for the next request; what is written to the stream is its answer.
    pub(crate) fn request(&self) -> TcpStream {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

/// An answer for [`Backend::request`].
pub(crate) const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Writes a mesh with the service `catalog.shop` on port 8000 and this endpoint.
pub(crate) fn mesh(directory: &Path, endpoint: SocketAddr) {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: catalog, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 8000}}]}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: shop, labels: {{app: web}}}}\n\
         status: {{podIP: 10.244.1.1}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: catalog, namespace: shop, labels: {{kubernetes.io/service-name: catalog}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: ['{ip}'], conditions: {{ready: true}}}}]\n\
         ports: [{{name: http, port: {port}}}]\n"
    );
    fs::write(directory.join("mesh-objects.yaml"), text).unwrap();
}
