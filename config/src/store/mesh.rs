//! MeshConfig in the store: like an object that has only one name, and that files and ConfigMaps may hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compile::ROOT_NAMESPACE;
use crate::finding::{Finding, Severity, code};
use crate::mesh::{MeshConfig, MeshRead, object_ref, read_mesh, read_part};
use crate::objects::Objects;
use crate::origin::{ObjectRef, Place};
use crate::yaml::{Limits, MESH_MAP, MeshMap};

/// All that holds MeshConfig.
#[derive(Debug, Default)]
pub(super) struct MeshFiles {
    /// The first one counts.
    pub(super) held: BTreeMap<MeshKey, MeshFile>,
    /// Revision of Istio whose ConfigMap is read; empty is that without one.
    revision: String,
}

/// One place that holds MeshConfig. Files come before ConfigMaps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MeshKey {
    pub(super) holder: Holder,
    pub(super) file: Arc<str>,
    /// Its number among the ConfigMaps of the file.
    number: usize,
}

/// What holds MeshConfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// A file, all of it.
    File,
    /// A ConfigMap among the objects of a file.
    Map,
}

#[derive(Debug, Default)]
pub(super) struct MeshFile {
    /// What it says; `None` when that is refused, or was never anything.
    pub(super) config: Option<Arc<MeshConfig>>,
    pub(super) findings: Vec<Finding>,
    /// Whether the text says nothing now; what it said holds until that is settled.
    pub(super) missing: bool,
    /// The line on which it begins.
    line: u32,
    pub(super) revision: u64,
}

impl MeshFiles {
    /// Reads the ConfigMap of that revision of Istio from now on.
    pub(super) fn set_revision(&mut self, revision: &str) {
        // Istio calls the one without a name so too.
        self.revision = if revision == "default" { String::new() } else { revision.to_owned() };
    }

    /// Takes in a file that is all MeshConfig.
    pub(super) fn read(&mut self, file: &Arc<str>, text: &str, limits: &Limits, revision: u64) {
        let key = MeshKey { holder: Holder::File, file: file.clone(), number: 0 };
        let read = read_mesh(file, text, limits);
        let known = self.held.remove(&key);
        let mesh_file = match known {
            // An empty file that said nothing before has nothing to be gone.
            Some(known) if read.is_empty && known.config.is_some() => {
                MeshFile { missing: true, findings: read.findings, ..known }
            }
            _ => MeshFile {
                config: read.config.map(Arc::new),
                findings: read.findings,
                missing: false,
                line: 1,
                revision,
            },
        };
        self.held.insert(key, mesh_file);
    }

    /// Takes in the ConfigMaps of a file; `is_whole` says that every document of it tells which object it is. Returns what
    /// there is to say about those that are not for this proxy.
    pub(super) fn read_maps(
        &mut self,
        file: &Arc<str>,
        maps: Vec<MeshMap>,
        is_whole: bool,
        limits: &Limits,
        revision: u64,
    ) -> Vec<Finding> {
        let mut number = 0;
        let mut elsewhere = Vec::new();
        for map in maps {
            let read = read_map(file, &map, limits);
            if let Some(why) = self.is_elsewhere(&map, read.config.as_ref()) {
                elsewhere.push(note_elsewhere(file, &map, &why));
                continue;
            }
            let key = MeshKey { holder: Holder::Map, file: file.clone(), number };
            let mesh_file = MeshFile {
                config: read.config.map(Arc::new),
                findings: read.findings,
                missing: false,
                line: map.line,
                revision,
            };
            self.held.insert(key, mesh_file);
            number += 1;
        }
        let lacking = |key: &MeshKey| key.holder == Holder::Map && key.file == *file && key.number >= number;
        for (_, lacking) in self.held.iter_mut().filter(|(key, _)| lacking(key)) {
            lacking.missing = is_whole;
        }
        elsewhere
    }

