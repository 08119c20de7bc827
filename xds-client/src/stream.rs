//! Recorded streams of delta discovery, and what they declare after each response.
//!
//! A recording is a sequence of frames: a length of four bytes, the most significant first, and so many bytes of an
//! `envoy.service.discovery.v3.DeltaDiscoveryResponse`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use config::{DiscoveryType, NetworkFilter, RouteSource, Update};
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use prost::Message as _;

use crate::convert::{Converted, Kind, Notes, Refused, Resource, convert};

/// Largest response that is read.
pub const RESPONSE_BYTES_MAX: u32 = 256 << 20;

#[cfg(test)]
mod tests;

/// Types that are told beside what is compared: names for the DNS proxy, secrets, and settings of Istio's agent.
const BESIDE: [&str; 3] = [
    "type.googleapis.com/istio.networking.nds.v1.NameTable",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig",
];

/// Length of the length of a frame.
const LENGTH_BYTES: usize = 4;

/// Why a recording cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which frame, from 0.
    pub frame: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "response {}: {}", self.frame, self.reason)
    }
}

impl std::error::Error for Broken {}

/// One response.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// What it is about; `None` for types that weft does not take.
    pub kind: Option<Kind>,
    /// Resources that are new or changed: names and bytes, or why there are none.
    pub resources: Vec<(String, Result<Vec<u8>, Refused>)>,
    /// Names of resources that are no more.
    pub removed: Vec<String>,
    /// What of it weft does not know: its type, or fields outside of the resources.
    pub unknown: Option<String>,
}

/// The responses of a recording.
///
/// # Errors
///
/// When a frame ends early, is too long or is no response.
pub fn read(mut recording: &[u8]) -> Result<Vec<Response>, Broken> {
    let mut responses = Vec::new();
    while !recording.is_empty() {
        let frame = responses.len();
        let broken = |reason: String| Broken { frame, reason };
        let cut = || broken("the recording ends within it".to_owned());
        let (length, rest) = recording.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length);
        if length > RESPONSE_BYTES_MAX {
            return Err(broken(format!("it has {length} bytes; at most {RESPONSE_BYTES_MAX} are read")));
        }
        let (response, rest) = rest.split_at_checked(length as usize).ok_or_else(cut)?;
        let decoded =
            pb::DeltaDiscoveryResponse::decode(response).map_err(|error| broken(error.to_string()))?;
        // What is decoded is shorter without the fields that the definitions do not have.
        let is_known = decoded.encoded_len() >= response.len();
        let mut response = Response::of(decoded).map_err(broken)?;
        let unknown = response.unknown.take().or_else(|| (!is_known).then(String::new));
        response.unknown = unknown.map(|what| format!("response {frame}{what}"));
        responses.push(response);
        recording = rest;
    }
    Ok(responses)
}

impl Response {
    /// A response, taken apart so that a new field has to be decided about.
    fn of(told: pb::DeltaDiscoveryResponse) -> Result<Response, String> {
        let pb::DeltaDiscoveryResponse {
            // Which version, which response and which server: for acknowledging, and for people.
            system_version_info: _,
            nonce: _,
            control_plane: _,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
            resource_errors,
        } = told;
        if !removed_resource_names.is_empty() {
            return Err("removed_resource_names: weft knows resources by their names alone".to_owned());
        }
        let kind = Kind::of(&type_url);
        let mut all: Vec<(String, Result<Vec<u8>, Refused>)> = Vec::with_capacity(resources.len());
        for told in resources {
            let name = told.name.clone();
            all.push((name, bytes(told, kind)));
        }
        for pb::ResourceError { resource_name, error_detail } in resource_errors {
            let name = resource_name.map(|told| told.name).unwrap_or_default();
            let reason = error_detail.map(|told| told.message).unwrap_or_default();
            all.push((name, Err(refused("", &format!("the server cannot tell it: {reason}")))));
        }
        let is_empty = all.is_empty() && removed_resources.is_empty();
        let is_beside = kind.is_some() || is_empty || BESIDE.contains(&type_url.as_str());
        let unknown = (!is_beside).then(|| format!(", which is about {type_url:?}"));
        Ok(Response { kind, resources: all, removed: removed_resources, unknown })
    }
}

fn refused(path: &str, reason: &str) -> Refused {
    Refused { path: path.to_owned(), reason: reason.to_owned() }
}

/// The bytes of a resource of a response about that kind.
fn bytes(told: pb::Resource, kind: Option<Kind>) -> Result<Vec<u8>, Refused> {
    let pb::Resource {
        // Which version it is, under which names else it may be asked for, and what is said about it: for asking again.
        name: _,
        version: _,
        aliases: _,
        metadata: _,
        resource_name,
        resource,
        ttl,
        cache_control,
    } = told;
    let not_honoured = [
        ("resource_name", resource_name.is_some()),
        ("ttl", ttl.is_some()),
        ("cache_control", cache_control.is_some()),
    ];
    if let Some((field, _)) = not_honoured.into_iter().find(|(_, told)| *told) {
        return Err(refused(field, "weft does not honour it"));
    }
    match resource {
        None => Err(refused("", "there is nothing of it but its name")),
        Some(any) if Kind::of(&any.type_url) != kind => {
            Err(refused("", "it is of another type than the response"))
        }
        Some(any) => Ok(any.value),
    }
}

