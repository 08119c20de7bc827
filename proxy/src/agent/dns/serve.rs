//! Questions by datagram and by connection, and bounds on those who ask.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::{Limits, NameTable};
use hickory_resolver::proto::op::ResponseCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::Sockets;
use super::answer::{Decision, Question, Transport, decide};
use super::forward::{forward, with_length};
use super::table::{Asking, Table};
use crate::control::Status;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Registry, Shard};

/// Bytes of a question; a longer one is refused, or its connection closed.
const QUESTION_BYTES_MAX: usize = 4_096;

/// How long a connection is kept without a question, and how long one may take to be asked or an answer to be taken.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(8);

/// How long nothing is accepted or received after a failure that is not the client's.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers questions.
pub(super) struct Server {
    servers: Vec<SocketAddr>,
    search: Option<String>,
    status: Arc<Status>,
    /// The table, and what it was made of.
    table: RefCell<Option<(Arc<NameTable>, Rc<Table>)>>,
    forwards: Places,
    connections: Places,
    random: RandomState,
    asked: Cell<u64>,
    metrics: Metrics,
}

struct Metrics {
    shard: Arc<Shard>,
    questions: Series,
    forwarded: Series,
    failures: Series,
}

/// One of those there may be at once, until it is dropped.
struct Place(Rc<Cell<u64>>);

/// How many there are of something, and may be.
struct Places {
    taken: Rc<Cell<u64>>,
    most: u64,
    limit_reached: Series,
}

impl Places {
    fn new(most: u64, limit_reached: Series) -> Places {
        Places { taken: Rc::default(), most, limit_reached }
    }

