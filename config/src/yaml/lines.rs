//! Where each field of a document is written, kept after its tree is gone.
//!
//! Findings and origins name fields by path long after the text was read, one for every rule of an object, so the
//! answer must be cheap: an index of 16 bytes a field, walked without parsing anything again.

use std::collections::HashMap;
use std::ops::Range;

use super::path::steps;
use super::tree::{Node, Value};

/// Lines of all fields of one document, counted from its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLines {
    /// All keys, one after the other, each distinct one once.
    names: Box<str>,
    /// Fields and items, each before what is inside of it.
    fields: Box<[Field]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// Lines after the first of the document.
    line: u32,
    /// Position after the last field inside of this one.
    end: u32,
    /// Its key in `names`; of an item of a list, empty.
    name_start: u32,
    name_bytes: u32,
}

impl FieldLines {
    /// The index of the document whose root is `root`.
    pub(crate) fn of(root: &Node<'_>) -> FieldLines {
        let mut index =
            Index { first_line: root.line, names: String::new(), known: HashMap::new(), fields: Vec::new() };
        index.inside(root);
        FieldLines { names: index.names.into(), fields: index.fields.into() }
    }

    /// Lines between the first of the document and the field at `path`, or the nearest parent of it that is written.
    pub fn offset_of(&self, path: &str) -> u32 {
        let mut offset = 0;
        let mut inside = 0..self.fields.len();
        for step in steps(path) {
            let Some((position, field)) = self.child(inside.clone(), step) else { break };
            offset = field.line;
            inside = position + 1..field.end as usize;
        }
        offset
    }

    /// The field `step` among those directly in `inside`; of a list, the item of that number.
    fn child(&self, inside: Range<usize>, step: &str) -> Option<(usize, &Field)> {
        let mut position = inside.start;
        let mut number = 0;
        while position < inside.end {
            let field = self.fields.get(position)?;
            let found = match field.name_bytes {
                0 => step.parse() == Ok(number),
                _ => self.name(field) == Some(step),
            };
            if found {
                return Some((position, field));
            }
            number += 1;
            position = field.end as usize;
        }
        None
    }

    fn name(&self, field: &Field) -> Option<&str> {
        self.names.get(field.name_start as usize..)?.get(..field.name_bytes as usize)
    }
}

struct Index<'n> {
    first_line: u32,
    names: String,
    known: HashMap<&'n str, (u32, u32)>,
    fields: Vec<Field>,
}

impl<'n> Index<'n> {
    fn inside(&mut self, node: &'n Node<'_>) {
        match &node.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => {
                for item in items {
                    self.field(item.line, (0, 0), item);
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    let name = self.intern(&entry.key);
                    self.field(entry.line, name, &entry.value);
                }
            }
        }
    }

    fn field(&mut self, line: u32, (name_start, name_bytes): (u32, u32), value: &'n Node<'_>) {
        let position = self.fields.len();
        let line = line.saturating_sub(self.first_line);
        self.fields.push(Field { line, end: 0, name_start, name_bytes });
        self.inside(value);
        let end = narrow(self.fields.len());
        if let Some(field) = self.fields.get_mut(position) {
            field.end = end;
        }
    }

    fn intern(&mut self, name: &'n str) -> (u32, u32) {
        *self.known.entry(name).or_insert_with(|| {
            let start = self.names.len();
            self.names.push_str(name);
            (narrow(start), narrow(name.len()))
        })
    }
}

/// Documents are far smaller than 4 GiB; see `document_bytes_max`.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
