//! Which cells belong to which series, and how the sum of all shards is shown to Prometheus.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use config::Limits;
use parking_lot::Mutex;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use regex::Regex;

use super::metrics::{BUCKETS_MS, Declaration, Family, Kind};
use super::shard::{CELLS_MAX, CHUNK_CELLS, Shard};

/// Series of the whole process. One more is counted under labels that all say `overflow`.
const SERIES_MAX: usize = 40_000;

/// Value of every label of the series that stands for those there is no room for.
const OVERFLOW: &str = "overflow";

/// Cells of a histogram: one a bucket, one for what is above them all, one for the sum in microseconds.
const HISTOGRAM_CELLS: usize = BUCKETS_MS.len() + 2;

/// A series, to be written in a shard. Finding it costs a lock; writing it does not, so it is found once and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell(u32);

/// All series and shards.
pub(crate) struct Registry {
    shards: Mutex<Vec<Arc<Shard>>>,
    series: Mutex<Series>,
}

/// What tells one series from another: the metric and the values of its labels.
type Key = (Family, Box<[Arc<str>]>);

struct Series {
    bounds: Bounds,
    cells: HashMap<Key, Cell>,
    /// In the order they were made, for the same output at every scrape.
    order: Vec<(Key, Cell)>,
    /// Label values, each kept once.
    strings: HashSet<Arc<str>>,
    /// Bytes of them.
    strings_bytes: usize,
    /// Outcomes of hosts that only clients told.
    host_outcomes: usize,
    next: usize,
    overflowed: u64,
    /// What is counted of the limits below. It is written while the series are locked, and so by one at a time.
    own: Arc<Shard>,
}

/// How much there may be. Series are never dropped, so what clients and upstreams make of them must have an end.
struct Bounds {
    /// `metric_label_bytes_max`.
    strings_bytes: usize,
    /// `metric_host_outcomes_max`.
    host_outcomes: usize,
}

impl Registry {
    /// Without series.
    pub(crate) fn new(limits: &Limits) -> Arc<Registry> {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let own = Arc::new(Shard::new());
        let series = Series {
            bounds: Bounds {
                strings_bytes: size(limits.metric_label_bytes_max),
                host_outcomes: size(limits.metric_host_outcomes_max),
            },
            cells: HashMap::new(),
            order: Vec::new(),
            strings: HashSet::new(),
            strings_bytes: 0,
            host_outcomes: 0,
            next: 0,
            overflowed: 0,
            own: own.clone(),
        };
        Arc::new(Registry { shards: Mutex::new(vec![own]), series: Mutex::new(series) })
    }

