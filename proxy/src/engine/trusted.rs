//! Connections to upstreams that stand, and whether a later generation would speak to the server in this way: requests find
//! another connection then, but bytes that are passed on have but the one. A server that is gone from its cluster is left
//! alone: that says nothing about who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Generation;
use crate::snapshot::{Cluster, Transport};
use crate::tls::{self, Stream};

/// Why an upstream is not spoken to any more as it was.
const NOT_BELIEVED: &str = "its server's certificate is not believed any more";
const TLS_IS_WANTED: &str = "its server is spoken to by TLS now";

/// How the upstream of a connection is spoken to.
#[derive(Debug)]
pub(crate) struct Trusted {
    /// Name of the cluster.
    cluster: Arc<str>,
    /// Where the server is.
    address: SocketAddr,
    transport: Transport,
    /// What it has shown of itself.
    shown: tls::Presented,
}

impl Trusted {
    /// To a server of a cluster, by a connection that was made just now.
    pub(crate) fn new(
        cluster: &Cluster,
        address: SocketAddr,
        transport: &Transport,
        stream: &Stream,
    ) -> Trusted {
        Trusted {
            cluster: cluster.name().clone(),
            address,
            transport: transport.clone(),
            shown: stream.presented(),
        }
    }

    /// Whether the verdict of a generation is that of the one before.
    pub(super) fn is_judged_alike(&self, before: &Generation, now: &Generation) -> bool {
        let of = |generation: &Generation| generation.snapshot.clusters.get(&self.cluster).map(Arc::as_ptr);
        Arc::ptr_eq(&before.snapshot.clusters, &now.snapshot.clusters) || of(before) == of(now)
    }
}

impl Generation {
    /// Why a server would not be spoken to in this way now; `None` when it would, or when it or its cluster is gone.
    pub(super) fn refuses(&self, trusted: &Trusted) -> Option<Arc<str>> {
        let cluster = self.snapshot.clusters.get(&trusted.cluster)?;
        match (cluster.transport_to(trusted.address)?, &trusted.transport) {
            // Who was verified is not less so when nobody is any more.
            (Transport::Plain, _) => None,
            (Transport::Tls(now), Transport::Tls(before)) => {
                (!now.would_believe(before, &trusted.shown)).then(|| NOT_BELIEVED.into())
            }
            (Transport::Unusable(why), _) => Some(why),
            (Transport::Tls(_) | Transport::TlsNotEnforced(_), _) => Some(TLS_IS_WANTED.into()),
        }
    }
}
