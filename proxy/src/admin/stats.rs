//! All numbers, for everybody who asks: the console, the port of metrics and the agent's.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use regex::Regex;

use super::answer::{Page, Parts};
use super::gauges::Gauges;
use super::query::Query;
use super::serve::{Answers, at_once};
use crate::control::Status;
use crate::http::codec::RequestHead;
use crate::snapshot::Reader;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Exposition, Registry, Shard};

/// Brings the numbers that are written only when they are asked for up to date, and shows all.
pub(crate) struct Stats {
    status: Arc<Status>,
    reader: Reader,
    registry: Arc<Registry>,
    /// Held while they are brought up to date.
    gauges: Mutex<Gauges>,
    logging: Option<Arc<Logging>>,
    shard: Arc<Shard>,
    log_dropped: Series,
}

impl Stats {
    /// Those of this process, with what is lost of its log.
    pub(crate) fn new(
        status: &Arc<Status>,
        reader: Reader,
        registry: &Arc<Registry>,
        logging: Option<Arc<Logging>>,
    ) -> Stats {
        let gauges = Mutex::new(Gauges::new(registry));
        let (shard, log_dropped) = (registry.shard(), registry.series(Family::LogDropped, &[]));
        let (status, registry) = (status.clone(), registry.clone());
        Stats { status, reader, registry, gauges, logging, shard, log_dropped }
    }

    /// Where they are counted.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// In Prometheus' text format, of families whose names match, and if `used_only` without series that are 0; they are
    /// made as they are taken.
    pub(crate) fn parts(&self, names: Option<&Regex>, used_only: bool) -> Parts {
        let snapshot = self.reader.load();
        self.status.refresh_metrics(&snapshot);
        let gauges = self.gauges.lock();
        gauges.refresh(&snapshot);
        let lost = self.logging.as_ref().map_or(0, |logging| logging.lost());
        self.shard.set_gauge(self.log_dropped, lost);
        drop(gauges);
        Box::new(Exposition::new(&self.registry, names, used_only).map(String::into_bytes))
    }

    /// The same as a page for who asks with these headers.
    pub(super) fn page(&self, names: Option<&Regex>, used_only: bool, asked: &HeaderMap) -> Page {
        Page::metrics("text/plain; version=0.0.4", self.parts(names, used_only), asked)
    }
}

/// Parameters of pages with all numbers.
pub(super) const PARAMETERS: &[&str] = &["filter", "usedonly"];

/// Which of all numbers somebody wants.
pub(crate) struct Wanted {
    /// Families whose names match; all when it is not said.
    pub(crate) names: Option<Regex>,
    /// Without series that are 0.
    pub(crate) used_only: bool,
}

impl Wanted {
    /// What the query of a request says.
    ///
    /// # Errors
    ///
    /// The answer to a query that is not understood.
    pub(crate) fn of(head: &RequestHead) -> Result<Wanted, Page> {
        let query = Query::of(head);
        match query.not_understood(PARAMETERS) {
            Some(what) => Err(Page::text(StatusCode::BAD_REQUEST, format!("{what}\n"))),
            None => Ok(Wanted { names: query.filter(), used_only: query.has("usedonly") }),
        }
    }
}

/// What answers on the port that has nothing but metrics, which Istio calls Envoy's Prometheus port.
pub(crate) fn answers(stats: Arc<Stats>) -> Answers {
    at_once(move |head| match head.path.as_ref().map_or("/", |path| path.path()) {
        _ if !matches!(head.method, http::Method::GET | http::Method::HEAD) => {
            Page::only("GET, HEAD", "only GET and HEAD; nothing here changes anything")
        }
        "/stats/prometheus" => match Wanted::of(head) {
            Ok(Wanted { names, used_only }) => stats.page(names.as_ref(), used_only, &head.headers),
            Err(page) => page,
        },
        other => {
            let what = format!("there is no `{other}` here; there is /stats/prometheus\n");
            Page::text(StatusCode::NOT_FOUND, what)
        }
    })
}