    /// A shard for one more writer.
    pub(crate) fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new());
        self.shards.lock().push(shard.clone());
        shard
    }

    /// The series with these label values, made if it is new. As many values as the family has labels.
    pub(crate) fn series(&self, family: Family, labels: &[&str]) -> Cell {
        self.series.lock().find(family, labels)
    }

    /// The series of several families with these label values, one of which is a host that nobody but a client told. `None`,
    /// which is counted, when they would be new and there are as many as may be: clients must not use up the series of what
    /// the configuration names.
    pub(crate) fn series_of_host<const N: usize>(
        &self,
        families: [Family; N],
        labels: &[&str],
    ) -> Option<[Cell; N]> {
        let mut series = self.series.lock();
        let is_known = families.iter().all(|family| series.known(*family, labels).is_some());
        if !is_known && series.host_outcomes >= series.bounds.host_outcomes {
            series.reached("metric_host_outcomes_max");
            return None;
        }
        series.host_outcomes += usize::from(!is_known);
        Some(families.map(|family| series.find(family, labels)))
    }

    /// All series of families whose names match, and if `used_only` no series that are 0, as Prometheus shows them, in its
    /// text format.
    pub(crate) fn encode(&self, names: Option<&Regex>, used_only: bool) -> Result<String, prometheus::Error> {
        let mut families = self.gather();
        families.retain(|family| names.is_none_or(|names| names.is_match(family.name())));
        if used_only {
            for family in &mut families {
                family.mut_metric().retain(is_used);
            }
            families.retain(|family| !family.get_metric().is_empty());
        }
        prometheus::TextEncoder::new().encode_to_string(&families)
    }

    /// Label values and totals of all series of a family that is not a histogram.
    #[cfg(test)]
    fn totals(&self, family: Family) -> Vec<(Box<[Arc<str>]>, u64)> {
        let shards = self.shards.lock();
        let series = self.series.lock();
        let of_family = series.order.iter().filter(|((of, _), _)| *of == family);
        of_family.map(|((_, labels), cell)| (labels.clone(), sum(&shards, cell.0))).collect()
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let shards = self.shards.lock();
        let series = self.series.lock();
        let mut families: HashMap<Family, Vec<Metric>> = HashMap::new();
        for ((family, labels), cell) in &series.order {
            families.entry(*family).or_default().push(metric(*family, labels, *cell, &shards));
        }
        if series.overflowed > 0 {
            let mut counter = Counter::default();
            counter.set_value(as_f64(series.overflowed));
            let mut metric = Metric::default();
            metric.set_counter(counter);
            families.insert(Family::SeriesOverflow, vec![metric]);
        }
        let ordered = Family::ALL.into_iter().filter_map(|family| Some((family, families.remove(&family)?)));
        ordered.map(|(family, metrics)| metric_family(&family.declaration(), metrics)).collect()
    }
}

impl Series {
    fn find(&mut self, family: Family, labels: &[&str]) -> Cell {
        if let Some(cell) = self.known(family, labels) {
            return cell;
        }
        let can_overflow = labels.iter().any(|value| *value != OVERFLOW);
        let (has_place, has_bytes) = (self.has_place(family), self.has_bytes(labels));
        if can_overflow && !(has_place && has_bytes) {
            self.overflowed += 1;
            if has_place {
                self.reached("metric_label_bytes_max");
            }
            return self.find(family, &vec![OVERFLOW; labels.len()]);
        }
        self.make(family, labels)
    }

    fn known(&self, family: Family, labels: &[&str]) -> Option<Cell> {
        let labels = labels.iter().map(|value| self.strings.get(*value).cloned()).collect::<Option<_>>()?;
        self.cells.get(&(family, labels)).copied()
    }

    /// Counts that one of the limits of series was met.
    fn reached(&mut self, limit: &str) {
        let labels = [limit];
        let known = self.known(Family::LimitReached, &labels);
        let cell = known.unwrap_or_else(|| self.make(Family::LimitReached, &labels));
        self.own.increment(cell);
    }

    fn has_place(&self, family: Family) -> bool {
        // Room for the overflow series of every family is kept back, and for the limits that are met here.
        let reserved = Family::ALL.len() * HISTOGRAM_CELLS * 2;
        let (start, width) = self.place(family);
        self.order.len() < SERIES_MAX && start + width + reserved <= CELLS_MAX
    }

    fn has_bytes(&self, labels: &[&str]) -> bool {
        let new = labels.iter().filter(|value| !self.strings.contains(**value));
        let bytes = new.fold(self.strings_bytes, |bytes, value| bytes.saturating_add(value.len()));
        bytes <= self.bounds.strings_bytes
    }

    /// Where the cells of one more series begin, and how many they are.
    fn place(&self, family: Family) -> (usize, usize) {
        let width = match family.declaration().kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram => HISTOGRAM_CELLS,
        };
        // A series does not cross from one chunk into the next.
        let crosses = self.next % CHUNK_CELLS + width > CHUNK_CELLS;
        (if crosses { self.next.next_multiple_of(CHUNK_CELLS) } else { self.next }, width)
    }

    fn make(&mut self, family: Family, labels: &[&str]) -> Cell {
        let (start, width) = self.place(family);
        self.next = start + width;
        let cell = Cell(u32::try_from(start).unwrap_or(u32::MAX));
        let key = (family, labels.iter().map(|value| self.intern(value)).collect::<Box<[_]>>());
        self.order.push((key.clone(), cell));
        self.cells.insert(key, cell);
        cell
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.strings_bytes += text.len();
        self.strings.insert(text.clone());
        text
    }
}

