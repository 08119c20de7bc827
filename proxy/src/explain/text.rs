//! An explanation as somebody reads it at night: short lines, what belongs together indented, objects with file and line.

use std::fmt::Write as _;

use super::{Does, Explanation, Named, Outcome, Step};

/// The explanation as text.
pub(crate) fn text(explanation: &Explanation) -> String {
    let mut out = format!("{}\nas {}", explanation.asked, explanation.workload);
    // Writing to a string cannot fail.
    if let Some(generation) = explanation.generation {
        let _ = write!(out, ", generation {generation} of the running proxy");
    }
    out.push_str("\n\n");
    for step in &explanation.steps {
        write_step(step, None, 0, &mut out);
    }
    let _ = writeln!(out, "=> {}", outcome(&explanation.outcome));
    if !explanation.findings.is_empty() {
        out.push_str("\nabout these objects:\n");
        for finding in &explanation.findings {
            let _ = writeln!(out, "  {}", finding.replace('\n', "\n  "));
        }
    }
    out
}

/// A part says its object only where that is not the whole's.
fn write_step(step: &Step, whole: Option<&Named>, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let _ = write!(out, "{indent}{}: {}", step.step.replace('_', " "), step.what);
    if let Some(whose) = &step.default {
        let _ = write!(out, " ({whose})");
    }
    if let Some(object) = step.object.as_ref().filter(|object| Some(*object) != whole) {
        let _ = write!(out, "\n{indent}    by {object}");
    }
    out.push('\n');
    for part in &step.steps {
        write_step(part, step.object.as_ref().or(whole), depth + 1, out);
    }
}

/// What comes of it, in one line.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    let mut line = match outcome.does {
        Does::Forwards => "forwarded".to_owned(),
        Does::PassesOn => "passed on as it is".to_owned(),
        Does::Answers => "answered by the proxy".to_owned(),
        Does::Closes => "closed".to_owned(),
    };
    if let Some(status) = outcome.status {
        let _ = write!(line, " with {status}");
    }
    if let Some(status) = outcome.grpc_status {
        let _ = write!(line, ", grpc-status {status}");
    }
    if let Some(flags) = &outcome.flags {
        let _ = write!(line, " {flags}");
    }
    if let Some(details) = &outcome.details {
        let _ = write!(line, ", {details}");
    }
    if let Some(endpoint) = outcome.endpoint {
        let _ = write!(line, " to {endpoint}");
    }
    if let Some(location) = &outcome.location {
        let _ = write!(line, ", to {location}");
    }
    if let Some(cluster) = &outcome.cluster {
        let _ = write!(line, " of {cluster}");
    }
    if let (Some(authority), Some(path)) = (&outcome.authority, &outcome.path) {
        let _ = write!(line, ", as {authority} {path}");
    }
    line
}