/// A resource as it was told last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// The last good one.
    pub good: Option<Converted>,
    /// Why what was told last is not it.
    pub refused: Option<Refused>,
}

/// What a stream has declared so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// All resources by kind and name.
    pub entries: BTreeMap<(Kind, String), Entry>,
    /// What of the responses weft does not know.
    unknown: Vec<String>,
}

impl Declared {
    /// What all of `responses` declare.
    pub fn of(responses: Vec<Response>) -> Declared {
        let mut declared = Declared::default();
        for response in responses {
            declared.apply(response);
        }
        declared
    }

    /// Takes over a response. A resource that is refused leaves the last good one of its name.
    pub fn apply(&mut self, response: Response) {
        self.unknown.extend(response.unknown);
        let Some(kind) = response.kind else { return };
        for name in response.removed {
            self.entries.remove(&(kind, name));
        }
        for (name, bytes) in response.resources {
            let converted = bytes.and_then(|bytes| convert(kind, &bytes)).and_then(|converted| {
                let own = converted.resource.name();
                if **own == *name {
                    return Ok(converted);
                }
                let reason = format!("it calls itself {own:?}");
                Err(Refused { path: "name".to_owned(), reason })
            });
            let entry = self.entries.entry((kind, name)).or_default();
            match converted {
                Ok(converted) => *entry = Entry { good: Some(converted), refused: None },
                Err(refused) => entry.refused = Some(refused),
            }
        }
    }

    /// Everything that is in force: of endpoints those that a cluster asks for, of routes those that a listener names, as
    /// nobody would subscribe to others.
    pub fn update(&self) -> Update {
        let mut update = Update::default();
        for entry in self.in_force() {
            match entry.resource.clone() {
                Resource::Cluster(cluster) => update.clusters.push(*cluster),
                Resource::Endpoints(endpoints) => update.endpoints.push(endpoints),
                Resource::Listener(listener) => update.listeners.push(*listener),
                Resource::Routes(routes) => update.routes.push(routes),
            }
        }
        update
    }

    /// What is noted about everything that is in force, and what of the responses is not known.
    pub fn notes(&self) -> Notes {
        let mut notes = Notes { unknown: self.unknown.clone(), ..Notes::default() };
        for Converted { resource, notes: told } in self.in_force() {
            let named = |path: &str| format!("{} {}: {path}", resource.kind().name(), resource.name());
            notes.unknown.extend(told.unknown.iter().map(|path| named(path)));
            for not_run in &told.not_run {
                let mut not_run = not_run.clone();
                not_run.path = named(&not_run.path);
                notes.not_run.push(not_run);
            }
            for (field, count) in &told.harmless {
                *notes.harmless.entry(*field).or_default() += count;
            }
            for (field, count) in &told.declared {
                *notes.declared.entry(*field).or_default() += count;
            }
            for (field, count) in &told.leaves {
                *notes.leaves.entry(*field).or_default() += count;
            }
        }
        notes
    }

    /// Every resource that is refused as it was told last.
    pub fn refused(&self) -> impl Iterator<Item = (Kind, &str, &Refused)> {
        self.entries
            .iter()
            .filter_map(|((kind, name), entry)| Some((*kind, &**name, entry.refused.as_ref()?)))
    }

    fn in_force(&self) -> impl Iterator<Item = &Converted> {
        let wanted = self.wanted();
        self.entries.values().filter_map(|entry| entry.good.as_ref()).filter(move |good| {
            match good.resource.kind() {
                Kind::Cluster | Kind::Listener => true,
                kind => wanted.contains(&(kind, good.resource.name().clone())),
            }
        })
    }

    /// Names of what clusters and listeners ask for.
    fn wanted(&self) -> BTreeSet<(Kind, Arc<str>)> {
        let mut wanted = BTreeSet::new();
        for good in self.entries.values().filter_map(|entry| entry.good.as_ref()) {
            match &good.resource {
                Resource::Cluster(cluster) if cluster.discovery == DiscoveryType::Eds => {
                    wanted.insert((Kind::Endpoints, cluster.name.clone()));
                }
                Resource::Listener(listener) => {
                    let managers = listener.chains().filter_map(|chain| match &chain.filter {
                        NetworkFilter::Http(manager) => Some(manager),
                        NetworkFilter::TcpProxy(_) | NetworkFilter::Closed(_) => None,
                    });
                    wanted.extend(managers.filter_map(|manager| match &manager.routes {
                        RouteSource::Rds(name) => Some((Kind::Routes, name.clone())),
                        RouteSource::Inline(_) => None,
                    }));
                }
                _ => {}
            }
        }
        wanted
    }
}
