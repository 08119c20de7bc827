//! The admin console: what an operator may ask a running proxy. Paths and forms are Envoy's where Envoy has them.

mod clusters;
mod config_dump;
mod gauges;
pub(crate) mod health;
mod serve;

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, StatusCode};

use self::config_dump::{Refusal, Selection};
use crate::control::Status;
use crate::http::codec::RequestHead;
use crate::snapshot::Reader;
use crate::telemetry::Registry;
pub(crate) use gauges::Gauges;
use serve::Page;
pub(crate) use serve::{Answers, FullBody, Serving};

/// What the console shows.
pub(crate) struct Console {
    /// What the control thread knows.
    pub(crate) status: Arc<Status>,
    /// What is served.
    pub(crate) reader: Reader,
    /// All numbers.
    pub(crate) registry: Arc<Registry>,
    /// Those of clusters that are written only when they are asked for.
    pub(crate) gauges: Gauges,
}

/// A page and what it tells, for `/help`.
const PAGES: [(&str, &str); 6] = [
    ("/clusters", "clusters and their endpoints with live figures; ?format=json"),
    (
        "/config_dump",
        "the declared configuration, as Envoy's, with its origins; ?resource=FIELD, ?name_regex=RE",
    ),
    ("/findings", "what is wrong or not honoured in the configuration; ?format=json"),
    ("/help", "this list"),
    ("/ready", "200 when a configuration is served, 503 and the reason otherwise"),
    ("/stats/prometheus", "metrics in Prometheus' text format"),
];

impl Console {
    /// What answers for it.
    pub(crate) fn answers(self) -> Answers {
        Rc::new(move |head| self.answer(head))
    }

    fn answer(&self, head: &RequestHead) -> Page {
        let readable = matches!(head.method, Method::GET | Method::HEAD);
        let page = self.page(head);
        if !readable && page.status != StatusCode::NOT_FOUND {
            return Page::only("GET, HEAD", "only GET and HEAD; nothing here changes anything");
        }
        page
    }

    fn page(&self, head: &RequestHead) -> Page {
        let path = head.path.as_ref().map_or("/", |path| path.path());
        let query = head.path.as_ref().and_then(|path| path.query()).unwrap_or("");
        let json = query.split('&').any(|parameter| parameter == "format=json");
        match path {
            "/" | "/help" => Page::text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/stats/prometheus" => self.stats(),
            "/clusters" if json => Page::json(&clusters::json(&self.reader.load())),
            "/clusters" => Page::text(StatusCode::OK, clusters::text(&self.reader.load())),
            "/config_dump" => self.config_dump(query),
            "/findings" if json => self.findings_json(),
            "/findings" => self.findings(),
            _ => Page::text(StatusCode::NOT_FOUND, format!("there is no `{path}` here\n\n{}", help())),
        }
    }

    /// Envoy's `/ready`: `LIVE` when ready. What an operator must know besides follows it.
    fn ready(&self) -> Page {
        if let Some(why) = self.status.not_ready() {
            let state = self.status.state().name();
            return Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{state}\nnot ready: {why}\n"));
        }
        let mut text = "LIVE\n".to_owned();
        let endpoints = self.reader.load().tls_endpoints();
        if self.status.allow_unenforced_security {
            text.push_str(&format!(
                "unenforced security: --allow-unenforced-security sends in plain text what asks for TLS ({endpoints} \
                 endpoints)\n"
            ));
        } else if endpoints > 0 {
            text.push_str(&format!(
                "not enforced: {endpoints} endpoints ask for TLS, which weft cannot speak yet; requests to them are \
                 answered 503\n"
            ));
        }
        Page::text(StatusCode::OK, text)
    }

    fn stats(&self) -> Page {
        let snapshot = self.reader.load();
        self.status.refresh_metrics(&snapshot);
        self.gauges.refresh(&snapshot);
        match self.registry.encode() {
            Ok(text) => Page {
                status: StatusCode::OK,
                content_type: "text/plain; version=0.0.4",
                body: text.into_bytes(),
                allow: None,
            },
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn config_dump(&self, query: &str) -> Page {
        let Some(published) = self.status.last_published() else {
            return Page::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no configuration is served yet; see /ready\n".to_owned(),
            );
        };
        let dump = Selection::of(query).and_then(|selection| {
            config_dump::page(&published.resources, &published.proxy, self.status.generation(), &selection)
        });
        match dump {
            Ok(dump) => Page::json(&dump),
            Err(Refusal::Malformed(what)) => Page::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
            Err(Refusal::NotFound(what)) => Page::text(StatusCode::NOT_FOUND, format!("{what}\n")),
        }
    }

    fn findings(&self) -> Page {
        let findings = self.status.all_findings();
        if findings.is_empty() {
            return Page::text(
                StatusCode::OK,
                "nothing to say: everything is honoured as it is written\n".to_owned(),
            );
        }
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Page::text(StatusCode::OK, format!("{}\n", lines.join("\n")))
    }

    fn findings_json(&self) -> Page {
        match serde_json::to_value(&*self.status.all_findings()) {
            Ok(findings) => Page::json(&findings),
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn help() -> String {
    let mut text = String::from("weft admin console\n\n");
    for (path, what) in PAGES {
        text.push_str(&format!("  {path:<20} {what}\n"));
    }
    text
}