impl Shard {
    /// Counts one more.
    pub(crate) fn increment(&self, counter: Cell) {
        self.add(counter.0, 1);
    }

    /// Counts one less; only for gauges. The sum over the shards is right though one shard's cell may wrap.
    pub(crate) fn decrement(&self, gauge: Cell) {
        self.add(gauge.0, u64::MAX);
    }

    /// Counts this many more.
    pub(crate) fn increase(&self, counter: Cell, by: u64) {
        self.add(counter.0, by);
    }

    /// Sets a gauge that only this shard's writer has.
    pub(crate) fn set_gauge(&self, gauge: Cell, value: u64) {
        self.set(gauge.0, value);
    }

    /// Enters a duration into a histogram.
    pub(crate) fn observe(&self, histogram: Cell, duration: Duration) {
        let milliseconds = duration.as_secs_f64() * 1000.0;
        let bucket = BUCKETS_MS.iter().position(|bound| milliseconds <= *bound).unwrap_or(BUCKETS_MS.len());
        // Bucket indices are below HISTOGRAM_CELLS, so the casts lose nothing.
        self.add(histogram.0 + u32::try_from(bucket).unwrap_or(0), 1);
        let sum = histogram.0 + u32::try_from(HISTOGRAM_CELLS - 1).unwrap_or(0);
        self.add(sum, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

fn sum(shards: &[Arc<Shard>], index: u32) -> u64 {
    shards.iter().fold(0, |total, shard| total.wrapping_add(shard.read(index)))
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

fn metric(family: Family, labels: &[Arc<str>], cell: Cell, shards: &[Arc<Shard>]) -> Metric {
    let declaration = family.declaration();
    let mut metric = Metric::default();
    let pairs = declaration.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.to_string());
        pair
    });
    metric.set_label(pairs.collect());
    match declaration.kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(as_f64(sum(shards, cell.0)));
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(signed(sum(shards, cell.0)));
            metric.set_gauge(gauge);
        }
        Kind::Histogram => metric.set_histogram(histogram(cell, shards)),
    }
    metric
}

/// Whether anything was counted, or the gauge stands at something.
fn is_used(metric: &Metric) -> bool {
    metric.get_counter().get_value() != 0.0
        || metric.get_gauge().get_value() != 0.0
        || metric.get_histogram().get_sample_count() != 0
}

