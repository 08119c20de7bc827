//! `config.core.v3.Metadata`: what istiod writes beside Envoy's fields for its own filters.

use std::collections::HashMap;
use std::sync::Arc;

use config::origin::{ObjectRef, Origin};
use config::{ServiceRef, Workload};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::Refused;
use super::at::{At, FieldName};
use super::table::{Field, Message, Standing, Told, field, open};

/// Key of what istiod says.
const ISTIO: &str = "istio";
/// Key of what chooses a transport.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Metadata under other keys, or with other entries.
const OTHER: FieldName = ("filter_metadata", "other");

/// What of the metadata is read.
const MESSAGE: Message = Message {
    name: "filter_metadata",
    fields: &[
        field("istio.config", Standing::Honoured),
        field("istio.services", Standing::Honoured),
        field("istio.subset", Standing::Honoured),
        field("istio.external", Standing::Honoured),
        field("istio.workload", Standing::Honoured),
        field("envoy.transport_socket_match.tlsMode", Standing::Honoured),
        Field {
            name: "istio.alpn_override",
            standing: Standing::NotRun(
                "weft offers Istio's protocols wherever TLS is Istio's own, whatever this says",
            ),
        },
        field("istio.disable_mx", Standing::Honoured),
        Field { name: "other", standing: Standing::Harmless("nothing in weft reads it") },
    ],
};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![MESSAGE, core::Metadata::MESSAGE]
}

/// What metadata says, as far as it is read.
#[derive(Default)]
pub(super) struct Said {
    /// The object it stems from.
    pub(super) origin: Option<Origin>,
    /// Services of a cluster.
    pub(super) services: Vec<ServiceRef>,
    /// Subset of a cluster.
    pub(super) subset: Arc<str>,
    /// Whether a cluster is outside of the mesh.
    pub(super) external: bool,
    /// Whether nobody of a cluster is told who asks.
    pub(super) untold: bool,
    /// Workload of an endpoint.
    pub(super) workload: Option<Workload>,
    /// TLS mode of an endpoint, or that a transport is for.
    pub(super) tls_mode: Option<Arc<str>>,
}

/// Reads metadata.
pub(super) fn metadata(told: Option<core::Metadata>, at: &At<'_>) -> Result<Said, Refused> {
    let mut said = Said::default();
    let Some(told) = told else { return Ok(said) };
    open!(told, at, core::Metadata as "envoy.config.core.v3.Metadata" {
        honoured: filter_metadata;
        harmless: typed_filter_metadata = "nothing in weft reads it";
    });
    for (key, Struct { fields }) in filter_metadata {
        let at = at.key("filter_metadata", &key);
        match key.as_str() {
            ISTIO => istio(fields, &at, &mut said)?,
            TRANSPORT_SOCKET_MATCH => said.tls_mode = tls_mode(fields, &at)?,
            _ => at.harmless(OTHER),
        }
    }
    Ok(said)
}

fn istio(fields: HashMap<String, Value>, at: &At<'_>, said: &mut Said) -> Result<(), Refused> {
    for (key, value) in fields {
        let at_value = at.field(&key);
        match key.as_str() {
            "config" => said.origin = origin(&text(value, &at_value)?),
            "subset" => said.subset = text(value, &at_value)?.into(),
            "external" => said.external = truth(&value, &at_value)?,
            "services" => said.services = services(value, &at_value)?,
            "workload" => said.workload = Some(workload(&text(value, &at_value)?)),
            "alpn_override" => at.not_run(
                (MESSAGE.name, "istio.alpn_override"),
                "weft offers Istio's protocols wherever TLS is Istio's own, whatever this says",
                1,
            ),
            "disable_mx" => said.untold = truth(&value, &at_value)?,
            _ => at.harmless(OTHER),
        }
    }
    Ok(())
}

/// The TLS mode that a match, or the metadata of an endpoint, speaks of. Another entry would choose by something that
/// weft does not look at.
pub(super) fn tls_mode(fields: HashMap<String, Value>, at: &At<'_>) -> Result<Option<Arc<str>>, Refused> {
    let mut mode = None;
    for (key, value) in fields {
        let at = at.field(&key);
        if key != "tlsMode" {
            return Err(at.not_honoured());
        }
        mode = Some(text(value, &at)?.into());
    }
    Ok(mode)
}

fn text(value: Value, at: &At<'_>) -> Result<String, Refused> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(text),
        _ => Err(at.refuse("it is no text")),
    }
}

/// Istio writes booleans in metadata as such, or as text.
fn truth(value: &Value, at: &At<'_>) -> Result<bool, Refused> {
    match &value.kind {
        Some(Kind::BoolValue(truth)) => Ok(*truth),
        Some(Kind::StringValue(text)) if text == "true" => Ok(true),
        Some(Kind::StringValue(text)) if text == "false" => Ok(false),
        _ => Err(at.refuse("it is neither true nor false")),
    }
}

fn services(value: Value, at: &At<'_>) -> Result<Vec<ServiceRef>, Refused> {
    let Some(Kind::ListValue(list)) = value.kind else { return Err(at.refuse("it is no list")) };
    let services = list.values.into_iter().map(|value| {
        let Some(Kind::StructValue(Struct { mut fields })) = value.kind else {
            return Err(at.refuse("it is a list of something else than objects"));
        };
        let mut take = |name: &str| match fields.remove(name) {
            Some(value) => text(value, &at.field(name)).map(Arc::from),
            None => Ok(Arc::from("")),
        };
        Ok(ServiceRef { host: take("host")?, name: take("name")?, namespace: take("namespace")? })
    });
    services.collect()
}

/// istiod's `name;namespace;canonical-name;canonical-revision;cluster`; parts that are missing are empty.
fn workload(told: &str) -> Workload {
    let mut parts = told.split(';').map(Arc::from);
    let mut part = || parts.next().unwrap_or_else(|| Arc::from(""));
    Workload {
        name: part(),
        namespace: part(),
        canonical_name: part(),
        canonical_revision: part(),
        cluster_id: part(),
    }
}

/// The object behind istiod's path of it, `/apis/networking.istio.io/v1/namespaces/shop/virtual-service/catalog`. What is
/// written otherwise names none.
fn origin(path: &str) -> Option<Origin> {
    let mut parts = path.strip_prefix("/apis/")?.split('/');
    let [_group, _version, "namespaces", namespace, kind, name] =
        std::array::from_fn(|_| parts.next().unwrap_or(""))
    else {
        return None;
    };
    let mut camel = String::with_capacity(kind.len());
    for word in kind.split('-') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    if camel.is_empty() || name.is_empty() {
        return None;
    }
    let object = ObjectRef { kind: camel.into(), namespace: namespace.into(), name: name.into() };
    Some(Origin { object, place: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_by_their_paths() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(origin(path).map(|origin| origin.to_string()).as_deref(), expected, "{path}");
        };
        check(
            "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/catalog",
            Some("VirtualService shop/catalog"),
        );
        check("/apis/networking.istio.io/v1/namespaces/shop/gateway/g", Some("Gateway shop/g"));
        check("/apis/networking.istio.io/v1/namespaces/shop", None);
        check("catalog", None);
        check("/apis/a/b/namespaces/c//d", None);
    }

    #[test]
    fn workloads() {
        let told = workload("web-v1;shop;web;v1;Kubernetes");
        assert_eq!(
            (&*told.name, &*told.canonical_revision, &*told.cluster_id),
            ("web-v1", "v1", "Kubernetes")
        );
        assert_eq!(&*workload("").name, "");
        assert_eq!(&*workload("a;b;c;d;e;f").cluster_id, "e");
    }
}
