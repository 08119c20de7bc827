//! A tree to typed values, with serde.
//!
//! Every error carries path and line of the innermost value it is about. Read strictly, fields that a type does not
//! have are all told, not only the first. As in Kubernetes, a field that is null counts as not written.

use std::cell::RefCell;
use std::iter::Enumerate;
use std::slice::Iter;

use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::Error;
use super::path::Path;
use super::problem::{Problem, Problems, Room};
use super::scalar::{Resolved, resolve};
use super::suggest;
use super::tree::{Entry, Node, Value};
use crate::finding::code;

/// What becomes of fields that a type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// They are ignored.
    Ignored,
    /// They are not read, whatever the type makes of them.
    PassedOver,
    /// Each is a problem.
    Refused,
    /// Each is a problem, except directly in the values at these paths, whose fields the caller has looked at.
    RefusedExceptIn(&'static [&'static str]),
}

/// Reads `node`, which is at `path`, as a `T`. What is wrong is added to `problems`; there is a value only when
/// nothing was, and `room` for it.
pub(crate) fn read<'de, T: Deserialize<'de>>(
    node: &Node<'_>,
    path: &Path<'_>,
    unknown: Unknown,
    problems: &mut Problems,
    room: &mut Room,
) -> Option<T> {
    let context =
        Context { unknown, problems: RefCell::new(problems.fresh()), room: RefCell::new(room.clone()) };
    let outcome = T::deserialize(Reader { node, path: *path, context: &context });
    *room = context.room.into_inner();
    let mut found = context.problems.into_inner();
    let value = outcome.map_err(|error| found.push(error.at(path, node.line).into_problem())).ok();
    let good = found.is_empty();
    problems.append(found);
    value.filter(|_| good)
}

/// The problem of every field of `node` that is not in `known`.
pub(crate) fn unknown_fields(node: &Node<'_>, path: &Path<'_>, known: &[&str], problems: &mut Problems) {
    for entry in node.entries() {
        if !known.contains(&entry.key.as_ref()) {
            problems.push_with(|| Problem {
                line: entry.line,
                path: path.field(&entry.key).to_string(),
                code: code::UNKNOWN_FIELD,
                what: format!("there is no field `{}` here", entry.key),
                remedy: suggest::remedy(&entry.key, known),
            });
        }
    }
}

struct Context {
    unknown: Unknown,
    problems: RefCell<Problems>,
    room: RefCell<Room>,
}

impl Context {
    /// Makes room for so many bytes before they are taken.
    fn take(&self, bytes: usize) -> Result<(), Error> {
        self.room.borrow_mut().take(bytes).map_err(Error::past_limit)
    }
}

#[derive(Clone, Copy)]
struct Reader<'n, 'a> {
    node: &'n Node<'a>,
    path: Path<'n>,
    context: &'n Context,
}

impl<'n, 'a> Reader<'n, 'a> {
    /// Adds the place of this value to an error that has none yet.
    fn at<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| error.at(&self.path, self.node.line))
    }

    fn wrong_type(&self, expected: &dyn Expected) -> Error {
        let found = match &self.node.value {
            Value::Sequence(_) => Unexpected::Seq,
            Value::Mapping(_) => Unexpected::Map,
            Value::Scalar { text, plain: true, .. } => match resolve(text) {
                Resolved::Null => Unexpected::Unit,
                Resolved::Boolean(value) => Unexpected::Bool(value),
                Resolved::Integer(value) => {
                    i64::try_from(value).map_or(Unexpected::Other(text), Unexpected::Signed)
                }
                Resolved::Float(value) => Unexpected::Float(value),
                Resolved::Text(text) => Unexpected::Str(text),
            },
            Value::Scalar { text, .. } => Unexpected::Str(text),
        };
        Error::invalid_type(found, expected)
    }
}

