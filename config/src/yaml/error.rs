//! serde's errors as problems that say what to do.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};

use super::path::Path;
use super::problem::Problem;
use super::suggest;
use crate::finding::code;

/// What the standard library says of text that is no `IpAddr`.
const ADDRESS_DEFECT: &str = "invalid IP address syntax";

/// An error of reading a typed value; without place until the reader gives it one.
#[derive(Debug)]
pub(crate) struct Error(Box<Problem>);

impl Error {
    fn new(code: &'static str, what: String, remedy: String) -> Error {
        Error(Box::new(Problem { line: 0, path: String::new(), code, what, remedy }))
    }

    /// Adds the place, unless it has one already.
    pub(crate) fn at(mut self, path: &Path<'_>, line: u32) -> Error {
        if self.0.line == 0 {
            self.0.line = line;
            self.0.path = path.to_string();
        }
        self
    }

    /// A bound that is exceeded.
    pub(crate) fn past_limit((what, remedy): (String, String)) -> Error {
        Error::new(code::LIMIT_EXCEEDED, what, remedy)
    }

    pub(crate) fn into_problem(self) -> Problem {
        *self.0
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    /// Messages of our own types say what to do after a semicolon.
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        if message == ADDRESS_DEFECT {
            let remedy = "write one like 10.0.0.1 or 2001:db8::1".to_owned();
            return Error::new(code::BAD_VALUE, "this is not an IP address".to_owned(), remedy);
        }
        let (what, remedy) = message.split_once("; ").unwrap_or((&message, ""));
        Error::new(code::BAD_VALUE, what.to_owned(), remedy.to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let what = format!("this is {}, not {}", describe(found), wanted(&expected));
        Error::new(code::WRONG_TYPE, what, retype(found, &expected))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        Error::new(
            code::BAD_VALUE,
            format!("{} is not allowed here", describe(found)),
            format!("write {}", wanted(&expected)),
        )
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let what = format!("`{found}` is not a value this field can have");
        Error::new(code::BAD_VALUE, what, suggest::remedy(found, known))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let what = format!("there is no field `{field}` here");
        Error::new(code::UNKNOWN_FIELD, what, suggest::remedy(field, known))
    }

    fn missing_field(field: &'static str) -> Self {
        Error::new(code::MISSING_FIELD, format!("`{field}` is missing"), format!("add `{field}:`"))
    }
}

/// What was found, in a user's words.
fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("the boolean `{value}`"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("the text `{text}`"),
        Unexpected::Unit | Unexpected::Option => "empty".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// What was expected, in a user's words; serde says it in Rust's.
fn wanted(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not negative",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "a borrowed string" => "text",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "a map" => "a mapping",
        _ if expected.starts_with("struct ") => "a mapping",
        other => other,
    };
    words.to_owned()
}

/// What to do about a value of the wrong type.
fn retype(found: Unexpected<'_>, expected: &str) -> String {
    let text = match found {
        Unexpected::Bool(value) => Some(value.to_string()),
        Unexpected::Unsigned(value) => Some(value.to_string()),
        Unexpected::Signed(value) => Some(value.to_string()),
        Unexpected::Float(value) => Some(value.to_string()),
        _ => None,
    };
    match (found, text) {
        (_, Some(text)) if expected == "a string" => format!("put it in quotes: \"{text}\""),
        (Unexpected::Str(text), _) if matches!(expected, "a boolean") || expected.len() == 3 => {
            let bare = text.parse::<f64>().is_ok() || matches!(text, "true" | "false");
            if bare { format!("write {text} without quotes") } else { format!("write {}", wanted(expected)) }
        }
        _ if expected == "a sequence" => "write a list, each item on a line that begins with `- `".to_owned(),
        _ if expected == "a map" || expected.starts_with("struct ") => {
            "write its fields on the lines below, one `name: value` a line".to_owned()
        }
        _ => format!("write {}", wanted(expected)),
    }
}
