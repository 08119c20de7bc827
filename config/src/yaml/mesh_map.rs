//! The ConfigMap in which an installation of Istio keeps MeshConfig.

use super::identity::{self, Names, TypeMeta};
use super::kinds::Kind;
use super::problem::{Problem, Problems};
use super::tree::{Entry, Node, Value};
use crate::finding::code;
use crate::origin::ObjectRef;

/// Name of the ConfigMap; that of a revision has `-REVISION` after it.
pub(crate) const MESH_MAP: &str = "istio";

/// Keys of its data.
const MESH: &str = "mesh";
const NETWORKS: &str = "meshNetworks";

/// What a mesh without further networks has in its place.
const NO_NETWORKS: [&str; 2] = ["", "networks: {}"];

/// A ConfigMap that holds MeshConfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshMap {
    /// Which one.
    pub object: ObjectRef,
    /// Line on which it begins.
    pub line: u32,
    /// The MeshConfig in it.
    pub(crate) mesh: Result<MeshText, Problem>,
    /// Line of the networks in it, if there are any.
    pub(crate) networks: Option<u32>,
}

/// A text inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshText {
    pub(crate) text: String,
    pub(crate) lines: Lines,
}

/// Where the lines of a text are in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Line of the file on which the text begins.
    pub(crate) first: u32,
    /// Whether each of its lines is one of the file; otherwise all are on the first.
    pub(crate) are_kept: bool,
}

impl Lines {
    /// Those of a text that is all of its file.
    pub(crate) const OF_FILE: Lines = Lines { first: 1, are_kept: true };

    /// The line of the file for a line of the text.
    pub(crate) fn of_file(self, line: u32) -> u32 {
        if self.are_kept { self.first.saturating_add(line.saturating_sub(1)) } else { self.first }
    }
}

/// The ConfigMap at `root`, if it is one that holds MeshConfig; `problems` are those of its text.
pub(super) fn mesh_map(
    meta: &TypeMeta<'_>,
    root: &Node<'_>,
    problems: &Problems,
    names: &mut Names,
) -> Option<MeshMap> {
    let data = root.get("data");
    let entry = |key: &str| data.and_then(|data| data.entry(key));
    let networks = entry(NETWORKS).filter(|entry| match entry.value.text() {
        Some(text) => !NO_NETWORKS.contains(&text.trim()),
        None => true,
    });
    let object = named(meta, root, names)?;
    if entry(MESH).is_none() && networks.is_none() && problems.is_empty() {
        return None;
    }
    let mesh = match (problems.told().first(), entry(MESH)) {
        (Some(problem), _) => Err(problem.clone()),
        (None, Some(entry)) => text(entry),
        (None, None) => Err(Problem {
            line: root.entry("data").map_or(root.line, |data| data.line),
            path: "data".to_owned(),
            code: code::MISSING_FIELD,
            what: format!("the ConfigMap has no `{MESH}`, which holds the MeshConfig"),
            remedy: format!("add `{MESH}: |` and the MeshConfig below it"),
        }),
    };
    Some(MeshMap { object, line: root.line, mesh, networks: networks.map(|entry| entry.line) })
}

/// The same of one that could not be read to its end: `head` could.
pub(super) fn broken(
    meta: &TypeMeta<'_>,
    head: &Node<'_>,
    problem: &Problem,
    names: &mut Names,
) -> Option<MeshMap> {
    let object = named(meta, head, names)?;
    Some(MeshMap { object, line: head.line, mesh: Err(problem.clone()), networks: None })
}

/// The identity of a ConfigMap that is called as those with MeshConfig are.
fn named(meta: &TypeMeta<'_>, root: &Node<'_>, names: &mut Names) -> Option<ObjectRef> {
    if (meta.api_version, meta.kind) != ("v1", "ConfigMap") {
        return None;
    }
    let object = identity::object_ref(root, Kind::Service, meta.kind, names).ok()?;
    let rest = object.name.strip_prefix(MESH_MAP)?;
    (rest.is_empty() || rest.starts_with('-')).then_some(object)
}

fn text(entry: &Entry<'_>) -> Result<MeshText, Problem> {
    let Value::Scalar { text, literal, .. } = &entry.value.value else {
        return Err(Problem {
            line: entry.line,
            path: format!("data.{MESH}"),
            code: code::WRONG_TYPE,
            what: "values of a ConfigMap are text, and this is not".to_owned(),
            remedy: format!("write `{MESH}: |` and the MeshConfig below it, indented"),
        });
    };
    // A block begins for the parser where its first line that is not empty does.
    let empty = text.bytes().take_while(|byte| *byte == b'\n').count();
    let before = u32::try_from(if *literal { empty } else { 0 }).unwrap_or_default();
    let first = entry.value.line.saturating_sub(before).max(1);
    Ok(MeshText { text: text.to_string(), lines: Lines { first, are_kept: *literal } })
}
