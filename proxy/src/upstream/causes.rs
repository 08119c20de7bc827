//! Why somebody is not sent where a rule leads, in the words of the flight recorder.

use std::sync::Arc;

use config::DiscoveryType;
use config::origin::Origin;

use crate::snapshot::Cluster;

/// Why a cluster has nobody to choose.
pub(crate) fn nobody(cluster: &Cluster) -> String {
    if cluster.declared.discovery == DiscoveryType::OriginalDst {
        return "nothing says where the client wanted to go: it was not redirected here".to_owned();
    }
    let all = cluster.endpoints.len();
    let ejected = cluster.endpoints.iter().filter(|endpoint| !cluster.is_healthy(endpoint)).count();
    match (all, ejected) {
        (0, _) => "no endpoint is ready".to_owned(),
        (all, ejected) if all == ejected => format!("all {all} endpoints are ejected by outlierDetection"),
        (all, ejected) => format!("{ejected} of {all} endpoints are ejected"),
    }
}

/// A cluster that is not there.
pub(crate) fn missing_cluster(name: &Arc<str>, rule: Option<&Origin>) -> String {
    match rule {
        Some(rule) => format!("there is no cluster {name}, to which {rule} leads"),
        None => format!("there is no cluster {name}"),
    }
}

/// A cluster, and the object that shaped it, or else the one that leads there.
pub(crate) fn at_cluster(cluster: &config::Cluster, rule: Option<&Origin>) -> String {
    let name = &cluster.name;
    match (cluster.metadata.origin.as_deref(), rule) {
        (Some(origin), _) => format!("cluster {name} of {origin}"),
        (None, Some(rule)) => format!("cluster {name}, to which {rule} leads"),
        (None, None) => format!("cluster {name}"),
    }
}
