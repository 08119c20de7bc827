//! The live table: what the load sees, every second.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::client::{Figures, Load};

const INTERVAL: Duration = Duration::from_secs(1);

/// Prints the figures of each second: over the last ones on a terminal, line after line elsewhere.
pub(super) async fn show(load: &Load) {
    let terminal = std::io::stdout().is_terminal();
    let mut total = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let figures = load.take();
        total += figures.total();
        let line = line(&figures, total);
        let mut out = std::io::stdout().lock();
        // A console that went away is no reason to stop serving.
        let _ = if terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }
}

/// One second in one line.
pub(super) fn line(figures: &Figures, total: u64) -> String {
    let all = figures.total().max(1);
    let share = |count: u64| format!("{count:>4} ({:>3}%)", count * 100 / all);
    let versions: Vec<String> =
        figures.answers.iter().map(|(version, count)| format!("{version} {}", share(*count))).collect();
    let (p50, p99) = percentiles(&figures.latencies);
    format!(
        "{:>4} req/s   {}   errors {}   p50 {:.2} ms  p99 {:.2} ms   {total} in all",
        figures.total(),
        versions.join("   "),
        figures.failed,
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
    )
}

/// The median and the 99th percentile.
pub(super) fn percentiles(latencies: &[Duration]) -> (Duration, Duration) {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    (at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_in_one_line() {
        let figures = Figures {
            answers: [("v1".to_owned(), 90), ("v2".to_owned(), 9)].into(),
            failed: 1,
            first_failure: None,
            latencies: (1..=100).map(Duration::from_millis).collect(),
        };
        assert_eq!(
            line(&figures, 500),
            " 100 req/s   v1   90 ( 90%)   v2    9 (  9%)   errors 1   p50 50.00 ms  p99 99.00 ms   500 in all"
        );
    }

    #[test]
    fn nothing_yet() {
        assert_eq!(percentiles(&[]), (Duration::ZERO, Duration::ZERO));
    }
}
