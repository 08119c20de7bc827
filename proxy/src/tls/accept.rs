//! The handshake, as the server.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use config::TlsVersion;
use config::format::Operator;
use http::HeaderValue;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::ends::Ends;
use super::peer;
use super::reason::reason;
use super::server::Server;
use super::stream::{Breach, Replayed, Stream};
use crate::time;

/// What a client is said to have done.
const PEER: (&str, &str) = ("client_left", "client_refused");

/// Why a handshake ends for which there is no room, because too many others are begun.
pub(crate) const NO_ROOM: &str = "no_room";

/// What came of a handshake.
#[derive(Debug)]
pub(crate) struct Session {
    /// Who is at both ends: the client's workload, and whom it was shown.
    pub(crate) ends: Ends,
    /// What `x-forwarded-client-cert` says of the client's certificate; `None` when it showed none.
    pub(crate) client_certificate: Option<HeaderValue>,
    /// Who has let it in.
    server: Arc<Server>,
    /// The certificates that it showed.
    chain: Vec<CertificateDer<'static>>,
    /// When it has let it in.
    since: Instant,
}

impl Session {
    /// Whether the client would be let in by `now`, too: by what it believes, in the version of TLS that is spoken.
    pub(crate) fn is_let_in_by(&self, now: &Arc<Server>) -> bool {
        let version = if self.ends.version == "TLSv1.3" { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
        let config::DownstreamTls { version_min, version_max, .. } = &now.declared;
        Arc::ptr_eq(&self.server, now)
            || (version_min..=version_max).contains(&&version) && now.lets_in(&self.server, &self.chain)
    }

    /// Whether it was longer ago than this that the client was let in by a certificate.
    pub(crate) fn is_older(&self, now: Instant, age_max: Duration) -> bool {
        !self.chain.is_empty() && now.saturating_duration_since(self.since) >= age_max
    }

    /// Why TLS broke, once it has.
    pub(crate) fn broke(&self) -> Option<&'static str> {
        self.ends.breach.why()
    }

    /// Where it will be said why TLS broke.
    pub(crate) fn breach(&self) -> Breach {
        self.ends.breach.clone()
    }

    /// What an access log says of it.
    pub(crate) fn value(&self, operator: &Operator) -> Option<&str> {
        match operator {
            Operator::DownstreamPeerUriSan => self.ends.peer.as_deref(),
            Operator::DownstreamLocalUriSan => self.ends.own.as_deref(),
            Operator::DownstreamTlsVersion => Some(self.ends.version),
            Operator::DownstreamTlsCipher => Some(self.ends.cipher),
            _ => None,
        }
    }
}

/// Makes the handshake with a client, of which `first` was read before. It takes no longer than `time_max`. `holds` is told how
/// many bytes have come for it, which may all be here still, and says whether there is room for them.
///
/// # Errors
///
/// Why it failed: one of few words, for a metric.
pub(crate) async fn accept(
    server: &Arc<Server>,
    first: Vec<u8>,
    stream: TcpStream,
    time_max: Option<Duration>,
    holds: impl Fn(usize) -> bool,
) -> Result<(Stream, Session), &'static str> {
    let bounds = [time_max, server.timeout].into_iter().flatten();
    let read = Rc::<Cell<usize>>::default();
    let mut handshake = pin!(handshake(server, Replayed::new(first, stream).counted(read.clone())));
    let handshake = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if !holds(read.get()) => Poll::Ready(Err(NO_ROOM)),
        made => made,
    });
    match bounds.min() {
        Some(bound) => tokio::time::timeout(bound, handshake).await.unwrap_or(Err("timeout")),
        None => handshake.await,
    }
}

async fn handshake(server: &Arc<Server>, stream: Replayed) -> Result<(Stream, Session), &'static str> {
    let begun =
        LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|error| reason(&error, PEER))?;
    let config = server.config(begun.client_hello().alpn().into_iter().flatten()).clone();
    let mut stream = begun.into_stream(config).await.map_err(|error| reason(&error, PEER))?;
    stream.get_mut().0.count_no_more();
    let stream = TlsStream::from(stream);
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    let peer = shown.and_then(peer::names).and_then(|names| names.identity().map(Arc::from));
    let session = Session {
        ends: Ends::new(&stream, (peer, server.uris.first().map(|uri| uri.as_str().into()))),
        client_certificate: shown.and_then(|shown| peer::forwarded(shown, server)),
        server: server.clone(),
        chain: connection.peer_certificates().unwrap_or_default().to_vec(),
        since: time::now(),
    };
    Ok((Stream::Tls(Box::new(stream)), session))
}
