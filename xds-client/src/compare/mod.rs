//! Two sets of declared resources side by side: what an xDS server told, and what compile makes of the same mesh.
//!
//! Both are written as Envoy's JSON and compared leaf by leaf; a leaf is a value that is neither an object nor a list. Its
//! path is told as `Listener virtualInbound: filter_chains[2].name`. Leaves that are different on purpose are named one by
//! one in [`DROPPED`], what compile does not make yet in [`UNCOMPILED`]; there are no patterns in either. What JSON does not
//! show is compared too, without the objects and places that caused it.

mod lists;
mod origins;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use config::envoy_json;
use config::{Closed, Cluster, FilterChain, Listener, NetworkFilter, TransportSocket, Update};
use serde_json::{Map, Value, json};

use crate::convert::Kind;
pub use lists::{DROPPED, Listed, UNCOMPILED, subject};

/// A leaf that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Which resource, and where in it.
    pub path: String,
    /// What the server told; `None` for nothing.
    pub told: Option<Value>,
    /// What compile made; `None` for nothing.
    pub compiled: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |side: &Option<Value>| side.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        let Difference { path, told, compiled } = self;
        write!(f, "{path}\n  told:     {}\n  compiled: {}", text(told), text(compiled))
    }
}

/// What came of a comparison.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Resources on both sides.
    pub resources: usize,
    /// Leaves that are the same.
    pub equal: usize,
    /// Leaves that differ and are named in [`DROPPED`], by their paths there.
    pub dropped: BTreeMap<&'static str, usize>,
    /// Leaves that differ and are named in [`UNCOMPILED`], by their paths there.
    pub uncompiled: BTreeMap<&'static str, usize>,
    /// All other leaves that differ, in the order of their resources' kinds and names.
    pub differences: Vec<Difference>,
}

/// Compares what was `told` with what is `compiled`.
pub fn compare(told: &Update, compiled: &Update) -> Comparison {
    let mut comparison = Comparison::default();
    let (told_bare, compiled_bare) = (origins::without(told), origins::without(compiled));
    let told = shown(told, told_bare);
    let mut compiled = shown(compiled, compiled_bare);
    for (name, told) in told {
        match compiled.remove(&name) {
            Some(compiled) => comparison.pair(&name, &told, &compiled),
            None => comparison.one(&name, Some(json!("a resource")), None),
        }
    }
    for name in compiled.into_keys() {
        comparison.one(&name, None, Some(json!("a resource")));
    }
    comparison.differences.sort_by(|one, other| one.path.cmp(&other.path));
    comparison
}

/// A resource as JSON, and without origins as text that shows everything.
struct Shown {
    json: Value,
    bare: String,
}

type Name = (Kind, String);

fn shown(update: &Update, bare: Update) -> BTreeMap<Name, Shown> {
    let mut all = BTreeMap::new();
    let pairs = update.clusters.iter().zip(bare.clusters);
    for (it, bare) in pairs {
        all.insert(
            (Kind::Cluster, it.name.to_string()),
            Shown { json: cluster(it), bare: format!("{bare:#?}") },
        );
    }
    for (it, bare) in update.endpoints.iter().zip(bare.endpoints) {
        let json = envoy_json::load_assignment(it);
        all.insert(
            (Kind::Endpoints, it.cluster_name.to_string()),
            Shown { json, bare: format!("{bare:#?}") },
        );
    }
    for (it, bare) in update.listeners.iter().zip(bare.listeners) {
        let json = listener(it);
        all.insert((Kind::Listener, it.name.to_string()), Shown { json, bare: format!("{bare:#?}") });
    }
    for (it, bare) in update.routes.iter().zip(bare.routes) {
        let json = envoy_json::route_configuration(it);
        all.insert((Kind::Routes, it.name.to_string()), Shown { json, bare: format!("{bare:#?}") });
    }
    all
}

/// A listener with what is behind closed chains, and which of them are closed.
fn listener(declared: &Listener) -> Value {
    let mut json = envoy_json::listener(&opened(declared));
    let mut close = |pointer: String, chain: &FilterChain| {
        let fields = json.pointer_mut(&pointer).and_then(Value::as_object_mut);
        if let Some(fields) = fields.filter(|_| matches!(chain.filter, NetworkFilter::Closed(_))) {
            fields.insert("closed".to_owned(), json!(true));
        }
    };
    for (index, chain) in declared.filter_chains.iter().enumerate() {
        close(format!("/filter_chains/{index}"), chain);
    }
    if let Some(chain) = &declared.default_filter_chain {
        close("/default_filter_chain".to_owned(), chain);
    }
    json
}

/// The listener, if nothing closed its chains.
fn opened(listener: &Listener) -> Listener {
    let mut listener = listener.clone();
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        if let NetworkFilter::Closed(Closed { behind: Some(behind), .. }) = &chain.filter {
            chain.filter = (**behind).clone();
        }
    }
    listener
}

