//! What the store has to say about its files.

use std::sync::Arc;

use super::{Claim, File, Record, Standing, Store};
use crate::finding::{Finding, Severity, code};
use crate::mesh::object_ref;
use crate::origin::{ObjectRef, Place};

/// Names listed in one finding.
const NAMES_LISTED_MAX: usize = 8;

/// Something in a file that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which object; `None` when the text does not tell.
    pub object: Option<ObjectRef>,
    /// Where the refused text begins.
    pub place: Place,
    /// The [`Store::revision`] that brought the refused text.
    pub since: u64,
    /// What holds instead; `None` when nothing does, or for a MeshConfig, when that is not written anywhere any more.
    pub serving: Option<Serving>,
}

/// The version of an object that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Where it was written when it was read.
    pub place: Place,
    /// The [`Store::revision`] that brought it.
    pub revision: u64,
}

impl Record {
    fn serving(&self) -> Option<Serving> {
        let held = self.serving.as_ref()?;
        Some(Serving { place: held.value.metadata().source.place(), revision: held.revision })
    }

    /// Whether there is anything to say about it: it is refused, written twice, or has findings of its own.
    pub(super) fn is_notable(&self) -> bool {
        let says = |claim: &Claim| claim.value.is_none() || !claim.findings().is_empty();
        self.claims.len() > 1 || self.claims.iter().any(says)
    }

    /// The claims that files make now.
    fn written(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| claim.standing == Standing::Written)
    }

    /// The claim that counts, unless `claim` is it.
    fn before(&self, claim: &Claim) -> Option<&Claim> {
        self.claims.first().filter(|first| first.file != claim.file || first.number != claim.number)
    }
}

impl Store {
    /// All findings about single objects and files, by file and line. See also [`crate::validate::references`].
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, file) in &self.files {
            findings.extend_from_slice(&file.findings);
            findings.extend(self.kept(name, file));
        }
        for (object, record) in self.notable() {
            for claim in record.written() {
                findings.extend_from_slice(claim.findings());
                findings.extend(duplicate(object, record, claim));
                findings.extend(last_good(object, record, claim));
            }
        }
        self.mesh_findings(&mut findings);
        findings.sort();
        findings.dedup();
        findings
    }

    /// The records that there is anything to say about.
    pub(super) fn notable(&self) -> impl Iterator<Item = (&Arc<ObjectRef>, &Record)> {
        self.notable.iter().filter_map(|object| self.records.get_key_value(object))
    }

    /// All that is refused now, by place.
    pub fn refusals(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for file in self.files.values() {
            for finding in file.findings.iter().filter(|finding| finding.severity == Severity::Error) {
                let Some(place) = finding.place.clone() else { continue };
                let (object, since) = (finding.object.clone(), file.revision);
                refusals.push(Refusal { object, place, since, serving: None });
            }
        }
        for (object, record) in self.notable() {
            for claim in
                record.written().filter(|claim| claim.value.is_none() || record.before(claim).is_some())
            {
                refusals.push(Refusal {
                    object: Some((**object).clone()),
                    place: claim.place(),
                    since: claim.revision,
                    serving: record.serving(),
                });
            }
        }
        for (key, file) in &self.mesh.held {
            let before = self.mesh.first().filter(|(first, _)| *first != key);
            let is_second = before.is_some_and(|(first, _)| first.holder == key.holder);
            if file.config.is_none() || is_second {
                let serving = before.filter(|(_, first)| first.config.is_some());
                refusals.push(Refusal {
                    object: Some(object_ref()),
                    place: key.place(file),
                    since: file.revision,
                    serving: serving
                        .map(|(first, file)| Serving { place: first.place(file), revision: file.revision }),
                });
            }
        }
        refusals.sort_by(|a, b| a.place.cmp(&b.place));
        refusals
    }

    /// The note that objects of a file are kept, because a document in it does not tell which object it is.
    fn kept(&self, name: &Arc<str>, file: &File) -> Option<Finding> {
        if file.is_whole {
            return None;
        }
        let is_kept = |object: &&Arc<ObjectRef>| {
            let claims = self.records.get(*object).map(|record| record.claims.as_slice()).unwrap_or_default();
            claims.iter().any(|claim| claim.file == *name && claim.standing == Standing::Kept)
        };
        let kept: Vec<_> = file.objects.iter().filter(is_kept).map(ToString::to_string).collect();
        if kept.is_empty() {
            return None;
        }
        let more = if kept.len() > NAMES_LISTED_MAX { ", ..." } else { "" };
        let listed: Vec<_> = kept.iter().take(NAMES_LISTED_MAX).map(String::as_str).collect();
        let unreadable = file.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let place = unreadable.filter_map(|finding| finding.place.clone()).next();
        Some(Finding {
            place: place.or_else(|| Some(Place { file: name.clone(), line: 1 })),
            severity: Severity::Note,
            code: code::LAST_GOOD_SERVES,
            object: None,
            path: String::new(),
            what: format!(
                "objects of this file that are missing from it now ({}) stay as they were, because a document does \
                 not tell which object it is: {}{more}",
                kept.len(),
                listed.join(", ")
            ),
            remedy: "correct that document".to_owned(),
        })
    }

    fn mesh_findings(&self, findings: &mut Vec<Finding>) {
        let Some((first, first_file)) = self.mesh.first() else { return };
        for (key, file) in &self.mesh.held {
            findings.extend_from_slice(&file.findings);
            let place = key.place(file);
            if key == first {
                if file.config.is_none() {
                    let what = "a MeshConfig that was good before still holds; a proxy that starts with this one serves nothing";
                    findings.push(note(object_ref(), place, what.to_owned()));
                }
            } else if key.holder == first.holder {
                let first = first.place(first_file);
                let what = format!("MeshConfig is also written at {first}, which comes first and counts");
                findings.push(error(object_ref(), place, what, "keep one of the two"));
            } else {
                let what = format!(
                    "the MeshConfig in this ConfigMap is not read, because {} wins over it",
                    first.file
                );
                findings.push(Finding {
                    severity: Severity::Warning,
                    code: code::MESH_CONFIG_OVERRIDDEN,
                    remedy: "keep one of the two".to_owned(),
                    ..note(object_ref(), place, what)
                });
            }
        }
    }
}

fn duplicate(object: &ObjectRef, record: &Record, claim: &Claim) -> Option<Finding> {
    let first = record.before(claim)?;
    let what = format!("the same object is written at {}, which comes first and counts", first.place());
    Some(error(object.clone(), claim.place(), what, "keep one of the two"))
}

fn last_good(object: &ObjectRef, record: &Record, claim: &Claim) -> Option<Finding> {
    if claim.value.is_some() || record.before(claim).is_some() {
        return None;
    }
    let what = format!("the version read from {} still holds", record.serving()?.place);
    Some(note(object.clone(), claim.place(), what))
}

fn error(object: ObjectRef, place: Place, what: String, remedy: &str) -> Finding {
    Finding {
        place: Some(place),
        severity: Severity::Error,
        code: code::DUPLICATE_OBJECT,
        object: Some(object),
        path: String::new(),
        what,
        remedy: remedy.to_owned(),
    }
}

fn note(object: ObjectRef, place: Place, what: String) -> Finding {
    Finding {
        place: Some(place),
        severity: Severity::Note,
        code: code::LAST_GOOD_SERVES,
        object: Some(object),
        path: String::new(),
        what,
        remedy: String::new(),
    }
}