fn histogram(cell: Cell, shards: &[Arc<Shard>]) -> Histogram {
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let mut index = cell.0;
    let mut buckets = Vec::with_capacity(BUCKETS_MS.len());
    for bound in BUCKETS_MS {
        cumulative += sum(shards, index);
        index += 1;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(cumulative);
        bucket.set_upper_bound(bound);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(cumulative + sum(shards, index));
    histogram.set_sample_sum(as_f64(sum(shards, index + 1)) / 1000.0);
    histogram
}

fn metric_family(declaration: &Declaration, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(declaration.name.to_owned());
    family.set_help(declaration.help.to_owned());
    family.set_field_type(match declaration.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Arc<Registry> {
        Registry::new(&Limits::default())
    }

    fn limited(change: impl FnOnce(&mut Limits)) -> Arc<Registry> {
        let mut limits = Limits::default();
        change(&mut limits);
        Registry::new(&limits)
    }

    #[test]
    fn the_sum_over_shards_is_shown() {
        let registry = registry();
        let (one, two) = (registry.shard(), registry.shard());
        let connections = registry.series(Family::DownstreamConnections, &["outbound_0.0.0.0_80"]);
        one.increment(connections);
        two.increase(connections, 2);
        let active = registry.series(Family::DownstreamConnectionsActive, &["outbound_0.0.0.0_80"]);
        one.increment(active);
        one.increment(active);
        two.decrement(active);
        let text = registry.encode(None, false).unwrap();
        assert!(
            text.contains(
                "envoy_http_downstream_cx_total{http_conn_manager_prefix=\"outbound_0.0.0.0_80\"} 3\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "envoy_http_downstream_cx_active{http_conn_manager_prefix=\"outbound_0.0.0.0_80\"} 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn durations_fall_into_buckets() {
        let registry = registry();
        let shard = registry.shard();
        let series = registry.series(Family::RequestDuration, &["x"; 25]);
        shard.observe(series, Duration::from_micros(700));
        shard.observe(series, Duration::from_secs(7200));
        let text = registry.encode(None, false).unwrap();
        for (bound, count) in [("0.5", 0), ("1", 1), ("3600000", 1), ("+Inf", 2)] {
            assert!(text.contains(&format!("le=\"{bound}\"}} {count}\n")), "{bound} {count}\n{text}");
        }
        assert!(text.contains("} 7200000.7\n"), "{text}");
    }

    #[test]
    fn the_same_labels_are_the_same_series() {
        let registry = registry();
        let a = registry.series(Family::UpstreamConnections, &["a"]);
        assert_eq!(registry.series(Family::UpstreamConnections, &["a"]), a);
        assert_ne!(registry.series(Family::UpstreamConnections, &["b"]), a);
        assert_ne!(registry.series(Family::UpstreamConnectionsActive, &["a"]), a);
    }

    #[test]
    fn too_many_series_become_one() {
        let registry = registry();
        let shard = registry.shard();
        for number in 0..SERIES_MAX + 100 {
            shard.increment(registry.series(Family::UpstreamConnections, &[&number.to_string()]));
        }
        let totals = registry.totals(Family::UpstreamConnections);
        let overflow = totals.iter().find(|(labels, _)| &*labels[0] == OVERFLOW).unwrap();
        assert_eq!(overflow.1, 100);
        assert_eq!(totals.iter().map(|(_, total)| total).sum::<u64>(), SERIES_MAX as u64 + 100);
        assert!(registry.encode(None, false).unwrap().contains("weft_metrics_series_overflow_total 100\n"));
    }

    #[test]
    fn hosts_that_clients_tell_have_so_many_outcomes() {
        let registry = limited(|limits| limits.metric_host_outcomes_max = 2);
        let of = |host: &str| {
            registry.series_of_host([Family::UpstreamConnections, Family::UpstreamConnectionsActive], &[host])
        };
        let [a, b] = ["a", "b"].map(of);
        assert!(a.is_some() && b.is_some());
        assert_eq!((of("c"), of("d")), (None, None));
        assert_eq!((of("a"), of("b")), (a, b));
        let text = registry.encode(None, false).unwrap();
        assert!(text.contains("weft_limit_reached_total{limit=\"metric_host_outcomes_max\"} 2\n"), "{text}");
        // What the configuration names has its own series all the same.
        registry.series(Family::UpstreamConnections, &["c"]);
        assert_eq!(registry.totals(Family::UpstreamConnections).len(), 3);
    }

    #[test]
    fn label_values_take_so_many_bytes() {
        let registry = limited(|limits| limits.metric_label_bytes_max = 4_096);
        let shard = registry.shard();
        let of = |value: &str| registry.series(Family::UpstreamConnections, &[value]);
        shard.increment(of("first"));
        for number in 0..3 {
            shard.increment(of(&format!("{number}{}", "x".repeat(4_096))));
        }
        shard.increment(of("first"));
        shard.increment(of("last"));
        let totals = registry.totals(Family::UpstreamConnections);
        let totals: Vec<(&str, u64)> = totals.iter().map(|(labels, total)| (&*labels[0], *total)).collect();
        assert_eq!(totals, [("first", 2), (OVERFLOW, 3), ("last", 1)]);
        let text = registry.encode(None, false).unwrap();
        assert!(text.contains("weft_limit_reached_total{limit=\"metric_label_bytes_max\"} 3\n"), "{text}");
    }
}
