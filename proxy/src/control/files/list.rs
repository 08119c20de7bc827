//! Which files a place has, and where it shows that they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Content, Place};
use crate::control::watch::{Wanted, parent};

/// Name of the file in a directory that holds the MeshConfig.
const MESH_CONFIG_NAME: &str = "mesh.yaml";

/// What a place is called.
pub(super) fn path(place: &Place) -> &Path {
    match place {
        Place::Directory(path) | Place::File(path) | Place::MeshConfig(path) => path,
    }
}

/// The MeshConfig that a place names.
pub(super) fn named_mesh_config(place: &Place) -> Option<&Path> {
    match place {
        Place::MeshConfig(file) => Some(file),
        Place::Directory(_) | Place::File(_) => None,
    }
}

/// Whether two paths lead to the same file.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The directory its files are in.
pub(super) fn directory(place: &Place) -> &Path {
    match place {
        Place::Directory(directory) => directory,
        Place::File(file) | Place::MeshConfig(file) => parent(file),
    }
}

/// Enters the directories in which changes of a place show.
pub(super) fn watched(place: &Place, wanted: &mut Wanted) {
    let directory = directory(place);
    let is_there = directory.is_dir();
    if is_there {
        wanted.insert(directory.to_owned(), None);
    }
    // A directory that is not there shows when it comes; one that is a link may be pointed elsewhere.
    if !is_there || directory.is_symlink() {
        enter(&coming(directory), wanted);
    }
    // A file that is a link changes where it leads to.
    if let Place::File(file) | Place::MeshConfig(file) = place
        && file.is_symlink()
        && let Ok(real) = file.canonicalize()
    {
        enter(&real, wanted);
    }
}

/// The part of a path that is the first to come: the child of the nearest directory that is there.
fn coming(path: &Path) -> PathBuf {
    let mut child = path;
    for ancestor in path.ancestors().skip(1) {
        if ancestor.as_os_str().is_empty() || ancestor.exists() {
            break;
        }
        child = ancestor;
    }
    child.to_owned()
}

/// Enters the directory of `file`, where only that name matters.
fn enter(file: &Path, wanted: &mut Wanted) {
    let Some(name) = file.file_name() else { return };
    if let Some(names) = wanted.entry(parent(file).to_owned()).or_insert_with(|| Some(Default::default())) {
        names.insert(name.to_owned());
    }
}

/// The files of a place.
///
/// # Errors
///
/// When its directory cannot be listed.
pub(super) fn list(place: &Place) -> io::Result<Vec<(PathBuf, Content)>> {
    Ok(match place {
        Place::File(file) => vec![(file.clone(), Content::Objects)],
        Place::MeshConfig(file) => vec![(file.clone(), Content::MeshConfig)],
        Place::Directory(directory) => entries(directory)?
            .into_iter()
            .map(|file| {
                let mesh = file.file_name().is_some_and(|name| name == MESH_CONFIG_NAME);
                (file, if mesh { Content::MeshConfig } else { Content::Objects })
            })
            .collect(),
    })
}

/// The YAML and JSON files of a directory. Hidden entries are left out: a mounted ConfigMap keeps its versions in
/// some, and editors their drafts; the visible entries of a ConfigMap are links to the version that holds.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // Links are asked where they lead to; all else the directory tells without being asked once more.
        let is_dir = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_dir(),
            _ => path.is_dir(),
        };
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let of_ours = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours));
        // What is no file, such as a link to nothing, is told when it is looked at.
        if of_ours && !hidden && !is_dir {
            files.push(path);
        }
    }
    Ok(files)
}
