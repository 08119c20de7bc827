//! Which objects hold, when files change and some of what they say is bad.
//!
//! A pure state machine: the caller says which file holds which text now, and asks what holds. It reads no files and
//! knows no time.
//!
//! - A bad object is refused alone; the version of it that held last goes on to, wherever that was written.
//! - While a document of a file does not tell which object it is, no object of that file is gone: the document may
//!   be any of them.
//! - An object that is missing from a text is not gone at once, because a text may be half written: [`Store::read`]
//!   tells what is missing, [`Store::settle`] makes it gone. What is new in the text holds at once.
//! - Of an object that is written twice, the first by file name and line holds; the other is an error.
//! - What did not change keeps its `Arc`.
//! - MeshConfig in a file of its own wins over that in a ConfigMap.

mod mesh;
mod report;
mod room;

#[cfg(test)]
mod tests;

pub use report::{Refusal, Serving};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::finding::{Finding, Severity};
use crate::objects::{AnyObject, Objects, RefusedGuard};
use crate::origin::{ObjectRef, Origin, Place};
use crate::validate;
use crate::yaml::{FileRead, Guard, Limits, ObjectRead, Within, read_file_within};

use mesh::MeshFiles;
use room::{bytes_of, told_of};

/// Base name of the file in a configuration directory that holds MeshConfig.
pub const MESH_FILE: &str = "mesh.yaml";

/// All files as they were last read, and what holds of them.
#[derive(Debug, Default)]
pub struct Store {
    limits: Limits,
    files: BTreeMap<Arc<str>, File>,
    records: BTreeMap<Arc<ObjectRef>, Record>,
    /// Those of the records that there is anything to say about: few, and so a change of one file costs what it is.
    notable: BTreeSet<Arc<ObjectRef>>,
    mesh: MeshFiles,
    objects: Objects,
    /// Bytes of memory that what is claimed takes, and what holds though nothing claims it, as far as they are known.
    bytes: usize,
    /// Bytes of memory that findings take, and what is refused.
    told: usize,
    /// Changes so far.
    revision: u64,
}

/// What a file said about no one object.
#[derive(Debug, Default)]
struct File {
    findings: Vec<Finding>,
    /// Bytes of memory that those take.
    told: usize,
    /// How many errors are not told beside.
    untold: usize,
    /// How many of what is not told say that a limit was met, by its name.
    untold_limits: BTreeMap<&'static str, usize>,
    /// Whether each document of it tells which object it is.
    is_whole: bool,
    /// The revision that brought its text.
    revision: u64,
    /// The objects that have a claim of this file, in order.
    objects: Box<[Arc<ObjectRef>]>,
}

/// One object: where it is written, and what holds of it. Never without a claim.
#[derive(Debug, Default)]
struct Record {
    /// The first one counts.
    claims: Vec<Claim>,
    serving: Option<Held>,
    /// Bytes of memory of what holds though nothing claims it, as they are counted.
    kept: usize,
}

/// The version that holds, and since which revision.
#[derive(Debug)]
struct Held {
    value: AnyObject,
    revision: u64,
    /// Bytes of memory that takes.
    bytes: usize,
}

/// An object in a file. A mesh has tens of thousands, about nearly all of which there is nothing to say.
#[derive(Debug)]
struct Claim {
    standing: Standing,
    file: Arc<str>,
    /// Its number among the objects of the file.
    number: u32,
    /// What it says; `None` when that is refused.
    value: Option<AnyObject>,
    /// Bytes of memory that takes.
    bytes: usize,
    /// What there is to say about it.
    trouble: Option<Box<Trouble>>,
    /// The revision that brought it.
    revision: u64,
}

/// What there is to say about a claim.
#[derive(Debug, Clone)]
struct Trouble {
    /// The line on which it begins.
    line: u32,
    findings: Box<[Finding]>,
    /// What it was to guard, where it is refused.
    guard: Option<Guard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// The text of the file has it.
    Written,
    /// The text does not, but a document in it does not tell which object it is.
    Kept,
    /// The text does not, and it is gone as soon as that is settled.
    Missing,
}

