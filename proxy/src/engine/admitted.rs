//! What is known of a connection that was admitted, and whether a later generation would admit it, too: by the very tables
//! that choose the filter chain of a connection that comes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use config::{TrafficDirection, TransportProtocol};

use super::Generation;
use crate::snapshot::{Facts, Filter, Listener, NoTrace, Snapshot};
use crate::tls;

/// Why a connection is not admitted any more.
const NOT_BELIEVED: &str = "its certificate is not believed any more";
const NO_CHAIN: &str = "no filter chain is for it any more";
const TLS_IS_WANTED: &str = "TLS is terminated for it now, and it has made no handshake";
const TLS_IS_NOT_SPOKEN: &str = "TLS is not terminated for it any more";

/// By what a connection got its filter chain.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    /// The address of the socket by which it came, if that is one of the listener's own.
    pub(crate) entrance: Option<SocketAddr>,
    /// Where the client wanted to go.
    pub(crate) destination: SocketAddr,
    /// The server name the client asks for by SNI.
    pub(crate) server_name: Option<Arc<str>>,
    /// Whether it speaks TLS, as far as anybody looked.
    pub(crate) transport: TransportProtocol,
    /// What it offers by ALPN, or what HTTP was found.
    pub(crate) protocols: Box<[Arc<str>]>,
    /// What TLS says, where it was terminated.
    pub(crate) session: Option<Rc<tls::Session>>,
    /// Whether a connection manager serves it.
    pub(crate) is_http: bool,
}

/// What a generation makes of a connection that an earlier one admitted.
pub(super) enum Verdict {
    /// It goes on.
    Stays,
    /// It is admitted, but what is for it now cannot take it over.
    Replaced,
    /// It would not be admitted, for this reason.
    Refused(Arc<str>),
}

impl Admitted {
    /// By what a filter chain is chosen.
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            destination: self.destination,
            server_name: self.server_name.as_deref(),
            transport: self.transport,
            application_protocols: &self.protocols,
        }
    }

    /// Whether the verdict of a generation may be another than that of the one before. Routes decide nothing about it.
    pub(super) fn may_be_judged_otherwise(&self, before: &Generation, now: &Generation) -> bool {
        match (self.listener_in(&before.snapshot), self.listener_in(&now.snapshot)) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now) && !now.admits_as(before),
            _ => true,
        }
    }

    /// The listener that has admitted it, or that has its socket now.
    pub(super) fn listener_in<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<Listener>> {
        match self.entrance {
            Some(address) => snapshot.heir(&self.listener, address),
            None => snapshot.listeners.get(&self.listener),
        }
    }

    /// Why TLS as it was made, or not, is not what a chain asks for.
    fn disagrees(&self, server: Option<&Arc<tls::Server>>, serves_http: bool) -> Option<&'static str> {
        match (server, &self.session) {
            (Some(server), Some(session)) => (!session.is_let_in_by(server)).then_some(NOT_BELIEVED),
            (Some(server), None) => {
                let is_plain = self.transport == TransportProtocol::RawBuffer;
                (is_plain || server.asks_who_clients_are()).then_some(TLS_IS_WANTED)
            }
            (None, Some(_)) => serves_http.then_some(TLS_IS_NOT_SPOKEN),
            (None, None) => None,
        }
    }
}

impl Listener {
    /// Whether connections are admitted as by another generation of it: by the same chains, which verify clients by the same.
    fn admits_as(&self, before: &Listener) -> bool {
        let pointer = |server: &Option<Arc<tls::Server>>| server.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.declared, &before.declared)
            && self.tls.iter().map(pointer).eq(before.tls.iter().map(pointer))
    }
}

impl Generation {
    /// Whether a connection would be admitted now. Where its listener is gone it is left alone. A chain that is missing closes
    /// only what comes in: there it is how plain text is refused where mutual TLS is asked for.
    pub(super) fn judge(&self, admitted: &Admitted) -> Verdict {
        let Some(listener) = admitted.listener_in(&self.snapshot) else { return Verdict::Stays };
        let chain = listener.table.choose(&admitted.facts(), &mut NoTrace);
        let serves_http = match chain.and_then(|chain| listener.filter(chain)) {
            Some(Filter::Closed(closed)) => return Verdict::Refused(closed.reason.clone()),
            Some(Filter::Http(_)) => true,
            Some(Filter::Tcp(_)) => false,
            None if listener.declared.traffic_direction == TrafficDirection::Inbound => {
                return Verdict::Refused(NO_CHAIN.into());
            }
            None => false,
        };
        let server = chain.and_then(|chain| listener.tls(chain));
        match admitted.disagrees(server, serves_http) {
            Some(reason) => Verdict::Refused(reason.into()),
            None if admitted.is_http && !serves_http => Verdict::Replaced,
            None => Verdict::Stays,
        }
    }
}
