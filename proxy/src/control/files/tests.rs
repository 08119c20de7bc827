use std::os::unix::fs::symlink;
use std::time::Duration;

use super::super::settle::QUIET;
use super::*;
use crate::time;

/// Of the files here.
const FILE_BYTES_MAX: u64 = 1 << 20;

struct Fixture {
    directory: tempfile::TempDir,
    files: Files,
    watcher: Watcher,
    now: Instant,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(vec![Place::Directory(directory.path().to_owned())], FILE_BYTES_MAX);
        // Not watching: what is seen is told by looking alone.
        Fixture { directory, files, watcher: Watcher::deaf(), now: time::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What differs: a file and its text, or `missing`, or `gone`.
    fn look(&mut self) -> Vec<(String, Option<String>)> {
        let found = self.files.look(&self.watcher, self.now);
        assert_eq!(found.unreadable, []);
        names(found.changes)
    }

    /// What cannot be read now.
    fn unreadable(&mut self) -> Vec<(String, String)> {
        let found = self.files.look(&self.watcher, self.now);
        found.unreadable.into_iter().map(|(path, why)| (name(&path), why)).collect()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn names(changes: Vec<Change>) -> Vec<(String, Option<String>)> {
    let changes = changes.into_iter().map(|change| match change {
        Change::Text(path, _, text) => (name(&path), Some(text)),
        Change::Missing(path, _) => (format!("missing {}", name(&path)), None),
        Change::Gone(path) => (format!("gone {}", name(&path)), None),
    });
    changes.collect()
}

fn missing(name: &str) -> (String, Option<String>) {
    (format!("missing {name}"), None)
}

fn gone(name: &str) -> (String, Option<String>) {
    (format!("gone {name}"), None)
}

fn text(name: &str, text: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(text.to_owned()))
}

#[test]
fn what_changed_is_read_once() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "a").unwrap();
    fs::write(fixture.path("b.json"), "b").unwrap();
    fs::write(fixture.path("notes.txt"), "not ours").unwrap();
    fs::write(fixture.path(".a.yaml.swp.yaml"), "a draft").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "a"), text("b.json", "b")]);
    assert_eq!(fixture.look(), []);
    fs::write(fixture.path("a.yaml"), "a, longer").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "a, longer")]);
    // Written anew with the same text, nothing changed.
    fs::write(fixture.path("draft"), "b").unwrap();
    fs::rename(fixture.path("draft"), fixture.path("b.json")).unwrap();
    assert_eq!(fixture.look(), []);
}

#[test]
fn a_file_is_gone_when_it_stays_away() {
    let mut fixture = Fixture::new();
    for file in ["a.yaml", "b.yaml"] {
        fs::write(fixture.path(file), "text").unwrap();
    }
    fs::write(fixture.path("empty.yaml"), "").unwrap();
    assert_eq!(fixture.look().len(), 3);
    // Some editors and version control remove a file and write it anew.
    fs::remove_file(fixture.path("a.yaml")).unwrap();
    fs::remove_file(fixture.path("b.yaml")).unwrap();
    fs::remove_file(fixture.path("empty.yaml")).unwrap();
    assert_eq!(
        fixture.look(),
        [missing("a.yaml"), missing("b.yaml"), missing("empty.yaml"), gone("empty.yaml")]
    );
    assert_eq!(fixture.files.look(&fixture.watcher, fixture.now).again, Some(fixture.now + QUIET));
    fixture.now += Duration::from_millis(500);
    fs::write(fixture.path("a.yaml"), "text").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "text")]);
    fixture.now += Duration::from_millis(500);
    assert_eq!(fixture.look(), [gone("b.yaml")]);
    assert_eq!(fixture.look(), []);
}

#[test]
fn a_directory_without_files_is_told() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("notes.txt"), "not ours").unwrap();
    let empty = |fixture: &mut Fixture| fixture.files.look(&fixture.watcher, fixture.now).empty.len();
    assert_eq!(empty(&mut fixture), 1);
    fs::write(fixture.path("a.yaml"), "").unwrap();
    assert_eq!(empty(&mut fixture), 0);
}

