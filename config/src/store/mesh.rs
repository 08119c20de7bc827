//! MeshConfig in the store: like an object that has only one name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::Finding;
use crate::mesh::{MeshConfig, object_ref, read_mesh};
use crate::origin::{ObjectRef, Place};
use crate::yaml::Limits;

/// The files that hold MeshConfig.
#[derive(Debug, Default)]
pub(super) struct MeshFiles(pub(super) BTreeMap<Arc<str>, MeshFile>);

#[derive(Debug, Default)]
pub(super) struct MeshFile {
    /// What it says; `None` when that is refused, or was never anything.
    pub(super) config: Option<Arc<MeshConfig>>,
    pub(super) findings: Vec<Finding>,
    /// Whether the text says nothing now; what it said holds until that is settled.
    pub(super) missing: bool,
    pub(super) revision: u64,
}

impl MeshFiles {
    pub(super) fn read(&mut self, file: &str, text: &str, limits: &Limits, revision: u64) {
        let name = self.0.get_key_value(file).map_or_else(|| file.into(), |(name, _)| name.clone());
        let read = read_mesh(&name, text, limits);
        let known = self.0.remove(file);
        let mesh_file = match known {
            // An empty file that said nothing before has nothing to be gone.
            Some(known) if read.is_empty && known.config.is_some() => {
                MeshFile { missing: true, findings: read.findings, ..known }
            }
            _ => MeshFile {
                config: read.config.map(Arc::new),
                findings: read.findings,
                missing: false,
                revision,
            },
        };
        self.0.insert(name, mesh_file);
    }

    pub(super) fn missing(&self, file: &str) -> Option<ObjectRef> {
        self.0.get(file).filter(|mesh_file| mesh_file.missing).map(|_| object_ref())
    }

    pub(super) fn settle(&mut self, file: &str) {
        if let Some(mesh_file) = self.0.get_mut(file).filter(|mesh_file| mesh_file.missing) {
            *mesh_file = MeshFile {
                config: Some(Arc::default()),
                findings: std::mem::take(&mut mesh_file.findings),
                ..MeshFile::default()
            };
        }
    }

    pub(super) fn remove(&mut self, file: &str) {
        self.0.remove(file);
    }

    /// The file that counts: the first by name.
    pub(super) fn first(&self) -> Option<(&Arc<str>, &MeshFile)> {
        self.0.iter().next()
    }

    /// Decides what holds: of the first file, or while that is refused, what held last.
    pub(super) fn elect(&self, held: &mut Arc<MeshConfig>) {
        let elected = match self.first() {
            Some((_, first)) => match &first.config {
                Some(config) => config.clone(),
                None => return,
            },
            None => Arc::default(),
        };
        if **held != *elected {
            *held = elected;
        }
    }

    /// Where a file begins.
    pub(super) fn place(file: &Arc<str>) -> Place {
        Place { file: file.clone(), line: 1 }
    }
}
