//! Findings about the files of a configuration, not about what is in them.

use std::path::{Path, PathBuf};

use config::finding::{Finding, Severity, code};

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

    /// The same as findings.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let unreadable = self.unreadable.iter().map(|(path, why)| {
            let remedy = "make it a readable file of UTF-8 text, split it if it is too long, or remove it; what was \
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
