//! The path of a field inside its document: `spec.http[0].match[1].headers[x-user]`.

use std::fmt::{self, Write};

/// A path while a tree is walked: a list on the stack, written out only when something is to be said about it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'p> {
    /// The document itself.
    Root,
    /// A field of a mapping.
    Field {
        /// Of which value.
        parent: &'p Path<'p>,
        /// Its name.
        name: &'p str,
    },
    /// An entry of a map whose keys are the user's own.
    Key {
        /// Of which value.
        parent: &'p Path<'p>,
        /// Its key.
        key: &'p str,
    },
    /// An item of a list.
    Item {
        /// Of which value.
        parent: &'p Path<'p>,
        /// Counted from 0.
        index: usize,
    },
}

impl<'p> Path<'p> {
    /// The path of the field `name` of the value here.
    pub(crate) fn field(&'p self, name: &'p str) -> Path<'p> {
        Path::Field { parent: self, name }
    }

    /// The path of the entry `key` of the map here.
    pub(crate) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path::Key { parent: self, key }
    }

    /// The path of item `index` of the list here.
    pub(crate) fn item(&'p self, index: usize) -> Path<'p> {
        Path::Item { parent: self, index }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field { parent, name } => {
                parent.fmt(f)?;
                write_field(f, matches!(parent, Path::Root), name)
            }
            Path::Key { parent, key } => write!(f, "{parent}[{key}]"),
            Path::Item { parent, index } => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Writes one field: `.name`, or `[name]` when it is not a plain word.
pub(crate) fn write_field(out: &mut impl Write, first: bool, name: &str) -> fmt::Result {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (plain, first) {
        (true, true) => out.write_str(name),
        (true, false) => write!(out, ".{name}"),
        (false, _) => write!(out, "[{name}]"),
    }
}

/// The steps of a path, as [`Path`] writes it.
pub(crate) fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        let (step, after) = if let Some(inside) = rest.strip_prefix('[') {
            inside.split_once(']').unwrap_or((inside, ""))
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
        };
        rest = after;
        (!step.is_empty()).then_some(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_and_read() {
        let root = Path::Root;
        let spec = root.field("spec");
        let http = spec.field("http");
        let rule = http.item(2);
        let headers = rule.field("headers");
        assert_eq!(headers.key("x-user").to_string(), "spec.http[2].headers[x-user]");
        assert_eq!(headers.key("cookie").to_string(), "spec.http[2].headers[cookie]");
        assert_eq!(spec.field("a b").to_string(), "spec[a b]");
        assert_eq!(root.to_string(), "");
        let found: Vec<_> = steps("spec.http[2].headers[x.y/z].exact").collect();
        assert_eq!(found, ["spec", "http", "2", "headers", "x.y/z", "exact"]);
        assert_eq!(steps("").count(), 0);
    }
}
