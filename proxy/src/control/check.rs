//! What there is to say about a configuration, without running it for anybody.

use std::path::{Path, PathBuf};

use config::finding::Finding;
use config::store::Store;
use config::validate;

use super::AboutFiles;
use super::files::{Files, Place};
use super::watch::Watcher;
use crate::time;

/// What there is to say about the configuration at `paths`.
///
/// # Errors
///
/// When a path cannot be looked at.
pub(crate) fn check(paths: &[PathBuf], mesh_config: Option<&Path>) -> Result<Vec<Finding>, String> {
    let mut places = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        places.push(if metadata.is_dir() {
            Place::Directory(path.clone())
        } else {
            Place::File(path.clone())
        });
    }
    places.extend(mesh_config.map(|path| Place::MeshConfig(path.to_owned())));
    let mut store = Store::new();
    let found = Files::new(places).look(&Watcher::deaf(), time::now());
    for change in found.changes {
        super::take(&mut store, change);
    }
    let about_files = AboutFiles { unreadable: found.unreadable, empty: found.empty };
    let mut findings: Vec<Finding> = about_files.findings().collect();
    findings.extend(store.findings());
    findings.extend(validate::references(&store.objects()));
    findings.sort();
    findings.dedup();
    Ok(findings)
}
