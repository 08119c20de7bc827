//! Which cells belong to which series, and how many series there may be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use config::Limits;
use parking_lot::Mutex;

use super::metrics::{BUCKETS_MS, Family, Kind};
use super::shard::{CHUNK_CELLS, Shard};

/// Value of every label of the series that stands for those there is no room for.
const OVERFLOW: &str = "overflow";

/// Cells of a histogram: one a bucket, one for what is above them all, one for the sum in microseconds.
pub(super) const HISTOGRAM_CELLS: usize = BUCKETS_MS.len() + 2;

/// Bytes that a series takes besides its cells and labels, in tables that are half full.
const SERIES_BYTES: usize = 112;

/// The same of a label's value, of which a series has but a pointer.
const STRING_BYTES: usize = 64;

/// A series, to be written in a shard. Finding it costs a lock; writing it does not, so it is found once and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell(u32);

/// All series and shards.
pub(crate) struct Registry {
    /// Chunks of each shard.
    chunks: usize,
    shards: Mutex<Vec<Arc<Shard>>>,
    series: Mutex<Series>,
}

/// The values of a series' labels.
pub(super) type Labels = Arc<[Arc<str>]>;

struct Series {
    bounds: Bounds,
    cells: HashMap<(Family, Labels), Cell>,
    /// Those of each family in the order they were made, for the same output at every scrape.
    order: HashMap<Family, Vec<(Labels, Cell)>>,
    /// Label values, each kept once.
    strings: HashSet<Arc<str>>,
    /// Bytes of them.
    strings_bytes: usize,
    /// Bytes of all but the cells, as far as they are counted.
    bytes: usize,
    /// Shards that may have each cell.
    workers: usize,
    /// Label values of the last one that was made: several families have them in common.
    last: Labels,
    /// Outcomes of hosts that only clients told.
    host_outcomes: usize,
    next: usize,
    /// What is counted of the limits below. It is written while the series are locked, and so by one at a time.
    own: Arc<Shard>,
}

/// How much there may be. Series are never dropped, so what clients and upstreams make of them must have an end.
struct Bounds {
    /// `metric_series_max`. One more is counted under labels that all say `overflow`.
    series: usize,
    /// `metric_label_bytes_max`.
    strings_bytes: usize,
    /// `metric_bytes_total_max`.
    bytes: usize,
    /// `metric_host_outcomes_max`.
    host_outcomes: usize,
}

impl Registry {
    /// Without series.
    pub(crate) fn new(limits: &Limits) -> Arc<Registry> {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        // Room for the overflow series of every family is kept back, and for the limits that are met here.
        let series_max = size(limits.metric_series_max);
        let chunks = (series_max + 2 * Family::ALL.len()) / (CHUNK_CELLS / HISTOGRAM_CELLS) + 1;
        let own = Arc::new(Shard::new(chunks));
        let series = Series {
            bounds: Bounds {
                series: series_max,
                strings_bytes: size(limits.metric_label_bytes_max),
                bytes: match limits.metric_bytes_total_max {
                    0 => usize::MAX,
                    bytes => size(bytes),
                },
                host_outcomes: size(limits.metric_host_outcomes_max),
            },
            cells: HashMap::new(),
            order: HashMap::new(),
            strings: HashSet::new(),
            strings_bytes: 0,
            bytes: 0,
            workers: 1,
            last: Labels::default(),
            host_outcomes: 0,
            next: 0,
            own: own.clone(),
        };
        Arc::new(Registry { chunks, shards: Mutex::new(vec![own]), series: Mutex::new(series) })
    }

    /// A shard for one more writer.
    pub(crate) fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(self.chunks));
        self.shards.lock().push(shard.clone());
        shard
    }

    /// So many workers count from now on.
    pub(crate) fn serves(&self, workers: usize) {
        self.series.lock().workers = workers;
    }

    /// Series, and bytes that are counted of them.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        let series = self.series.lock();
        (series.cells.len(), series.bytes + series.cell_bytes(0))
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

    /// All series as Prometheus is told of them; if `used_only` none that are 0.
    #[cfg(test)]
    pub(crate) fn text(self: &Arc<Self>, used_only: bool) -> String {
        super::Exposition::new(self, None, used_only).collect()
    }

    /// So many series of a family at most, in the order they were made, after those that were made before number `from`.
    pub(super) fn some(&self, family: Family, from: usize, most: usize) -> Vec<(Labels, Cell)> {
        let series = self.series.lock();
        let of_family = series.order.get(&family).into_iter().flatten();
        of_family.skip(from).take(most).cloned().collect()
    }

    /// All shards there are.
    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().clone()
    }

    /// Label values and totals of all series of a family that is not a histogram.
    #[cfg(test)]
    fn totals(&self, family: Family) -> Vec<(Labels, u64)> {
        let shards = self.shards();
        let sum = |cell: Cell| shards.iter().map(|shard| shard.read(cell.0)).fold(0, u64::wrapping_add);
        self.some(family, 0, usize::MAX).into_iter().map(|(labels, cell)| (labels, sum(cell))).collect()
    }
}

