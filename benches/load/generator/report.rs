//! What a run counted, and how it is told.

use std::io;

use serde_json::{Map, Value, json};

use crate::clock::SECOND_NS;
use crate::connection::Loss;
use crate::cpu::{CpuTimes, Watched};
use crate::histogram::Histogram;
use crate::response::{Response, ServedBy};

/// The status every answer must have.
const STATUS_EXPECTED: u16 = 200;

/// One end of the window.
#[derive(Debug, Clone, Default)]
struct Mark {
    at_ns: u64,
    answers: u64,
    cpu: Vec<CpuTimes>,
}

/// Everything that went wrong. Each is a failed measurement, not a data point.
#[derive(Debug, Clone, Copy, Default)]
struct Errors {
    status: u64,
    length: u64,
    unanswered: u64,
    malformed: u64,
}

/// The counts of a run in progress.
pub(crate) struct Tally {
    opened: Mark,
    closed: Mark,
    answers: u64,
    latency_ns: Histogram,
    send_lag_ns: Histogram,
    v1: u64,
    v2: u64,
    other: u64,
    reconnects: u64,
    errors: Errors,
    malformed: Option<&'static str>,
}

/// The result of a run, as JSON.
pub(crate) struct Report(pub(crate) Value);

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Tally {
        Tally {
            opened: Mark::default(),
            closed: Mark::default(),
            answers: 0,
            latency_ns: Histogram::new(),
            send_lag_ns: Histogram::new(),
            v1: 0,
            v2: 0,
            other: 0,
            reconnects: 0,
            errors: Errors::default(),
            malformed: None,
        }
    }

    /// The window opens.
    pub(crate) fn open(&mut self, now_ns: u64, watched: &[Watched]) -> io::Result<()> {
        self.opened = self.mark(now_ns, watched)?;
        Ok(())
    }

    /// The window closes.
    pub(crate) fn close(&mut self, now_ns: u64, watched: &[Watched]) -> io::Result<()> {
        self.closed = self.mark(now_ns, watched)?;
        Ok(())
    }

    fn mark(&self, at_ns: u64, watched: &[Watched]) -> io::Result<Mark> {
        let cpu = watched.iter().map(Watched::read).collect::<io::Result<_>>()?;
        Ok(Mark { at_ns, answers: self.answers, cpu })
    }

    /// Answers since the window opened.
    pub(crate) fn answered_in_window(&self) -> u64 {
        self.answers - self.opened.answers
    }

    /// An answer came; `latency_ns` is given if it belongs to the window.
    pub(crate) fn answered(&mut self, response: &Response, body_bytes: usize, latency_ns: Option<u64>) {
        self.answers += 1;
        self.errors.status += u64::from(response.status != STATUS_EXPECTED);
        self.errors.length += u64::from(response.body_bytes != body_bytes);
        if let Some(latency_ns) = latency_ns {
            self.latency_ns.record(latency_ns);
            match response.served_by {
                ServedBy::V1 => self.v1 += 1,
                ServedBy::V2 => self.v2 += 1,
                ServedBy::Other | ServedBy::Nobody => self.other += 1,
            }
        }
    }

    /// The load itself sent a request this long after it was due though its connection was free.
    pub(crate) fn sent_late(&mut self, lag_ns: u64) {
        self.send_lag_ns.record(lag_ns);
    }

    /// A connection ended.
    pub(crate) fn lost(&mut self, loss: Loss) {
        match loss {
            Loss::Idle => {}
            Loss::Unanswered(requests) => self.errors.unanswered += requests,
            Loss::Malformed(reason) => {
                self.errors.malformed += 1;
                self.malformed = Some(reason);
            }
        }
    }

    /// A connection was opened again.
    pub(crate) fn reconnected(&mut self) {
        self.reconnects += 1;
    }

    /// Everything that went wrong so far.
    pub(crate) fn errors(&self) -> u64 {
        let Errors { status, length, unanswered, malformed } = self.errors;
        status + length + unanswered + malformed
    }

    /// The same in words.
    pub(crate) fn errors_text(&self) -> String {
        let Errors { status, length, unanswered, malformed } = self.errors;
        let reason = self.malformed.map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!(
            "{status} wrong statuses, {length} wrong lengths, {unanswered} requests without an answer, \
             {malformed} unreadable answers{reason}"
        )
    }

    /// The end: `unanswered` requests are still owed an answer.
    pub(crate) fn report(mut self, connections: usize, unanswered: u64, watched: &[Watched]) -> Report {
        self.errors.unanswered += unanswered;
        let window_ns = self.closed.at_ns.saturating_sub(self.opened.at_ns).max(1);
        let answers = self.closed.answers - self.opened.answers;
        let marks = self.closed.cpu.iter().zip(&self.opened.cpu);
        let cpu_ns: Map<String, Value> = (watched.iter().zip(marks))
            .map(|(group, (after, before))| (group.name.clone(), json!(after.since_ns(before))))
            .collect();
        Report(json!({
            "connections": connections,
            "window_ns": window_ns,
            "requests": answers,
            "requests_per_second": per_second(answers, window_ns),
            "latency_ns": quantiles(&self.latency_ns),
            "send_lag_ns": quantiles(&self.send_lag_ns),
            "served_by": { "v1": self.v1, "v2": self.v2, "other": self.other },
            "reconnects": self.reconnects,
            "errors": self.errors(),
            "errors_text": self.errors_text(),
            "cpu_ns": cpu_ns,
        }))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people; far below 2^52")]
fn per_second(count: u64, window_ns: u64) -> f64 {
    (count as f64) * (SECOND_NS as f64) / (window_ns as f64)
}

fn quantiles(histogram: &Histogram) -> Value {
    json!({
        "count": histogram.len(),
        "p50": histogram.quantile(500),
        "p90": histogram.quantile(900),
        "p99": histogram.quantile(990),
        "p999": histogram.quantile(999),
        "max": histogram.max(),
    })
}
