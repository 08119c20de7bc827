//! The flight recorder: the last requests of a worker that failed or were sampled, and how often each cause was met in the
//! last hour.
//!
//! Each worker has its own and nobody else touches it: who wants to see sends an [`Ask`], and the worker answers between two
//! requests. What it keeps is bounded in number and in bytes, the oldest goes first; causes are counted beside, so that a
//! count stays true when its examples are gone. A request that does not fail costs one count down.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use config::Limits;
use tokio::sync::oneshot;

use super::flight::{Cause, Flight};

/// `recorder_bytes_max` where nothing is said; less where memory is bounded.
pub(crate) const RECORDER_BYTES_MAX: u64 = 4 << 20;

/// Minutes of the last hour.
const MINUTES: usize = 60;

/// What is counted when there are more causes than `recorder_causes_max`.
const OTHER_CAUSES: &str = "other causes: there are more than recorder_causes_max";

/// How often a cause was met.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CauseCount {
    /// The cause, in the words of when it was met last.
    pub(crate) cause: Cause,
    /// When that was.
    pub(crate) last: SystemTime,
    /// How often in the last hour.
    pub(crate) count: u64,
}

/// What one worker has recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recorded {
    /// Number of the worker.
    pub(crate) worker: usize,
    /// Oldest first.
    pub(crate) flights: Vec<Arc<Flight>>,
    /// In no order.
    pub(crate) causes: Vec<CauseCount>,
}

/// The wish to see what a worker has recorded.
pub(crate) type Ask = oneshot::Sender<Recorded>;

/// The recorder of one worker.
#[derive(Debug)]
pub(crate) struct Recorder {
    kept: RefCell<Kept>,
    flights_max: usize,
    bytes_max: usize,
    causes_max: usize,
    /// One request in so many is sampled; 0 samples none.
    sample_one_in: u32,
    /// Requests until the next sample; 0 when none will be.
    until_sample: Cell<u32>,
}

#[derive(Debug, Default)]
struct Kept {
    flights: VecDeque<Arc<Flight>>,
    bytes: usize,
    /// By the key of the cause.
    causes: HashMap<Arc<str>, Counted>,
    /// Flights that were recorded ever.
    recorded: u64,
}

/// A cause that was met.
#[derive(Debug)]
struct Counted {
    minutes: Minutes,
    /// In the words of when it was met last.
    cause: Cause,
    /// When that was.
    last: SystemTime,
}

/// Counts of the last minutes.
#[derive(Debug)]
struct Minutes {
    counts: [u32; MINUTES],
    /// The minute that is counted now.
    latest: u64,
}

impl Recorder {
    /// Within the limits of the process.
    pub(crate) fn new(limits: &Limits) -> Recorder {
        let whole = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let sample_one_in = u32::try_from(limits.recorder_sample_one_in).unwrap_or(u32::MAX);
        Recorder {
            kept: RefCell::default(),
            flights_max: whole(limits.recorder_requests_max),
            bytes_max: whole(match limits.recorder_bytes_max {
                0 => RECORDER_BYTES_MAX,
                bytes => bytes,
            }),
            causes_max: whole(limits.recorder_causes_max),
            sample_one_in,
            until_sample: Cell::new(sample_one_in),
        }
    }

    /// Whether the request that ends now is a sample.
    pub(crate) fn samples(&self) -> bool {
        match self.until_sample.get() {
            0 => false,
            1 => {
                self.until_sample.set(self.sample_one_in);
                true
            }
            left => {
                self.until_sample.set(left - 1);
                false
            }
        }
    }

    /// Keeps a flight and counts its cause, in this minute of the process's life. Whether there are too many causes to tell this
    /// one from others.
    pub(crate) fn record(&self, mut flight: Flight, minute: u64) -> bool {
        let mut kept = self.kept.borrow_mut();
        kept.recorded += 1;
        flight.number = kept.recorded;
        let mut full = false;
        if let Some(cause) = &flight.cause {
            let is_new = !kept.causes.contains_key(&cause.key);
            if is_new && kept.causes.len() >= self.causes_max {
                // What was not met for an hour makes room.
                kept.causes.retain(|_, counted| counted.minutes.sum(minute) > 0);
            }
            full = is_new && kept.causes.len() >= self.causes_max;
            let cause = if full { Cause::of_process(OTHER_CAUSES.to_owned()) } else { cause.clone() };
            let new = || Counted { minutes: Minutes::new(minute), cause: cause.clone(), last: flight.began };
            let counted = kept.causes.entry(cause.key.clone()).or_insert_with(new);
            counted.minutes.add(minute);
            counted.cause = cause;
            counted.last = flight.began;
        }
        kept.bytes += flight.bytes();
        kept.flights.push_back(Arc::new(flight));
        while kept.flights.len() > self.flights_max || kept.bytes > self.bytes_max {
            let Some(gone) = kept.flights.pop_front() else { break };
            kept.bytes -= gone.bytes();
        }
        full
    }

    /// What is kept, in this minute.
    pub(crate) fn recorded(&self, minute: u64) -> Recorded {
        let mut kept = self.kept.borrow_mut();
        let flights = kept.flights.iter().cloned().collect();
        let counts = |counted: &mut Counted| CauseCount {
            cause: counted.cause.clone(),
            last: counted.last,
            count: counted.minutes.sum(minute),
        };
        let causes = kept.causes.values_mut().map(counts).filter(|cause| cause.count > 0).collect();
        Recorded { worker: 0, flights, causes }
    }
}

