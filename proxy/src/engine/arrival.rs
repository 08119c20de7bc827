//! A connection that has come.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use config::TransportProtocol;

use crate::tls;
use crate::upstream::Destination;

/// A connection before anybody serves it: what is known of it, and what was read of it.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// When it was accepted.
    pub(crate) began: Instant,
    /// Our end: where the client wanted to go, when the connection was redirected here.
    pub(crate) local_address: SocketAddr,
    /// The client's end.
    pub(crate) remote_address: SocketAddr,
    /// The address of the socket by which it came, as a listener declares it.
    pub(crate) entrance: SocketAddr,
    /// Where the client wanted to go, when the connection was redirected here.
    pub(crate) destination: Option<Destination>,
    /// The server name the client asks for by SNI.
    pub(crate) server_name: Option<Arc<str>>,
    /// Whether it speaks TLS, as far as anybody looked.
    pub(crate) transport: TransportProtocol,
    /// What it offers by ALPN, or what HTTP was found.
    pub(crate) protocols: Box<[Arc<str>]>,
    /// What TLS is to be terminated with.
    pub(crate) tls: Option<Arc<tls::Server>>,
    /// What TLS says, once it was terminated for bytes that are passed on.
    pub(crate) session: Option<Rc<tls::Session>>,
    /// What was read of it.
    pub(crate) first: Vec<u8>,
}