impl Claim {
    /// Claims of files by name and line, those on their way out last.
    fn order(&self) -> (bool, &Arc<str>, u32) {
        (self.standing == Standing::Missing, &self.file, self.number)
    }

    /// Where it is written.
    fn place(&self) -> Place {
        let own_line = || self.value.as_ref().map_or(1, |value| value.metadata().source.line);
        let line = self.trouble.as_ref().map_or_else(own_line, |trouble| trouble.line);
        Place { file: self.file.clone(), line }
    }

    /// What is wrong with it, or might be.
    fn findings(&self) -> &[Finding] {
        self.trouble.as_ref().map_or(&[], |trouble| &trouble.findings)
    }

    /// What it was to guard, where it is refused.
    fn guard(&self) -> Option<&Guard> {
        self.trouble.as_ref().and_then(|trouble| trouble.guard.as_ref())
    }
}

impl Store {
    /// A store without files.
    pub fn new() -> Store {
        Store::default()
    }

    /// A store that reads within `limits`.
    pub fn with_limits(limits: Limits) -> Store {
        Store { limits, ..Store::default() }
    }

    /// MeshConfig is that of this revision of Istio, where a ConfigMap holds it: `istio-REVISION`, or `istio` without one.
    #[must_use]
    pub fn of_revision(mut self, revision: &str) -> Store {
        self.mesh.set_revision(revision);
        self
    }

    /// Takes in `text` as all that `file` holds now. What is new or changed in it holds from now on. Returns the
    /// objects that it held before and lacks now; they go on to hold until [`Store::settle`].
    ///
    /// A file named `mesh.yaml` holds MeshConfig; see [`Store::read_mesh`].
    pub fn read(&mut self, file: &str, text: &str) -> Vec<ObjectRef> {
        if base_name(file) == MESH_FILE {
            return self.read_mesh(file, text);
        }
        self.revision += 1;
        let name = self.file_name(file);
        let room = self.room_for(&name);
        let mut before = self.take_claims(&name);
        let holds = |object: &Arc<ObjectRef>| self.holds_last(object, &before);
        let left = self.limits.findings_bytes_total_max.saturating_sub(self.told);
        let within = Within { objects: room, findings: left, holds: &holds };
        let FileRead { objects, mesh_maps, mut findings, unidentified, mut untold } =
            read_file_within(&name, text, &self.limits, within);
        let is_whole = unidentified == 0;
        findings.extend(self.mesh.read_maps(&name, mesh_maps, is_whole, &self.limits, self.revision));
        self.mesh.elect(&mut self.objects);
        let read = objects.iter().map(|read| self.identity(&read.object));
        let touched: BTreeSet<_> = before.keys().cloned().chain(read).collect();
        let (mut written, mut guards) = (BTreeSet::new(), BTreeMap::new());
        for (number, read) in (0..).zip(objects) {
            let object = read.object.clone();
            guards.extend(read.guard.clone().map(|guard| (number, guard)));
            let known = before.get(&object).map(Vec::as_slice).unwrap_or_default();
            let mut claim = self.claim(&name, number, read, known);
            written.insert(object.clone());
            if !self.tell(&object, &mut claim, self.holds_last(&object, &before), &mut untold) {
                continue;
            }
            let claims = &mut self.records.entry(object).or_default().claims;
            // Nearly every object is written once; room for more is most of what a store would hold.
            claims.reserve_exact(1);
            self.bytes += claim.bytes;
            self.told += claim.told();
            claims.push(claim);
        }
        before.retain(|object, _| !written.contains(object));
        let standing = if is_whole { Standing::Missing } else { Standing::Kept };
        for (object, claims) in before {
            let claims = claims.into_iter().map(|claim| Claim { standing, ..claim });
            let claims = claims.inspect(|claim| {
                self.bytes += claim.bytes;
                self.told += claim.told();
            });
            self.records.entry(object).or_default().claims.extend(claims);
        }
        self.make_room(&name, &touched, &mut guards, &mut untold);
        touched.iter().for_each(|object| self.elect(object));
        let objects = touched.into_iter().filter(|object| self.records.contains_key(object)).collect();
        findings.extend(untold.finding(self.limits.findings_bytes_total_max));
        let told = findings.iter().map(Finding::bytes).sum();
        self.told += told;
        let (revision, untold, untold_limits) = (self.revision, untold.errors(), untold.into_limits());
        self.files.insert(name, File { findings, told, untold, untold_limits, is_whole, revision, objects });
        self.missing(file)
    }