    /// A place, if there is one left.
    fn take(&self, shard: &Shard) -> Option<Place> {
        if self.taken.get() >= self.most {
            shard.increment(self.limit_reached);
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place(self.taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Server {
    /// Answers from what `status` has published, and asks `servers` for the rest.
    pub(super) fn new(
        servers: Vec<SocketAddr>,
        search: Option<String>,
        limits: &Limits,
        status: Arc<Status>,
        registry: &Arc<Registry>,
    ) -> Rc<Server> {
        let metrics = Metrics {
            shard: registry.shard(),
            questions: registry.series(Family::DnsQuestions, &[]),
            forwarded: registry.series(Family::DnsForwarded, &[]),
            failures: registry.series(Family::DnsForwardFailures, &[]),
        };
        let places = |name: &str, most| Places::new(most, registry.series(Family::LimitReached, &[name]));
        Rc::new(Server {
            servers,
            search,
            status,
            table: RefCell::new(None),
            forwards: places("dns_forwards_max", limits.dns_forwards_max),
            connections: places("dns_connections_max", limits.dns_connections_max),
            random: RandomState::new(),
            asked: Cell::new(0),
            metrics,
        })
    }

    /// Serves. Ends only when the event loop does.
    pub(super) async fn serve(self: &Rc<Self>, sockets: Sockets) -> io::Error {
        let mut serving: JoinSet<io::Error> = JoinSet::new();
        for socket in sockets.udp {
            match UdpSocket::from_std(socket) {
                Ok(socket) => serving.spawn_local(self.clone().datagrams(Rc::new(socket))),
                Err(error) => return error,
            };
        }
        for socket in sockets.tcp {
            match TcpListener::from_std(socket) {
                Ok(socket) => serving.spawn_local(self.clone().connections(socket)),
                Err(error) => return error,
            };
        }
        match serving.join_next().await {
            Some(Ok(error)) => error,
            _ => io::Error::other("nobody listens"),
        }
    }

    async fn datagrams(self: Rc<Self>, socket: Rc<UdpSocket>) -> io::Error {
        let mut buffer = [0; QUESTION_BYTES_MAX];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "a question could not be received");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            match self.decide(bytes, Transport::Udp) {
                Decision::Ignore => {}
                // The client may be gone, and a datagram may be lost anyway.
                Decision::Answer(answer) => drop(socket.try_send_to(&answer, client)),
                Decision::Forward(question) => self.forward_datagram(&socket, client, bytes, question),
            }
        }
    }

    fn forward_datagram(
        self: &Rc<Self>,
        socket: &Rc<UdpSocket>,
        client: SocketAddr,
        bytes: &[u8],
        question: Box<Question>,
    ) {
        let Some(place) = self.forwards.take(&self.metrics.shard) else {
            drop(socket.try_send_to(&question.refuse(ResponseCode::ServFail), client));
            return;
        };
        let (server, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
        tokio::task::spawn_local(async move {
            let _place = place;
            let answer = server.forward(&bytes, &question, Transport::Udp).await;
            drop(socket.send_to(&answer, client).await);
        });
    }

    async fn connections(self: Rc<Self>, socket: TcpListener) -> io::Error {
        loop {
            let stream = match socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.connections.take(&self.metrics.shard) else { continue };
            let server = self.clone();
            tokio::task::spawn_local(async move {
                let _place = place;
                // How it ends is no one's concern.
                let _ = server.connection(stream).await;
            });
        }
    }

    /// Answers one question of a connection after the other, until there is none for a while.
    async fn connection(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let reading = async {
                let length = usize::from(stream.read_u16().await.ok()?);
                let mut bytes = vec![0; Some(length).filter(|length| *length <= QUESTION_BYTES_MAX)?];
                stream.read_exact(&mut bytes).await.ok()?;
                Some(bytes)
            };
            let bytes = tokio::time::timeout(CONNECTION_IDLE_MAX, reading).await.ok()??;
            let answer = match self.decide(&bytes, Transport::Tcp) {
                Decision::Ignore => return None,
                Decision::Answer(answer) => answer,
                Decision::Forward(question) => match self.forwards.take(&self.metrics.shard) {
                    Some(_place) => self.forward(&bytes, &question, Transport::Tcp).await,
                    None => question.refuse(ResponseCode::ServFail),
                },
            };
            let answer = with_length(&answer);
            let writing = stream.write_all(&answer);
            tokio::time::timeout(CONNECTION_IDLE_MAX, writing).await.ok()?.ok()?;
        }
    }

    fn decide(&self, bytes: &[u8], transport: Transport) -> Decision {
        self.metrics.shard.increment(self.metrics.questions);
        decide(self.table().as_deref(), bytes, transport, self.random())
    }

    /// The answer of somebody else, or that there is none.
    async fn forward(&self, bytes: &[u8], question: &Question, transport: Transport) -> Vec<u8> {
        self.metrics.shard.increment(self.metrics.forwarded);
        let answer = match question.query() {
            Some(query) => forward(&self.servers, bytes, query, transport, self.random()).await,
            None => None,
        };
        match answer {
            Some(answer) if answer.len() <= usize::from(question.answer_bytes_max) => answer,
            Some(_) => question.cut_off(),
            None => {
                self.metrics.shard.increment(self.metrics.failures);
                question.refuse(ResponseCode::ServFail)
            }
        }
    }

    /// The table of the generation that is served; made anew when its names are others.
    fn table(&self) -> Option<Rc<Table>> {
        let published = self.status.last_published()?;
        let mut held = self.table.borrow_mut();
        if let Some((names, table)) = &*held
            && Arc::ptr_eq(names, &published.names)
        {
            return Some(table.clone());
        }
        let asking = Asking {
            namespace: &published.proxy.namespace,
            dns_domain: &published.proxy.dns_domain,
            search: self.search.as_deref(),
        };
        let table = Rc::new(Table::new(&published.names, asking));
        *held = Some((published.names.clone(), table.clone()));
        Some(table)
    }

    fn random(&self) -> u64 {
        self.asked.set(self.asked.get().wrapping_add(1));
        self.random.hash_one(self.asked.get())
    }
}
