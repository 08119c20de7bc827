//! One row of the tables: raw bytes on one connection, and what is to come of them.

/// What a client sends on one connection, what it is answered, and what reaches the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What is special about it; unique.
    pub(crate) name: &'static str,
    /// The section that decides: of RFC 9112 where nothing else stands before it.
    pub(crate) rule: &'static str,
    /// What the client sends.
    pub(crate) bytes: Vec<u8>,
    /// Status of each answer, in order, without 1xx.
    pub(crate) answers: Vec<u16>,
    /// What becomes of the connection.
    pub(crate) end: End,
    /// Complete requests that reach the upstream, in order: method, authority, target, and the body if there is one.
    pub(crate) reached: Vec<String>,
    /// Whether a request may reach the upstream in part, on a connection that is then closed.
    pub(crate) may_be_cut: bool,
    /// Whether all its requests are HEAD, whose answers have no body.
    pub(crate) head: bool,
    /// Headers the last request must have at the upstream, and names it must not have.
    pub(crate) sees: Vec<(&'static str, &'static str)>,
    pub(crate) hides: Vec<&'static str>,
    /// Why this is not what the rule prefers, where it is not.
    pub(crate) deviation: Option<&'static str>,
}

/// What becomes of a connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It serves the next request.
    Open,
    /// It is closed.
    Closed,
    /// The other side waits for the rest of a message.
    Waiting,
}

/// A connection whose requests are all forwarded, and which then serves another one.
pub(crate) fn forwarded(
    name: &'static str,
    rule: &'static str,
    bytes: impl AsRef<[u8]>,
    reached: &[&str],
) -> Case {
    Case {
        name,
        rule,
        bytes: bytes.as_ref().to_vec(),
        answers: vec![200; reached.len()],
        end: End::Open,
        reached: reached.iter().map(|request| (*request).to_owned()).collect(),
        may_be_cut: false,
        head: false,
        sees: Vec::new(),
        hides: Vec::new(),
        deviation: None,
    }
}

/// A connection whose only request is answered with `status` by the proxy itself, and which is then closed.
pub(crate) fn refused(name: &'static str, rule: &'static str, bytes: impl AsRef<[u8]>, status: u16) -> Case {
    Case { answers: vec![status], end: End::Closed, ..forwarded(name, rule, bytes, &[]) }
}

impl Case {
    /// The connection is closed after the answers.
    pub(crate) fn closes(mut self) -> Case {
        self.end = End::Closed;
        self
    }

    /// What was sent is only the beginning of a message.
    pub(crate) fn waits(mut self) -> Case {
        self.end = End::Waiting;
        self.may_be_cut = true;
        self
    }

    /// These are the answers.
    pub(crate) fn answers(mut self, statuses: &[u16]) -> Case {
        self.answers = statuses.to_vec();
        self
    }

    /// These requests reach the upstream.
    pub(crate) fn reaches(mut self, reached: &[&str]) -> Case {
        self.reached = reached.iter().map(|request| (*request).to_owned()).collect();
        self
    }

    /// The beginning of a request may reach the upstream, too.
    pub(crate) fn may_be_cut(mut self) -> Case {
        self.may_be_cut = true;
        self
    }

    /// All requests are HEAD.
    pub(crate) fn head(mut self) -> Case {
        self.head = true;
        self
    }

    /// The last request has this header at the upstream.
    pub(crate) fn sees(mut self, name: &'static str, value: &'static str) -> Case {
        self.sees.push((name, value));
        self
    }

    /// The last request does not have this header at the upstream.
    pub(crate) fn hides(mut self, name: &'static str) -> Case {
        self.hides.push(name);
        self
    }

    /// Why the outcome is another than the rule's first choice, and safe.
    pub(crate) fn deviates(mut self, why: &'static str) -> Case {
        self.deviation = Some(why);
        self
    }
}
