//! The load: requests at a pace, a warm-up, a measured window, and a short drain.
//!
//! Two paces. **Even** is an open loop: request `n` is due at its own moment whatever the proxy does, and its latency
//! counts from that moment, also if it had to wait for its connection, so a stall is charged to every request it
//! delayed (no coordinated omission). **Flood** is a closed loop: each connection sends its next request when it has
//! an answer, one at a time over HTTP/1.1 and some at once over HTTP/2; latency counts from the send.
//!
//! CPU time is read at both ends of the window by this process itself: nobody else knows the moments so well.

use std::io;
use std::net::SocketAddr;

use crate::clock::{MILLISECOND_NS, SECOND_NS, Ticker, now_ns};
use crate::connection::{Answer, Connection, Loss, Request};
use crate::cpu::Watched;
use crate::poll::Poll;
use crate::report::{Report, Tally};

/// How long answers are awaited after the window.
const DRAIN_NS_MAX: u64 = SECOND_NS;

/// Lost connections and wrong answers after which a run gives up.
const ERRORS_MAX: u64 = 1000;

/// Sleep at most this long, so that no end of a stage is missed by more.
const WAIT_NS_MAX: u64 = 20 * MILLISECOND_NS;

/// Ticks made up for at one wake-up; the rest of a longer backlog follows at once.
const DUE_AT_ONCE_MAX: u64 = 10_000;

/// The ticker's place among the tokens; connections have their index.
const TICKER: u64 = u64::MAX;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// This many a second, evenly, over all connections in turn.
    Even {
        /// Requests a second.
        rate: u64,
    },
    /// As fast as the answers come.
    Flood,
}

/// What to do.
pub(crate) struct Plan {
    /// Where to send.
    pub(crate) target: SocketAddr,
    /// Connections held.
    pub(crate) connections: usize,
    /// When to send.
    pub(crate) pace: Pace,
    /// Time before the window.
    pub(crate) warm_up_ns: u64,
    /// Length of the window.
    pub(crate) window_ns: u64,
    /// Answers after which the window ends early.
    pub(crate) requests_max: Option<u64>,
    /// The request.
    pub(crate) request: Request,
    /// Body length every answer must have.
    pub(crate) body_bytes: usize,
    /// Processes whose CPU time is read.
    pub(crate) watched: Vec<Watched>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    WarmUp,
    Window,
    Drain { until_ns: u64 },
}

/// A run in progress.
struct Drive<'a> {
    plan: &'a Plan,
    poll: Poll,
    connections: Vec<Connection>,
    stage: Stage,
    /// When the window opens, and when it is to close.
    window: (u64, u64),
    tally: Tally,
    /// The answers one read brought, kept for its memory.
    answers: Vec<Answer>,
}

/// Runs the plan. Fails if the target cannot be reached, a watched process is gone, or errors exceed a limit.
pub(crate) fn run(plan: &Plan) -> io::Result<Report> {
    let poll = Poll::new()?;
    let connections = (0..plan.connections)
        .map(|_| Connection::open(plan.target, &plan.request))
        .collect::<io::Result<Vec<_>>>()?;
    for (token, connection) in (0..).zip(&connections) {
        poll.add(connection.stream(), token)?;
    }
    let start = now_ns();
    let opens = start + plan.warm_up_ns;
    let window = (opens, opens + plan.window_ns);
    let (stage, tally) = (Stage::WarmUp, Tally::new());
    let mut drive = Drive { plan, poll, connections, stage, window, tally, answers: Vec::new() };
    match plan.pace {
        Pace::Even { rate } => drive.even(start, SECOND_NS / rate.clamp(1, SECOND_NS)),
        Pace::Flood => drive.flood(),
    }?;
    let unanswered = drive.connections.iter().map(Connection::owed).sum();
    Ok(drive.tally.report(plan.connections, unanswered, &plan.watched))
}

