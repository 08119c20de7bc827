//! One request or connection as the flight recorder keeps it, and the cause by which it is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::ServiceRef;
use config::origin::Origin;

/// Bytes of one text of a flight that are kept; what a client sends may be longer.
const TEXT_BYTES_MAX: usize = 1_024;

/// A request or connection, with what was decided about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flight {
    /// Its number in the recorder of its worker, from 1; 0 until it is recorded.
    pub(crate) number: u64,
    /// Its `x-request-id`; empty for what has none.
    pub(crate) id: Box<str>,
    /// When it began.
    pub(crate) began: SystemTime,
    /// How long it took, to its last byte.
    pub(crate) took: Duration,
    /// Method; empty for what is no request.
    pub(crate) method: Box<str>,
    /// Authority as it came.
    pub(crate) authority: Box<str>,
    /// Path and query as they came.
    pub(crate) path: Box<str>,
    /// Whether it came by HTTP/2.
    pub(crate) http2: bool,
    /// Whether it was gRPC.
    pub(crate) grpc: bool,
    /// Authority and path as the upstream saw them or would have, where a rule changes them.
    pub(crate) sent: Option<Sent>,
    /// Name of the listener, and the index of the chain that served it; empty when that is not known any more.
    pub(crate) listener: (Arc<str>, Option<usize>),
    /// The object that the listener is of.
    pub(crate) listener_origin: Option<Origin>,
    /// The client.
    pub(crate) client: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) destination: Option<SocketAddr>,
    /// The client's identity, as TLS has proved it.
    pub(crate) client_identity: Option<Arc<str>>,
    /// Number of the generation that decided.
    pub(crate) generation: u64,
    /// Status of the answer; 0 for none.
    pub(crate) status: u16,
    /// The `grpc-status` of the answer to a gRPC request, if it had one.
    pub(crate) grpc_status: Option<u8>,
    /// Response flags as the access log has them.
    pub(crate) flags: Box<str>,
    /// Response code details.
    pub(crate) details: Box<str>,
    /// Virtual host, name of the rule and index of it there.
    pub(crate) route: Option<(Arc<str>, Arc<str>, usize)>,
    /// The object that the rule is of.
    pub(crate) route_origin: Option<Origin>,
    /// Whether the client brought the timeout that held, and not the rule.
    pub(crate) timeout_is_clients: bool,
    /// The cluster.
    pub(crate) cluster: Option<Arc<str>>,
    /// Which destination of the rule was drawn; several may lead to one cluster.
    pub(crate) drawn: usize,
    /// The object that shaped it.
    pub(crate) cluster_origin: Option<Origin>,
    /// The endpoint of the last attempt.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Its identity, as TLS has proved it.
    pub(crate) endpoint_identity: Option<Arc<str>>,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Attempts before the last one, the first ones of many.
    pub(crate) tries: Box<[Try]>,
    /// Why it failed; `None` where it did not, and was sampled.
    pub(crate) cause: Option<Cause>,
}

/// What the upstream saw of a request that a rule changes, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The authority.
    pub(crate) authority: Box<str>,
    /// Path and query.
    pub(crate) path: Box<str>,
    /// The object that changes them.
    pub(crate) origin: Option<Origin>,
}

/// An attempt that was not the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Try {
    /// The endpoint.
    pub(crate) endpoint: SocketAddr,
    /// What came of it: a status, or why there was none.
    pub(crate) outcome: Box<str>,
    /// When that was known, from the beginning of the request.
    pub(crate) at: Duration,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// In words, each object with file and line.
    pub(crate) text: Arc<str>,
    /// The same without files and lines, by which it is counted: an object that is written elsewhere is the same one.
    pub(crate) key: Arc<str>,
    /// The service of the cluster that the text ends with, where it names no object. Workers know no objects: who tells the
    /// cause names the Service or ServiceEntry.
    pub(crate) service: Option<ServiceRef>,
}

/// A text of a flight, without what is too long.
pub(crate) fn bounded(text: &[u8]) -> Box<str> {
    String::from_utf8_lossy(text.get(..TEXT_BYTES_MAX).unwrap_or(text)).into()
}

impl Flight {
    /// A connection that failed, of which nothing else is known yet.
    pub(crate) fn of_connection(client: SocketAddr, cause: Cause) -> Flight {
        Flight {
            number: 0,
            id: Box::default(),
            began: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            method: Box::default(),
            authority: Box::default(),
            path: Box::default(),
            http2: false,
            grpc: false,
            sent: None,
            listener: Default::default(),
            listener_origin: None,
            client,
            destination: None,
            client_identity: None,
            generation: 0,
            status: 0,
            grpc_status: None,
            flags: Box::default(),
            details: Box::default(),
            route: None,
            route_origin: None,
            timeout_is_clients: false,
            cluster: None,
            drawn: 0,
            cluster_origin: None,
            endpoint: None,
            endpoint_identity: None,
            attempts: 0,
            tries: Box::default(),
            cause: Some(cause),
        }
    }

