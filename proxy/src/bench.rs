//! The door for `benches/instructions`: a proxy without threads of its own, and single decisions of it. It is for
//! nobody else, and no promise.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::compile::{Compiled, ExplicitListener, ListenTarget, compile};
use config::store::Store;
use config::{Limits, Resources};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::engine::{Arrival, Engine, ProcessWide, Telemetry};
use crate::http::codec::{RequestHead, Version};
use crate::http::connection::{Downstream, serve};
use crate::http::path;
use crate::http::record::Record;
use crate::listener::Drain;
use crate::peers::Own;
use crate::snapshot::{Builder, Filter, NoTrace, ProcessShared, Publisher, Snapshot};
use crate::telemetry::access_log::Writer;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, format};
use crate::time;
use crate::tls::Secrets;
use crate::upstream::balancer::{self, Avoid, Balance, Conditions};

/// Where the random numbers begin: the same for every run.
const SEED: u64 = 1;

/// A proxy that serves on the thread of whoever asks it to.
pub struct Proxy {
    engine: Rc<Engine>,
    snapshot: Arc<Snapshot>,
    listener: Arc<str>,
    // Ends when nobody holds a buffer any more, so it comes last.
    _logs: Writer,
}

/// The head of a request.
pub struct Request(RequestHead);

/// A request that has been answered and could be logged now.
pub struct Answered(Box<Record>);

/// What YAML makes of a proxy with one listener.
pub struct Compilation(Snapshot, Arc<str>, Own);

/// From YAML to what decides about requests, for the pod `web-1.shop`. Each text is a file and its content.
///
/// # Errors
///
/// When the pod is not in the texts, or there is no listener after all.
pub fn build(texts: &[(&str, &str)], target: ListenTarget) -> Result<Compilation, String> {
    let mut store = Store::new();
    for (file, text) in texts {
        store.read(file, text);
        store.settle(file);
    }
    let objects = store.objects();
    let pod = config::compile::Proxy::of_pod(&objects, "shop", "web-1", &objects.mesh.proxy_metadata());
    let proxy = pod.ok_or("there is no pod web-1 in namespace shop")?;
    let listener = ExplicitListener { address: SocketAddr::from(([127, 0, 0, 1], 0)), target };
    let Compiled { update, .. } = compile(&objects, &proxy, &[listener]);
    let listener = update.listeners.first().ok_or("there is no listener")?.name.clone();
    let mut resources = Resources::default();
    resources.apply(update);
    let snapshot = Builder::new(true, process().shared).build(
        &resources,
        &Secrets::default(),
        &Snapshot::default(),
        None,
    );
    Ok(Compilation(snapshot, listener, Own::of(&proxy)))
}

fn process() -> ProcessWide {
    let shared = ProcessShared::new(&Limits::default(), time::now());
    ProcessWide { overload: Arc::default(), shared, health: Arc::default(), drain_closes_idle: true }
}

impl Proxy {
    /// A proxy that runs what was compiled.
    ///
    /// # Errors
    ///
    /// When the system gives no thread for logs.
    pub fn new(compiled: Compilation) -> io::Result<Proxy> {
        let Compilation(snapshot, listener, own) = compiled;
        let mut publisher = Publisher::new();
        publisher.publish(snapshot);
        let registry = Registry::new(&Limits::default());
        let logs = Writer::start(Duration::from_millis(Limits::default().access_log_end_time_max_ms))?;
        let telemetry = Telemetry {
            shard: registry.shard(),
            logs: logs.buffers(0).ok_or_else(|| io::Error::other("no access logs"))?,
            logs_dropped: registry.series(Family::AccessLogDropped, &[]),
            own: Arc::new(own),
            registry,
        };
        let engine = Engine::new(publisher.reader(), telemetry, Limits::default(), process(), SEED);
        Ok(Proxy { engine, snapshot: publisher.current(), listener, _logs: logs })
    }

