//! Why a connection is served by nothing.

use std::borrow::Cow;

use config::{Closed, DownstreamTls, OWN_ROOTS};

/// Why no filter chain serves a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unserved<'a> {
    /// None takes it; what those ask for that want TLS, where the client speaks none, and what it does instead.
    NoChain(Option<(&'a DownstreamTls, &'static str)>),
    /// The one that is for it is closed.
    Closed(&'a Closed),
    /// What the client says first exceeds the limit of this name.
    Limit(&'static str),
    /// It does not say, as it should, for whom it is made: this is wrong with it.
    Stranger(&'static str),
    /// The proxy has made it itself, for this reason that it came back.
    Loop(&'a str),
    /// The handshake failed for this reason, where TLS is terminated with this.
    Handshake(&'static str, &'a DownstreamTls),
}

impl Unserved<'_> {
    /// What access logs say of it; explanations say the same.
    pub(super) fn details(self) -> &'static str {
        match self {
            Unserved::NoChain(_) | Unserved::Closed(_) => "filter_chain_not_found",
            Unserved::Loop(_) => "redirected_to_its_own_proxy",
            Unserved::Limit(reason) | Unserved::Stranger(reason) | Unserved::Handshake(reason, _) => reason,
        }
    }

    /// What it is grouped by, with the object that asks for what the connection does not do.
    pub(super) fn cause(self) -> String {
        let (why, origin) = match self {
            Unserved::NoChain(None) => ("no filter chain takes the connection".into(), None),
            Unserved::NoChain(Some((tls, speaks))) => {
                let is_of_mesh = tls.client_certificates.trust().is_some_and(|it| *it.roots == *OWN_ROOTS);
                let wanted = if is_of_mesh { "mutual TLS is wanted (STRICT)" } else { "TLS is wanted" };
                let why = format!("no filter chain takes the connection: {speaks}, and {wanted}");
                (why.into(), tls.origin.as_deref())
            }
            Unserved::Closed(closed) => (Cow::from(&*closed.reason), closed.origin.as_ref()),
            Unserved::Loop(reason) => (reason.into(), None),
            Unserved::Limit(limit) => (format!("what the client says first exceeds {limit}").into(), None),
            Unserved::Stranger(reason) => {
                (format!("it does not begin with a header of the PROXY protocol: {reason}").into(), None)
            }
            Unserved::Handshake(reason, tls) => {
                (format!("the handshake of TLS failed: {reason}").into(), tls.origin.as_deref())
            }
        };
        match origin {
            None => format!("TCP NR: {why}"),
            Some(origin) => format!("TCP NR: {why}, by {origin}"),
        }
    }
}
