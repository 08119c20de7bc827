//! Single values: durations, ports, shares, regular expressions, headers.

use std::net::IpAddr;

use super::check::Check;
use crate::compile::is_protocol;
use crate::finding::code;
use crate::format::Format;
use crate::istio::{GoDuration, Percent, StringMatch};
use crate::pattern::{self, PatternError};

/// Bytes of the text of a regular expression, as Istio has it.
pub const REGEX_TEXT_BYTES_MAX: usize = 1024;
/// Bytes of the body of a direct response, as Istio has it.
pub const DIRECT_RESPONSE_BYTES_MAX: usize = 1 << 20;

/// A duration, 1 ms or more and whole milliseconds, as everywhere in Istio.
pub(crate) fn duration(check: &mut Check<'_>, path: &str, duration: Option<GoDuration>) {
    let Some(GoDuration(duration)) = duration else { return };
    if duration.as_millis() == 0 {
        check.bad(path, "the duration is under 1ms", "write 1ms or more, or remove the field");
    } else if duration.subsec_nanos() % 1_000_000 != 0 {
        check.bad(path, "the duration is not a whole number of milliseconds", "round it to milliseconds");
    }
}

/// A port that may be left out; 0 counts as left out, as in protocol buffers.
pub(crate) fn optional_port(check: &mut Check<'_>, path: &str, number: Option<u32>) {
    if let Some(number) = number.filter(|number| *number != 0) {
        port(check, path, number);
    }
}

/// A port.
pub(crate) fn port(check: &mut Check<'_>, path: &str, number: u32) {
    if !(1..=65535).contains(&number) {
        check.bad(path, format!("{number} is not a port"), "write a number from 1 to 65535");
    }
}

/// A port of a listener or a service that an object of Istio's describes.
pub(crate) fn port_entry(check: &mut Check<'_>, path: &str, number: u32, protocol: &str) {
    port(check, &format!("{path}.number"), number);
    if !is_protocol(protocol) {
        let what = format!("`{protocol}` is not a protocol that Istio knows");
        let remedy = "write HTTP, HTTPS, HTTP2, GRPC, TLS or TCP, or leave it out to have it found out";
        check.bad(&format!("{path}.protocol"), what, remedy);
    }
}

/// An address to listen on; nothing is none.
pub(crate) fn bind(check: &mut Check<'_>, path: &str, bind: Option<&str>) {
    // No socket of IPv6 alone has an address of IPv4 in the form of IPv6.
    let is_address = |bind: &str| bind.parse().is_ok_and(|ip: IpAddr| ip.to_canonical() == ip);
    if let Some(bind) = bind.filter(|bind| !bind.is_empty() && !is_address(bind)) {
        let what = format!("`{bind}` is not an IP address to listen on");
        check.bad(&format!("{path}.bind"), what, "write an address");
    }
}

/// A share in percent.
pub(crate) fn percent(check: &mut Check<'_>, path: &str, percent: Option<&Percent>) {
    let Some(Percent { value }) = percent else { return };
    // Envoy counts in parts of a million, so that a smaller share would be none.
    if !(0.0..=100.0).contains(value) || (*value > 0.0 && *value < 0.0001) {
        check.bad(
            path,
            format!("{value} is not a share in percent"),
            "write 0, or a number from 0.0001 to 100",
        );
    }
}

/// Numbers that may not be negative, by field.
pub(crate) fn not_negative(check: &mut Check<'_>, path: &str, numbers: &[(&str, Option<i32>)]) {
    for (field, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            check.bad(&format!("{path}.{field}"), format!("{number} is negative"), "write 0 or more");
        }
    }
}

