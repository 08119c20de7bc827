//! Where a declared thing comes from.
//!
//! Every declared resource carries its [`Origin`], so that an access log, a finding or an explanation can name the
//! object, and when it came from a file also the file and line, that made a decision.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A place in a file that was read: what an editor can jump to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Path of the file as it was given, or found in the watched directory.
    pub file: Arc<str>,
    /// Line in that file, counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A finding is a line, whatever somebody names a file.
        for (index, part) in self.file.split(char::is_control).enumerate() {
            f.write_str(if index > 0 { "?" } else { "" })?;
            f.write_str(part)?;
        }
        write!(f, ":{}", self.line)
    }
}

/// The identity of an object of the mesh: what Kubernetes calls its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    /// Kind as written in the object, for example `VirtualService`.
    pub kind: Arc<str>,
    /// Namespace; empty for kinds that have none, such as Node and Namespace.
    pub namespace: Arc<str>,
    /// Name within kind and namespace.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The object, and when it came from a file the place, that caused a declared resource or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// The object that caused it.
    pub object: ObjectRef,
    /// Where that object, or the part of it that matters here, is written. `None` when it came over xDS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.object),
            None => self.object.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_is_told_on_one_line() {
        let place = Place { file: "a\nb\u{1b}[31m.yaml".into(), line: 3 };
        assert_eq!(place.to_string(), "a?b?[31m.yaml:3");
    }
}
