//! A document as a tree in which every value knows its line.
//!
//! A document is parsed once; who the object is, what it says and where its fields are written are all read from
//! this tree, which is then dropped.

use std::borrow::Cow;

use super::scalar::{Resolved, resolve};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// Line in the file, counted from 1.
    pub(crate) line: u32,
    /// What it is.
    pub(crate) value: Value<'a>,
}

/// A value. Tags are resolved, aliases replaced, merge keys merged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Text, a number, a boolean or null.
    Scalar {
        /// As it is after unescaping.
        text: Cow<'a, str>,
        /// Whether it was written without quotes, so that it may stand for something else than text.
        plain: bool,
        /// Whether it was written as a literal block (`|`), each of its lines a line of the file.
        literal: bool,
    },
    /// A list.
    Sequence(Vec<Node<'a>>),
    /// A mapping, in the order written, every key once.
    Mapping(Vec<Entry<'a>>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry<'a> {
    /// Its key, always taken as text.
    pub(crate) key: Cow<'a, str>,
    /// Line of its key.
    pub(crate) line: u32,
    /// Its value.
    pub(crate) value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The entry of that name, when this is a mapping that has one that is not null.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        self.entries().iter().find(|entry| entry.key == key && !entry.value.is_null())
    }

    /// The value of that name, when this is a mapping that has one that is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entries, when this is a mapping; otherwise none.
    pub(crate) fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items, when this is a list; otherwise none.
    pub(crate) fn items(&self) -> &[Node<'a>] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is a scalar that stands for text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain: false, .. } => Some(text),
            Value::Scalar { text, plain: true, .. } => match resolve(text) {
                Resolved::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether this is null: Kubernetes takes a field that is null for one that is not there.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true, .. } if resolve(text) == Resolved::Null)
    }

    /// Whether `sought` is anywhere in its text.
    pub(crate) fn contains(&self, sought: char) -> bool {
        match &self.value {
            Value::Scalar { text, .. } => text.contains(sought),
            Value::Sequence(items) => items.iter().any(|item| item.contains(sought)),
            Value::Mapping(entries) => {
                entries.iter().any(|entry| entry.key.contains(sought) || entry.value.contains(sought))
            }
        }
    }

    /// How many nodes this is, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Node::count).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }
}
