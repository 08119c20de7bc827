//! The table of raw HTTP/1 answers, by subject.

pub(crate) mod bodies;
pub(crate) mod heads;
pub(crate) mod several;

use crate::script::{End, Script};
use crate::upstreams::{AnswerCase, Seen};

/// An answer that reaches the client whole. The upstream keeps its connection.
pub(crate) fn whole(
    name: &'static str,
    rule: &'static str,
    bytes: impl AsRef<[u8]>,
    (status, body): (u16, &str),
) -> AnswerCase {
    let script = Script { bytes: bytes.as_ref().to_vec(), ..Script::default() };
    AnswerCase { name, rule, script, method: "GET", seen: Seen::Whole(status, body.to_owned()) }
}

/// What is no answer: the client gets one of the proxy's own.
pub(crate) fn bad(name: &'static str, rule: &'static str, bytes: impl AsRef<[u8]>) -> AnswerCase {
    const PROTOCOL: &str =
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
    whole(name, rule, bytes, (502, PROTOCOL))
}

/// An answer whose end does not come: the client sees that.
pub(crate) fn cut(name: &'static str, rule: &'static str, bytes: impl AsRef<[u8]>) -> AnswerCase {
    AnswerCase { seen: Seen::Cut, ..whole(name, rule, bytes, (200, "")) }
}

impl AnswerCase {
    /// The upstream closes its connection after its bytes.
    pub(crate) fn closes(mut self) -> AnswerCase {
        self.script.end = End::Closes;
        self
    }

    /// The upstream answers before the request has ended.
    pub(crate) fn early(mut self) -> AnswerCase {
        self.script.early = true;
        self.method = "POST";
        self
    }

    /// Asked by another method than GET.
    pub(crate) fn to(mut self, method: &'static str) -> AnswerCase {
        self.method = method;
        self
    }

    /// The upstream sends this so many times first.
    pub(crate) fn behind(mut self, flood: &[u8], times: usize) -> AnswerCase {
        self.script.flood = (flood.to_vec(), times);
        self
    }

    /// The upstream ends the connection without an answer.
    pub(crate) fn terminates(mut self) -> AnswerCase {
        const TERMINATION: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        self.seen = Seen::Whole(503, TERMINATION.to_owned());
        self
    }
}
