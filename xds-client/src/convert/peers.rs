//! Istio's filters by which the proxies of a mesh tell each other who they are: objects of named types.

use std::collections::HashMap;

use config::PeerMetadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::Refused;
use super::at::{At, FieldName};
use super::istio::{METADATA_EXCHANGE, PEER_METADATA};
use super::table::{Message, Standing, field};

const WORKLOADS: &str =
    "it only says anything where istiod is asked to tell of all workloads, which weft does not";

/// `io.istio.http.peer_metadata.Config`, with the methods that its lists may name.
const HEADERS: Message = Message {
    name: PEER_METADATA,
    fields: &[
        field("downstream_discovery", Standing::Honoured),
        field("upstream_discovery", Standing::Honoured),
        field("downstream_propagation", Standing::Honoured),
        field("upstream_propagation", Standing::Honoured),
        field("istio_headers", Standing::Honoured),
        field("workload_discovery", Standing::Harmless(WORKLOADS)),
        field("any other", Standing::Refused),
    ],
};

/// `envoy.tcp.metadataexchange.config.MetadataExchange`.
const TCP: Message = Message {
    name: METADATA_EXCHANGE,
    fields: &[
        field("protocol", Standing::Honoured),
        field("enable_discovery", Standing::Harmless(WORKLOADS)),
        field("any other", Standing::Refused),
    ],
};

/// The only protocol of ALPN by which TCP exchanges metadata.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![HEADERS, TCP]
}

/// Which headers are read and written.
pub(super) fn headers(told: Struct, at: &At<'_>) -> Result<PeerMetadata, Refused> {
    let mut peers = PeerMetadata::NONE;
    for (key, value) in told.fields {
        let at_field = at.field(&key);
        match key.as_str() {
            "downstream_discovery" => peers.reads_client = methods(value, &at_field)?.is_some(),
            "upstream_discovery" => peers.reads_upstream = methods(value, &at_field)?.is_some(),
            "downstream_propagation" => match methods(value, &at_field)? {
                // What it answers does not leave by a cluster.
                Some(false) => peers.tells_client = true,
                Some(true) => return Err(at_field.refuse("clients are told whatever the cluster")),
                None => {}
            },
            "upstream_propagation" => {
                let skips = methods(value, &at_field)?;
                peers.tells_upstream = skips.is_some();
                peers.tells_mesh_only = skips == Some(true);
            }
            _ => return Err(at_field.not_honoured()),
        }
    }
    Ok(peers)
}

/// Whether one of the methods is by headers, and if so, whether clusters outside of the mesh are left out.
fn methods(told: Value, at: &At<'_>) -> Result<Option<bool>, Refused> {
    let Some(Kind::ListValue(list)) = told.kind else { return Err(at.refuse("it is no list")) };
    let mut found = None;
    for method in list.values {
        for (key, value) in object(method, at)? {
            let at = at.field(&key);
            match key.as_str() {
                "istio_headers" => found = Some(skips_external_clusters(value, &at)?),
                "workload_discovery" => {
                    const FIELD: FieldName = (HEADERS.name, "workload_discovery");
                    at.harmless(FIELD);
                }
                _ => return Err(at.not_honoured()),
            }
        }
    }
    Ok(found)
}

fn skips_external_clusters(told: Value, at: &At<'_>) -> Result<bool, Refused> {
    let mut skips = false;
    for (key, value) in object(told, at)? {
        let at = at.field(&key);
        match (key.as_str(), value.kind) {
            ("skip_external_clusters", Some(Kind::BoolValue(told))) => skips = told,
            _ => return Err(at.not_honoured()),
        }
    }
    Ok(skips)
}

/// Looks at how TCP exchanges metadata: there is one way.
pub(super) fn tcp(told: Struct, at: &At<'_>) -> Result<(), Refused> {
    for (key, value) in told.fields {
        let at = at.field(&key);
        match (key.as_str(), value.kind) {
            ("protocol", Some(Kind::StringValue(protocol))) if protocol == PEER_EXCHANGE => {}
            ("enable_discovery", Some(Kind::BoolValue(_))) => at.harmless((TCP.name, "enable_discovery")),
            _ => return Err(at.not_honoured()),
        }
    }
    Ok(())
}

fn object(told: Value, at: &At<'_>) -> Result<HashMap<String, Value>, Refused> {
    match told.kind {
        Some(Kind::StructValue(Struct { fields })) => Ok(fields),
        _ => Err(at.refuse("it is no object")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use envoy_types::pb::google::protobuf::ListValue;

    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn of(members: &[(&str, Value)]) -> Struct {
        Struct { fields: members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
    }

    fn list(method: &str, settings: &[(&str, Value)]) -> Value {
        let method = of(&[(method, value(Kind::StructValue(of(settings))))]);
        value(Kind::ListValue(ListValue { values: vec![value(Kind::StructValue(method))] }))
    }

    #[test]
    fn which_headers() {
        let notes = RefCell::default();
        let at = At::root(&notes);
        let skips = ("skip_external_clusters", value(Kind::BoolValue(true)));
        let outbound = of(&[
            ("upstream_discovery", list("istio_headers", &[])),
            ("upstream_propagation", list("istio_headers", std::slice::from_ref(&skips))),
        ]);
        let expected = PeerMetadata { tells_mesh_only: true, ..PeerMetadata::OUTBOUND };
        assert_eq!(headers(outbound, &at), Ok(expected));
        let inbound = of(&[
            ("downstream_discovery", list("istio_headers", &[])),
            ("downstream_propagation", list("istio_headers", &[])),
        ]);
        assert_eq!(headers(inbound, &at), Ok(PeerMetadata::INBOUND));
        let workloads = of(&[("downstream_discovery", list("workload_discovery", &[]))]);
        assert_eq!(headers(workloads, &at), Ok(PeerMetadata::NONE));
        for refused in [
            of(&[("downstream_discovery", list("baggage", &[]))]),
            of(&[("downstream_discovery", value(Kind::BoolValue(true)))]),
            of(&[("downstream_propagation", list("istio_headers", &[skips]))]),
            of(&[(
                "upstream_propagation",
                list("istio_headers", &[("other", value(Kind::BoolValue(true)))]),
            )]),
            of(&[("other", value(Kind::BoolValue(true)))]),
        ] {
            assert!(headers(refused.clone(), &at).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn the_only_way_of_tcp() {
        let notes = RefCell::default();
        let at = At::root(&notes);
        let protocol = |name: &str| of(&[("protocol", value(Kind::StringValue(name.to_owned())))]);
        assert_eq!(tcp(protocol(PEER_EXCHANGE), &at), Ok(()));
        assert!(tcp(protocol("other"), &at).is_err());
    }
}