/// A string match; an empty one asks only that there is a value.
pub(crate) fn string_match(
    check: &mut Check<'_>,
    path: &str,
    wanted: &StringMatch,
    empty_prefix_allowed: bool,
) {
    let StringMatch { exact, prefix, regex } = wanted;
    let fields = [("exact", exact.is_some()), ("prefix", prefix.is_some()), ("regex", regex.is_some())];
    check.at_most_one(path, &fields);
    if !empty_prefix_allowed && prefix.as_deref() == Some("") {
        let what = "an empty prefix matches everything";
        check.bad(&format!("{path}.prefix"), what, "write the beginning to look for, or remove the match");
    }
    if let Some(pattern) = regex {
        regular_expression(check, &format!("{path}.regex"), pattern);
    }
}

/// A regular expression; tells how many groups it has when it is good.
pub(crate) fn regular_expression(check: &mut Check<'_>, path: &str, pattern: &str) -> Option<usize> {
    if pattern.is_empty() {
        check.error(
            code::BAD_REGEX,
            path,
            "the regular expression is empty",
            "write one, or remove the field",
        );
        return None;
    }
    if pattern.len() > REGEX_TEXT_BYTES_MAX {
        let what = format!("the regular expression is longer than {REGEX_TEXT_BYTES_MAX} bytes");
        check.error(code::BAD_REGEX, path, what, "shorten it, or match by `prefix` or `exact`");
        return None;
    }
    if check.has_no_room_for_patterns() {
        return None;
    }
    // As the proxy compiles it: what passes here builds there.
    match pattern::full_match_sized(pattern) {
        Ok((regex, bytes)) => {
            check.takes_pattern(path, bytes);
            Some(regex.captures_len() - 1)
        }
        Err(PatternError::TooBig) => {
            let what = format!(
                "the regular expression takes more than {} bytes when compiled",
                pattern::PROGRAM_BYTES_MAX
            );
            check.error(code::BAD_REGEX, path, what, "use smaller repetitions");
            None
        }
        Err(PatternError::Malformed(reason)) => {
            let what = format!("`{pattern}` is not a regular expression: {reason}");
            let remedy = "write it in RE2's syntax, which has no look-around and no back-references";
            check.error(code::BAD_REGEX, path, what, remedy);
            None
        }
    }
}

/// What the matches of a regular expression with `groups` groups become: `\0` to `\9`, and `\\` for a backslash.
pub(crate) fn substitution(check: &mut Check<'_>, path: &str, text: &str, groups: usize) {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next().map(|c| (c, c.to_digit(10))) {
            Some(('\\', _)) => {}
            Some((_, Some(group))) if group as usize <= groups => {}
            Some((_, Some(group))) => {
                let what = format!("`\\{group}` names a group, but the expression has {groups}");
                check.bad(path, what, "add the group in parentheses to `match`, or name another");
            }
            _ => {
                let what = "a backslash is followed by neither a digit nor a backslash";
                check.bad(path, what, "write `\\1` to `\\9` for groups, `\\\\` for a backslash");
            }
        }
    }
}

/// A part of a URL to write.
pub(crate) fn url_part(check: &mut Check<'_>, path: &str, text: Option<&str>) {
    if text.is_some_and(|text| text.bytes().any(|byte| byte == b' ' || byte.is_ascii_control())) {
        check.bad(path, "it holds a space or a control character", "remove it, or write a space as `%20`");
    }
}

/// The value of a header to write.
pub(crate) fn header_value(check: &mut Check<'_>, path: &str, value: &str) {
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        check.bad(path, "the value holds a control character", "remove it");
    } else if let Err(error) = Format::parse(value) {
        let remedy = "write `%%` for a percent sign, or an operator that is known, like `%REQ(x-name)%`";
        check.bad(path, error.what, remedy);
    }
}

/// Bytes that `text` stands for in base64, standard or URL-safe, with or without padding; `None` when it is not.
pub(crate) fn base64_bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_');
    let good = digits.bytes().all(alphabet) && digits.len() % 4 != 1 && padding <= 2;
    let padded = padding == 0 || text.len().is_multiple_of(4);
    (good && padded).then_some(digits.len() * 3 / 4)
}
