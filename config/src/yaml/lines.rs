//! Where each field of a document is written, kept after its tree is gone.
//!
//! Findings and origins name fields by path long after the text was read, one for every rule of an object, so the
//! answer must be cheap: an index of 16 bytes a field, in which a step of a path costs no more however many siblings
//! there are before it in a list, and a binary search in a mapping.

use std::collections::HashMap;
use std::ops::Range;

use super::path::steps;
use super::tree::{Node, Value};

/// Lines of all fields of one document, counted from its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLines {
    /// All keys, one after the other, each distinct one once.
    names: Box<str>,
    /// Fields and items, those inside one value side by side: items in their order, fields by their keys. What is inside
    /// of one follows what is inside of the one before it.
    fields: Box<[Field]>,
    /// How many of them are directly in the document.
    roots: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// Lines after the first of the document.
    line: u32,
    /// Position of the first field inside of this one; the last is before the first inside of the next one.
    inside: u32,
    /// Its key in `names`.
    name_start: u32,
    /// Of an item of a list, [`ITEM`].
    name_bytes: u32,
}

/// Stands for the length of a key where there is none.
const ITEM: u32 = u32::MAX;

impl FieldLines {
    /// The index of the document whose root is `root`.
    pub(crate) fn of(root: &Node<'_>) -> FieldLines {
        let mut index = Index {
            first_line: root.line,
            names: String::new(),
            known: HashMap::new(),
            fields: Vec::new(),
            nodes: Vec::new(),
        };
        index.inside(root);
        let roots = index.fields.len();
        let mut position = 0;
        while let Some(node) = index.nodes.get(position).copied() {
            let inside = narrow(index.fields.len());
            if let Some(field) = index.fields.get_mut(position) {
                field.inside = inside;
            }
            index.inside(node);
            position += 1;
        }
        FieldLines { names: index.names.into(), fields: index.fields.into(), roots }
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.names.len() + size_of_val(&*self.fields)
    }

    /// Lines between the first of the document and the field at `path`, or the nearest parent of it that is written.
    pub fn offset_of(&self, path: &str) -> u32 {
        let mut offset = 0;
        let mut inside = 0..self.roots;
        for step in steps(path) {
            let Some((position, field)) = self.child(inside, step) else { break };
            offset = field.line;
            let next = self.fields.get(position + 1).map_or(self.fields.len(), |next| next.inside as usize);
            inside = field.inside as usize..next;
        }
        offset
    }

    /// The field `step` among those in `inside`, which are all that one value holds; of a list, the item of that number.
    fn child(&self, inside: Range<usize>, step: &str) -> Option<(usize, &Field)> {
        let fields = self.fields.get(inside.clone())?;
        let number = if fields.first()?.name_bytes == ITEM {
            step.parse().ok()?
        } else {
            fields.binary_search_by(|field| self.name(field).cmp(step)).ok()?
        };
        Some((inside.start + number, fields.get(number)?))
    }

    fn name(&self, field: &Field) -> &str {
        let name = self.names.get(field.name_start as usize..);
        name.and_then(|name| name.get(..field.name_bytes as usize)).unwrap_or_default()
    }
}

struct Index<'n, 'a> {
    first_line: u32,
    names: String,
    known: HashMap<&'n str, (u32, u32)>,
    fields: Vec<Field>,
    /// The value of each field.
    nodes: Vec<&'n Node<'a>>,
}

impl<'n, 'a> Index<'n, 'a> {
    fn inside(&mut self, node: &'n Node<'a>) {
        match &node.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => {
                for item in items {
                    self.field(item.line, (0, ITEM), item);
                }
            }
            Value::Mapping(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|one, other| one.key.cmp(&other.key));
                for entry in entries {
                    let name = self.intern(&entry.key);
                    self.field(entry.line, name, &entry.value);
                }
            }
        }
    }

    fn field(&mut self, line: u32, (name_start, name_bytes): (u32, u32), value: &'n Node<'a>) {
        let line = line.saturating_sub(self.first_line);
        self.fields.push(Field { line, inside: 0, name_start, name_bytes });
        self.nodes.push(value);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Limits, build, documents};

    fn lines(text: &str) -> FieldLines {
        let document = documents(text).next().unwrap();
        FieldLines::of(&build(&document, &Limits::DEFAULT).unwrap().root.unwrap())
    }

    #[test]
    fn fields_and_items_are_found_whatever_their_order() {
        let lines = lines(
            "b: 1\na:\n  z: [{y: 1},\n   {x: 2,\n    w: 3}]\n  '': 4\n  k.l:\n    - - m\n      - n\nc: {}\nd: []\n",
        );
        let check = |path: &str, line: u32| assert_eq!(lines.offset_of(path), line, "{path}");
        check("", 0);
        check("b", 0);
        check("a", 1);
        check("a.z", 2);
        check("a.z[0].y", 2);
        check("a.z[1]", 3);
        check("a.z[1].w", 4);
        check("a[k.l][0][1]", 8);
        check("c", 9);
        check("d", 10);
        // Of what is not written, the parent.
        check("a.z[2].y", 2);
        check("a.z.y", 2);
        check("a.y", 1);
        check("c.e", 9);
        check("d[0]", 10);
        check("e", 0);
    }

    /// Walking all siblings for each took 40,000^2 / 2 steps in both.
    #[test]
    fn a_place_does_not_cost_more_the_more_siblings_there_are() {
        let count: u32 = 40_000;
        let items: String = (0..count).map(|number| format!("  - {number}\n")).collect();
        let fields: String = (0..count).map(|number| format!("  f{number}: 1\n")).collect();
        let lines = lines(&format!("list:\n{items}map:\n{fields}"));
        for number in 0..count {
            assert_eq!(lines.offset_of(&format!("list[{number}]")), 1 + number);
            assert_eq!(lines.offset_of(&format!("map.f{number}")), 2 + count + number);
        }
    }
}
