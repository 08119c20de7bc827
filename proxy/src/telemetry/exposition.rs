//! How metrics are told to Prometheus: in its text format, version 0.0.4, one series after the other, so that however many
//! there are no more than one is in memory, and whoever counts waits for nobody who reads.
//!
//! The series that there are when a family's turn comes are told, each with its value of that moment.

use std::fmt::Write as _;
use std::sync::Arc;

use regex::Regex;

use super::metrics::{BUCKETS_MS, Declaration, Family, Kind};
use super::registry::{Cell, HISTOGRAM_CELLS, Labels, Registry};
use super::shard::Shard;

/// Series that are looked up at once: so long the registry is locked.
const LOOKED_UP: usize = 64;

/// Metrics as text, a piece a series.
pub(crate) struct Exposition {
    registry: Arc<Registry>,
    /// Families that were not begun.
    families: std::vec::IntoIter<Family>,
    used_only: bool,
    begun: Option<Begun>,
}

/// A family whose series are told.
struct Begun {
    family: Family,
    declaration: Declaration,
    /// Series of it that were looked up.
    looked_up: usize,
    /// Those that were not told.
    series: std::vec::IntoIter<(Labels, Cell)>,
    /// Where they are counted.
    shards: Vec<Arc<Shard>>,
    /// Whether its head was told.
    is_named: bool,
}

impl Exposition {
    /// All series of families whose names match, and if `used_only` no series that are 0.
    pub(crate) fn new(registry: &Arc<Registry>, names: Option<&Regex>, used_only: bool) -> Exposition {
        let is_wanted = |family: &Family| names.is_none_or(|names| names.is_match(family.declaration().name));
        let families: Vec<Family> = Family::ALL.into_iter().filter(is_wanted).collect();
        Exposition { registry: registry.clone(), families: families.into_iter(), used_only, begun: None }
    }

    /// The next series of the family that is begun; `None` when there is no more of it.
    fn next_of_begun(&mut self) -> Option<String> {
        let begun = self.begun.as_mut()?;
        loop {
            for (labels, cell) in begun.series.by_ref() {
                let value = Value::of(begun.declaration.kind, cell, &begun.shards);
                if self.used_only && !value.is_used() {
                    continue;
                }
                let mut text = String::new();
                if !begun.is_named {
                    begun.is_named = true;
                    write_head(&mut text, &begun.declaration);
                }
                write_series(&mut text, &begun.declaration, &labels, &value);
                return Some(text);
            }
            let more = self.registry.some(begun.family, begun.looked_up, LOOKED_UP);
            if more.is_empty() {
                return None;
            }
            begun.looked_up += more.len();
            begun.series = more.into_iter();
            begun.shards = self.registry.shards();
        }
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.next_of_begun() {
                return Some(text);
            }
            let family = self.families.next()?;
            self.begun = Some(Begun {
                family,
                declaration: family.declaration(),
                looked_up: 0,
                series: Vec::new().into_iter(),
                shards: Vec::new(),
                is_named: false,
            });
        }
    }
}

/// The value of a series.
enum Value {
    Number(f64),
    Histogram {
        /// Observations in each bucket, and in those before it.
        cumulative: [u64; BUCKETS_MS.len()],
        count: u64,
        sum_ms: f64,
    },
}

impl Value {
    fn of(kind: Kind, cell: Cell, shards: &[Arc<Shard>]) -> Value {
        let sum = |index: usize| {
            let index = cell.index() + u32::try_from(index).unwrap_or(0);
            shards.iter().fold(0u64, |total, shard| total.wrapping_add(shard.read(index)))
        };
        match kind {
            Kind::Counter => Value::Number(as_f64(sum(0))),
            Kind::Gauge => Value::Number(signed(sum(0))),
            Kind::Histogram => {
                let mut count = 0;
                let cumulative = std::array::from_fn(|bucket| {
                    count += sum(bucket);
                    count
                });
                count += sum(BUCKETS_MS.len());
                Value::Histogram { cumulative, count, sum_ms: as_f64(sum(HISTOGRAM_CELLS - 1)) / 1000.0 }
            }
        }
    }

    /// Whether anything was counted, or the gauge stands at something.
    fn is_used(&self) -> bool {
        match self {
            Value::Number(number) => *number != 0.0,
            Value::Histogram { count, .. } => *count != 0,
        }
    }
}

fn write_head(out: &mut String, Declaration { name, help, kind, .. }: &Declaration) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    push(out, &["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
}

fn write_series(out: &mut String, declaration: &Declaration, labels: &[Arc<str>], value: &Value) {
    let name = declaration.name;
    let pairs = pairs(declaration.labels, labels);
    match value {
        Value::Number(number) => write_sample(out, (name, ""), &pairs, *number),
        Value::Histogram { cumulative, count, sum_ms } => {
            let comma = if pairs.is_empty() { "" } else { "," };
            for (bound, count) in BUCKETS_MS.into_iter().zip(cumulative) {
                let pairs = format!("{pairs}{comma}le=\"{bound}\"");
                write_sample(out, (name, "_bucket"), &pairs, as_f64(*count));
            }
            write_sample(out, (name, "_bucket"), &format!("{pairs}{comma}le=\"+Inf\""), as_f64(*count));
            write_sample(out, (name, "_sum"), &pairs, *sum_ms);
            write_sample(out, (name, "_count"), &pairs, as_f64(*count));
        }
    }
}

fn write_sample(out: &mut String, (name, suffix): (&str, &str), pairs: &str, value: f64) {
    push(out, &[name, suffix]);
    if !pairs.is_empty() {
        push(out, &["{", pairs, "}"]);
    }
    // Writing to a string does not fail.
    let _ = writeln!(out, " {value}");
}

/// Labels and their values, as they stand between braces.
fn pairs(names: &[&str], values: &[Arc<str>]) -> String {
    let mut out = String::new();
    for (name, value) in names.iter().zip(values) {
        let comma = if out.is_empty() { "" } else { "," };
        push(&mut out, &[comma, name, "=\""]);
        for part in value.split_inclusive(['\\', '\n', '"']) {
            // What needs a backslash is ASCII, and the last of its part.
            match part.as_bytes().last() {
                Some(b'\n') => push(&mut out, &[part.trim_end_matches('\n'), "\\n"]),
                Some(b'\\') => push(&mut out, &[part, "\\"]),
                Some(b'"') => push(&mut out, &[part.trim_end_matches('"'), "\\\""]),
                _ => out.push_str(part),
            }
        }
        out.push('"');
    }
    out
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floating point")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a gauge's shards wrap, their sum does not"
)]
fn signed(value: u64) -> f64 {
    value as i64 as f64
}

#[cfg(test)]
mod tests;
