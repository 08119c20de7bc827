//! The live table: what the load sees, every second.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Figures, Load};
use super::progress::{COLUMNS_MAX, wrapped};

const INTERVAL: Duration = Duration::from_secs(1);

/// Columns before the lines of a refusal but the first.
const REFUSED_INDENT: usize = 9;

/// Errors of the configuration that are shown under the table.
const ERRORS_SHOWN_MAX: usize = 3;

/// Shows the figures of each second: over the last ones on a terminal, line after line elsewhere.
pub(super) async fn show(load: &Load, mut admin: Client) {
    let terminal = std::io::stdout().is_terminal();
    let mut totals = BTreeMap::new();
    let mut drawn = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let figures = load.take();
        enter(&mut totals, &figures);
        let errors = errors(&mut admin).await;
        let text = if terminal {
            let lines = lines(&figures, &totals, &errors);
            let text = over(drawn, &lines);
            drawn = lines.len();
            text
        } else {
            line(&figures, &errors)
        };
        let mut out = std::io::stdout().lock();
        // A console that went away is no reason to stop serving.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

/// Adds the figures of one second to those of all.
fn enter(totals: &mut BTreeMap<String, u64>, figures: &Figures) {
    for (version, latencies) in &figures.answers {
        *totals.entry(version.clone()).or_default() += latencies.len() as u64;
    }
    *totals.entry(String::new()).or_default() += figures.failed;
}

/// The lines in place of so many drawn before.
fn over(drawn: usize, lines: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "\x1b[{drawn}A");
    }
    text.push_str("\x1b[J");
    for line in lines {
        let line: String = line.chars().take(COLUMNS_MAX).collect();
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The table of one second.
fn lines(figures: &Figures, totals: &BTreeMap<String, u64>, errors: &[(String, String)]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<10} {:>7} {:>7} {:>10} {:>11} {:>11}",
        "version", "req/s", "share", "in all", "p50", "p99"
    )];
    let all = figures.total().max(1);
    for (version, total) in totals.iter().filter(|(version, _)| !version.is_empty()) {
        let latencies = figures.answers.get(version).map(Vec::as_slice).unwrap_or_default();
        let count = latencies.len() as u64;
        let (p50, p99) = percentiles(latencies);
        lines.push(format!(
            "{version:<10} {count:>7} {:>6}% {total:>10} {:>11} {:>11}",
            count * 100 / all,
            milliseconds(p50),
            milliseconds(p99)
        ));
    }
    let failed = totals.get("").copied().unwrap_or_default();
    let first = figures.first_failure.as_deref().map(|first| format!("   {first}")).unwrap_or_default();
    lines.push(format!(
        "{:<10} {:>7} {:>6}% {failed:>10}{first}",
        "errors",
        figures.failed,
        figures.failed * 100 / all
    ));
    for (what, remedy) in errors.iter().take(ERRORS_SHOWN_MAX) {
        lines.push(String::new());
        lines.extend(wrapped(&format!("refused: {what}"), REFUSED_INDENT));
        lines.extend(wrapped(&format!("         {remedy}; the last good one serves"), REFUSED_INDENT));
    }
    lines
}

/// One second in one line, for those who read it later.
fn line(figures: &Figures, errors: &[(String, String)]) -> String {
    let all = figures.total().max(1);
    let versions: String = figures
        .answers
        .iter()
        .map(|(version, latencies)| {
            let count = latencies.len() as u64;
            format!("   {version} {count} ({}%)", count * 100 / all)
        })
        .collect();
    let latencies: Vec<Duration> = figures.answers.values().flatten().copied().collect();
    let (p50, p99) = percentiles(&latencies);
    let mut text = format!(
        "{} req/s{versions}   {}   p50 {}   p99 {}\n",
        figures.total(),
        figures.failures(),
        milliseconds(p50),
        milliseconds(p99)
    );
    for (what, remedy) in errors {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  refused: {what}; {remedy}");
    }
    text
}

/// What is refused of the configuration: the place and what is wrong, and the remedy.
async fn errors(admin: &mut Client) -> Vec<(String, String)> {
    let Ok(page) = admin.get("/findings?format=json", &[]).await else { return Vec::new() };
    let findings: Vec<Value> = serde_json::from_slice(&page.body).unwrap_or_default();
    let errors = findings.iter().filter(|finding| finding.get("severity").is_some_and(|it| it == "error"));
    let errors = errors.map(|finding| {
        let text = |pointer: &str| finding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let file = text("/place/file").rsplit('/').next().unwrap_or_default();
        let line = finding.pointer("/place/line").and_then(Value::as_u64).unwrap_or_default();
        let path = if text("/path").is_empty() { String::new() } else { format!("{}: ", text("/path")) };
        (format!("{file}:{line}: {path}{}", text("/what")), text("/remedy").to_owned())
    });
    errors.collect()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
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

    fn figures() -> Figures {
        let latencies: Vec<Duration> = (1..=90).map(Duration::from_millis).collect();
        Figures {
            answers: [("v1".to_owned(), latencies), ("v2".to_owned(), vec![Duration::from_micros(500); 9])]
                .into(),
            failed: 1,
            first_failure: Some("status 503".to_owned()),
        }
    }

    #[test]
    fn a_second_in_one_line() {
        assert_eq!(
            line(&figures(), &[]),
            "100 req/s   v1 90 (90%)   v2 9 (9%)   1 failed (status 503)   p50 41.00 ms   p99 89.00 ms\n"
        );
    }

    #[test]
    fn a_second_as_a_table_that_fits_a_terminal() {
        let mut totals = BTreeMap::new();
        for _ in 0..3 {
            enter(&mut totals, &figures());
        }
        let error = (
            "catalog.yaml:7: spec.htpp: there is no field `htpp` here".to_owned(),
            "did you mean `http`?".to_owned(),
        );
        let lines = lines(&figures(), &totals, &[error]);
        let expected = [
            "version      req/s   share     in all         p50         p99",
            "v1              90     90%        270    45.00 ms    89.00 ms",
            "v2               9      9%         27     0.50 ms     0.50 ms",
            "errors           1      1%          3   status 503",
            "",
            "refused: catalog.yaml:7: spec.htpp: there is no field `htpp` here",
            "         did you mean `http`?; the last good one serves",
        ];
        assert_eq!(lines, expected);
        // A version that gets nothing any more stays in the table.
        let none = super::lines(&Figures::default(), &totals, &[]);
        assert_eq!(none[1], "v1               0      0%        270     0.00 ms     0.00 ms");
        assert!(over(4, &["x".repeat(200)]).starts_with("\x1b[4A\x1b[Jx"));
        assert_eq!(over(0, &["x".repeat(200)]).lines().map(str::len).max(), Some(COLUMNS_MAX + 3));
    }

    #[test]
    fn nothing_yet() {
        assert_eq!(percentiles(&[]), (Duration::ZERO, Duration::ZERO));
    }
}