#[test]
fn a_directory_that_cannot_be_listed_takes_nothing_away() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "a").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "a")]);
    let elsewhere = fixture.directory.path().with_extension("elsewhere");
    fs::rename(fixture.directory.path(), &elsewhere).unwrap();
    for _ in 0..2 {
        fixture.now += QUIET;
        let found = fixture.files.look(&fixture.watcher, fixture.now);
        assert_eq!(found.changes, []);
        assert_eq!(found.unreadable.len(), 1, "{found:?}");
    }
    fs::rename(&elsewhere, fixture.directory.path()).unwrap();
    assert_eq!(fixture.look(), []);
}

#[test]
fn a_renamed_file_replaces_another() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "old").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "old")]);
    fs::write(fixture.path("a.yaml.tmp"), "new").unwrap();
    fs::rename(fixture.path("a.yaml.tmp"), fixture.path("a.yaml")).unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "new")]);
}

#[test]
fn an_emptied_file_is_believed_when_it_stays_empty() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "a").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "a")]);
    fs::write(fixture.path("a.yaml"), "").unwrap();
    assert_eq!(fixture.look(), []);
    assert_eq!(fixture.files.look(&fixture.watcher, fixture.now).again, Some(fixture.now + QUIET));
    fixture.now += Duration::from_millis(500);
    fs::write(fixture.path("a.yaml"), "b").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "b")]);
    fs::write(fixture.path("a.yaml"), "").unwrap();
    assert_eq!(fixture.look(), []);
    fixture.now += QUIET;
    assert_eq!(fixture.look(), [text("a.yaml", "")]);
}

#[test]
fn a_config_map_swaps_all_its_files_at_once() {
    let mut fixture = Fixture::new();
    for (version, content) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(fixture.path(version)).unwrap();
        fs::write(fixture.path(version).join("a.yaml"), content).unwrap();
        fs::write(fixture.path(version).join("mesh.yaml"), content).unwrap();
    }
    symlink("..1", fixture.path("..data")).unwrap();
    symlink("..data/a.yaml", fixture.path("a.yaml")).unwrap();
    symlink("..data/mesh.yaml", fixture.path("mesh.yaml")).unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "one"), text("mesh.yaml", "one")]);
    symlink("..2", fixture.path("..data_tmp")).unwrap();
    fs::rename(fixture.path("..data_tmp"), fixture.path("..data")).unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "two"), text("mesh.yaml", "two")]);
}

#[test]
fn what_cannot_be_read_is_said_until_it_can() {
    let mut fixture = Fixture::new();
    drop(std::os::unix::net::UnixListener::bind(fixture.path("a.yaml")).unwrap());
    assert_eq!(fixture.unreadable(), [("a.yaml".to_owned(), "it is not a file".to_owned())]);
    assert_eq!(fixture.unreadable().len(), 1);
    fs::remove_file(fixture.path("a.yaml")).unwrap();
    fs::write(fixture.path("a.yaml"), "a").unwrap();
    assert_eq!(fixture.look(), [text("a.yaml", "a")]);
    // A link to nothing is not the same as no link.
    symlink("nowhere", fixture.path("b.yaml")).unwrap();
    assert_eq!(fixture.unreadable()[0].0, "b.yaml");
    fs::remove_file(fixture.path("b.yaml")).unwrap();
    assert_eq!(fixture.look(), []);
    // What is no file is not opened: a pipe would wait for somebody to write.
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("c.yaml")).unwrap();
    assert_eq!(fixture.unreadable(), [("c.yaml".to_owned(), "it is not a file".to_owned())]);
}

#[test]
fn a_mesh_config_that_is_named_wins_over_one_that_is_found() {
    let fixture = Fixture::new();
    fs::write(fixture.path("mesh.yaml"), "found").unwrap();
    fs::write(fixture.path("named.yml.txt"), "named").unwrap();
    let directory = || Place::Directory(fixture.directory.path().to_owned());
    // In another spelling it is the same one.
    let name = fixture.directory.path().file_name().unwrap();
    let same = fixture.directory.path().join("..").join(name).join("mesh.yaml");
    for (named, expected, overridden) in [(same, "found", 0), (fixture.path("named.yml.txt"), "named", 1)] {
        let mut files = Files::new(vec![directory(), Place::MeshConfig(named)], FILE_BYTES_MAX);
        let found = files.look(&fixture.watcher, fixture.now);
        assert_eq!(found.overridden.len(), overridden);
        let texts: Vec<_> = found
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Text(_, Content::MeshConfig, text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, [expected]);
    }
}
