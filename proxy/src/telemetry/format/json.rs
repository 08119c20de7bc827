//! Values of access logs in JSON, by Envoy's rules.

use config::format::{Format, Operator};

use super::Values;

/// Writes what `format` says as one JSON value: a single operator as a number, a string, or `null` where it is missing;
/// several, or text between them, as a string in which `-` stands for what is missing.
pub(super) fn value(format: &Format, values: &impl Values, out: &mut Vec<u8>) {
    let begin = out.len();
    if let [operator] = format.operators() {
        if operator.is_number() {
            if !write_operator(operator, values, out) {
                out.extend_from_slice(b"null");
            }
            return;
        }
        out.push(b'"');
        if write_operator(operator, values, out) {
            escape(out, begin + 1);
            out.push(b'"');
        } else {
            out.truncate(begin);
            out.extend_from_slice(b"null");
        }
        return;
    }
    out.push(b'"');
    for operator in format.operators() {
        let begin = out.len();
        if write_operator(operator, values, out) {
            escape(out, begin);
        } else {
            out.push(b'-');
        }
    }
    out.push(b'"');
}

/// The same as for a line of text, once for all of this file.
fn write_operator(operator: &Operator, values: &impl Values, out: &mut Vec<u8>) -> bool {
    super::write_operator(operator, values, |byte| byte, out)
}

/// Escapes what was written from `begin` on for a JSON string. Bytes that are not UTF-8 each become the character of
/// that number.
fn escape(out: &mut Vec<u8>, begin: usize) {
    let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\\');
    let Some(first) = out.iter().skip(begin).position(|byte| !plain(byte)) else { return };
    let rest = out.split_off(begin + first);
    match str::from_utf8(&rest) {
        Ok(text) => text.chars().for_each(|character| escaped(character, out)),
        Err(_) => rest.iter().for_each(|byte| escaped(char::from(*byte), out)),
    }
}

fn escaped(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        other if other.is_ascii_control() => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(other)).as_bytes());
            return;
        }
        other => {
            out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    out.extend_from_slice(short);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use config::format::{FormatHeader, JsonFormat, LogFormat, Operator};

    use super::super::{Message, number, write_line};
    use super::*;

    /// A path of these bytes, and status 200.
    struct Path(&'static [u8]);

    impl Values for Path {
        fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>> {
            (message == Message::Request && *name == FormatHeader::Path).then_some(Cow::Borrowed(self.0))
        }

        fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
            if *operator == Operator::ResponseCode {
                number(200, out);
            }
            *operator == Operator::ResponseCode
        }
    }

    fn check(path: &'static [u8], format: &str, expected: &str) {
        let mut out = Vec::new();
        let format = LogFormat::Json(JsonFormat::parse(&format!("{{\"a\": \"{format}\"}}")).unwrap());
        write_line(&format, &Path(path), &mut out);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, format!("{{\"a\":{expected}}}\n"));
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }

    #[test]
    fn types_and_what_is_missing() {
        check(b"", "%RESPONSE_CODE%", "200");
        check(b"", "%RESPONSE_CODE% ", "\"200 \"");
        check(b"", "%RESPONSE_CODE%%RESPONSE_CODE%", "\"200200\"");
        check(b"", "%REQ(:PATH)%", "\"\"");
        check(b"", "%RESP(:PATH)%", "null");
        check(b"", "%PROTOCOL%", "null");
        check(b"", "%DURATION%", "null");
        check(b"", "a %PROTOCOL% %RESP(:PATH)%", "\"a - -\"");
    }

    #[test]
    fn what_a_string_may_hold() {
        check(b"/a\"b\\c", "%REQ(:PATH)%", r#""/a\"b\\c""#);
        check(b"a\tb\nc\rd\x01\x7f", "%REQ(:PATH)%", r#""a\tb\nc\rd\u0001\u007f""#);
        check("caf\u{e9}".as_bytes(), "%REQ(:PATH)%", "\"caf\u{e9}\"");
        // Cut in the middle of a character.
        check("caf\u{e9}".as_bytes(), "x %REQ(:PATH):4% y", "\"x caf\u{c3} y\"");
        check(b"caf\xc3\xa9 \xff\"", "%REQ(:PATH)%", "\"caf\u{c3}\u{a9} \u{ff}\\\"\"");
    }
}
