//! Which files a place has, and where it shows that they change.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Content, Place};
use crate::control::watch::{Wanted, parent};

/// Name of the file in a directory that holds the MeshConfig.
const MESH_CONFIG_NAME: &str = "mesh.yaml";

/// Links of one directory that are followed to watch what they lead to. Of more, changes are found when all is looked at.
const LINKS_MAX: usize = 1_000;

/// Directories that are watched because links lead there; the same holds of more.
const DIRECTORIES_MAX: usize = 256;

/// Links on the way to one file that are followed, as Linux does.
const HOPS_MAX: usize = 40;

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
    for file in links_of(place) {
        for on_the_way in led_through(&file) {
            let directory = parent(&on_the_way);
            if wanted.contains_key(directory) || (wanted.len() < DIRECTORIES_MAX && directory.is_dir()) {
                enter(&on_the_way, wanted);
            }
        }
    }
}

/// The files of a place that are links.
pub(super) fn links_of(place: &Place) -> Vec<PathBuf> {
    match place {
        Place::File(file) | Place::MeshConfig(file) => {
            if file.is_symlink() {
                vec![file.clone()]
            } else {
                Vec::new()
            }
        }
        Place::Directory(directory) => {
            let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
            let is_link = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let links = entries.flatten().filter(is_link).map(|entry| entry.path());
            let mut links: Vec<PathBuf> = links.filter(|path| is_ours(path)).collect();
            links.sort_unstable();
            links.truncate(LINKS_MAX);
            links
        }
    }
}

/// Where it shows that a link leads elsewhere or that what it leads to changes: each link on the way, and the file at the end.
fn led_through(link: &Path) -> Vec<PathBuf> {
    let Some(name) = link.file_name() else { return Vec::new() };
    let Ok(directory) = parent(link).canonicalize() else { return Vec::new() };
    let (mut through, mut at) = (Vec::new(), directory);
    let mut left = vec![PathBuf::from(name)];
    while let Some(part) = left.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                match fs::read_link(&next) {
                    // As the system does, which follows no more.
                    Ok(_) if through.len() == HOPS_MAX => return through,
                    Ok(target) => {
                        through.push(next);
                        let parts = target.components().map(|part| PathBuf::from(part.as_os_str()));
                        left.extend(parts.collect::<Vec<_>>().into_iter().rev());
                    }
                    Err(_) => at = next,
                }
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => {}
        }
    }
    through.push(at);
    through
}

/// What a file that is a link is called where it is.
pub(super) fn real(link: &Path) -> Option<PathBuf> {
    led_through(link).pop()
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
        // What is no file, such as a link to nothing, is told when it is looked at.
        if is_ours(&path) && !is_dir {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether its name is that of a file which is read.
fn is_ours(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let of_ours = path
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours));
    of_ours && !hidden
}