impl Minutes {
    fn new(minute: u64) -> Minutes {
        Minutes { counts: [0; MINUTES], latest: minute }
    }

    fn add(&mut self, minute: u64) {
        self.forget_before(minute);
        if let Some(count) = self.slot(minute) {
            *count = count.saturating_add(1);
        }
    }

    /// How many in the hour that ends with this minute.
    fn sum(&mut self, minute: u64) -> u64 {
        self.forget_before(minute);
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Empties the minutes that begin until this one.
    fn forget_before(&mut self, minute: u64) {
        let begun = minute.saturating_sub(self.latest).min(MINUTES as u64);
        for past in 0..begun {
            if let Some(count) = self.slot(minute - past) {
                *count = 0;
            }
        }
        self.latest = self.latest.max(minute);
    }

    fn slot(&mut self, minute: u64) -> Option<&mut u32> {
        let at = usize::try_from(minute % MINUTES as u64).ok()?;
        self.counts.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn flight(path: &str, cause: Option<&str>) -> Flight {
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let nothing = Cause::of_process(String::new());
        Flight {
            path: path.into(),
            cause: cause.map(|cause| Cause::new(cause.to_owned(), (&[], ""))),
            ..Flight::of_connection(client, nothing)
        }
    }

    fn recorder(change: impl FnOnce(&mut Limits)) -> Recorder {
        let mut limits = Limits::default();
        change(&mut limits);
        Recorder::new(&limits)
    }

    fn count(recorder: &Recorder, cause: &str, minute: u64) -> u64 {
        let causes = recorder.recorded(minute).causes;
        causes.iter().find(|known| &*known.cause.key == cause).map_or(0, |known| known.count)
    }

    #[test]
    fn the_oldest_goes_and_is_still_counted() {
        let check = |recorder: Recorder, kept: &[&str]| {
            for path in ["/1", "/2", "/3"] {
                recorder.record(flight(path, Some("c")), 0);
            }
            let recorded = recorder.recorded(0);
            let paths: Vec<&str> = recorded.flights.iter().map(|flight| &*flight.path).collect();
            assert_eq!((paths.as_slice(), count(&recorder, "c", 0)), (kept, 3));
            let numbers = recorded.flights.iter().map(|flight| format!("/{}", flight.number));
            assert_eq!(numbers.collect::<Vec<_>>(), kept);
        };
        check(recorder(|limits| limits.recorder_requests_max = 2), &["/2", "/3"]);
        let two = 2 * flight("/1", Some("c")).bytes() as u64;
        check(recorder(|limits| limits.recorder_bytes_max = two), &["/2", "/3"]);
        // A cause may be long.
        assert_eq!(flight("/1", Some(&"c".repeat(1_000))).bytes() - flight("/1", None).bytes(), 2_000);
        check(recorder(|limits| limits.recorder_bytes_max = two - 1), &["/3"]);
        check(recorder(|limits| limits.recorder_requests_max = 0), &[]);
    }

    #[test]
    fn causes_are_those_of_the_last_hour() {
        let recorder = recorder(|_| {});
        for minute in [0, 0, 1, 59, 61] {
            recorder.record(flight("/", Some("c")), minute);
        }
        // Minutes 0 and 1 are over by then.
        assert_eq!(count(&recorder, "c", 61), 2);
        assert_eq!(count(&recorder, "c", 118), 2);
        assert_eq!(count(&recorder, "c", 119), 1);
        assert_eq!(count(&recorder, "c", 1_000), 0);
        assert_eq!(recorder.recorded(1_000).causes, []);
    }

    #[test]
    fn causes_are_bounded() {
        let recorder = recorder(|limits| limits.recorder_causes_max = 2);
        for cause in ["a", "b", "c", "d", "a"] {
            recorder.record(flight("/", Some(cause)), 0);
        }
        assert_eq!(["a", "b", "c", OTHER_CAUSES].map(|cause| count(&recorder, cause, 0)), [2, 1, 0, 2]);
        recorder.record(flight("/", Some("e")), 100);
        assert_eq!(count(&recorder, "e", 100), 1);
    }

    #[test]
    fn one_in_so_many_is_sampled() {
        let sampled = |one_in| {
            let recorder = recorder(|limits| limits.recorder_sample_one_in = one_in);
            (0..10).filter(|_| recorder.samples()).count()
        };
        assert_eq!([0, 1, 3, 10, 11].map(sampled), [0, 10, 3, 1, 0]);
    }

    /// An object that is written elsewhere is the same one; its place is that of now.
    #[test]
    fn a_cause_is_told_as_it_was_met_last() {
        let recorder = recorder(|_| {});
        for line in [1, 9, 30] {
            recorder.record(flight("/", Some(&format!("x of V shop/v (a.yaml:{line})"))), 0);
        }
        let causes = recorder.recorded(0).causes;
        let told: Vec<(&str, u64)> = causes.iter().map(|it| (&*it.cause.text, it.count)).collect();
        assert_eq!(told, [("x of V shop/v (a.yaml:30)", 3)]);
    }
}
