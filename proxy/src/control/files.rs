//! The files of a configuration: finds them, notices which differ from what was read, reads those.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::settle::{Settled, Sight, settle};
use super::watch::Watcher;

/// Largest file that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How often one look begins anew because a mounted ConfigMap was swapped under it.
const SWAPS_MAX: usize = 5;

/// Name of the file in a directory that holds the MeshConfig.
pub(crate) const MESH_CONFIG_NAME: &str = "mesh.yaml";

/// Where configuration is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// All YAML and JSON files in a directory, not those below it. `mesh.yaml` is the MeshConfig.
    Directory(PathBuf),
    /// One file with objects.
    File(PathBuf),
    /// One file with the MeshConfig.
    MeshConfig(PathBuf),
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Objects of Kubernetes and Istio.
    Objects,
    /// The MeshConfig.
    MeshConfig,
}

/// What differs from what was last read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file is new or changed; this is all of it.
    Text(PathBuf, Content, String),
    /// A file cannot be read, for this reason; what was read of it before is all that is known.
    Unreadable(PathBuf, Content, String),
    /// A file is gone.
    Gone(PathBuf),
}

/// What looking found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What differs.
    pub(crate) changes: Vec<Change>,
    /// When to look again though nothing is heard.
    pub(crate) again: Option<Instant>,
}

/// The files of a configuration, as they were last read.
pub(crate) struct Files {
    places: Vec<Place>,
    known: BTreeMap<PathBuf, Known>,
}

#[derive(Debug)]
struct Known {
    /// How it looked when it was read; `None` before it was.
    read: Option<Stamp>,
    /// Whether something was in it then.
    held_something: bool,
    /// How it looked last, and since when.
    seen: Stamp,
    since: Instant,
}

/// What tells two states of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Files {
    /// Those of `places`; nothing is read yet.
    pub(crate) fn new(places: Vec<Place>) -> Files {
        Files { places, known: BTreeMap::new() }
    }

    /// The directories in which changes show.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|place| match place {
            Place::Directory(directory) => directory.as_path(),
            Place::File(file) | Place::MeshConfig(file) => parent(file),
        })
    }

    /// Looks at all files and reads those that differ from what was read.
    pub(crate) fn look(&mut self, watcher: &Watcher, now: Instant) -> Found {
        let mut found = Found::default();
        for _ in 0..SWAPS_MAX {
            let before = self.versions();
            self.look_once(watcher, now, &mut found);
            // A ConfigMap that was swapped meanwhile would be read half old, half new.
            if before == self.versions() {
                break;
            }
        }
        found
    }

    /// Which versions of mounted ConfigMaps hold.
    fn versions(&self) -> Vec<Option<PathBuf>> {
        self.directories().map(|directory| fs::read_link(directory.join("..data")).ok()).collect()
    }

    fn look_once(&mut self, watcher: &Watcher, now: Instant, found: &mut Found) {
        let mut present = BTreeMap::new();
        for place in &self.places {
            list(place, &mut present, &mut found.changes);
        }
        let gone: Vec<PathBuf> =
            self.known.keys().filter(|file| !present.contains_key(*file)).cloned().collect();
        for file in gone {
            if self.known.remove(&file).is_some_and(|known| known.read.is_some()) {
                found.changes.push(Change::Gone(file));
            }
        }
        for (file, content) in present {
            self.look_at(&file, content, watcher, now, found);
        }
    }

    fn look_at(&mut self, file: &Path, content: Content, watcher: &Watcher, now: Instant, found: &mut Found) {
        let stamp = match fs::metadata(file) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) => return found.changes.push(unreadable(file, content, &error)),
        };
        let known = self.known.entry(file.to_owned()).or_insert(Known {
            read: None,
            held_something: false,
            seen: stamp,
            since: now,
        });
        let writing = watcher.is_writing(file);
        if known.seen != stamp {
            known.seen = stamp;
            known.since = now;
        }
        if known.read == Some(stamp) && !writing {
            return;
        }
        let emptied = stamp.length == 0 && known.held_something;
        if let Settled::LookAgain(then) = settle(Sight { emptied, writing, since: known.since }, now) {
            found.again = Some(found.again.map_or(then, |again| again.min(then)));
            return;
        }
        watcher.forget(file);
        found.changes.push(match read(file) {
            Ok(text) => {
                known.read = Some(stamp);
                known.held_something = !text.trim().is_empty();
                Change::Text(file.to_owned(), content, text)
            }
            Err(error) => unreadable(file, content, &error),
        });
    }
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unreadable(file: &Path, content: Content, error: &io::Error) -> Change {
    Change::Unreadable(file.to_owned(), content, error.to_string())
}

/// Enters the files of a place.
fn list(place: &Place, files: &mut BTreeMap<PathBuf, Content>, changes: &mut Vec<Change>) {
    match place {
        Place::File(file) => {
            files.insert(file.clone(), Content::Objects);
        }
        Place::MeshConfig(file) => {
            files.insert(file.clone(), Content::MeshConfig);
        }
        Place::Directory(directory) => match entries(directory) {
            Ok(found) => files.extend(found.into_iter().map(|file| {
                let mesh = file.file_name().is_some_and(|name| name == MESH_CONFIG_NAME);
                (file, if mesh { Content::MeshConfig } else { Content::Objects })
            })),
            Err(error) => changes.push(unreadable(directory, Content::Objects, &error)),
        },
    }
}

/// The YAML and JSON files of a directory. Hidden entries are left out: a mounted ConfigMap keeps its versions in
/// some, and editors their drafts; the visible entries of a ConfigMap are links to the version that holds.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let of_ours = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours));
        if of_ours && !hidden && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
