//! Access log lines that are JSON objects: Envoy's `json_format`, whose strings are format strings.
//!
//! The object is taken apart once, here, into text that is the same in every line and values that are looked up. Keys
//! are sorted, as Envoy sorts them. Source: Envoy, "Access logging", format dictionaries.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Format, FormatError};

/// A line that is a JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonFormat {
    /// As it was written.
    value: Value,
    /// What to write, in order.
    pieces: Vec<JsonPiece>,
}

/// One piece of a [`JsonFormat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonPiece {
    /// JSON as it is: punctuation, keys, and values in which nothing is looked up.
    Text(Arc<str>),
    /// A value that is looked up. A single operator is a number where it has one, a string where it has none, and `null`
    /// where it is missing; anything else is a string.
    Value(Format),
}

impl JsonFormat {
    /// Parses `text`, a JSON object with objects, lists, format strings, numbers, booleans and nulls in it.
    ///
    /// # Errors
    ///
    /// When it is not a JSON object, a key comes twice in an object, or a string is not a format.
    pub fn parse(text: &str) -> Result<JsonFormat, FormatError> {
        let malformed =
            |error: &dyn std::fmt::Display| FormatError { what: format!("it is not JSON: {error}") };
        let Distinct(value) = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        if !value.is_object() {
            return Err(FormatError { what: "it is JSON, but not an object `{...}`".to_owned() });
        }
        JsonFormat::of(value)
    }

    /// An object of format strings.
    ///
    /// # Errors
    ///
    /// When a string is not a format.
    pub fn of_fields(fields: &[(&str, &str)]) -> Result<JsonFormat, FormatError> {
        let fields = fields.iter().map(|(key, format)| ((*key).to_owned(), Value::from(*format)));
        JsonFormat::of(Value::Object(fields.collect()))
    }

    fn of(value: Value) -> Result<JsonFormat, FormatError> {
        let mut pieces = Pieces::default();
        pieces.value(&value)?;
        pieces.text.push('\n');
        pieces.end_text();
        Ok(JsonFormat { value, pieces: pieces.done })
    }

    /// As it was written.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// What to write, in order, the line end included.
    pub fn pieces(&self) -> &[JsonPiece] {
        &self.pieces
    }
}

/// Pieces while they are made.
#[derive(Default)]
struct Pieces {
    done: Vec<JsonPiece>,
    text: String,
}

impl Pieces {
    fn value(&mut self, value: &Value) -> Result<(), FormatError> {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
                fields.sort_by_key(|(key, _)| *key);
                self.text.push('{');
                for (index, (key, value)) in fields.into_iter().enumerate() {
                    self.text.push_str(if index == 0 { "" } else { "," });
                    let _ = write!(self.text, "{}:", Value::from(key.as_str()));
                    self.value(value).map_err(|error| FormatError { what: format!("`{key}`: {error}") })?;
                }
                self.text.push('}');
            }
            Value::Array(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.text.push_str(if index == 0 { "" } else { "," });
                    self.value(item)?;
                }
                self.text.push(']');
            }
            Value::String(text) => {
                let format = Format::parse(text)?;
                if let Some(literal) = format.as_literal() {
                    let _ = write!(self.text, "{}", Value::from(literal));
                } else {
                    self.end_text();
                    self.done.push(JsonPiece::Value(format));
                }
            }
            Value::Number(number) => self.number(number),
            Value::Bool(_) | Value::Null => {
                let _ = write!(self.text, "{value}");
            }
        }
        Ok(())
    }

    /// A number of protobuf's `Struct` is a double, and one without a fraction is written without one.
    fn number(&mut self, number: &Number) {
        let _ = match number.as_f64() {
            Some(double) if double.fract() == 0.0 && double.abs() < 1e19 => write!(self.text, "{double:.0}"),
            Some(double) => write!(self.text, "{}", Value::from(double)),
            None => write!(self.text, "{number}"),
        };
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.done.push(JsonPiece::Text(std::mem::take(&mut self.text).into()));
        }
    }
}

/// A JSON value in which no object has a key twice; protobuf's reader refuses such an object too.
struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Distinct, D::Error> {
        deserializer.deserialize_any(DistinctVisitor).map(Distinct)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Distinct(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Distinct(value))) = entries.next_entry::<String, Distinct>()? {
            if fields.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key `{key}` comes twice")));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces, with looked up values as their format between `<` and `>`.
    fn check(text: &str, expected: &str) {
        let format = JsonFormat::parse(text).unwrap();
        let pieces = format.pieces().iter().map(|piece| match piece {
            JsonPiece::Text(text) => text.to_string(),
            JsonPiece::Value(format) => format!("<{}>", format.text()),
        });
        assert_eq!(pieces.collect::<String>(), format!("{expected}\n"), "{text}");
    }

    #[test]
    fn objects_lists_and_values() {
        check("{}", "{}");
        check(r#"{"b": "%PROTOCOL%", "a": "x %PROTOCOL%"}"#, r#"{"a":<x %PROTOCOL%>,"b":<%PROTOCOL%>}"#);
        check(r#"{"a": {"b": ["%DURATION%", {}, []]}}"#, r#"{"a":{"b":[<%DURATION%>,{},[]]}}"#);
        check(r#"{"k\"": "100%% \"\n", "e": ""}"#, r#"{"e":"","k\"":"100% \"\n"}"#);
        check(
            r#"{"a": 5, "b": 1.5, "c": -3, "d": true, "e": null}"#,
            r#"{"a":5,"b":1.5,"c":-3,"d":true,"e":null}"#,
        );
        check(r#"{"a": 2.0, "b": 1e3, "c": 1e30}"#, r#"{"a":2,"b":1000,"c":1e+30}"#);
    }

    #[test]
    fn what_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = JsonFormat::parse(text).unwrap_err().what;
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("[%START_TIME%] plain text", "it is not JSON: ");
        check("[]", "not an object");
        check("\"%PROTOCOL%\"", "not an object");
        check(r#"{"a": "%PROTOCOL"}"#, "`a`: `%PROTOCOL` is an operator without its closing `%`");
        check(r#"{"a": {"b": ["%NOTHING%"]}}"#, "`a`: `b`: `%NOTHING%` is not an operator weft knows");
        check(r#"{"a": 1, "b": {"c": 1, "c": 2}}"#, "the key `c` comes twice");
        check(r#"{"a": 1} {"b": 2}"#, "trailing characters");
        // A text that is nested without end is refused before it takes the stack.
        check(&format!("{{\"a\":{}", "[".repeat(100_000)), "recursion limit exceeded");
    }
}