    /// Whether the cluster was not there.
    pub(crate) fn is_clusterless(&self) -> bool {
        matches!(&*self.details, "cluster_not_found" | "cluster not found")
    }

    /// Whether the path may have been longer.
    pub(crate) fn path_is_cut(&self) -> bool {
        self.path.len() >= TEXT_BYTES_MAX
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.id, &self.method, &self.authority, &self.path, &self.flags, &self.details];
        let sent = self.sent.iter().map(|sent| sent.authority.len() + sent.path.len());
        let tries = self.tries.iter().map(|attempt| size_of::<Try>() + attempt.outcome.len());
        // It may be written for this flight alone.
        let cause = self.cause.as_ref().map_or(0, |cause| cause.text.len() + cause.key.len());
        let texts = texts.into_iter().map(|text| text.len());
        size_of::<Flight>() + cause + texts.chain(sent).chain(tries).sum::<usize>()
    }
}

impl Cause {
    /// In these words. `rule` tells one rule of an object from another: where it and who delegates to it are written, and
    /// what it is called.
    pub(crate) fn new(text: String, rule: (&[&Origin], &str)) -> Cause {
        let (origins, name) = rule;
        let named = origins.iter().fold(text.clone(), |text, origin| {
            text.replace(&origin.to_string(), &format!("{} rule {name}", origin.object))
        });
        let key = without_places(&named);
        Cause { text: text.into(), key: key.into(), service: None }
    }

    /// The same, of this cluster: where the text ends with its name, no object shaped it and none leads there.
    pub(crate) fn at(mut self, cluster: Option<&config::Cluster>) -> Cause {
        let unnamed = cluster.filter(|cluster| self.text.ends_with(&format!(", cluster {}", cluster.name)));
        self.service = unnamed.and_then(|cluster| cluster.metadata.services.first().cloned());
        self
    }

    /// In these words, which name no object.
    pub(crate) fn of_process(text: String) -> Cause {
        let text: Arc<str> = text.into();
        Cause { key: text.clone(), text, service: None }
    }
}

/// A text without each ` (FILE:LINE)` of it.
fn without_places(text: &str) -> String {
    let mut parts = text.split(" (");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = part.match_indices(')');
        let place = ends.map(|(end, _)| part.split_at(end)).find(|(place, _)| is_place(place));
        match place.and_then(|(_, rest)| rest.strip_prefix(')')) {
            Some(rest) => out.push_str(rest),
            None => {
                out.push_str(" (");
                out.push_str(part);
            }
        }
    }
    out
}

fn is_place(text: &str) -> bool {
    let line = text.rsplit_once(':').map_or("", |(_, line)| line);
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use config::origin::{ObjectRef, Place};

    use super::*;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(bounded(&[b'a'; 5_000]).len(), TEXT_BYTES_MAX);
        assert_eq!(&*bounded(b"a\xff"), "a\u{fffd}");
    }

    #[test]
    fn causes_are_counted_without_places() {
        let origin = Origin {
            object: ObjectRef { kind: "VirtualService".into(), namespace: "shop".into(), name: "v".into() },
            place: Some(Place { file: "/a (1)/b(c).yaml".into(), line: 12 }),
        };
        let check = |text: &str, rule: (&[&Origin], &str), key: &str| {
            let cause = Cause::new(text.to_owned(), rule);
            assert_eq!((&*cause.text, &*cause.key), (text, key));
        };
        check(
            "maxRetries 3 of DestinationRule shop/d (b.yaml:7), with x",
            (&[], ""),
            "maxRetries 3 of DestinationRule shop/d, with x",
        );
        check(
            "refused (os error 111), cluster c of D shop/d (b.yaml:7)",
            (&[], ""),
            "refused (os error 111), cluster c of D shop/d",
        );
        check(
            "connectTimeout 10s (Istio default), cluster c",
            (&[], ""),
            "connectTimeout 10s (Istio default), cluster c",
        );
        check("a (b(c).yaml:7) and b (c:9)", (&[], ""), "a and b");
        check("a (b", (&[], ""), "a (b");
        let text = format!("timeout 3s of {origin}");
        check(&text, (&[&origin], "all"), "timeout 3s of VirtualService shop/v rule all");
    }
}
