//! What a scalar without quotes stands for: YAML 1.2's core schema (section 10.3.2).
//!
//! `on`, `off`, `yes` and `no` are text here, as YAML 1.2 has it; to `kubectl` they are booleans (YAML 1.1), so that
//! a text field that holds one is refused by a cluster and accepted by weft.

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Resolved<'a> {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number that fits 64 bits.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Everything else.
    Text(&'a str),
}

/// What `text`, written without quotes, stands for.
pub(crate) fn resolve(text: &str) -> Resolved<'_> {
    let Some(first) = text.bytes().next() else { return Resolved::Null };
    match first {
        b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => Resolved::Null,
        b't' | b'T' if matches!(text, "true" | "True" | "TRUE") => Resolved::Boolean(true),
        b'f' | b'F' if matches!(text, "false" | "False" | "FALSE") => Resolved::Boolean(false),
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(text).unwrap_or(Resolved::Text(text)),
        _ => Resolved::Text(text),
    }
}

fn number(text: &str) -> Option<Resolved<'_>> {
    if let Some(digits) = text.strip_prefix("0x") {
        return whole(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return whole(digits, 8);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Resolved::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Resolved::Float(f64::NAN));
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let fits =
            text.parse::<i128>().ok().filter(|n| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(n));
        return fits.map(Resolved::Integer).or_else(|| text.parse().ok().map(Resolved::Float));
    }
    // Rust's own grammar of floats is wider: `inf`, `infinity` and `nan` have no digit in front.
    let shape = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let digit = unsigned.bytes().any(|b| b.is_ascii_digit());
    (shape && digit).then(|| text.parse().ok().map(Resolved::Float)).flatten()
}

fn whole(digits: &str, radix: u32) -> Option<Resolved<'static>> {
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().map(|n| Resolved::Integer(i128::from(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        let check = |text: &str, expected: Resolved<'_>| assert_eq!(resolve(text), expected, "{text:?}");
        for null in ["", "~", "null", "Null", "NULL"] {
            check(null, Resolved::Null);
        }
        check("true", Resolved::Boolean(true));
        check("FALSE", Resolved::Boolean(false));
        check("80", Resolved::Integer(80));
        check("-1", Resolved::Integer(-1));
        check("+7", Resolved::Integer(7));
        check("0x1F", Resolved::Integer(31));
        check("0o17", Resolved::Integer(15));
        check("18446744073709551615", Resolved::Integer(i128::from(u64::MAX)));
        check("99999999999999999999", Resolved::Float(1e20));
        check("1.5", Resolved::Float(1.5));
        check(".5", Resolved::Float(0.5));
        check("1e3", Resolved::Float(1000.0));
        check("-.inf", Resolved::Float(f64::NEG_INFINITY));
        for text in [
            "on",
            "yes",
            "no",
            "y",
            "nul",
            "tRue",
            "10.244.1.1",
            "1s",
            "-",
            "+",
            ".",
            "e3",
            "inf",
            "nan",
            "0x",
            "0xg",
        ] {
            check(text, Resolved::Text(text));
        }
        assert!(matches!(resolve(".nan"), Resolved::Float(n) if n.is_nan()));
    }
}
