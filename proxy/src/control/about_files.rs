//! Findings about the files of a configuration, not about what is in them.

use std::path::{Path, PathBuf};

use config::finding::{Finding, Severity, code};
use config::origin::ObjectRef;
use config::store::Store;

use super::files::Found;

/// What there is to say about files, not about what is in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AboutFiles {
    /// What cannot be read at all, and why.
    pub(super) unreadable: Vec<(PathBuf, String)>,
    /// Directories without files.
    empty: Vec<PathBuf>,
    /// Files with a MeshConfig that are not read, because another was named.
    overridden: Vec<PathBuf>,
}

impl AboutFiles {
    /// What looking found; it is taken out of there.
    pub(super) fn of(found: &mut Found) -> AboutFiles {
        AboutFiles {
            unreadable: std::mem::take(&mut found.unreadable),
            empty: std::mem::take(&mut found.empty),
            overridden: std::mem::take(&mut found.overridden),
        }
    }

    /// Why what was read may lack what decides: before anything was published there is no last good of it, and it is
    /// better not to be ready than to be wrong.
    pub(super) fn hides_what_decides(&self, store: &Store) -> Option<String> {
        if let Some((path, why)) = self.unreadable.first() {
            return Some(format!("{} cannot be read: {why}", path.display()));
        }
        let findings = store.findings();
        let nameless = |finding: &&Finding| finding.severity == Severity::Error && finding.object.is_none();
        if let Some(Finding { place: Some(place), what, remedy, .. }) = findings.iter().find(nameless) {
            return Some(format!(
                "{place}: {what}. It may be an object that guards access, so nothing is served before it is known; {remedy}"
            ));
        }
        let is_mesh = |object: &ObjectRef| *object == config::mesh::object_ref();
        let refusals = store.refusals();
        let refusal = refusals
            .iter()
            .find(|refusal| refusal.serving.is_none() && refusal.object.as_ref().is_some_and(is_mesh))?;
        Some(format!("the MeshConfig at {} is refused; see /findings", refusal.place))
    }

    /// The same as findings.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let unreadable = self.unreadable.iter().map(|(path, why)| {
            let remedy = "make it a readable file, split it if it is too long, or remove it; what was \
                          read of it before holds until then";
            about_file(
                path,
                Severity::Error,
                code::UNREADABLE_FILE,
                format!("it cannot be read: {why}"),
                remedy,
            )
        });
        let empty = self.empty.iter().map(|path| {
            let what = "the directory holds no file that ends in .yaml, .yml or .json".to_owned();
            about_file(
                path,
                Severity::Warning,
                code::EMPTY_DIRECTORY,
                what,
                "name another directory, or add one",
            )
        });
        let overridden = self.overridden.iter().map(|path| {
            let what = "it is not read, because --mesh-config names another MeshConfig".to_owned();
            about_file(
                path,
                Severity::Warning,
                code::MESH_CONFIG_OVERRIDDEN,
                what,
                "remove it, or leave out --mesh-config",
            )
        });
        unreadable.chain(empty).chain(overridden)
    }
}

fn about_file(path: &Path, severity: Severity, code: &'static str, what: String, remedy: &str) -> Finding {
    Finding {
        place: Some(config::origin::Place { file: path.display().to_string().into(), line: 1 }),
        severity,
        code,
        object: None,
        path: String::new(),
        what,
        remedy: remedy.to_owned(),
    }
}
