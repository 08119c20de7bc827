//! Connections to upstreams for bytes that are passed on, and whether a later generation would speak to the server in this
//! way; those that requests use are watched by their pools. A server that is gone from its cluster is left alone: that says
//! nothing about who it is.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Generation;
use crate::snapshot::{Cluster, Transport};
use crate::tls::{self, Stream};

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
        cluster.transport_to(trusted.address)?.refuses(&trusted.transport, &trusted.shown)
    }
}
