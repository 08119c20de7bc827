//! What weft has to say about its configuration: one [`Finding`] per defect, with its place and its remedy.

pub mod code;
mod untold;

use std::fmt;

use serde::Serialize;

use crate::limits::Limits;
use crate::origin::{ObjectRef, Place};

pub(crate) use untold::Untold;
pub use untold::bound;

/// How bad a finding is, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing behaves differently from what is written. A kind of another group that was skipped.
    Note,
    /// The object is live, but something of it does not act as written: a field not honoured yet, a reference to
    /// nothing, a rule that can never match.
    Warning,
    /// The object is refused; its last good version stays.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One thing that is wrong, or that a user would want to know, about the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// File and line, when it came from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of this kind of finding for filters and pipelines, one of [`code`].
    pub code: &'static str,
    /// The object it is about; `None` when the text did not even tell which object it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// The field inside the object, for example `spec.http[0].route[1].destination.host`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong, as a sentence without the place.
    pub what: String,
    /// What to do about it, as a sentence.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        self.fmt_what(f)
    }
}

/// A finding for a log, whose lines say their own level.
struct Unleveled<'f>(&'f Finding);

impl fmt::Display for Unleveled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        self.0.fmt_what(f)
    }
}

impl Finding {
    /// One about no object: about what the command line, the machine or the mesh as a whole asks for or has.
    pub fn general(
        severity: Severity,
        code: &'static str,
        what: String,
        remedy: impl Into<String>,
    ) -> Finding {
        let (path, remedy) = (String::new(), remedy.into());
        Finding { place: None, severity, code, object: None, path, what, remedy }
    }

    /// The finding without its severity, for a log whose lines say it.
    pub fn unleveled(&self) -> impl fmt::Display {
        Unleveled(self)
    }

    /// The limit that it says was met, by its name; `None` of one that is about no limit.
    pub fn limit(&self) -> Option<&'static str> {
        const BEFORE: &str = "the limit ";
        self.what.match_indices(BEFORE).find_map(|(at, _)| {
            let rest = self.what.get(at + BEFORE.len()..)?;
            let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
            Limits::DEFAULT.entries().into_iter().map(|entry| entry.name).find(|known| *known == name)
        })
    }

    /// Bytes of memory that it takes; names are shared.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Finding>() + self.path.len() + self.what.len() + self.remedy.len()
    }

    fn fmt_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} [{}]", self.what, self.code)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}