    /// Serves a client's connection until it is closed. Must be called inside an event loop with local tasks.
    ///
    /// # Errors
    ///
    /// When the client breaks the protocol, or the connection.
    pub fn serve(&self, client: TcpStream) -> impl Future<Output = io::Result<()>> + use<> {
        let downstream = self.downstream();
        async move {
            let downstream = downstream?;
            client.set_nonblocking(true)?;
            let client = tokio::net::TcpStream::from_std(client)?;
            let served = serve(client.into(), downstream, Rc::<Drain>::default().begun()).await;
            served.map_err(|error| io::Error::other(format!("{error:?}")))
        }
    }

    /// Decides by which rule a request goes: the indices of virtual host and rule.
    pub fn route(&self, request: &Request) -> Option<(usize, usize)> {
        let Filter::Http(manager) = self.snapshot.listeners.get(&self.listener)?.filter(0)? else {
            return None;
        };
        let routes = manager.routes.as_ref()?;
        let found = routes.route(&request.0, &mut NoTrace)?;
        Some((found.virtual_host, found.index))
    }

    /// Chooses an endpoint of a cluster: its index. The first call resolves the name; `random` is drawn by the caller.
    pub fn picker(&self, cluster: &str) -> Option<impl FnMut(u64) -> Option<usize> + use<>> {
        let cluster = self.snapshot.clusters.get(cluster)?.clone();
        let mut balance = Balance::new(&cluster, Duration::ZERO, None, SEED);
        Some(move |random| {
            let conditions = Conditions { now: Duration::ZERO, random, tried: &[], avoid: Avoid::default() };
            balancer::choose(&cluster, &mut balance, &conditions, &mut NoTrace)
        })
    }

    /// A request that was answered by ourselves, ready to be logged.
    ///
    /// # Errors
    ///
    /// When there is no listener.
    pub fn answered(&self, request: &Request) -> io::Result<Answered> {
        let downstream = self.downstream()?;
        let listener = downstream.listener(&self.engine.generation());
        let mut record = Record::begin(&downstream, &listener, &request.0, true);
        record.capture_request(&request.0);
        record.direct_response(None);
        record.status(http::StatusCode::OK);
        record.finish();
        Ok(Answered(record))
    }

    fn downstream(&self) -> io::Result<Rc<Downstream>> {
        let arrival = Arrival {
            began: time::now(),
            local_address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            remote_address: SocketAddr::from(([127, 0, 0, 1], 50_000)),
            entrance: SocketAddr::from(([127, 0, 0, 1], 8080)),
            destination: None,
            server_name: None,
            transport: config::TransportProtocol::RawBuffer,
            protocols: Box::default(),
            tls: None,
            session: None,
            first: Vec::new(),
        };
        let (_, guard) = self.engine.guard();
        let listener = self.snapshot.listeners.get(&self.listener);
        let view = listener.and_then(|listener| self.engine.generation().http(listener, 0));
        let view = view.ok_or_else(|| io::Error::other("there is no such listener"))?;
        Ok(Downstream::new(&self.engine, view, arrival, (guard, None)))
    }
}

impl Answered {
    /// Writes the lines that the listener's access logs ask for.
    pub fn log(&self, out: &mut Vec<u8>) {
        for sink in &self.0.listener().manager.access_log {
            format::write_line(&sink.format, &*self.0, out);
        }
    }
}

impl Request {
    /// GET of a path, over HTTP/1.1.
    ///
    /// # Errors
    ///
    /// When something in it is not as HTTP has it.
    pub fn get(authority: &str, path: &str, headers: &[(&str, &str)]) -> Result<Request, http::Error> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(HeaderName::try_from(*name)?, HeaderValue::try_from(*value)?);
        }
        Ok(Request(RequestHead {
            method: Method::GET,
            version: Version::Http11,
            authority: Some(HeaderValue::try_from(authority)?),
            scheme: None,
            path: Some(PathAndQuery::try_from(path)?),
            headers: all,
        }))
    }
}

/// The normalized form of a path under Istio's default (BASE), if it is another.
///
/// # Errors
///
/// When the path cannot be forwarded.
pub fn normalize(path: &PathAndQuery) -> Result<Option<PathAndQuery>, &'static str> {
    let base = config::PathNormalization {
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: config::EscapedSlashes::KeepUnchanged,
    };
    path::normalize(path, base).map_err(|_| "the path cannot be forwarded")
}
