//! The objects of a mesh, as they hold at one moment: what [`store`](crate::store) gives and
//! [`compile`](mod@crate::compile) takes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use crate::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, ProxyConfig, RequestAuthentication,
    ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
};
use crate::kubernetes::{EndpointSlice, LabelsOnly, Pod, Secret, Service};
use crate::labels::Labels;
use crate::mesh::MeshConfig;
use crate::origin::{ObjectRef, Origin, Place};
use crate::yaml::FieldLines;

/// Label of an EndpointSlice that tells its service. Kubernetes: `discovery.LabelServiceName`.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// One object: who it is, where it is written, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T> {
    /// Who it is.
    pub metadata: Metadata,
    /// What it says.
    pub spec: T,
}

/// Who an object is. Kubernetes: `ObjectMeta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Kind, namespace and name; shared with whoever keeps the object by them.
    pub object: Arc<ObjectRef>,
    /// Its labels.
    pub labels: Labels,
    /// Prefix of a name made by the API server; tells Istio that the pod belongs to a controller.
    pub generate_name: Option<Box<str>>,
    /// The controller that owns it, as kind and name.
    pub controller: Option<Box<(String, String)>>,
    /// `creationTimestamp` as written (RFC 3339, so text order is time order); objects without one come last.
    pub creation_timestamp: Option<Box<str>>,
    /// Where it is written.
    pub source: Source,
}

/// The text an object was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// File as it was given, or found in the directory.
    pub file: Arc<str>,
    /// Line of the file on which the document begins, counted from 1.
    pub line: u32,
    /// Where its fields are written; kept only for Istio's kinds, whose fields are named in findings and origins.
    pub fields: Option<Arc<FieldLines>>,
}

impl<T> Object<T> {
    /// The object as an origin; its place is the line on which it begins.
    pub fn origin(&self) -> Origin {
        Origin { object: (*self.metadata.object).clone(), place: Some(self.metadata.source.place()) }
    }

    /// The object as an origin; its place is the line of the field at `path`, such as `spec.http[2]`, or of the
    /// nearest parent that is written.
    pub fn origin_at(&self, path: &str) -> Origin {
        Origin { object: (*self.metadata.object).clone(), place: Some(self.metadata.source.place_of(path)) }
    }

    /// Its key among the objects of its kind.
    pub(crate) fn key(&self) -> Key {
        (self.namespace().clone(), self.name().clone())
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.metadata.object.namespace
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.metadata.object.name
    }
}

impl Object<EndpointSlice> {
    /// The service that it says it is of, in its own namespace.
    pub(crate) fn service(&self) -> Option<&str> {
        self.metadata.labels.get(SERVICE_NAME_LABEL)
    }

    /// The key of that service.
    pub(crate) fn service_key(&self) -> Option<Key> {
        Some((self.namespace().clone(), self.service()?.into()))
    }
}

impl Source {
    /// Where the object begins.
    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    /// Where the field at `path`, such as `spec.http[2].route[0]`, is written, or the nearest parent of it that is.
    /// Cheap: nothing is parsed again.
    pub fn place_of(&self, path: &str) -> Place {
        let offset = self.fields.as_ref().map_or(0, |fields| fields.offset_of(path));
        Place { file: self.file.clone(), line: self.line.saturating_add(offset) }
    }
}

/// Namespace and name.
pub type Key = (Arc<str>, Arc<str>);

/// All objects of a kind. Whoever takes a copy shares it with the others until one of them changes it.
pub type Kept<T> = Arc<BTreeMap<Key, Arc<Object<T>>>>;

/// The objects of a kind that are not the same at two times, each as it was and as it is.
pub(crate) struct Differences<'o, T> {
    before: Peekable<btree_map::Iter<'o, Key, Arc<Object<T>>>>,
    now: Peekable<btree_map::Iter<'o, Key, Arc<Object<T>>>>,
    /// Whether both times share all of them.
    none: bool,
}

impl<'o, T> Differences<'o, T> {
    /// Between the objects of `before` and of `now`.
    pub(crate) fn between(before: &'o Kept<T>, now: &'o Kept<T>) -> Differences<'o, T> {
        let none = Arc::ptr_eq(before, now);
        Differences { before: before.iter().peekable(), now: now.iter().peekable(), none }
    }
}

impl<'o, T> Iterator for Differences<'o, T> {
    type Item = (Option<&'o Object<T>>, Option<&'o Object<T>>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.none {
            return None;
        }
        loop {
            let order = match (self.before.peek(), self.now.peek()) {
                (None, None) => return None,
                // Nearly always both are the very same object; its key need not be looked at.
                (Some((_, before)), Some((_, now))) if Arc::ptr_eq(before, now) => Ordering::Equal,
                (Some((before, _)), Some((now, _))) => before.cmp(now),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            };
            let before = if order.is_le() { self.before.next() } else { None };
            let now = if order.is_ge() { self.now.next() } else { None };
            let (before, now) = (before.map(|(_, object)| object), now.map(|(_, object)| object));
            if !before.zip(now).is_some_and(|(before, now)| Arc::ptr_eq(before, now)) {
                return Some((before.map(|object| &**object), now.map(|object| &**object)));
            }
        }
    }
}

