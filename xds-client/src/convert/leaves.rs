//! How many leaves a message has: values that are set and are neither messages nor lists.
//!
//! What weft does not take apart yet, such as the rules of a policy, is counted all the same, so that a comparison says how
//! much of a stream it did not look at. The definitions have no reflection; how they are written for debugging has all of it.

use std::fmt::Debug;

/// The leaves of `told`. A list of numbers, such as bytes, counts as one; so does an empty message that stands for a choice.
pub(crate) fn leaves(told: &impl Debug) -> usize {
    let text = format!("{told:#?}");
    let mut count = 0;
    let mut in_bytes = false;
    for line in text.lines() {
        let line = line.trim().trim_end_matches(',');
        // A list of numbers is one value, nearly always bytes.
        let is_number = !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_digit());
        let again = std::mem::replace(&mut in_bytes, is_number) && is_number;
        if again {
            continue;
        }
        // What begins and ends a message, a list or a map.
        if line.ends_with(['{', '[', '(']) || matches!(line, "}" | "]" | ")") {
            continue;
        }
        let value = match line.split_once(": ") {
            // A text may hold anything; only a name or a key stands before its value.
            Some((name, value)) if is_name(name) || name.starts_with('"') && name.ends_with('"') => value,
            _ => line,
        };
        let is_unset = !is_number && matches!(value, "None" | "[]" | "{}" | "\"\"" | "0" | "0.0" | "false");
        count += usize::from(!is_unset);
    }
    count
}

fn is_name(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '#')
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::HeaderValue;
    use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
    use envoy_types::pb::google::protobuf::BoolValue;

    use super::*;

    #[test]
    fn what_is_set_counts() {
        let header = |key: &str, value: &str| HeaderValue {
            key: key.into(),
            value: value.into(),
            ..HeaderValue::default()
        };
        assert_eq!(leaves(&HeaderValue::default()), 0);
        assert_eq!(leaves(&header("a", "")), 1);
        assert_eq!(leaves(&header("a: {", "x, y: [")), 2);
        assert_eq!(leaves(&vec![header("a", "b"), header("c", "d")]), 4);
        let policy = CorsPolicy {
            allow_methods: "GET,POST".into(),
            allow_credentials: Some(BoolValue { value: true }),
            ..CorsPolicy::default()
        };
        assert_eq!(leaves(&policy), 2);
    }
}
