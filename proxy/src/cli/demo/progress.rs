//! The steps of the tour as they are shown: on a terminal while they run, elsewhere once they are over.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::time;

/// Columns of a line at most: what wraps on a terminal of 80 cannot be drawn over.
pub(super) const COLUMNS_MAX: usize = 79;

/// Columns before the figures of a step.
const FIGURES_INDENT: usize = 7;

/// One step.
pub(super) struct Step {
    name: &'static str,
    what: &'static str,
    terminal: bool,
    begun: Instant,
}

/// What came of a step.
pub(super) struct Outcome {
    held: bool,
    figures: String,
}

impl Outcome {
    /// Whether the step held, and its figures, one line or several.
    pub(super) fn new(held: bool, figures: impl fmt::Display) -> Outcome {
        Outcome { held, figures: figures.to_string() }
    }
}

impl Step {
    /// Begins one.
    pub(super) fn begin(name: &'static str, what: &'static str) -> Step {
        let step = Step { name, what, terminal: std::io::stdout().is_terminal(), begun: time::now() };
        step.progress("");
        step
    }

    /// Says how far it is.
    pub(super) fn progress(&self, how_far: impl fmt::Display) {
        if self.terminal {
            let line = format!("..   {:<16} {}  {how_far}", self.name, self.what);
            print(&format!("\r\x1b[K{}", line.chars().take(COLUMNS_MAX).collect::<String>()));
        }
    }

    /// Ends it; whether it held.
    pub(super) fn end(self, outcome: Result<Outcome, String>) -> bool {
        let outcome = outcome.unwrap_or_else(|error| Outcome::new(false, error));
        if self.terminal {
            print("\r\x1b[K");
        }
        print(&self.text(&outcome, time::now().saturating_duration_since(self.begun)));
        outcome.held
    }

    fn text(&self, outcome: &Outcome, took: Duration) -> String {
        let mark = if outcome.held { "ok  " } else { "FAIL" };
        let mut text = format!("{mark} {:<16} {} ({:.1} s)\n", self.name, self.what, took.as_secs_f64());
        for line in outcome.figures.lines() {
            for line in wrapped(&format!("{:FIGURES_INDENT$}{line}", ""), FIGURES_INDENT) {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

/// A text in lines that fit, all but the first indented.
pub(super) fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let width = word.trim_end().chars().count();
        let fits = lines.last().is_some_and(|line| line.chars().count() + width <= COLUMNS_MAX);
        if !fits {
            lines.push(" ".repeat(indent));
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines
}

/// Writes to the console; one that went away is no reason to stop.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_over() {
        let step = Step { name: "split", what: "90 % to v1", terminal: false, begun: time::now() };
        let text = |held| step.text(&Outcome::new(held, "one\ntwo"), Duration::from_millis(1234));
        assert_eq!(text(true), "ok   split            90 % to v1 (1.2 s)\n       one\n       two\n");
        assert!(text(false).starts_with("FAIL split"));
        let long = wrapped(&"some words ".repeat(20), 3);
        assert!(long.iter().all(|line| line.trim_end().len() <= COLUMNS_MAX), "{long:?}");
        assert!(long.iter().skip(1).all(|line| line.starts_with("   ")), "{long:?}");
    }
}
