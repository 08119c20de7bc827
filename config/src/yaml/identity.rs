//! Which object a document is: `apiVersion`, `kind` and the parts of `metadata` that weft reads.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::kinds::Kind;
use super::path::Path;
use super::problem::{Problem, Problems, Room};
use super::tree::Node;
use super::typed::{self, Unknown};
use crate::finding::code;
use crate::labels::Labels;
use crate::objects::{Metadata, Source};
use crate::origin::ObjectRef;

/// The namespace of an object that names none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// Kubernetes: `ObjectMeta`, all its fields; Istio's objects may have these and no others.
const METADATA_FIELDS: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What a document says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeMeta<'n> {
    pub(crate) api_version: &'n str,
    pub(crate) kind: &'n str,
}

/// Strings that many objects share, each kept once.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(crate) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

/// The version and kind of the document at `root`; inside a typed List they may be left out.
pub(crate) fn type_meta<'n>(
    root: &'n Node<'_>,
    of_list: Option<&TypeMeta<'n>>,
) -> Result<TypeMeta<'n>, Box<Problem>> {
    let text = |name: &str| match (root.entry(name), of_list) {
        (None, Some(list)) => Ok(if name == "kind" { list.kind } else { list.api_version }),
        (None, None) => Err(Box::new(Problem {
            line: root.line,
            path: String::new(),
            code: code::NO_IDENTITY,
            what: format!("the document has no `{name}`, so it is not known which object it is"),
            remedy: format!("add `{name}`, or move what is not an object of the mesh out of this directory"),
        })),
        (Some(entry), _) => entry.value.text().ok_or_else(|| not_text(name, entry.line)),
    };
    Ok(TypeMeta { api_version: text("apiVersion")?, kind: text("kind")? })
}

fn not_text(path: &str, line: u32) -> Box<Problem> {
    Box::new(Problem {
        line,
        path: path.to_owned(),
        code: code::NO_IDENTITY,
        what: format!("`{path}` is not text, so it is not known which object this is"),
        remedy: "write a name, in quotes if it looks like a number".to_owned(),
    })
}

/// The identity of the document at `root`.
pub(crate) fn object_ref(
    root: &Node<'_>,
    kind: Kind,
    written: &str,
    names: &mut Names,
) -> Result<ObjectRef, Box<Problem>> {
    let metadata = root.entry("metadata");
    let Some(name) = metadata.and_then(|metadata| metadata.value.entry("name")) else {
        return Err(Box::new(Problem {
            line: metadata.map_or(root.line, |metadata| metadata.line),
            path: "metadata".to_owned(),
            code: code::NO_IDENTITY,
            what: format!("this {written} has no `metadata.name`, so it is not known which one it is"),
            remedy: "add `name:` to its metadata".to_owned(),
        }));
    };
    let namespace = metadata.and_then(|metadata| metadata.value.entry("namespace"));
    let name = name.value.text().ok_or_else(|| not_text("metadata.name", name.line))?;
    let namespace = match namespace {
        Some(entry) => entry.value.text().ok_or_else(|| not_text("metadata.namespace", entry.line))?,
        None => DEFAULT_NAMESPACE,
    };
    Ok(ObjectRef {
        kind: names.get(written),
        namespace: names.get(if kind.is_namespaced() { namespace } else { "" }),
        name: names.get(name),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectMeta {
    labels: BTreeMap<String, String>,
    generate_name: Option<Box<str>>,
    creation_timestamp: Option<Box<str>>,
    owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: bool,
}

/// The metadata of the document at `root`.
pub(crate) fn metadata(
    root: &Node<'_>,
    kind: Kind,
    object: Arc<ObjectRef>,
    source: Source,
    names: &mut Names,
    problems: &mut Problems,
    room: &mut Room,
) -> Option<Metadata> {
    let path = Path::Root;
    let path = path.field("metadata");
    let node = root.get("metadata")?;
    if kind.is_istio() {
        typed::unknown_fields(node, &path, METADATA_FIELDS, problems);
    }
    check_name(node, "name", &object.name, 253, problems);
    check_name(node, "namespace", &object.namespace, 63, problems);
    let read: ObjectMeta = typed::read(node, &path, Unknown::Ignored, problems, room)?;
    let controller = read.owner_references.into_iter().find(|owner| owner.controller);
    Some(Metadata {
        object,
        labels: Labels::new(&read.labels, |text| names.get(text)),
        generate_name: read.generate_name,
        controller: controller.map(|owner| Box::new((owner.kind, owner.name))),
        creation_timestamp: read.creation_timestamp,
        source,
    })
}

/// Names are DNS names in lower case (RFC 1123); a namespace is one label of such.
fn check_name(metadata: &Node<'_>, field: &str, name: &str, bytes_max: usize, problems: &mut Problems) {
    let Some(entry) = metadata.entry(field) else { return };
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (b == b'.' && field == "name");
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = edge(name.bytes().next()) && edge(name.bytes().last()) && name.bytes().all(allowed);
    if good && name.len() <= bytes_max || name.is_empty() && entry.value.text() != Some("") {
        return;
    }
    problems.push(Problem {
        line: entry.line,
        path: format!("metadata.{field}"),
        code: code::BAD_VALUE,
        what: format!("`{name}` is not a name that Kubernetes allows"),
        remedy: format!(
            "use lower-case letters, digits and `-`, a letter or digit at both ends, at most {bytes_max} characters"
        ),
    });
}
