//! Why somebody is not sent where a rule leads, in the words of the flight recorder.

use std::sync::Arc;

use config::origin::Origin;
use config::{DiscoveryType, EndpointMetadata, Setting, TransportSocket};

use crate::snapshot::Cluster;

/// Why a cluster has nobody to choose, and the setting because of which, if one decides.
pub(crate) fn nobody(cluster: &Cluster) -> (String, Option<Setting>) {
    if cluster.declared.discovery == DiscoveryType::OriginalDst {
        let why = "nothing says where the client wanted to go: it was not redirected here";
        return (why.to_owned(), None);
    }
    let all = cluster.endpoints.len();
    let ejected = cluster.endpoints.iter().filter(|endpoint| !cluster.is_healthy(endpoint)).count();
    match (all, ejected) {
        (0, _) => ("no endpoint is ready".to_owned(), None),
        (all, ejected) => {
            let why = match all == ejected {
                true => format!("all {all} endpoints are ejected by outlierDetection"),
                false => format!("{ejected} of {all} endpoints are ejected"),
            };
            (why, Some(Setting::OutlierDetection))
        }
    }
}

/// A cluster that is not there.
pub(crate) fn missing_cluster(name: &Arc<str>, rule: Option<&Origin>) -> String {
    match rule {
        Some(rule) => format!("there is no cluster {name}, to which {rule} leads"),
        None => format!("there is no cluster {name}"),
    }
}

/// The time to connect, and whose default it is if it is one.
pub(crate) fn connect_timeout(cluster: &config::Cluster) -> String {
    let whose = cluster.metadata.told.by(Setting::ConnectTimeout).whose_default();
    let whose = whose.map(|whose| format!(" ({whose})")).unwrap_or_default();
    format!("connectTimeout {:?}{whose}", cluster.connect_timeout)
}

/// A cluster, and the object that told `setting` of it, or else shaped it, or else leads there.
pub(crate) fn at_cluster(
    cluster: &config::Cluster,
    setting: Option<Setting>,
    rule: Option<&Origin>,
) -> String {
    let (name, metadata) = (&cluster.name, &cluster.metadata);
    let shaped = match setting {
        Some(setting) => metadata.origin_of(setting),
        None => metadata.shaped_by(),
    };
    match (shaped, rule) {
        (Some(origin), _) => format!("cluster {name} of {origin}"),
        (None, Some(rule)) => format!("cluster {name}, to which {rule} leads"),
        (None, None) => format!("cluster {name}"),
    }
}

/// A cluster, and the object that asks for the TLS that cannot be spoken to `endpoint`.
pub(crate) fn at_tls(
    cluster: &config::Cluster,
    endpoint: &EndpointMetadata,
    rule: Option<&Origin>,
) -> String {
    match cluster.socket_for(endpoint) {
        TransportSocket::Tls(tls) if let Some(origin) = &tls.origin => {
            format!("cluster {} of {origin}", cluster.name)
        }
        _ => at_cluster(cluster, Some(Setting::Tls), rule),
    }
}
