//! Answers whose first head comes in two frames.

use std::sync::Arc;

use super::{Case, PROTOCOL, TERMINATION};
use crate::cut;
use crate::script2::Script;
use crate::upstreams::Seen;

/// What is refused only where its head is cut.
pub(super) const TAKEN_WHOLE: &str = "a request's pseudo-header in an answer";

/// The same with the first head cut within its last field.
pub(super) fn in_two_frames(cases: Vec<Case>) -> impl Iterator<Item = Case> {
    cases.into_iter().filter(|case| case.name != TAKEN_WHOLE).map(|case| {
        let Script { answer, closes } = case.script;
        let answer = move |stream| {
            let whole = answer(stream);
            cut::first_head(&whole).unwrap_or(whole)
        };
        let seen = match case.name {
            // The connection ends, or nobody knows which of the heads it is.
            "an answer's field without a name" => Seen::Whole(503, TERMINATION.to_owned()),
            "an answer's trailers that do not end it" => Seen::Whole(502, PROTOCOL.to_owned()),
            _ => case.seen,
        };
        Case { rule: "6.10", script: Script { answer: Arc::new(answer), closes }, seen, ..case }
    })
}
