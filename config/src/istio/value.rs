//! Values that several Istio kinds share.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A duration as Istio's objects write it: Go's form, `1h30m`, `2s`, `800ms`, `1.5s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(
    /// How long.
    pub Duration,
);

impl GoDuration {
    /// Parses Go's form. Negative durations are refused, because no field of Istio allows one.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<GoDuration, String> {
        let malformed = || format!("`{text}` is not a duration; write it like `1h30m`, `2s` or `800ms`");
        if text == "0" {
            return Ok(GoDuration(Duration::ZERO));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut nanoseconds: u128 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
            let (number, after) = rest.split_at(digits);
            let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit);
            let scale: u128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(malformed()),
            };
            nanoseconds += scaled(number, scale).ok_or_else(malformed)?;
            rest = after;
        }
        // Go counts nanoseconds in 63 bits.
        let nanoseconds =
            u64::try_from(nanoseconds).ok().filter(|n| *n <= i64::MAX as u64).ok_or_else(malformed)?;
        Ok(GoDuration(Duration::from_nanos(nanoseconds)))
    }
}

/// `number` (digits with at most one point) times `scale`, cut to whole units.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 32 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        total += u128::from(digit - b'0') * unit;
    }
    Some(total)
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like `1h30m`, `2s` or `800ms`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `exact`, `prefix` or `regex` (RE2 syntax, the whole string); an empty one asks only that there is a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StringMatch {
    /// The whole string.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// The whole string, by a regular expression in RE2 syntax.
    pub regex: Option<String>,
}

/// A port by number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: u32,
}

/// A share in percent, 0 to 100, with fractions.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Percent {
    /// 0.0 to 100.0.
    #[serde(default)]
    pub value: f64,
}

/// Labels a workload must carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    /// All of these.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let check = |text: &str, nanoseconds: Option<u64>| {
            let parsed = GoDuration::parse(text).ok();
            assert_eq!(parsed, nanoseconds.map(|n| GoDuration(Duration::from_nanos(n))), "{text}");
        };
        check("0", Some(0));
        check("2s", Some(2_000_000_000));
        check("800ms", Some(800_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("1.5s", Some(1_500_000_000));
        check(".5s", Some(500_000_000));
        check("0.000000001s", Some(1));
        check("3us", Some(3_000));
        for bad in ["", "s", "5", "-1s", "1d", "1.2.3s", "1 s", "999999999999h", "."] {
            check(bad, None);
        }
    }
}