impl Drive<'_> {
    fn even(&mut self, start: u64, interval_ns: u64) -> io::Result<()> {
        let ticker = Ticker::start(start + interval_ns, interval_ns)?;
        self.poll.add(&ticker, TICKER)?;
        let (mut ready, mut sent, mut fired) = (Vec::new(), 0, 0);
        while self.advance()? {
            self.poll.wait(Some(WAIT_NS_MAX), &mut ready)?;
            for token in ready.drain(..) {
                if token == TICKER {
                    fired += ticker.fired()?;
                } else {
                    self.receive(token)?;
                }
            }
            let due = if matches!(self.stage, Stage::Drain { .. }) { 0 } else { fired - sent };
            for _ in 0..due.min(DUE_AT_ONCE_MAX) {
                sent += 1;
                self.request(sent, start + sent * interval_ns)?;
            }
        }
        Ok(())
    }

    fn flood(&mut self) -> io::Result<()> {
        for connection in &mut self.connections {
            while connection.has_room() {
                connection.request(now_ns(), &self.plan.request)?;
            }
            connection.flush()?;
        }
        let mut ready = Vec::new();
        while self.advance()? {
            self.poll.wait(Some(WAIT_NS_MAX), &mut ready)?;
            for token in ready.drain(..) {
                self.receive(token)?;
            }
        }
        Ok(())
    }

    /// Moves to the next stage when it is time; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let now = now_ns();
        let (opens, closes) = self.window;
        match self.stage {
            Stage::WarmUp if now >= opens => {
                self.tally.open(now, &self.plan.watched)?;
                self.stage = Stage::Window;
            }
            Stage::Window => {
                let enough = self.plan.requests_max.is_some_and(|max| self.tally.answered_in_window() >= max);
                if now >= closes || enough {
                    self.tally.close(now, &self.plan.watched)?;
                    self.window.1 = now.min(closes);
                    self.stage = Stage::Drain { until_ns: now + DRAIN_NS_MAX };
                }
            }
            Stage::Drain { until_ns } => {
                return Ok(now < until_ns && !self.connections.iter().all(Connection::is_idle));
            }
            Stage::WarmUp => {}
        }
        Ok(true)
    }

    /// Sends request number `number`, due at `due_ns`.
    fn request(&mut self, number: u64, due_ns: u64) -> io::Result<()> {
        let turn = usize::try_from(number).unwrap_or(0) % self.connections.len().max(1);
        if let Some(connection) = self.connections.get_mut(turn)
            && connection.request(due_ns, &self.plan.request)?
        {
            connection.flush()?;
            if self.is_measured(due_ns) {
                self.tally.sent_late(now_ns().saturating_sub(due_ns));
            }
        }
        Ok(())
    }

    fn receive(&mut self, token: u64) -> io::Result<()> {
        let Some(connection) = usize::try_from(token).ok().and_then(|index| self.connections.get_mut(index))
        else {
            return Ok(());
        };
        let mut answers = std::mem::take(&mut self.answers);
        let loss = connection.receive(&mut answers)?;
        for answer in answers.drain(..) {
            self.answered(token, answer)?;
        }
        self.answers = answers;
        if let Some(loss) = loss {
            self.lost(token, loss)?;
        }
        self.next(token)
    }

    fn answered(&mut self, token: u64, Answer { response, due_ns }: Answer) -> io::Result<()> {
        let latency_ns = now_ns().saturating_sub(due_ns);
        let measured = self.is_measured(due_ns);
        self.tally.answered(&response, self.plan.body_bytes, measured.then_some(latency_ns));
        self.give_up_above_limit()?;
        if response.closes { self.reconnect(token) } else { Ok(()) }
    }

    fn lost(&mut self, token: u64, loss: Loss) -> io::Result<()> {
        self.tally.lost(loss);
        self.give_up_above_limit()?;
        self.reconnect(token)
    }

    fn reconnect(&mut self, token: u64) -> io::Result<()> {
        let Some(connection) = usize::try_from(token).ok().and_then(|index| self.connections.get_mut(index))
        else {
            return Ok(());
        };
        self.tally.reconnected();
        connection.reopen(self.plan.target, &self.plan.request)?;
        self.poll.add(connection.stream(), token)
    }

    /// The connection may have room: its next requests.
    fn next(&mut self, token: u64) -> io::Result<()> {
        let floods = self.plan.pace == Pace::Flood && !matches!(self.stage, Stage::Drain { .. });
        let Some(connection) = usize::try_from(token).ok().and_then(|index| self.connections.get_mut(index))
        else {
            return Ok(());
        };
        while floods && connection.has_room() {
            connection.request(now_ns(), &self.plan.request)?;
        }
        connection.request_waiting(&self.plan.request)?;
        connection.flush()
    }

    /// A request is measured if it was due inside the window.
    fn is_measured(&self, due_ns: u64) -> bool {
        (self.window.0..self.window.1).contains(&due_ns)
    }

    fn give_up_above_limit(&self) -> io::Result<()> {
        if self.tally.errors() <= ERRORS_MAX {
            return Ok(());
        }
        Err(io::Error::other(format!("gave up after {}", self.tally.errors_text())))
    }
}
