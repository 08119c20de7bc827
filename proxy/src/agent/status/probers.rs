//! The application's probes and hooks, as Istio's injector hands them over: it lets the kubelet ask the agent instead, and
//! writes what was in their place into `ISTIO_KUBE_APP_PROBERS`. Semantics: the Istio agent's.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

/// The variable, whose value is a JSON object of path to probe.
pub(crate) const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";

/// How long a gRPC probe may take when nothing is said; Kubernetes' default.
const GRPC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Probes by the path that asks for them.
pub(crate) type Probers = HashMap<String, Probe>;

/// What is to be asked of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// In which way.
    pub(crate) kind: Kind,
    /// Port of the pod.
    pub(crate) port: u16,
    /// How long it may take; for `None` as long as whoever asks waits, which is what the kubelet means for hooks.
    pub(crate) timeout: Option<Duration>,
}

/// The kinds of probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET of a path.
    Http {
        /// Path and query.
        path: String,
        /// Over TLS.
        tls: bool,
    },
    /// A connection that comes about.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked for; empty for the server as a whole.
        service: String,
    },
}

/// A Kubernetes probe as far as the agent's differs by it. Its other fields (`host`, `httpHeaders`) are still in the probe
/// that the kubelet carries out, and come with its request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    http_get: Option<HttpGet>,
    tcp_socket: Option<Socket>,
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: u32,
}

#[derive(Debug, Deserialize)]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: Port,
    #[serde(default)]
    scheme: String,
}

#[derive(Debug, Deserialize)]
struct Socket {
    port: Port,
}

#[derive(Debug, Deserialize)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Other(serde::de::IgnoredAny),
}

/// Reads the value of the variable. An empty one holds for none.
///
/// # Errors
///
/// When it is not what the injector writes: where and why.
pub(crate) fn read(text: &str) -> Result<Probers, String> {
    if text.trim().is_empty() {
        return Ok(Probers::new());
    }
    let written: HashMap<String, Written> =
        serde_json::from_str(text).map_err(|error| format!("{VARIABLE} holds no probes: {error}"))?;
    let probes = written.into_iter().map(|(path, written)| {
        check_path(&path)
            .and_then(|()| probe(written))
            .map_err(|why| format!("{VARIABLE}: {path}: {why}"))
            .map(|probe| (path, probe))
    });
    probes.collect()
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_one = match parts.as_slice() {
        ["", "app-health" | "app-lifecycle", container, what] => {
            !container.is_empty()
                && matches!(*what, "livez" | "readyz" | "startupz" | "prestopz" | "poststartz")
        }
        _ => false,
    };
    is_one.then_some(()).ok_or(
        "it is neither /app-health/CONTAINER/{livez,readyz,startupz} nor /app-lifecycle/CONTAINER/{prestopz,poststartz}",
    )
}

fn probe(written: Written) -> Result<Probe, &'static str> {
    let timeout = Some(Duration::from_secs(written.timeout_seconds.into())).filter(|time| !time.is_zero());
    match written {
        Written { http_get: Some(get), tcp_socket: None, grpc: None, .. } => {
            let path = if get.path.starts_with('/') { get.path } else { format!("/{}", get.path) };
            let tls = match get.scheme.as_str() {
                "HTTPS" => true,
                "HTTP" | "" => false,
                _ => return Err("its scheme is neither HTTP nor HTTPS"),
            };
            Ok(Probe { kind: Kind::Http { path, tls }, port: number(&get.port)?, timeout })
        }
        Written { tcp_socket: Some(socket), http_get: None, grpc: None, .. } => {
            Ok(Probe { kind: Kind::Tcp, port: number(&socket.port)?, timeout })
        }
        Written { grpc: Some(grpc), http_get: None, tcp_socket: None, .. } => Ok(Probe {
            kind: Kind::Grpc { service: grpc.service.unwrap_or_default() },
            port: grpc.port,
            timeout: timeout.or(Some(GRPC_TIMEOUT_DEFAULT)),
        }),
        _ => Err("it is not exactly one of httpGet, tcpSocket and grpc"),
    }
}

fn number(port: &Port) -> Result<u16, &'static str> {
    match port {
        Port::Number(port) if *port != 0 => Ok(*port),
        Port::Number(_) | Port::Other(_) => Err("its port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_injector_writes() {
        let check = |text: &str, kind: Kind, port: u16, timeout_s: Option<u64>| {
            let read = read(&format!(r#"{{"/app-health/web/livez": {text}}}"#)).unwrap();
            let timeout = timeout_s.map(Duration::from_secs);
            assert_eq!(read.get("/app-health/web/livez"), Some(&Probe { kind, port, timeout }), "{text}");
        };
        let http = |path: &str, tls| Kind::Http { path: path.to_owned(), tls };
        check(r#"{"httpGet": {"path": "/a?b", "port": 80}}"#, http("/a?b", false), 80, None);
        check(r#"{"httpGet": {"port": 1, "scheme": "HTTP"}}"#, http("/", false), 1, None);
        let text =
            r#"{"httpGet": {"path": "a", "port": 1, "scheme": "HTTPS", "host": "h"}, "timeoutSeconds": 3}"#;
        check(text, http("/a", true), 1, Some(3));
        check(r#"{"tcpSocket": {"port": 5}, "timeoutSeconds": 1}"#, Kind::Tcp, 5, Some(1));
        let grpc = |service: &str| Kind::Grpc { service: service.to_owned() };
        check(r#"{"grpc": {"port": 5, "service": null}}"#, grpc(""), 5, Some(1));
        check(r#"{"grpc": {"port": 5, "service": "a"}, "timeoutSeconds": 2}"#, grpc("a"), 5, Some(2));
        assert_eq!(read(""), Ok(Probers::new()));
        assert_eq!(read("{}"), Ok(Probers::new()));
    }

    #[test]
    fn what_it_does_not_write() {
        let check = |text: &str, part: &str| {
            let refused = read(text).unwrap_err();
            assert!(refused.starts_with(VARIABLE) && refused.contains(part), "{text}: {refused}");
        };
        check("[]", "holds no probes");
        check(r#"{"/app-health/web": {"tcpSocket": {"port": 5}}}"#, "/app-health/web: it is neither");
        check(r#"{"/app-health//livez": {"tcpSocket": {"port": 5}}}"#, "it is neither");
        check(r#"{"/app-health/web/livez": {}}"#, "exactly one of");
        let two = r#"{"/app-health/web/livez": {"tcpSocket": {"port": 5}, "grpc": {"port": 5}}}"#;
        check(two, "exactly one of");
        check(r#"{"/app-health/web/livez": {"tcpSocket": {"port": "http"}}}"#, "not a number");
        check(r#"{"/app-health/web/livez": {"httpGet": {"port": 65536}}}"#, "not a number");
        check(r#"{"/app-health/web/livez": {"httpGet": {"port": 0}}}"#, "not a number");
        check(r#"{"/app-health/web/livez": {"httpGet": {"port": 1, "scheme": "FTP"}}}"#, "neither HTTP nor");
    }
}
