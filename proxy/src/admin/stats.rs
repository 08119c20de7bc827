//! All numbers, for everybody who asks: the console, the port of metrics and the agent's.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use regex::Regex;

use super::answer::Page;
use super::gauges::Gauges;
use super::serve::{Answers, at_once};
use crate::control::Status;
use crate::snapshot::Reader;
use crate::telemetry::Registry;

/// Brings the numbers that are written only when they are asked for up to date, and shows all.
pub(crate) struct Stats {
    status: Arc<Status>,
    reader: Reader,
    registry: Arc<Registry>,
    /// Held while numbers are shown: bringing them up to date passes through zero.
    gauges: Mutex<Gauges>,
}

impl Stats {
    /// Those of this process.
    pub(crate) fn new(status: &Arc<Status>, reader: Reader, registry: &Arc<Registry>) -> Stats {
        let gauges = Mutex::new(Gauges::new(registry));
        Stats { status: status.clone(), reader, registry: registry.clone(), gauges }
    }

    /// Where they are counted.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// In Prometheus' text format.
    ///
    /// # Errors
    ///
    /// When they cannot be written: why.
    pub(crate) fn text(&self) -> Result<String, String> {
        self.some(None, false)
    }

    fn some(&self, names: Option<&Regex>, used_only: bool) -> Result<String, String> {
        let snapshot = self.reader.load();
        self.status.refresh_metrics(&snapshot);
        let gauges = self.gauges.lock();
        gauges.refresh(&snapshot);
        self.registry.encode(names, used_only).map_err(|error| error.to_string())
    }

    /// As a page for who asks with these headers, of families whose names match, and if `used_only` without series that
    /// are 0.
    pub(super) fn page(&self, names: Option<&Regex>, used_only: bool, asked: &HeaderMap) -> Page {
        match self.some(names, used_only) {
            Ok(text) => Page::metrics("text/plain; version=0.0.4", text.into_bytes(), asked),
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

/// What answers on the port that has nothing but metrics, which Istio calls Envoy's Prometheus port.
pub(crate) fn answers(stats: Arc<Stats>) -> Answers {
    at_once(move |head| match head.path.as_ref().map_or("/", |path| path.path()) {
        _ if !matches!(head.method, http::Method::GET | http::Method::HEAD) => {
            Page::only("GET, HEAD", "only GET and HEAD; nothing here changes anything")
        }
        "/stats/prometheus" => stats.page(None, false, &head.headers),
        other => {
            let what = format!("there is no `{other}` here; there is /stats/prometheus\n");
            Page::text(StatusCode::NOT_FOUND, what)
        }
    })
}