    /// Takes in `text` as MeshConfig. A text that says nothing counts as missing, as in [`Store::read`].
    pub fn read_mesh(&mut self, file: &str, text: &str) -> Vec<ObjectRef> {
        self.revision += 1;
        self.mesh.read(&file.into(), text, &self.limits, self.revision);
        self.mesh.elect(&mut self.objects);
        self.missing(file)
    }

    /// The objects that `file` held before and lacks now, and that are not settled.
    pub fn missing(&self, file: &str) -> Vec<ObjectRef> {
        let is_missing = |object: &&ObjectRef| {
            self.records.get(*object).is_some_and(|record| {
                record.claims.iter().any(|claim| &*claim.file == file && claim.standing == Standing::Missing)
            })
        };
        let objects = self.files.get(file).map(|file| &*file.objects);
        let objects = objects.into_iter().flatten().map(|object| &**object);
        let missing = objects.filter(is_missing).cloned();
        missing.chain(self.mesh.missing(file)).collect()
    }

    /// Makes the objects gone that `file` lacks: its text is whole.
    pub fn settle(&mut self, file: &str) {
        self.drop_claims(file, |claim| claim.standing == Standing::Missing);
        self.mesh.settle(file);
        self.mesh.elect(&mut self.objects);
    }

    /// Forgets `file`: it does not exist any more. Objects that no other file has are gone.
    pub fn remove(&mut self, file: &str) {
        self.revision += 1;
        self.drop_claims(file, |_| true);
        self.told -= self.files.remove(file).map_or(0, |file| file.told);
        self.mesh.remove(file);
        self.mesh.elect(&mut self.objects);
    }

    /// All objects that hold.
    pub fn objects(&self) -> Objects {
        let mut objects = self.objects.clone();
        for (object, record) in self.notable().filter(|(_, record)| record.serving.is_none()) {
            objects.refused_guards.extend(record.claims.iter().filter_map(|claim| {
                let host = claim.guard()?.host.clone();
                let origin = Origin { object: (**object).clone(), place: Some(claim.place()) };
                Some(RefusedGuard { origin, host })
            }));
        }
        objects
    }

    /// How many texts were read and files removed so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The name of a file, shared with what was read of it before.
    fn file_name(&self, file: &str) -> Arc<str> {
        self.files.get_key_value(file).map_or_else(|| file.into(), |(name, _)| name.clone())
    }

    /// Who an object is, shared with what is kept of it already.
    fn identity(&self, object: &Arc<ObjectRef>) -> Arc<ObjectRef> {
        self.records.get_key_value(object).map_or_else(|| object.clone(), |(known, _)| known.clone())
    }

    /// The bounds it reads with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes the claims of `file` out of the records.
    fn take_claims(&mut self, file: &str) -> BTreeMap<Arc<ObjectRef>, Vec<Claim>> {
        let mut taken = BTreeMap::new();
        let Some(held) = self.files.remove(file) else { return taken };
        self.told -= held.told;
        for object in held.objects {
            let Some(record) = self.records.get_mut(&object) else { continue };
            let (own, other) =
                std::mem::take(&mut record.claims).into_iter().partition(|claim| &*claim.file == file);
            record.claims = other;
            self.bytes -= bytes_of(&own);
            self.told -= told_of(&own);
            taken.insert(object, own);
        }
        taken
    }