/// All objects that hold, by namespace and name. A copy costs little.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Namespaces (their namespace is empty).
    pub namespaces: Kept<LabelsOnly>,
    /// Nodes (their namespace is empty).
    pub nodes: Kept<LabelsOnly>,
    /// Services.
    pub services: Kept<Service>,
    /// Endpoint slices.
    pub endpoint_slices: Kept<EndpointSlice>,
    /// Pods.
    pub pods: Kept<Pod>,
    /// Secrets.
    pub secrets: Kept<Secret>,
    /// Virtual services.
    pub virtual_services: Kept<VirtualService>,
    /// Destination rules.
    pub destination_rules: Kept<DestinationRule>,
    /// Settings of proxies.
    pub proxy_configs: Kept<ProxyConfig>,
    /// Gateways.
    pub gateways: Kept<Gateway>,
    /// Service entries.
    pub service_entries: Kept<ServiceEntry>,
    /// Workload entries.
    pub workload_entries: Kept<WorkloadEntry>,
    /// Sidecars.
    pub sidecars: Kept<Sidecar>,
    /// Peer authentications.
    pub peer_authentications: Kept<PeerAuthentication>,
    /// Request authentications.
    pub request_authentications: Kept<RequestAuthentication>,
    /// Authorization policies.
    pub authorization_policies: Kept<AuthorizationPolicy>,
    /// What holds for the whole mesh.
    pub mesh: Arc<MeshConfig>,
    /// Where that begins; `None` when nobody wrote it.
    pub mesh_place: Option<Place>,
    /// What is refused, was never good, and was to guard something: that is closed until it is corrected.
    pub refused_guards: Vec<RefusedGuard>,
}

/// Adds an object to its kind.
fn put<T>(kept: &mut Kept<T>, key: Key, object: Arc<Object<T>>) {
    Arc::make_mut(kept).insert(key, object);
}

/// Takes one from it.
fn take<T>(kept: &mut Kept<T>, key: &Key) {
    Arc::make_mut(kept).remove(key);
}

/// A refused object that was to guard something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedGuard {
    /// The object, and where it is written.
    pub origin: Origin,
    /// The host that it is for, as written; `None` when that cannot be read.
    pub host: Option<String>,
}

/// An object of any kind that weft reads.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyObject {
    /// `v1` Namespace.
    Namespace(Arc<Object<LabelsOnly>>),
    /// `v1` Node.
    Node(Arc<Object<LabelsOnly>>),
    /// `v1` Service.
    Service(Arc<Object<Service>>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Arc<Object<EndpointSlice>>),
    /// `v1` Pod.
    Pod(Arc<Object<Pod>>),
    /// `v1` Secret.
    Secret(Arc<Object<Secret>>),
    /// `networking.istio.io` VirtualService.
    VirtualService(Arc<Object<VirtualService>>),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(Arc<Object<DestinationRule>>),
    /// `networking.istio.io` ProxyConfig.
    ProxyConfig(Arc<Object<ProxyConfig>>),
    /// `networking.istio.io` Gateway.
    Gateway(Arc<Object<Gateway>>),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(Arc<Object<ServiceEntry>>),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(Arc<Object<WorkloadEntry>>),
    /// `networking.istio.io` Sidecar.
    Sidecar(Arc<Object<Sidecar>>),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(Arc<Object<PeerAuthentication>>),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(Arc<Object<RequestAuthentication>>),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(Arc<Object<AuthorizationPolicy>>),
}

impl AnyObject {
    /// Who it is.
    pub fn metadata(&self) -> &Metadata {
        match self {
            AnyObject::Namespace(object) | AnyObject::Node(object) => &object.metadata,
            AnyObject::Service(object) => &object.metadata,
            AnyObject::EndpointSlice(object) => &object.metadata,
            AnyObject::Pod(object) => &object.metadata,
            AnyObject::Secret(object) => &object.metadata,
            AnyObject::VirtualService(object) => &object.metadata,
            AnyObject::DestinationRule(object) => &object.metadata,
            AnyObject::ProxyConfig(object) => &object.metadata,
            AnyObject::Gateway(object) => &object.metadata,
            AnyObject::ServiceEntry(object) => &object.metadata,
            AnyObject::WorkloadEntry(object) => &object.metadata,
            AnyObject::Sidecar(object) => &object.metadata,
            AnyObject::PeerAuthentication(object) => &object.metadata,
            AnyObject::RequestAuthentication(object) => &object.metadata,
            AnyObject::AuthorizationPolicy(object) => &object.metadata,
        }
    }
}