impl<'de> Deserializer<'de> for Reader<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Value::Scalar { text, .. } = &self.node.value {
            self.at(self.context.take(text.len()))?;
        }
        let outcome = match &self.node.value {
            Value::Scalar { text, plain: false, .. } => visitor.visit_str(text),
            Value::Scalar { text, plain: true, .. } => match resolve(text) {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Boolean(value) => visitor.visit_bool(value),
                Resolved::Integer(value) => match (u64::try_from(value), i64::try_from(value)) {
                    (Ok(value), _) => visitor.visit_u64(value),
                    (_, Ok(value)) => visitor.visit_i64(value),
                    _ => visitor.visit_i128(value),
                },
                Resolved::Float(value) => visitor.visit_f64(value),
                Resolved::Text(text) => visitor.visit_str(text),
            },
            Value::Sequence(items) => {
                visitor.visit_seq(Items { list: self, items: items.iter().enumerate() })
            }
            Value::Mapping(entries) => visitor.visit_map(Fields {
                mapping: self,
                entries: entries.iter(),
                is_type: false,
                known: None,
                value: None,
            }),
        };
        self.at(outcome)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Mapping(entries) = &self.node.value else {
            return self.at(Err(self.wrong_type(&visitor)));
        };
        self.at(self.context.take(size_of::<V::Value>()))?;
        let mut fields =
            Fields { mapping: self, entries: entries.iter(), is_type: true, known: None, value: None };
        let refused = match self.context.unknown {
            Unknown::Ignored | Unknown::PassedOver => false,
            Unknown::Refused => true,
            Unknown::RefusedExceptIn(paths) => !paths.contains(&self.path.to_string().as_str()),
        };
        if refused {
            unknown_fields(self.node, &self.path, known, &mut self.context.problems.borrow_mut());
        }
        if refused || self.context.unknown == Unknown::PassedOver {
            fields.known = Some(known);
        }
        self.at(visitor.visit_map(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node.text() {
            Some(text) => self.at(visitor.visit_enum(Variant(text))),
            None => self.at(Err(self.wrong_type(&"a string"))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

struct Items<'n, 'a> {
    list: Reader<'n, 'a>,
    items: Enumerate<Iter<'n, Node<'a>>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = self.list.path.item(index);
        let item = Reader { node, path, context: self.list.context };
        // A mapping is a struct, which takes its own room.
        if !matches!(node.value, Value::Mapping(_)) {
            item.at(self.list.context.take(size_of::<T::Value>()))?;
        }
        item.at(seed.deserialize(item)).map(Some)
    }

    /// Exact, so that a list takes no more room than it needs: most hold one or two.
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'n, 'a> {
    mapping: Reader<'n, 'a>,
    entries: Iter<'n, Entry<'a>>,
    /// Whether these are the fields of a type, where null is "not written", and not a map of the user's own keys.
    is_type: bool,
    /// The fields to read, when others are passed over, or have been told already.
    known: Option<&'static [&'static str]>,
    value: Option<&'n Entry<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let (is_type, known) = (self.is_type, self.known);
        self.value = self.entries.find(|entry| {
            known.is_none_or(|known| known.contains(&entry.key.as_ref()))
                && !(is_type && entry.value.is_null())
        });
        let Some(entry) = self.value else { return Ok(None) };
        if !is_type {
            let bytes = size_of::<K::Value>() + entry.key.len();
            self.mapping.context.take(bytes).map_err(|error| error.at(&self.mapping.path, entry.line))?;
        }
        seed.deserialize(StrDeserializer::<Error>::new(&entry.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else { return Err(Error::custom("a value without its key")) };
        let mapping = &self.mapping.path;
        let path = if self.is_type { mapping.field(&entry.key) } else { mapping.key(&entry.key) };
        let field = Reader { node: &entry.value, path, context: self.mapping.context };
        if !self.is_type && !matches!(entry.value.value, Value::Mapping(_)) {
            field.at(self.mapping.context.take(size_of::<V::Value>()))?;
        }
        seed.deserialize(field).map_err(|error| error.at(&path, entry.line))
    }
}

/// An enum whose variants hold nothing.
struct Variant<'t>(&'t str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(StrDeserializer::<Error>::new(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &"a variant with a value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        Err(Error::invalid_type(Unexpected::UnitVariant, &visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Unknown;
    use crate::testing::{from_yaml, read_yaml};

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Everything {
        small: u16,
        signed: i32,
        share: f64,
        text: String,
        flag: bool,
        maybe: Option<u8>,
        list: Vec<String>,
        map: BTreeMap<String, i64>,
        choice: Choice,
        nested: Option<Box<Everything>>,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Choice {
        #[default]
        FirstOne,
        Other,
    }

    #[test]
    fn values_of_every_type() {
        let text = "{small: 7, signed: -7, share: 50, text: on, flag: true, maybe: 1, list: [a, '1'], map: {a: 1, 2: -2}, \
                    choice: OTHER, nested: {share: 0.5}}";
        let expected = Everything {
            small: 7,
            signed: -7,
            share: 50.0,
            text: "on".to_owned(),
            flag: true,
            maybe: Some(1),
            list: vec!["a".to_owned(), "1".to_owned()],
            map: BTreeMap::from([("a".to_owned(), 1), ("2".to_owned(), -2)]),
            choice: Choice::Other,
            nested: Some(Box::new(Everything { share: 0.5, ..Everything::default() })),
        };
        assert_eq!(from_yaml(text), Ok(expected));
    }

    #[test]
    fn null_is_not_written_but_in_maps_it_is_a_value() {
        assert_eq!(
            from_yaml("{small: ~, text: null, list:, choice: , nested: ~}"),
            Ok(Everything::default())
        );
        assert!(from_yaml::<Everything>("{map: {a: ~}}").is_err());
        assert!(from_yaml::<Everything>("{list: [~]}").is_err());
    }

    #[test]
    fn fields_a_type_does_not_have() {
        assert_eq!(from_yaml("{other: 1, small: 7}"), Ok(Everything { small: 7, ..Everything::default() }));
        let except =
            |paths| read_yaml::<Everything>("{other: 1, nested: {more: 1}}", Unknown::RefusedExceptIn(paths));
        assert!(except(&["", "nested"]).is_ok());
        assert!(except(&[""]).is_err() && except(&["nested"]).is_err());
    }

    #[test]
    fn places_of_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let error = read_yaml::<Everything>(text, Unknown::Refused).expect_err(text);
            assert!(error.contains(&format!("path: \"{expected}\"")), "{text}: {error}");
        };
        check("{nested: {nested: {small: 70000}}}", "nested.nested.small");
        check("{list: [a, {b: c}]}", "list[1]");
        check("{map: {a: 1, 'x y': z}}", "map[x y]");
        check("{nested: {smal: 1}}", "nested.smal");
        check("{choice: [OTHER]}", "choice");
        check("{nested: []}", "nested");
    }
}