    /// What `file` claims by `read`. What it claimed `before` in the same words is taken over.
    fn claim(&self, file: &Arc<str>, number: u32, read: ObjectRead, before: &[Claim]) -> Claim {
        let ObjectRead { place: Place { line, .. }, value, bytes, mut findings, guard, .. } = read;
        let (file, standing, revision) = (file.clone(), Standing::Written, self.revision);
        if let Some(same) = before.iter().find(|claim| claim.value.is_some() && claim.value == value) {
            let (value, trouble) = (same.value.clone(), same.trouble.clone());
            return Claim { standing, file, number, value, bytes, trouble, revision: same.revision };
        }
        findings.extend(value.iter().flat_map(|value| validate::object(value, &self.limits)));
        let good = findings.iter().all(|finding| finding.severity < Severity::Error);
        let value = value.filter(|_| good);
        let is_said = value.is_none() || !findings.is_empty();
        let guard = guard.filter(|_| value.is_none());
        let trouble = is_said.then(|| Box::new(Trouble { line, findings: findings.into(), guard }));
        let bytes = if value.is_some() { bytes } else { 0 };
        Claim { standing, file, number, value, bytes, trouble, revision }
    }

    fn drop_claims(&mut self, file: &str, gone: impl Fn(&Claim) -> bool) {
        let Some(held) = self.files.get_mut(file) else { return };
        let mut objects = Vec::from(std::mem::take(&mut held.objects));
        objects.retain(|object| {
            let Some(record) = self.records.get_mut(object) else { return false };
            let (count, before, told) =
                (record.claims.len(), bytes_of(&record.claims), told_of(&record.claims));
            record.claims.retain(|claim| &*claim.file != file || !gone(claim));
            self.bytes -= before - bytes_of(&record.claims);
            self.told -= told - told_of(&record.claims);
            let stays = record.claims.iter().any(|claim| &*claim.file == file);
            // Of most objects of a file nothing is gone.
            if record.claims.len() < count {
                self.elect(object);
            }
            stays
        });
        if let Some(held) = self.files.get_mut(file) {
            held.objects = objects.into();
        }
    }

    /// Decides what holds of `object`, and whether there is anything to say about it. To be called whenever its claims are
    /// others than before.
    fn elect(&mut self, object: &Arc<ObjectRef>) {
        let Some(record) = self.records.get_mut(object) else { return };
        let before = record.kept;
        record.decide(&mut self.objects);
        record.kept = record.bytes_kept();
        self.bytes = self.bytes + record.kept - before;
        let (is_notable, is_gone) = (record.is_notable(), record.claims.is_empty());
        if is_gone {
            self.records.remove(object);
        }
        if is_notable && !is_gone {
            self.notable.insert(object.clone());
        } else {
            self.notable.remove(object);
        }
    }
}

impl Record {
    /// Decides what holds, and brings it into `objects`, or takes it out where nobody claims it any more.
    fn decide(&mut self, objects: &mut Objects) {
        self.sort();
        let Some(first) = self.claims.first() else {
            if let Some(held) = self.serving.take() {
                objects.remove(&held.value);
            }
            return;
        };
        // While the first is refused, what held last does; when nothing did, the next good one.
        let elected = match (&first.value, &self.serving) {
            (Some(_), _) => Some(first),
            (None, Some(_)) => None,
            (None, None) => self.claims.iter().find(|claim| claim.value.is_some()),
        };
        let Some(Claim { value: Some(value), revision, bytes, .. }) = elected else { return };
        if self.serving.as_ref().is_none_or(|held| held.value != *value) {
            objects.insert(value.clone());
            self.serving = Some(Held { value: value.clone(), revision: *revision, bytes: *bytes });
        }
    }
}

/// The part of a path after its last `/`.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}
