//! Requests that wait for a connection of a pool, and how many connections there are.
//!
//! Whoever leaves the line, because its client left or its time is up, leaves an empty place behind. Empty places are
//! skipped, and cleared away when they are the most: nothing here is slow because many wait or leave.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::super::limits::OpenConnection;
use super::ConnectError;

/// The line for connections `C` of one protocol.
pub(super) struct Line<C> {
    places: VecDeque<Rc<Place<C>>>,
    /// Places whose owner has left.
    empty: Rc<Cell<usize>>,
    /// Connections that are being opened.
    pub(super) connecting: usize,
    open: Rc<Cell<usize>>,
    /// Whether those who wait may do so because the process may open no more files.
    pub(super) is_short: bool,
    /// Whether somebody sees to it that one more is tried soon.
    pub(super) is_watched: bool,
    /// It goes on while that is so.
    clock: u32,
}

/// A place in the line.
struct Place<C> {
    outcome: Cell<Option<Outcome<C>>>,
    waker: Cell<Option<Waker>>,
    state: Cell<State>,
    /// When it was taken, by the clock of the line.
    taken_at: u32,
}

type Outcome<C> = Result<C, ConnectError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Called,
    Left,
}

/// Waits for its turn. Dropping it leaves the line.
pub(super) struct Waiting<C> {
    place: Rc<Place<C>>,
    empty: Rc<Cell<usize>>,
}

/// The turn of one request.
pub(super) struct Turn<C>(Rc<Place<C>>);

/// A connection of the pool that is open or being opened.
pub(super) struct Counted {
    open: Rc<Cell<usize>>,
    /// What counts it for the cluster.
    pub(super) connection: OpenConnection,
}

impl<C> Default for Line<C> {
    fn default() -> Self {
        Line {
            places: VecDeque::new(),
            empty: Rc::default(),
            connecting: 0,
            open: Rc::default(),
            is_short: false,
            is_watched: false,
            clock: 0,
        }
    }
}

impl<C> Line<C> {
    /// Takes a place at the end.
    pub(super) fn wait(&mut self) -> Waiting<C> {
        if self.empty.get() > self.places.len() / 2 {
            self.places.retain(|place| place.state.get() == State::Waiting);
            self.empty.set(0);
        }
        let place = Rc::new(Place {
            outcome: Cell::new(None),
            waker: Cell::new(None),
            state: Cell::new(State::Waiting),
            taken_at: self.clock,
        });
        self.places.push_back(place.clone());
        Waiting { place, empty: self.empty.clone() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.empty.get()
    }

    /// Whose turn it is: who waits longest.
    pub(super) fn next(&mut self) -> Option<Turn<C>> {
        self.next_if(|_| true)
    }

    fn next_if(&mut self, is_due: impl Fn(&Place<C>) -> bool) -> Option<Turn<C>> {
        loop {
            let place =
                self.places.pop_front_if(|place| place.state.get() != State::Waiting || is_due(place))?;
            if place.state.get() == State::Waiting {
                place.state.set(State::Called);
                return Some(Turn(place));
            }
            self.empty.set(self.empty.get() - 1);
        }
    }

    /// Tells everyone who waits why there is no connection.
    pub(super) fn fail(&mut self, error: &ConnectError) {
        while let Some(turn) = self.next() {
            turn.end(Err(error.clone()));
        }
    }

    /// The clock goes on. Those who have waited for more than so many of its steps are told why there is no connection.
    pub(super) fn step(&mut self, patience: u32, error: &ConnectError) {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        while let Some(turn) = self.next_if(|place| clock.wrapping_sub(place.taken_at) > patience) {
            turn.end(Err(error.clone()));
        }
    }

    /// Whether no connection is open or being opened, not even one that takes no more requests.
    pub(super) fn has_no_connection(&self) -> bool {
        self.open.get() == 0
    }

    /// Whether more than one connection is open or being opened.
    pub(super) fn has_several(&self) -> bool {
        self.open.get() > 1
    }

    /// How many connections are open, with those that take no more requests.
    pub(super) fn established(&self) -> usize {
        self.open.get().saturating_sub(self.connecting)
    }

    /// A connection is being opened.
    pub(super) fn connecting(&mut self, connection: OpenConnection) -> Counted {
        self.connecting += 1;
        self.open.set(self.open.get() + 1);
        Counted { open: self.open.clone(), connection }
    }
}

impl<C> Turn<C> {
    /// Ends the wait.
    pub(super) fn end(self, outcome: Outcome<C>) {
        self.0.outcome.set(Some(outcome));
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl<C> Future for Waiting<C> {
    type Output = Outcome<C>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<C>> {
        match self.place.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.place.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<C> Drop for Waiting<C> {
    fn drop(&mut self) {
        if self.place.state.replace(State::Left) == State::Waiting {
            self.empty.set(self.empty.get() + 1);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<C>(waiting: &mut Waiting<C>) -> Poll<Outcome<C>> {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn first_come_first_served_and_who_left_is_skipped() {
        let mut line = Line::<u32>::default();
        let mut waiting: Vec<_> = (0..4).map(|_| line.wait()).collect();
        drop(waiting.remove(1));
        assert_eq!(line.len(), 3);
        for number in 0..3 {
            line.next().unwrap().end(Ok(number));
        }
        assert!(line.next().is_none());
        assert_eq!(line.len(), 0);
        for (number, waiting) in waiting.iter_mut().enumerate() {
            assert_eq!(poll(waiting), Poll::Ready(Ok(u32::try_from(number).unwrap())));
        }
    }

    #[test]
    fn a_failure_is_told_to_all() {
        let mut line = Line::<u32>::default();
        let mut waiting = [line.wait(), line.wait()];
        assert!(poll(&mut waiting[0]).is_pending());
        line.fail(&ConnectError::Timeout);
        assert!(waiting.iter_mut().all(|waiting| poll(waiting) == Poll::Ready(Err(ConnectError::Timeout))));
        // Who has had its turn leaves no empty place.
        drop(waiting);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn those_are_told_who_have_waited_long_enough() {
        let mut line = Line::<u32>::default();
        let mut waiting = vec![line.wait(), line.wait()];
        line.step(1, &ConnectError::Timeout);
        waiting.push(line.wait());
        drop(waiting.remove(0));
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
        line.step(1, &ConnectError::Timeout);
        assert_eq!(poll(&mut waiting[0]), Poll::Ready(Err(ConnectError::Timeout)));
        assert!(poll(&mut waiting[1]).is_pending());
        assert_eq!((line.len(), line.empty.get()), (1, 0));
        line.next().unwrap().end(Ok(1));
        assert_eq!(poll(&mut waiting[1]), Poll::Ready(Ok(1)));
    }

    #[test]
    fn empty_places_do_not_pile_up() {
        let mut line = Line::<u32>::default();
        let stays = line.wait();
        for _ in 0..10_000 {
            drop(line.wait());
            assert!(line.places.len() < 8, "{}", line.places.len());
        }
        assert_eq!(line.len(), 1);
        drop(stays);
        assert_eq!((line.len(), line.next().is_none(), line.empty.get()), (0, true, 0));
    }
}
