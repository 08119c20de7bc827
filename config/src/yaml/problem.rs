//! What is wrong at one place of a text, before it is known which object it is about.

use std::sync::Arc;

use crate::finding::{Finding, Severity};
use crate::origin::{ObjectRef, Place};

/// One thing that is wrong at one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line in the file, counted from 1; 0 while it is not known.
    pub(crate) line: u32,
    /// The field, `spec.http[0].timeout`; empty for the whole document.
    pub(crate) path: String,
    /// One of [`code`](crate::finding::code).
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
