//! Writes Envoy's format strings: walks the operators of a [`Format`] and asks for their values.

mod json;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use config::format::{Format, FormatHeader, HeaderOperand, JsonPiece, LogFormat, Operator};

use crate::time;

/// Which message a header operator means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// The request, as the client sent it.
    Request,
    /// The response.
    Response,
    /// The response's trailers.
    Trailers,
}

/// What the values of operators are.
pub(crate) trait Values {
    /// The value of a header; of several with the same name the first.
    fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>>;

    /// Writes the value of an operator that is neither literal nor a header; `false` when there is none.
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool;
}

/// What stands for a value that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// `-`, in logs.
    Dash,
    /// Nothing, in header values.
    Nothing,
}

/// Writes one line of an access log.
pub(crate) fn write_line(format: &LogFormat, values: &impl Values, out: &mut Vec<u8>) {
    match format {
        LogFormat::Text(format) => write(format, values, Missing::Dash, out),
        LogFormat::Json(format) => {
            for piece in format.pieces() {
                match piece {
                    JsonPiece::Text(text) => out.extend_from_slice(text.as_bytes()),
                    JsonPiece::Value(format) => json::value(format, values, out),
                }
            }
        }
    }
}

/// Writes `format`.
pub(crate) fn write(format: &Format, values: &impl Values, missing: Missing, out: &mut Vec<u8>) {
    for operator in format.operators() {
        // A header value may hold what would end the line or the field early.
        let clean = |byte: u8| if byte.is_ascii_control() { b'?' } else { byte };
        let written = write_operator(operator, values, clean, out);
        if !written && missing == Missing::Dash {
            out.push(b'-');
        }
    }
}

/// Writes the value of one operator, where it is a header's by `clean`; `false` when there is none. Inlined because a line of
/// text has fifty of them: a call for each is a fifth of the line.
#[inline(always)]
fn write_operator(
    operator: &Operator,
    values: &impl Values,
    clean: impl Fn(u8) -> u8,
    out: &mut Vec<u8>,
) -> bool {
    match operator {
        Operator::Literal(text) => {
            out.extend_from_slice(text.as_bytes());
            true
        }
        Operator::RequestHeader(operand) => header(operand, Message::Request, values, clean, out),
        Operator::ResponseHeader(operand) => header(operand, Message::Response, values, clean, out),
        Operator::ResponseTrailer(operand) => header(operand, Message::Trailers, values, clean, out),
        other => values.write(other, out),
    }
}

fn header(
    operand: &HeaderOperand,
    message: Message,
    values: &impl Values,
    clean: impl Fn(u8) -> u8,
    out: &mut Vec<u8>,
) -> bool {
    let value = values.header(message, &operand.name);
    let value = value.or_else(|| values.header(message, operand.alternative.as_ref()?));
    let Some(value) = value else { return false };
    let length = operand.max_length.map_or(value.len(), |length| length.min(value.len()));
    out.extend(value.iter().take(length).map(|byte| clean(*byte)));
    true
}

/// Writes a number.
pub(crate) fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a text; says whether there is one.
#[inline]
pub(crate) fn text(value: Option<&str>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.unwrap_or_default().as_bytes());
    value.is_some()
}

/// Writes an address with its port; says whether there is one.
#[inline]
pub(crate) fn address(value: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    if let Some(value) = value {
        out.extend_from_slice(value.to_string().as_bytes());
    }
    value.is_some()
}

/// Writes how long it is since then, in whole milliseconds.
#[inline]
pub(crate) fn milliseconds_since(started: Instant, out: &mut Vec<u8>) {
    let milliseconds = time::now().saturating_duration_since(started).as_millis();
    number(u64::try_from(milliseconds).unwrap_or(u64::MAX), out);
}

/// Writes a time of day as Envoy's `%START_TIME%` does: `2026-11-22T10:11:12.345Z`.
pub(crate) fn timestamp(time: SystemTime, out: &mut Vec<u8>) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let mut padded = |value: u64, digits: u32, after: &[u8]| {
        for place in (0..digits).rev() {
            // A digit is below 10, so the cast loses nothing.
            out.push(b'0' + u8::try_from(value / 10u64.pow(place) % 10).unwrap_or(0));
        }
        out.extend_from_slice(after);
    };
    padded(year, 4, b"-");
    padded(month, 2, b"-");
    padded(day, 2, b"T");
    padded(second / 3600, 2, b":");
    padded(second / 60 % 60, 2, b":");
    padded(second % 60, 2, b".");
    padded(u64::from(since.subsec_millis()), 3, b"Z");
}

/// A time of day in whole seconds, as protobuf's JSON writes one: `2026-11-22T10:11:12Z`.
pub(crate) fn utc_seconds(time: SystemTime) -> String {
    let mut out = Vec::new();
    timestamp(time, &mut out);
    let text = String::from_utf8(out).unwrap_or_default();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01. Eras of 400 years are all alike; a year
/// that begins in March has its leap day at the end.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps() {
        let check = |milliseconds: u64, expected: &str| {
            let mut out = Vec::new();
            timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_827_696_789, "2000-02-29T12:34:56.789Z");
        check(1_709_164_800_000, "2024-02-29T00:00:00.000Z");
        check(1_795_305_599_999, "2026-11-21T23:59:59.999Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }

    struct Fixed;

    impl Values for Fixed {
        fn header(&self, message: Message, name: &FormatHeader) -> Option<Cow<'_, [u8]>> {
            (message == Message::Request && *name == FormatHeader::Path)
                .then_some(Cow::Borrowed(b"/a\nb/long"))
        }

        fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
            if *operator == Operator::ResponseCode {
                number(200, out);
            }
            *operator == Operator::ResponseCode
        }
    }

    #[test]
    fn operators_and_what_is_missing() {
        let check = |text: &str, expected: &str| {
            let mut out = Vec::new();
            write(&Format::parse(text).unwrap(), &Fixed, Missing::Dash, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        };
        check("[%RESPONSE_CODE%] %PROTOCOL%", "[200] -");
        check("%REQ(:PATH)%", "/a?b/long");
        check("%REQ(:PATH):4%", "/a?b");
        check("%REQ(X-MISSING?:PATH)%", "/a?b/long");
        check("%REQ(X-MISSING)% %RESP(:PATH)%", "- -");
    }
}
