//! The flight recorder: the last requests of a worker that failed or were sampled, and how often each cause was met in the
//! last hour.
//!
//! Each worker has its own and nobody else touches it: who wants to see sends an [`Ask`], and the worker answers between two
//! requests. What it keeps is bounded in number and in bytes, the oldest goes first; causes are counted beside, so that a
//! count stays true when its examples are gone. A request that does not fail costs one count down.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::Limits;
use config::origin::Origin;
use tokio::sync::oneshot;

/// Minutes of the last hour.
const MINUTES: usize = 60;

/// Bytes of one text of a flight that are kept; what a client sends may be longer.
const TEXT_BYTES_MAX: usize = 1_024;

/// What is counted when there are more causes than `recorder_causes_max`.
const OTHER_CAUSES: &str = "other causes: there are more than recorder_causes_max";

/// A request or connection, with what was decided about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flight {
    /// Its `x-request-id`; empty for what has none.
    pub(crate) id: Box<str>,
    /// When it began.
    pub(crate) began: SystemTime,
    /// How long it took, to its last byte.
    pub(crate) took: Duration,
    /// Method; empty for what is no request.
    pub(crate) method: Box<str>,
    /// Authority, as the upstream saw it or would have.
    pub(crate) authority: Box<str>,
    /// Path and query as they came.
    pub(crate) path: Box<str>,
    /// Name of the listener; empty when that is not known any more.
    pub(crate) listener: Arc<str>,
    /// The client.
    pub(crate) client: SocketAddr,
    /// The client's identity, as TLS has proved it.
    pub(crate) client_identity: Option<Arc<str>>,
    /// Number of the generation that decided.
    pub(crate) generation: u64,
    /// Status of the answer; 0 for none.
    pub(crate) status: u16,
    /// Response flags as the access log has them.
    pub(crate) flags: Box<str>,
    /// Response code details.
    pub(crate) details: Box<str>,
    /// Virtual host and name of the rule.
    pub(crate) route: Option<(Arc<str>, Arc<str>)>,
    /// The object that the rule is of.
    pub(crate) route_origin: Option<Origin>,
    /// The cluster.
    pub(crate) cluster: Option<Arc<str>>,
    /// The object that shaped it.
    pub(crate) cluster_origin: Option<Origin>,
    /// The endpoint of the last attempt.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Its identity, as TLS has proved it.
    pub(crate) endpoint_identity: Option<Arc<str>>,
    /// Attempts made.
    pub(crate) attempts: u32,
    /// Why it failed; `None` where it did not, and was sampled.
    pub(crate) cause: Option<Arc<str>>,
}

/// A text of a flight, without what is too long.
pub(crate) fn bounded(text: &[u8]) -> Box<str> {
    String::from_utf8_lossy(text.get(..TEXT_BYTES_MAX).unwrap_or(text)).into()
}

impl Flight {
    /// A connection that failed, of which nothing else is known yet.
    pub(crate) fn of_connection(client: SocketAddr, cause: String) -> Flight {
        Flight {
            id: Box::default(),
            began: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            method: Box::default(),
            authority: Box::default(),
            path: Box::default(),
            listener: Arc::default(),
            client,
            client_identity: None,
            generation: 0,
            status: 0,
            flags: Box::default(),
            details: Box::default(),
            route: None,
            route_origin: None,
            cluster: None,
            cluster_origin: None,
            endpoint: None,
            endpoint_identity: None,
            attempts: 0,
            cause: Some(cause.into()),
        }
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let texts = [&self.id, &self.method, &self.authority, &self.path, &self.flags, &self.details];
        // It may be written for this flight alone.
        let cause = self.cause.as_ref().map_or(0, |cause| cause.len());
        size_of::<Flight>() + cause + texts.into_iter().map(|text| text.len()).sum::<usize>()
    }
}

/// How often a cause was met.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CauseCount {
    /// The cause.
    pub(crate) cause: Arc<str>,
    /// How often in the last hour.
    pub(crate) count: u64,
}

/// What one worker has recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recorded {
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
    causes: HashMap<Arc<str>, Minutes>,
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
            bytes_max: whole(limits.recorder_bytes_max),
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

    /// Keeps a flight and counts its cause, in this minute of the process's life.
    pub(crate) fn record(&self, flight: Flight, minute: u64) {
        let mut kept = self.kept.borrow_mut();
        if let Some(cause) = &flight.cause {
            let is_new = !kept.causes.contains_key(cause);
            if is_new && kept.causes.len() >= self.causes_max {
                // What was not met for an hour makes room.
                kept.causes.retain(|_, counts| counts.sum(minute) > 0);
            }
            let full = is_new && kept.causes.len() >= self.causes_max;
            let key = if full { OTHER_CAUSES.into() } else { cause.clone() };
            kept.causes.entry(key).or_insert_with(|| Minutes::new(minute)).add(minute);
        }
        kept.bytes += flight.bytes();
        kept.flights.push_back(Arc::new(flight));
        while kept.flights.len() > self.flights_max || kept.bytes > self.bytes_max {
            let Some(gone) = kept.flights.pop_front() else { break };
            kept.bytes -= gone.bytes();
        }
    }

    /// What is kept, in this minute.
    pub(crate) fn recorded(&self, minute: u64) -> Recorded {
        let mut kept = self.kept.borrow_mut();
        let flights = kept.flights.iter().cloned().collect();
        let counts = |(cause, minutes): (&Arc<str>, &mut Minutes)| CauseCount {
            cause: cause.clone(),
            count: minutes.sum(minute),
        };
        let causes = kept.causes.iter_mut().map(counts).filter(|cause| cause.count > 0).collect();
        Recorded { flights, causes }
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
    use super::*;

    fn flight(path: &str, cause: Option<&str>) -> Flight {
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        Flight {
            path: path.into(),
            cause: cause.map(Into::into),
            ..Flight::of_connection(client, String::new())
        }
    }

    fn recorder(change: impl FnOnce(&mut Limits)) -> Recorder {
        let mut limits = Limits::default();
        change(&mut limits);
        Recorder::new(&limits)
    }

    fn count(recorder: &Recorder, cause: &str, minute: u64) -> u64 {
        let causes = recorder.recorded(minute).causes;
        causes.iter().find(|known| &*known.cause == cause).map_or(0, |known| known.count)
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
        };
        check(recorder(|limits| limits.recorder_requests_max = 2), &["/2", "/3"]);
        let two = 2 * flight("/1", Some("c")).bytes() as u64;
        check(recorder(|limits| limits.recorder_bytes_max = two), &["/2", "/3"]);
        // A cause may be long.
        assert_eq!(flight("/1", Some(&"c".repeat(1_000))).bytes() - flight("/1", None).bytes(), 1_000);
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

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(bounded(&[b'a'; 5_000]).len(), TEXT_BYTES_MAX);
        assert_eq!(&*bounded(b"a\xff"), "a\u{fffd}");
    }
}
