//! What is told, beside what a library of Prometheus' makes of the same numbers.

use std::time::Duration;

use config::Limits;
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::*;

/// The same by the library.
fn expected(registry: &Arc<Registry>) -> String {
    let shards = registry.shards();
    let families = Family::ALL.into_iter().filter_map(|family| {
        let declaration = family.declaration();
        let series = registry.some(family, 0, usize::MAX);
        let mut told = MetricFamily::default();
        told.set_name(declaration.name.to_owned());
        told.set_help(declaration.help.to_owned());
        told.set_field_type(match declaration.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let metric = |(labels, cell): (Labels, Cell)| {
            metric(&declaration, &labels, &Value::of(declaration.kind, cell, &shards))
        };
        told.set_metric(series.into_iter().map(metric).collect());
        (!told.get_metric().is_empty()).then_some(told)
    });
    TextEncoder::new().encode_to_string(&families.collect::<Vec<_>>()).unwrap()
}

fn metric(declaration: &Declaration, labels: &[Arc<str>], value: &Value) -> Metric {
    let mut metric = Metric::default();
    let pairs = declaration.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.to_string());
        pair
    });
    metric.set_label(pairs.collect());
    match value {
        Value::Number(number) if declaration.kind == Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
        }
        Value::Histogram { cumulative, count, sum_ms } => {
            let mut histogram = Histogram::default();
            let buckets = BUCKETS_MS.into_iter().zip(cumulative).map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_cumulative_count(*count);
                bucket.set_upper_bound(bound);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(*count);
            histogram.set_sample_sum(*sum_ms);
            metric.set_histogram(histogram);
        }
    }
    metric
}

fn told(registry: &Arc<Registry>, names: Option<&str>, used_only: bool) -> String {
    let names = names.map(|names| Regex::new(names).unwrap());
    Exposition::new(registry, names.as_ref(), used_only).collect()
}

#[test]
fn it_is_the_format_of_the_library() {
    let registry = Registry::new(&Limits::default());
    let shards = [registry.shard(), registry.shard()];
    for family in Family::ALL {
        let declaration = family.declaration();
        for (number, value) in
            ["", "plain", "a \\ back", "two\nlines\n", "\"quoted\"", "\\", "\n", "ä\\\"\n\n\"\"ö"]
                .iter()
                .enumerate()
        {
            let series = registry.series(family, &vec![*value; declaration.labels.len()]);
            let shard = &shards[number % 2];
            match declaration.kind {
                Kind::Counter => shard.increase(series, 1 << (number * 8)),
                Kind::Gauge if number % 2 == 0 => shard.decrement(series),
                Kind::Gauge => shard.set_gauge(series, 123_456_789),
                Kind::Histogram => {
                    for micros in [1, 499, 500, 123_456_789, 36_000_000_000] {
                        shard.observe(series, Duration::from_micros(micros));
                    }
                }
            }
        }
    }
    assert_eq!(told(&registry, None, false), expected(&registry));
}

#[test]
fn families_and_series_are_chosen() {
    let registry = Registry::new(&Limits::default());
    let shard = registry.shard();
    for cluster in ["a", "b"] {
        registry.series(Family::UpstreamConnectionsActive, &[cluster]);
        let counted = registry.series(Family::UpstreamConnections, &[cluster]);
        if cluster == "b" {
            shard.increment(counted);
        }
    }
    let check = |names: Option<&str>, used_only: bool, expected: &[&str]| {
        let text = told(&registry, names, used_only);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(lines, expected, "{names:?} {used_only}");
    };
    let b = "envoy_cluster_upstream_cx_total{cluster_name=\"b\"} 1";
    check(None, true, &["# TYPE envoy_cluster_upstream_cx_total counter", b]);
    let zero = "envoy_cluster_upstream_cx_total{cluster_name=\"a\"} 0";
    check(Some("cx_total$"), false, &["# TYPE envoy_cluster_upstream_cx_total counter", zero, b]);
    check(Some("nothing"), false, &[]);
}

/// What is made meanwhile is told if its family's turn is not over, and nothing is told twice.
#[test]
fn series_may_come_while_they_are_told() {
    let registry = Registry::new(&Limits::default());
    for number in 0..LOOKED_UP + 1 {
        registry.series(Family::UpstreamConnections, &[&number.to_string()]);
    }
    let mut pieces = Exposition::new(&registry, Some(&Regex::new("cx_total").unwrap()), false);
    let mut text = pieces.next().unwrap();
    registry.series(Family::UpstreamConnections, &["new"]);
    text.extend(pieces);
    assert_eq!(text, expected(&registry));
}