/// A cluster with the kinds of its TLS, which its JSON does not show as long as certificates are not told.
fn cluster(cluster: &Cluster) -> Value {
    let mut json = envoy_json::cluster(cluster);
    let mode = |socket: &TransportSocket| match socket {
        TransportSocket::RawBuffer => Value::Null,
        TransportSocket::Tls(tls) => json!(format!("{:?}", tls.mode)),
    };
    let modes: Map<String, Value> = std::iter::once(("own".to_owned(), mode(&cluster.transport_socket)))
        .chain(
            cluster
                .transport_socket_matches
                .iter()
                .map(|it| (it.name.to_string(), mode(&it.transport_socket))),
        )
        .filter(|(_, mode)| !mode.is_null())
        .collect();
    if let Some(fields) = json.as_object_mut().filter(|_| !modes.is_empty()) {
        fields.insert("tls_modes".to_owned(), Value::Object(modes));
    }
    json
}

impl Comparison {
    /// Whether nothing differs that is not named.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn pair(&mut self, name: &Name, told: &Shown, compiled: &Shown) {
        self.resources += 1;
        // What is dropped is of origins, which are not in this text.
        let count = |comparison: &Comparison| {
            comparison.differences.len() + comparison.uncompiled.values().sum::<usize>()
        };
        let before = count(self);
        let place = Place { name, path: String::new(), fields: name.0.name().to_owned() };
        self.value(&place, Some(&told.json), Some(&compiled.json));
        if count(self) == before && told.bare != compiled.bare {
            let lines = told.bare.lines().zip(compiled.bare.lines());
            let (told, compiled) = lines.into_iter().find(|(one, other)| one != other).unwrap_or_default();
            let path = "what Envoy's JSON does not show".to_owned();
            let place = Place { path, ..place };
            self.leaf(&place, Some(&json!(told.trim())), Some(&json!(compiled.trim())));
        }
    }

    fn one(&mut self, (kind, name): &Name, told: Option<Value>, compiled: Option<Value>) {
        self.differences.push(Difference { path: format!("{} {name}", kind.name()), told, compiled });
    }

    fn value(&mut self, place: &Place<'_>, told: Option<&Value>, compiled: Option<&Value>) {
        let objects = (told.and_then(Value::as_object), compiled.and_then(Value::as_object));
        let lists = (told.and_then(Value::as_array), compiled.and_then(Value::as_array));
        match (objects, lists) {
            ((Some(one), other), _) | ((None, other @ Some(one)), _) if is_none_or_like(told, compiled) => {
                let mut keys: Vec<&String> =
                    one.keys().chain(other.into_iter().flat_map(Map::keys)).collect();
                keys.sort();
                keys.dedup();
                if keys.is_empty() && (told.is_none() || compiled.is_none()) {
                    self.leaf(place, told, compiled);
                }
                for key in keys {
                    let of = |side: Option<&'_ Value>| side.and_then(|side| side.get(key)).cloned();
                    self.value(&place.field(key), of(told).as_ref(), of(compiled).as_ref());
                }
            }
            (_, (Some(_), _) | (None, Some(_))) if is_none_or_like(told, compiled) => {
                let length = |side: Option<&Value>| side.and_then(Value::as_array).map_or(0, Vec::len);
                for index in 0..length(told).max(length(compiled)) {
                    let of = |side: Option<&'_ Value>| side.and_then(|side| side.get(index)).cloned();
                    self.value(&place.index(index), of(told).as_ref(), of(compiled).as_ref());
                }
            }
            _ => self.leaf(place, told, compiled),
        }
    }

    fn leaf(&mut self, place: &Place<'_>, told: Option<&Value>, compiled: Option<&Value>) {
        if told == compiled {
            self.equal += 1;
            return;
        }
        let find = |list: &'static [Listed]| list.iter().find(|listed| listed.path == place.fields);
        if let Some(listed) = find(DROPPED) {
            *self.dropped.entry(listed.path).or_default() += 1;
        } else if let Some(listed) = find(UNCOMPILED) {
            *self.uncompiled.entry(listed.path).or_default() += 1;
        } else {
            let (kind, name) = place.name;
            let path = format!("{} {name}: {}", kind.name(), place.path);
            self.differences.push(Difference { path, told: told.cloned(), compiled: compiled.cloned() });
        }
    }
}

/// Whether both sides are there and both objects or both lists, or one side is missing.
fn is_none_or_like(told: Option<&Value>, compiled: Option<&Value>) -> bool {
    match (told, compiled) {
        (Some(told), Some(compiled)) => {
            told.is_object() && compiled.is_object() || told.is_array() && compiled.is_array()
        }
        _ => true,
    }
}

/// Where in a resource a value stands.
#[derive(Clone)]
struct Place<'n> {
    name: &'n Name,
    /// With places in lists.
    path: String,
    /// The kind and the names of the fields, as the lists have it.
    fields: String,
}

impl Place<'_> {
    fn field(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Place {
            name: self.name,
            path: format!("{}{dot}{name}", self.path),
            fields: format!("{}.{name}", self.fields),
        }
    }

    fn index(&self, index: usize) -> Self {
        Place { name: self.name, path: format!("{}[{index}]", self.path), fields: self.fields.clone() }
    }
}
