//! The files of a configuration: finds them, notices which differ from what was read, reads those.

mod list;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::settle::{Settled, Sight, settle};
use super::watch::{Wanted, Watcher};

/// How often one look begins anew because a mounted ConfigMap was swapped under it.
const SWAPS_MAX: usize = 5;

/// After which time a file is looked at again that changed while it was read.
const CHANGED_PAUSE: Duration = Duration::from_millis(10);

/// Where configuration is looked for. What is not there yet is waited for.
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
    /// A file is not in its directory any more. It may come back: this may be the middle of an edit, or of a move.
    Missing(PathBuf, Content),
    /// A file is gone for good.
    Gone(PathBuf),
}

/// What looking found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What differs.
    pub(crate) changes: Vec<Change>,
    /// What cannot be read now, and why; what was read of it before is all that is known.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    /// Directories that hold no file of ours.
    pub(crate) empty: Vec<PathBuf>,
    /// Files with a MeshConfig that are not read, because another was named.
    pub(crate) overridden: Vec<PathBuf>,
    /// When to look again though nothing is heard.
    pub(crate) again: Option<Instant>,
}

/// The files of a configuration, as they were last read.
pub(crate) struct Files {
    places: Vec<Place>,
    /// Largest file that is read.
    file_bytes_max: u64,
    /// By path, whose bytes are compared faster than its components.
    known: BTreeMap<OsString, Known>,
    /// [`Watcher::uncertain`] when it was last looked at.
    uncertain: u64,
    /// Files that are links, and the files they lead to, of which is heard.
    links: HashMap<PathBuf, PathBuf>,
}

#[derive(Debug)]
struct Known {
    /// Which of the places it is in.
    place: usize,
    content: Content,
    /// How it looked when it was read; `None` before it was.
    read: Option<Stamp>,
    /// What was read, as a hash; `None` when that holds no longer.
    hash: Option<u64>,
    /// Whether something was in it then.
    held_something: bool,
    /// How it looked last, and since when; `None` when it was not there.
    seen: Option<Stamp>,
    since: Instant,
}

/// What tells two states of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of a file.
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Found {
    fn look_again(&mut self, then: Instant) {
        self.again = Some(self.again.map_or(then, |again| again.min(then)));
    }

    fn unreadable(&mut self, path: &Path, why: &io::Error) {
        self.unreadable.push((path.to_owned(), why.to_string()));
    }
}

impl Files {
    /// Those of `places` with at most `file_bytes_max` bytes; nothing is read yet.
    pub(crate) fn new(places: Vec<Place>, file_bytes_max: u64) -> Files {
        Files { places, file_bytes_max, known: BTreeMap::new(), uncertain: 0, links: HashMap::new() }
    }

    /// The directories in which changes show now.
    pub(crate) fn directories(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for place in &self.places {
            list::watched(place, &mut wanted);
        }
        wanted
    }

