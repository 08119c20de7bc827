//! The command line: `load COMMAND --name value ...`, every option at most once unless it is a list.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::str::FromStr;

use crate::clock::MILLISECOND_NS;
use crate::connection::Request;
use crate::cpu::Watched;
use crate::drive::{Pace, Plan};
use crate::http2::hpack::Prepared;

/// Connections the load holds at most.
const CONNECTIONS_MAX: usize = 10_000;

/// Requests at once on one HTTP/2 connection at most.
const STREAMS_MAX: usize = 1000;

/// Streams the backend allows unless told otherwise: what common servers do.
const BACKEND_STREAMS_MAX: u32 = 100;

/// The longest window and the longest warm-up, so that no run goes on for ever.
const STAGE_MS_MAX: u64 = 3_600_000;

/// How to call it.
pub(crate) const USAGE: &str = "\
load: the load generator, the backend and the floor of weft's measurements

  load backend --version v1=127.0.0.2 --version v2=127.0.0.3 [--streams-max 100]
      serves HTTP/1.1 and HTTP/2 on one free port of all these addresses; prints what it bound as a line of JSON;
      the query of a path may hold echo=HEADER, bytes=LENGTH, and hold: no answer until /-/release is asked for
  load floor --target 127.0.0.2:8080
      forwards bytes from a free loopback port to the target; prints what it bound
  load even  --target ADDR --rate 1000 --connections 16 [options]
      an open loop: this many requests a second, evenly; latency counts from the moment each was due
  load flood --target ADDR --connections 64 [options]
      a closed loop: as fast as the answers come

  load ask   --target ADDR
      asks over HTTP/2 what it reads, {\"path\": .., \"headers\": {..}} a line, and prints each answer likewise

  options of even and flood:
      --streams N          HTTP/2 with prior knowledge, this many requests at once on each connection
      --warm-up-ms N       before the measured window (500)
      --window-ms N        length of the measured window (5000)
      --requests-max N     end the window after this many answers
      --path PATH          what to ask for (/items/7)
      --host NAME          the Host header (catalog.shop:8000)
      --body-bytes N       body length every answer must have (128)
      --watch NAME=PID,PID read these processes' CPU time over the window; may be repeated;
                           `self` is the load itself

Prints one JSON object. Exits 0 if every answer was right, else 1; 2 on a wrong command line.";

/// What to do.
pub(crate) enum Command {
    /// Put load on a target.
    Load(Plan),
    /// Be the backend.
    Backend {
        /// Labels and addresses.
        versions: Vec<(String, IpAddr)>,
        /// Streams a client may have at once on an HTTP/2 connection.
        streams_max: u32,
    },
    /// Be the floor before this target.
    Floor(SocketAddr),
    /// Ask this target over HTTP/2.
    Ask(SocketAddr),
    /// Tell how to call it.
    Help,
}

/// Options as written, in order; taken out one by one so that a misspelt one is left over.
struct Options(Vec<(String, String)>);

/// Reads the command line without the program's name.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, String> {
    let Some((command, rest)) = arguments.split_first() else { return Ok(Command::Help) };
    if [command.as_str()]
        .into_iter()
        .chain(rest.iter().map(String::as_str))
        .any(|it| it == "--help" || it == "-h")
    {
        return Ok(Command::Help);
    }
    let mut options = Options::read(rest)?;
    let command = match command.as_str() {
        "backend" => Command::Backend {
            versions: options.all("version", pair::<IpAddr>)?,
            streams_max: options.optional("streams-max")?.unwrap_or(BACKEND_STREAMS_MAX),
        },
        "floor" => Command::Floor(options.required("target")?),
        "ask" => Command::Ask(options.required("target")?),
        "even" => {
            let rate = options.required("rate")?;
            Command::Load(plan(&mut options, Pace::Even { rate })?)
        }
        "flood" => Command::Load(plan(&mut options, Pace::Flood)?),
        other => return Err(format!("unknown command {other:?}")),
    };
    match options.0.first() {
        Some((name, _)) => Err(format!("unknown or repeated option --{name}")),
        None => Ok(command),
    }
}

fn plan(options: &mut Options, pace: Pace) -> Result<Plan, String> {
    let target: SocketAddr = options.required("target")?;
    if !target.ip().is_loopback() && !is_in_namespace() {
        return Err(format!(
            "{target} is no loopback address: this load is for the own machine, or for a namespace of `ip netns`"
        ));
    }
    let connections: usize = options.required("connections")?;
    if connections == 0 || connections > CONNECTIONS_MAX {
        return Err(format!("--connections is from 1 to {CONNECTIONS_MAX}"));
    }
    let warm_up_ms = options.optional("warm-up-ms")?.unwrap_or(500);
    let window_ms = options.optional("window-ms")?.unwrap_or(5000);
    if warm_up_ms > STAGE_MS_MAX || window_ms > STAGE_MS_MAX {
        return Err(format!("a window or warm-up is at most {STAGE_MS_MAX} ms"));
    }
    let path = options.optional("path")?.unwrap_or_else(|| "/items/7".to_owned());
    let host = options.optional("host")?.unwrap_or_else(|| "catalog.shop:8000".to_owned());
    let request = match options.optional("streams")? {
        None => Request::Http1(
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weft-load\r\nAccept: */*\r\n\r\n")
                .into_bytes(),
        ),
        Some(streams) if (1..=STREAMS_MAX).contains(&streams) => Request::Http2 {
            head: Prepared::new(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", &path),
                (":authority", &host),
                ("user-agent", "weft-load"),
                ("accept", "*/*"),
            ]),
            streams,
        },
        Some(_) => return Err(format!("--streams is from 1 to {STREAMS_MAX}")),
    };
    Ok(Plan {
        target,
        connections,
        pace,
        warm_up_ns: warm_up_ms * MILLISECOND_NS,
        window_ns: window_ms * MILLISECOND_NS,
        requests_max: options.optional("requests-max")?,
        request,
        body_bytes: options.optional("body-bytes")?.unwrap_or(crate::backend::BODY_BYTES),
        watched: options.all("watch", watched)?,
    })
}

