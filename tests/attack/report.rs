//! What came of an attack.

use std::fmt;

use crate::bystander::Seen;
use crate::stage::{MARGIN_BYTES, State};

/// The slowest of a hundred answers may take so many times as long while there is an attack, and by what a client without a
/// proxy loses to the attackers, who share its core,
const P99_FACTOR_MAX: u64 = 2;

/// but so many microseconds do not count: below that it is the machine that is measured.
const P99_MICROS_MIN: u64 = 1_000;

/// In the short form many threads share few cores, so that only what stands still is seen: so many microseconds.
const SHORT_P99_MICROS_MAX: u64 = 3_000_000;

/// One attack.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// The client before it.
    pub(crate) quiet: Seen,
    /// The client during it.
    pub(crate) loud: Seen,
    /// A client without a proxy, before it and during it: what the machine does to both.
    pub(crate) quiet_direct: Seen,
    pub(crate) loud_direct: Seen,
    /// The proxy before it.
    pub(crate) before: State,
    /// The most memory the proxy had during it.
    pub(crate) peak: u64,
    /// The proxy after it.
    pub(crate) after: State,
    /// How much of a core attackers used, in percent.
    pub(crate) attackers: f64,
    /// How much of a core the proxy used, in percent.
    pub(crate) weft: f64,
}

impl Row {
    /// What is not as it should be.
    ///
    /// `first` is the memory there was before the first attack: what is kept after each of them must not add up.
    pub(crate) fn wrong(&self, measured: bool, first: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |good: bool, what: String| {
            if !good {
                wrong.push(format!("{}: {what}", self.name));
            }
        };
        for seen in [&self.quiet, &self.loud] {
            let first = seen.failures.first().map_or("", String::as_str);
            check(
                seen.failures.is_empty(),
                format!("{} requests failed, one with {first}", seen.failures.len()),
            );
            check(!seen.micros.is_empty(), "no request was answered".to_owned());
        }
        let after = self.after;
        check(after.clients == 0.0, format!("{} client connections are left", after.clients));
        check(after.requests == 0, format!("{} requests are left in flight", after.requests));
        let upstreams = after.upstreams == 0.0 || !measured;
        check(upstreams, format!("{} connections to upstreams are left", after.upstreams));
        let (quiet, loud) = (self.quiet.quantile(990), self.loud.quantile(990));
        let machine = self.loud_direct.quantile(990).saturating_sub(self.quiet_direct.quantile(990));
        let bound = (quiet * P99_FACTOR_MAX).max(P99_MICROS_MIN) + machine;
        let bound = if measured { bound } else { SHORT_P99_MICROS_MAX };
        check(loud <= bound, format!("p99 was {quiet} us and is {loud} us, {machine} us by the machine"));
        let memory = after.memory;
        check(memory <= first + MARGIN_BYTES, format!("memory was {first} at first and is {memory}"));
        wrong
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{}", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, quiet, loud, quiet_direct, loud_direct, before, peak, after, attackers, weft } = self;
        write!(
            f,
            "{name:<44} {:>6} {:>4} | {:>5} {:>5} | {:>5} {:>5} {:>6} | {:>5} {:>5} | {:>6} {:>6} {:>6} | {:>7} | {:>6.0} {:>4.0}",
            loud.micros.len(),
            loud.failures.len() + quiet.failures.len(),
            quiet.quantile(500),
            loud.quantile(500),
            quiet.quantile(990),
            loud.quantile(990),
            loud.quantile(1000),
            quiet_direct.quantile(990),
            loud_direct.quantile(990),
            mebibytes(before.memory),
            mebibytes(*peak),
            mebibytes(after.memory),
            mebibytes(after.sent - before.sent),
            attackers,
            weft,
        )
    }
}

/// All rows under a heading.
pub(crate) fn table(rows: &[Row]) -> String {
    let heading = format!(
        "{:<44} {:>6} {:>4} | {:>11} | {:>18} | {:>11} | {:>20} | {:>7} | {:>11}\n\
         {:<44} {:>6} {:>4} | {:>5} {:>5} | {:>5} {:>5} {:>6} | {:>5} {:>5} | {:>6} {:>6} {:>6} | {:>7} | {:>6} {:>4}",
        "the client beside",
        "asked",
        "bad",
        "p50 us",
        "p99 us, max",
        "p99 direct",
        "memory MiB",
        "sent",
        "core %",
        "",
        "",
        "",
        "quiet",
        "loud",
        "quiet",
        "loud",
        "loud",
        "quiet",
        "loud",
        "before",
        "peak",
        "after",
        "MiB",
        "attack",
        "weft",
    );
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    format!("{heading}\n{}", rows.join("\n"))
}