impl Series {
    fn find(&mut self, family: Family, labels: &[&str]) -> Cell {
        if let Some(cell) = self.known(family, labels) {
            return cell;
        }
        // Which limits were met must be seen whatever strangers fill the rest with, and there are but so many names.
        let can_overflow = family != Family::LimitReached && labels.iter().any(|value| *value != OVERFLOW);
        let limit = if self.cells.len() >= self.bounds.series {
            Some("metric_series_max")
        } else {
            self.lacks(family, labels)
        };
        match limit.filter(|_| can_overflow) {
            None => self.make(family, labels),
            Some(limit) => {
                self.count(Family::SeriesOverflow, &[]);
                self.reached(limit);
                self.find(family, &vec![OVERFLOW; labels.len()])
            }
        }
    }

    fn known(&self, family: Family, labels: &[&str]) -> Option<Cell> {
        let labels = labels.iter().map(|value| self.strings.get(*value).cloned()).collect::<Option<_>>()?;
        self.cells.get(&(family, labels)).copied()
    }

    /// Counts that one of the limits of series was met.
    fn reached(&mut self, limit: &str) {
        self.count(Family::LimitReached, &[limit]);
    }

    /// Counts one more of what is counted here, for which there is room in any case.
    fn count(&mut self, family: Family, labels: &[&str]) {
        let known = self.known(family, labels);
        let cell = known.unwrap_or_else(|| self.make(family, labels));
        self.own.increment(cell);
    }

    /// Of which bytes there are too few for one more series.
    fn lacks(&self, family: Family, labels: &[&str]) -> Option<&'static str> {
        let new = labels.iter().filter(|value| !self.strings.contains(**value));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), value| (count + 1, bytes + value.len()));
        let all = self.bytes + SERIES_BYTES + size_of_val(labels) + count * STRING_BYTES + bytes;
        if self.strings_bytes.saturating_add(bytes) > self.bounds.strings_bytes {
            Some("metric_label_bytes_max")
        } else if all.saturating_add(self.cell_bytes(width(family))) > self.bounds.bytes {
            Some("metric_bytes_total_max")
        } else {
            None
        }
    }

    /// Bytes of the cells of all series and so many more, which each worker has.
    fn cell_bytes(&self, more: usize) -> usize {
        (self.next + more).saturating_mul(size_of::<u64>()).saturating_mul(self.workers)
    }

    fn make(&mut self, family: Family, labels: &[&str]) -> Cell {
        let width = width(family);
        // A series does not cross from one chunk into the next.
        if self.next % CHUNK_CELLS + width > CHUNK_CELLS {
            self.next = self.next.next_multiple_of(CHUNK_CELLS);
        }
        let cell = Cell(u32::try_from(self.next).unwrap_or(u32::MAX));
        self.next += width;
        self.bytes += SERIES_BYTES;
        if !self.last.iter().map(|value| &**value).eq(labels.iter().copied()) {
            self.bytes += size_of_val(labels);
            self.last = labels.iter().map(|value| self.intern(value)).collect();
        }
        let labels = self.last.clone();
        self.order.entry(family).or_default().push((labels.clone(), cell));
        self.cells.insert((family, labels), cell);
        cell
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        self.strings_bytes += text.len();
        self.bytes += text.len() + STRING_BYTES;
        self.strings.insert(text.clone());
        text
    }
}

/// Cells of a series.
fn width(family: Family) -> usize {
    match family.declaration().kind {
        Kind::Counter | Kind::Gauge => 1,
        Kind::Histogram => HISTOGRAM_CELLS,
    }
}

impl Cell {
    /// Index of its first cell in each shard.
    pub(super) fn index(self) -> u32 {
        self.0
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
        let text = registry.text(false);
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
        let text = registry.text(false);
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
        const MAX: usize = 100;
        let registry = limited(|limits| limits.metric_series_max = MAX as u64);
        let shard = registry.shard();
        // The widest, so that there are cells for as many.
        let of = |number: usize| registry.series(Family::RequestDuration, &[number.to_string().as_str(); 25]);
        for number in 0..MAX + 50 {
            shard.observe(of(number), Duration::from_micros(1));
        }
        shard.observe(of(0), Duration::from_micros(1));
        for family in Family::ALL {
            registry.series(family, &vec!["late"; family.declaration().labels.len()]);
        }
        shard.increment(registry.series(Family::LimitReached, &["head_bytes_max"]));
        let text = registry.text(true);
        let of_family = text.lines().filter_map(|line| {
            let (labels, count) =
                line.strip_prefix("istio_request_duration_milliseconds_count")?.split_once(' ')?;
            Some((labels, count.parse::<u64>().unwrap()))
        });
        let totals: Vec<(&str, u64)> = of_family.collect();
        assert_eq!((totals.len(), totals[0].1), (MAX + 1, 2));
        let (labels, count) = totals[MAX];
        assert!(labels.contains("reporter=\"overflow\"") && count == 50, "{labels} {count}");
        for told in [
            "weft_metrics_series_overflow_total",
            "weft_limit_reached_total{limit=\"metric_series_max\"}",
            "weft_limit_reached_total{limit=\"head_bytes_max\"}",
        ] {
            assert!(text.lines().any(|line| line.starts_with(told)), "{told} {text}");
        }
        let cells = registry.series.lock().next;
        assert!(cells <= registry.chunks * CHUNK_CELLS, "{cells} cells");
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
        let text = registry.text(false);
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
        let text = registry.text(false);
        assert!(text.contains("weft_limit_reached_total{limit=\"metric_label_bytes_max\"} 3\n"), "{text}");
    }
}
