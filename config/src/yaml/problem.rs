//! What is wrong at one place of a text, before it is known which object it is about.

use std::fmt::Write;
use std::sync::Arc;

use super::limits::Limits;
use crate::finding::{Finding, Severity, code};
use crate::origin::{ObjectRef, Place};

/// One thing that is wrong at one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line in the file, counted from 1; 0 while it is not known.
    pub(crate) line: u32,
    /// The field, `spec.http[0].timeout`; empty for the whole document.
    pub(crate) path: String,
    /// One of [`code`].
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Problem {
    /// The problem as an error of `object`.
    pub(crate) fn into_error(self, file: &Arc<str>, object: Option<ObjectRef>) -> Finding {
        Finding {
            place: Some(Place { file: file.clone(), line: self.line }),
            severity: Severity::Error,
            code: self.code,
            object,
            path: self.path,
            what: self.what,
            remedy: self.remedy,
        }
    }
}

/// What is wrong with one document: the first of it in full, the rest as a number.
#[derive(Debug, Clone)]
pub(crate) struct Problems {
    told: Vec<Problem>,
    /// How many more there are.
    untold: usize,
    max: usize,
}

impl Problems {
    /// None yet, of which `max` will be told.
    pub(crate) fn new(max: usize) -> Problems {
        Problems { told: Vec::new(), untold: 0, max }
    }

    /// None yet, with the same bound.
    pub(crate) fn fresh(&self) -> Problems {
        Problems::new(self.max)
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        self.push_with(|| problem);
    }

    /// Adds one that is made only if it is told: a hostile text has millions.
    pub(crate) fn push_with(&mut self, problem: impl FnOnce() -> Problem) {
        if self.told.len() < self.max.max(1) {
            self.told.push(problem());
        } else {
            self.untold += 1;
        }
    }

    /// Adds those of `other`.
    pub(crate) fn append(&mut self, other: Problems) {
        other.told.into_iter().for_each(|problem| self.push(problem));
        self.untold += other.untold;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Puts other words in the place of those that may tell a secret; a limit's do not.
    pub(crate) fn hide(&mut self, change: impl Fn(&mut Problem)) {
        self.told.iter_mut().filter(|problem| problem.code != code::LIMIT_EXCEEDED).for_each(change);
    }

    /// Those that are told.
    pub(crate) fn told(&self) -> &[Problem] {
        &self.told
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.told.len() + self.untold
    }

    /// How many are only counted.
    pub(crate) fn untold(&self) -> usize {
        self.untold
    }

    /// At most `room` of those that are told, of which the last says how many are not.
    pub(crate) fn into_told(self, room: usize, name_of_room: &str) -> Vec<Problem> {
        let (count, max) = (self.count(), self.max);
        let mut told = self.told;
        let (name, limit) =
            if told.len() > room { (name_of_room, room) } else { ("document_problems_max", max) };
        told.truncate(room);
        let more = count - told.len();
        if let Some(last) = told.last_mut().filter(|_| more > 0) {
            let _ = write!(
                last.what,
                "; and {more} more of this object, which are not told: past the limit {name}"
            );
            if name != name_of_room {
                let _ = write!(last.what, ", which is {limit}");
            }
        }
        told
    }
}

/// Memory that an object may still take.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    taken: usize,
    max: usize,
    past: Past,
}

/// Which limit it is that an object meets first.
#[derive(Debug, Clone, Copy)]
enum Past {
    Object,
    Total(usize),
}

impl Room {
    /// That of one object, while all objects together may take `total` more.
    pub(crate) fn new(limits: &Limits, total: usize) -> Room {
        if total < limits.object_bytes_max {
            return Room { taken: 0, max: total, past: Past::Total(limits.objects_bytes_total_max) };
        }
        Room { taken: 0, max: limits.object_bytes_max, past: Past::Object }
    }

    /// That of an object which counts alone.
    pub(crate) fn of_one(limits: &Limits) -> Room {
        Room::new(limits, usize::MAX)
    }

    /// How much it has taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    ///
    /// When there is no room for them: what the object is past, and what to do about it.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), (String, String)> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken <= self.max {
            return Ok(());
        }
        let max = self.max;
        Err(match self.past {
            Past::Object => (
                format!("the object takes more memory than the limit object_bytes_max, which is {max}"),
                "split it into several objects, or raise the limit with `--limit object_bytes_max=BYTES`"
                    .to_owned(),
            ),
            Past::Total(total) => past_total(total),
        })
    }
}

/// That all objects together are past their limit: what to say, and what to do about it.
pub(crate) fn past_total(total: usize) -> (String, String) {
    let what = format!(
        "all objects together, with the last good versions of those that are refused, take more memory than the limit \
         objects_bytes_total_max, which is {total}"
    );
    let remedy = "correct what is refused or leave out what this proxy does not need, or raise the limit with \
                  `--limit objects_bytes_total_max=BYTES`; then write this file again";
    (what, remedy.to_owned())
}