/// Whether no object of a kind changed.
pub(crate) fn same<T>(before: &Kept<T>, now: &Kept<T>) -> bool {
    Differences::between(before, now).next().is_none()
}

impl Objects {
    /// MeshConfig as an origin.
    pub fn mesh_origin(&self) -> Origin {
        Origin { object: crate::mesh::object_ref(), place: self.mesh_place.clone() }
    }

    /// Whether all objects are those of `other`, but for services, endpoint slices, pods, virtual services and destination
    /// rules: what changes while a mesh runs.
    pub(crate) fn differ_only_in_traffic(&self, other: &Objects) -> bool {
        let Objects {
            namespaces,
            nodes,
            services: _,
            endpoint_slices: _,
            pods: _,
            secrets,
            virtual_services: _,
            destination_rules: _,
            proxy_configs,
            gateways,
            service_entries,
            workload_entries,
            sidecars,
            peer_authentications,
            request_authentications,
            authorization_policies,
            mesh,
            mesh_place,
            refused_guards,
        } = self;
        same(namespaces, &other.namespaces)
            && same(nodes, &other.nodes)
            && same(secrets, &other.secrets)
            && same(proxy_configs, &other.proxy_configs)
            && same(gateways, &other.gateways)
            && same(service_entries, &other.service_entries)
            && same(workload_entries, &other.workload_entries)
            && same(sidecars, &other.sidecars)
            && same(peer_authentications, &other.peer_authentications)
            && same(request_authentications, &other.request_authentications)
            && same(authorization_policies, &other.authorization_policies)
            && **mesh == *other.mesh
            && *mesh_place == other.mesh_place
            && *refused_guards == other.refused_guards
    }

    /// Adds `object`, or puts it in the place of the one of that identity.
    pub fn insert(&mut self, object: AnyObject) {
        let identity = &object.metadata().object;
        let key = (identity.namespace.clone(), identity.name.clone());
        match object {
            AnyObject::Namespace(object) => put(&mut self.namespaces, key, object),
            AnyObject::Node(object) => put(&mut self.nodes, key, object),
            AnyObject::Service(object) => put(&mut self.services, key, object),
            AnyObject::EndpointSlice(object) => put(&mut self.endpoint_slices, key, object),
            AnyObject::Pod(object) => put(&mut self.pods, key, object),
            AnyObject::Secret(object) => put(&mut self.secrets, key, object),
            AnyObject::VirtualService(object) => put(&mut self.virtual_services, key, object),
            AnyObject::DestinationRule(object) => put(&mut self.destination_rules, key, object),
            AnyObject::ProxyConfig(object) => put(&mut self.proxy_configs, key, object),
            AnyObject::Gateway(object) => put(&mut self.gateways, key, object),
            AnyObject::ServiceEntry(object) => put(&mut self.service_entries, key, object),
            AnyObject::WorkloadEntry(object) => put(&mut self.workload_entries, key, object),
            AnyObject::Sidecar(object) => put(&mut self.sidecars, key, object),
            AnyObject::PeerAuthentication(object) => put(&mut self.peer_authentications, key, object),
            AnyObject::RequestAuthentication(object) => put(&mut self.request_authentications, key, object),
            AnyObject::AuthorizationPolicy(object) => put(&mut self.authorization_policies, key, object),
        }
    }

    /// Removes the object of the same kind and identity as `object`.
    pub fn remove(&mut self, object: &AnyObject) {
        let identity = &object.metadata().object;
        let key = (identity.namespace.clone(), identity.name.clone());
        match object {
            AnyObject::Namespace(_) => take(&mut self.namespaces, &key),
            AnyObject::Node(_) => take(&mut self.nodes, &key),
            AnyObject::Service(_) => take(&mut self.services, &key),
            AnyObject::EndpointSlice(_) => take(&mut self.endpoint_slices, &key),
            AnyObject::Pod(_) => take(&mut self.pods, &key),
            AnyObject::Secret(_) => take(&mut self.secrets, &key),
            AnyObject::VirtualService(_) => take(&mut self.virtual_services, &key),
            AnyObject::DestinationRule(_) => take(&mut self.destination_rules, &key),
            AnyObject::ProxyConfig(_) => take(&mut self.proxy_configs, &key),
            AnyObject::Gateway(_) => take(&mut self.gateways, &key),
            AnyObject::ServiceEntry(_) => take(&mut self.service_entries, &key),
            AnyObject::WorkloadEntry(_) => take(&mut self.workload_entries, &key),
            AnyObject::Sidecar(_) => take(&mut self.sidecars, &key),
            AnyObject::PeerAuthentication(_) => take(&mut self.peer_authentications, &key),
            AnyObject::RequestAuthentication(_) => take(&mut self.request_authentications, &key),
            AnyObject::AuthorizationPolicy(_) => take(&mut self.authorization_policies, &key),
        }
    }
}
