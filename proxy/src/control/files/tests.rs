use std::os::unix::fs::symlink;
use std::time::Duration;

use super::super::settle::QUIET;
use super::*;
use crate::time;

struct Fixture {
    directory: tempfile::TempDir,
    files: Files,
    watcher: Watcher,
    now: Instant,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(vec![Place::Directory(directory.path().to_owned())]);
        // Not watching: what is seen is told by looking alone.
        let watcher = Watcher::new(std::iter::empty());
        Fixture { directory, files, watcher, now: time::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn look(&mut self) -> Vec<(String, Option<String>)> {
        let found = self.files.look(&self.watcher, self.now);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let changes = found.changes.into_iter().map(|change| match change {
            Change::Text(path, _, text) => (name(path), Some(text)),
            Change::Gone(path) => (name(path), None),
            Change::Unreadable(path, _, why) => panic!("{}: {why}", path.display()),
        });
        changes.collect()
    }
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
    fs::remove_file(fixture.path("b.json")).unwrap();
    assert_eq!(fixture.look(), [("b.json".to_owned(), None)]);
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
fn what_cannot_be_read_is_said() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), [0xff, 0xfe]).unwrap();
    let found = fixture.files.look(&fixture.watcher, fixture.now);
    assert!(matches!(found.changes.as_slice(), [Change::Unreadable(_, Content::Objects, _)]), "{found:?}");
}