    /// Why a ConfigMap is not that of this proxy's mesh, if it is not. istiod reads the one in its own namespace, which is
    /// the root namespace unless that is said otherwise.
    fn is_elsewhere(&self, map: &MeshMap, config: Option<&MeshConfig>) -> Option<String> {
        let of_map = map.object.name.strip_prefix(MESH_MAP).unwrap_or_default();
        let of_map = of_map.strip_prefix('-').unwrap_or_default();
        if of_map != self.revision {
            let of_map = if of_map.is_empty() { "default" } else { of_map };
            return Some(format!("it is that of Istio's revision `{of_map}`"));
        }
        let namespace = &*map.object.namespace;
        let root = config.and_then(|config| config.root_namespace.as_deref()).unwrap_or(ROOT_NAMESPACE);
        (namespace != ROOT_NAMESPACE && namespace != root)
            .then(|| format!("it is in namespace `{namespace}`, and the root namespace is `{root}`"))
    }

    pub(super) fn missing(&self, file: &str) -> Option<ObjectRef> {
        self.of(file).any(|(_, mesh_file)| mesh_file.missing).then(object_ref)
    }

    fn of(&self, file: &str) -> impl Iterator<Item = (&MeshKey, &MeshFile)> {
        self.held.iter().filter(move |(key, _)| &*key.file == file)
    }

    pub(super) fn settle(&mut self, file: &str) {
        self.held.retain(|key, held| key.holder == Holder::File || &*key.file != file || !held.missing);
        let settled = self.held.iter_mut().filter(|(key, held)| &*key.file == file && held.missing);
        for (_, mesh_file) in settled {
            *mesh_file = MeshFile {
                config: Some(Arc::default()),
                findings: std::mem::take(&mut mesh_file.findings),
                line: 1,
                ..MeshFile::default()
            };
        }
    }

    pub(super) fn remove(&mut self, file: &str) {
        self.held.retain(|key, _| &*key.file != file);
    }

    /// The one that counts.
    pub(super) fn first(&self) -> Option<(&MeshKey, &MeshFile)> {
        self.held.iter().next()
    }

    /// Decides what holds: of the first, or while that is refused, what held last.
    pub(super) fn elect(&self, objects: &mut Objects) {
        let (elected, place) = match self.first() {
            Some((key, first)) => match &first.config {
                Some(config) => (config.clone(), Some(key.place(first))),
                None => return,
            },
            None => (Arc::default(), None),
        };
        if *objects.mesh != *elected {
            objects.mesh = elected;
        }
        objects.mesh_place = place;
    }
}

impl MeshKey {
    /// Where `mesh_file`, which is held here, begins.
    pub(super) fn place(&self, mesh_file: &MeshFile) -> Place {
        Place { file: self.file.clone(), line: mesh_file.line }
    }
}

/// What a ConfigMap says.
fn read_map(file: &Arc<str>, map: &MeshMap, limits: &Limits) -> MeshRead {
    let mut read = match &map.mesh {
        Ok(text) => read_part(file, &text.text, text.lines, limits),
        Err(problem) => {
            let error = problem.clone().into_error(file, Some(map.object.clone()));
            MeshRead { config: None, is_empty: false, findings: vec![error] }
        }
    };
    if let Some(line) = map.networks {
        read.findings.push(Finding {
            place: Some(Place { file: file.clone(), line }),
            severity: Severity::Warning,
            code: code::FIELD_NOT_HONOURED,
            object: Some(map.object.clone()),
            path: "data.meshNetworks".to_owned(),
            what: "weft does not honour networks yet: every endpoint is spoken to directly".to_owned(),
            remedy: "keep Istio's own proxy where the mesh relies on it".to_owned(),
        });
    }
    read
}

fn note_elsewhere(file: &Arc<str>, map: &MeshMap, why: &str) -> Finding {
    Finding {
        place: Some(Place { file: file.clone(), line: map.line }),
        severity: Severity::Note,
        code: code::MESH_CONFIG_ELSEWHERE,
        object: Some(map.object.clone()),
        path: String::new(),
        what: format!("the MeshConfig in this ConfigMap is not read: {why}"),
        remedy: "say the revision with --revision, if it is meant".to_owned(),
    }
}
