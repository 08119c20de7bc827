//! Where in a resource the conversion stands, and what it noted on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// Why a resource is not taken over, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The field, from the root of the resource: `filter_chains[0].filters[2].typed_config.tunneling_config`; empty for
    /// the resource as a whole.
    pub path: String,
    /// What is wrong with it, or that weft does not honour it.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl std::error::Error for Refused {}

/// Something that is declared and has no effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// The field, from the root of the resource.
    pub path: String,
    /// What does not happen.
    pub what: &'static str,
}

/// A field of a message: the message's full name and the field's.
pub type FieldName = (&'static str, &'static str);

/// What a conversion noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What is declared and not run yet.
    pub not_run: Vec<NotRun>,
    /// How often each field was set that says nothing weft would do otherwise.
    pub harmless: BTreeMap<FieldName, usize>,
    /// How often each field was set that is declared and not run yet.
    pub declared: BTreeMap<FieldName, usize>,
    /// How many leaves those fields had together: values that are neither messages nor lists. An empty message is one.
    pub leaves: BTreeMap<FieldName, usize>,
    /// Messages with fields that are younger than the definitions weft knows, or of a type that weft does not know. Envoy
    /// ignores such fields too.
    pub unknown: Vec<String>,
}

/// A place in a resource.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    notes: &'a RefCell<Notes>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(&'a str, usize),
    Key(&'a str, &'a str),
}

impl<'a> At<'a> {
    /// The root of a resource.
    pub(crate) fn root(notes: &'a RefCell<Notes>) -> At<'a> {
        At { parent: None, step: Step::Root, notes }
    }

    /// A field of the message that stands here.
    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Field(name), notes: self.notes }
    }

    /// One element of a repeated field of the message that stands here.
    pub(crate) fn index(&'a self, name: &'a str, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(name, index), notes: self.notes }
    }

    /// One entry of a map of the message that stands here.
    pub(crate) fn key(&'a self, name: &'a str, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(name, key), notes: self.notes }
    }

    /// Refuses what stands here.
    pub(crate) fn refuse(&self, reason: impl Into<String>) -> Refused {
        Refused { path: self.path(), reason: reason.into() }
    }

    /// Refuses what stands here, because nothing would come of it.
    pub(crate) fn not_honoured(&self) -> Refused {
        self.refuse("weft does not honour it")
    }

    /// Notes that a field of the message that stands here is set and harmless.
    pub(crate) fn harmless(&self, field: FieldName) {
        *self.notes.borrow_mut().harmless.entry(field).or_default() += 1;
    }

    /// Notes that a field of the message that stands here is set and not run yet, with so many leaves.
    pub(crate) fn not_run(&self, field: FieldName, what: &'static str, leaves: usize) {
        let path = self.field(field.1).path();
        let mut notes = self.notes.borrow_mut();
        *notes.declared.entry(field).or_default() += 1;
        *notes.leaves.entry(field).or_default() += leaves.max(1);
        notes.not_run.push(NotRun { path, what });
    }

    /// Notes that the message that stands here has fields that are not known.
    pub(crate) fn unknown(&self) {
        let path = self.path();
        self.notes.borrow_mut().unknown.push(path);
    }

    fn path(&self) -> String {
        let mut path = match self.parent {
            Some(parent) => parent.path(),
            None => return String::new(),
        };
        if !path.is_empty() {
            path.push('.');
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => path.push_str(name),
            Step::Index(name, index) => path.push_str(&format!("{name}[{index}]")),
            Step::Key(name, key) => path.push_str(&format!("{name}[{key:?}]")),
        }
        path
    }
}