    /// Looks at all files and reads those that differ from what was read.
    pub(crate) fn look(&mut self, watcher: &Watcher, now: Instant) -> Found {
        let uncertain = watcher.uncertain();
        if std::mem::replace(&mut self.uncertain, uncertain) != uncertain {
            // Any file may have been touched: none is taken for what it was by its looks alone.
            self.known.values_mut().for_each(|known| known.read = None);
        }
        let links = self.places.iter().flat_map(list::links_of);
        self.links = links
            .filter_map(|link| Some((list::real(&link)?, link)))
            .map(|(real, link)| (link, real))
            .collect();
        let mut found = Found::default();
        for _ in 0..SWAPS_MAX {
            found.unreadable.clear();
            found.empty.clear();
            found.overridden.clear();
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
        let directories = self.places.iter().map(list::directory);
        directories.map(|directory| fs::read_link(directory.join("..data")).ok()).collect()
    }

    fn look_once(&mut self, watcher: &Watcher, now: Instant, found: &mut Found) {
        let mut present = BTreeMap::new();
        let mut listed = vec![true; self.places.len()];
        // A MeshConfig that was named wins over one that is found.
        let named: Vec<&Path> = self.places.iter().filter_map(list::named_mesh_config).collect();
        for ((index, place), listed) in self.places.iter().enumerate().zip(&mut listed) {
            match list::list(place) {
                Ok(files) => {
                    if files.is_empty() {
                        found.empty.push(list::path(place).to_owned());
                    }
                    for (file, content) in files {
                        let found_one =
                            matches!(place, Place::Directory(_)) && content == Content::MeshConfig;
                        if found_one && !named.is_empty() {
                            if !named.iter().any(|named| list::is_same(named, &file)) {
                                found.overridden.push(file);
                            }
                        } else {
                            present.entry(file.into_os_string()).or_insert((index, content));
                        }
                    }
                }
                // What was in it goes on to hold: a directory that cannot be listed says nothing.
                Err(error) => {
                    *listed = false;
                    found.unreadable(list::path(place), &error);
                }
            }
        }
        let missing = |(file, known): &(&OsString, &Known)| {
            !present.contains_key(*file) && listed.get(known.place).copied().unwrap_or(true)
        };
        let missing: Vec<OsString> =
            self.known.iter().filter(missing).map(|(file, _)| file.clone()).collect();
        for file in missing {
            self.look_for(Path::new(&file), now, found);
        }
        for (file, (place, content)) in present {
            self.look_at(Path::new(&file), place, content, watcher, now, found);
        }
    }

    /// A file that was there and is not.
    fn look_for(&mut self, file: &Path, now: Instant, found: &mut Found) {
        let Some(known) = self.known.get_mut(file.as_os_str()) else { return };
        if known.seen.take().is_some() {
            known.since = now;
            known.read = None;
            if known.hash.take().is_some() {
                found.changes.push(Change::Missing(file.to_owned(), known.content));
            }
        }
        match settle(Sight { emptied: known.held_something, writing: false, since: known.since }, now) {
            Settled::LookAgain(then) => found.look_again(then),
            Settled::Now => {
                self.known.remove(file.as_os_str());
                found.changes.push(Change::Gone(file.to_owned()));
            }
        }
    }

    fn look_at(
        &mut self,
        file: &Path,
        place: usize,
        content: Content,
        watcher: &Watcher,
        now: Instant,
        found: &mut Found,
    ) {
        let target = self.links.get(file);
        let touched = watcher.take_touched(file) | target.is_some_and(|target| watcher.take_touched(target));
        let writing = watcher.is_writing(file) || target.is_some_and(|target| watcher.is_writing(target));
        let stamp = match stamp(file, self.file_bytes_max) {
            Ok(stamp) => stamp,
            Err(error) => return found.unreadable(file, &error),
        };
        let known = self.known.entry(file.into()).or_insert(Known {
            place,
            content,
            read: None,
            hash: None,
            held_something: false,
            seen: Some(stamp),
            since: now,
        });
        if known.seen != Some(stamp) || touched {
            known.seen = Some(stamp);
            known.since = now;
            known.read = None;
        }
        if known.read == Some(stamp) && !writing {
            return;
        }
        let emptied = stamp.length == 0 && known.held_something;
        if let Settled::LookAgain(then) = settle(Sight { emptied, writing, since: known.since }, now) {
            // What stays as it is until then is read though no change is heard of.
            known.read = None;
            return found.look_again(then);
        }
        watcher.forget(file);
        target.inspect(|target| watcher.forget(target));
        match read(file, stamp, self.file_bytes_max) {
            Ok(Some(text)) => known.take(file, stamp, text, found),
            Ok(None) => found.look_again(now + CHANGED_PAUSE),
            Err(error) => found.unreadable(file, &error),
        }
    }
}

impl Known {
    fn take(&mut self, file: &Path, stamp: Stamp, text: String, found: &mut Found) {
        self.read = Some(stamp);
        self.held_something = !text.trim().is_empty();
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        let hash = Some(hasher.finish());
        if self.hash != hash {
            self.hash = hash;
            found.changes.push(Change::Text(file.to_owned(), self.content, text));
        }
    }
}

/// How a file looks now that has at most so many bytes.
fn stamp(file: &Path, bytes_max: u64) -> io::Result<Stamp> {
    let metadata = fs::metadata(file)?;
    // Opening a pipe would wait for somebody to write to it.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(Stamp::of(&metadata))
}

/// It has more bytes than a file may have.
pub(super) fn too_long(bytes_max: u64) -> io::Error {
    io::Error::other(format!("it is past the limit file_bytes_max, which is {bytes_max}"))
}

/// What is in a file that looks like `seen`; `None` when it changed meanwhile.
fn read(file: &Path, seen: Stamp, bytes_max: u64) -> io::Result<Option<String>> {
    // No more than it has: a long one that grows bit by bit would be there twice.
    let mut bytes = Vec::with_capacity(usize::try_from(seen.length.min(bytes_max)).unwrap_or_default());
    // What looks like a file may wait for others all the same: /proc/kmsg, until the kernel has something to say.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(file)?;
    opened.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other("it is not a plain file: what is in it has no end"),
        _ => error,
    })?;
    // Whoever writes to it now may have been in the middle of a character.
    if stamp(file, bytes_max)? != seen {
        return Ok(None);
    }
    Ok(Some(config::yaml::text_of(bytes)))
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