/// Whether this is a network namespace that `ip netns` made.
fn is_in_namespace() -> bool {
    let inode_of = |path: &Path| std::fs::metadata(path).ok().map(|file| file.ino());
    let own = inode_of(Path::new("/proc/self/ns/net"));
    let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    own.is_some() && named.map(|entry| inode_of(&entry.path())).any(|inode| inode == own)
}

fn pair<T: FromStr>(text: &str) -> Option<(String, T)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.parse().ok()?))
}

fn watched(text: &str) -> Option<Watched> {
    let (name, pids) = pair::<String>(text)?;
    let read = |pid: &str| if pid == "self" { Some(std::process::id()) } else { pid.parse().ok() };
    let pids = pids.split(',').map(read).collect::<Option<Vec<_>>>()?;
    Some(Watched { name, pids })
}

impl Options {
    fn read(arguments: &[String]) -> Result<Options, String> {
        let mut options = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let name = argument.strip_prefix("--").ok_or(format!("unexpected {argument:?}"))?;
            let value = rest.next().ok_or(format!("--{name} needs a value"))?;
            options.push((name.to_owned(), value.clone()));
        }
        Ok(Options(options))
    }

    fn optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(index) = self.0.iter().position(|(it, _)| it == name) else { return Ok(None) };
        let (_, value) = self.0.remove(index);
        value.parse().map(Some).map_err(|_| format!("--{name} cannot be {value:?}"))
    }

    fn required<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or(format!("--{name} is missing"))
    }

    fn all<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
        let (wanted, rest) =
            std::mem::take(&mut self.0).into_iter().partition::<Vec<_>, _>(|(it, _)| it == name);
        self.0 = rest;
        let wanted = wanted.iter();
        wanted.map(|(_, value)| read(value).ok_or(format!("--{name} cannot be {value:?}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<&str, &str>) {
        let arguments: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        let found = parse(&arguments).map(|command| match command {
            Command::Load(plan) => {
                let streams = match plan.request {
                    Request::Http1(_) => 0,
                    Request::Http2 { streams, .. } => streams,
                };
                format!("{:?} {} {streams} {:?}", plan.pace, plan.connections, plan.watched)
            }
            Command::Backend { versions, streams_max } => format!("{versions:?} {streams_max}"),
            Command::Floor(target) | Command::Ask(target) => target.to_string(),
            Command::Help => "help".to_owned(),
        });
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{line}");
    }

    #[test]
    fn commands_are_read() {
        check("", Ok("help"));
        check("even --help", Ok("help"));
        check("floor --target 127.0.0.1:80", Ok("127.0.0.1:80"));
        check(
            "backend --version v1=127.0.0.2 --version v2=127.0.0.3",
            Ok(r#"[("v1", 127.0.0.2), ("v2", 127.0.0.3)] 100"#),
        );
        check("backend --version v1=127.0.0.2 --streams-max 1", Ok(r#"[("v1", 127.0.0.2)] 1"#));
        check("ask --target 127.0.0.1:80", Ok("127.0.0.1:80"));
        check("flood --target 127.0.0.1:80 --connections 4 --streams 16", Ok("Flood 4 16 []"));
        check(
            "even --target 127.0.0.1:80 --rate 1000 --connections 16 --watch proxy=1,2",
            Ok(r#"Even { rate: 1000 } 16 0 [Watched { name: "proxy", pids: [1, 2] }]"#),
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("run", Err(r#"unknown command "run""#));
        check("flood --target 127.0.0.1:80", Err("--connections is missing"));
        check("flood --target 127.0.0.1:80 --connections 0", Err("--connections is from 1 to 10000"));
        check("flood --target 127.0.0.1:80 --connections x", Err(r#"--connections cannot be "x""#));
        check("flood --target 127.0.0.1:80 --connections 4 --streams 0", Err("--streams is from 1 to 1000"));
        check("floor --target 127.0.0.1:80 --speed 9", Err("unknown or repeated option --speed"));
        check("floor --target", Err("--target needs a value"));
        check(
            "flood --target 10.0.0.1:80 --connections 1",
            Err(
                "10.0.0.1:80 is no loopback address: this load is for the own machine, or for a namespace of `ip netns`",
            ),
        );
    }
}
