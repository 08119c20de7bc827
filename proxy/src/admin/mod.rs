//! The admin console: what an operator may ask a running proxy. Paths and forms are Envoy's where Envoy has them.

mod answer;
mod browsers;
mod clusters;
mod coding;
mod config_dump;
mod gauges;
pub(crate) mod health;
mod listeners;
mod logging;
mod page;
mod process;
mod query;
mod recorder;
mod routes;
mod serve;
pub(crate) mod stats;

use std::rc::Rc;
use std::sync::Arc;

use config::envoy_json;
use http::{Method, StatusCode};

use self::config_dump::Refusal;
use crate::control::Status;
use crate::explain::{Asked, World, explain};
use crate::http::codec::RequestHead;
use crate::snapshot::Reader;
use crate::telemetry::logging::Logging;
pub(crate) use answer::{Content, FullBody, Page};
pub(crate) use process::Process;
use query::{Chosen, Query};
pub(crate) use serve::{Answer, Answers, Serving};
pub(crate) use stats::{Stats, Wanted};

/// What the console shows.
pub(crate) struct Console {
    /// What the control thread knows.
    pub(crate) status: Arc<Status>,
    /// What is served.
    pub(crate) reader: Reader,
    /// All numbers.
    pub(crate) stats: Arc<Stats>,
    /// What does not change while the process lives.
    pub(crate) process: Process,
    /// The process's own log, where it is weft's.
    pub(crate) logging: Option<Arc<Logging>>,
    /// Limits of the process.
    pub(crate) limits: config::Limits,
    /// Has listeners drained.
    pub(crate) drain: Box<dyn Fn(DrainListeners) + Send>,
}

/// What `/drain_listeners` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainListeners {
    /// Only those of inbound traffic.
    pub(crate) inbound_only: bool,
    /// Connections are told to close first, and the listeners accept until the drain is over.
    pub(crate) graceful: bool,
    /// After a graceful drain the listeners go on to accept.
    pub(crate) skip_exit: bool,
}

/// A page, for whoever asks and for `/help`.
struct Entry {
    path: &'static str,
    access: Access,
    /// What may be in the query; `None` where the page reads that by itself.
    parameters: Option<&'static [&'static str]>,
    /// What it tells.
    what: &'static str,
}

/// Which methods a page has.
enum Access {
    /// It shows: GET and HEAD.
    Show,
    /// It changes something: POST.
    Change,
    /// It decides by itself.
    Own,
}

const fn show(path: &'static str, parameters: &'static [&'static str], what: &'static str) -> Entry {
    Entry { path, access: Access::Show, parameters: Some(parameters), what }
}

const fn change(path: &'static str, parameters: &'static [&'static str], what: &'static str) -> Entry {
    Entry { path, access: Access::Change, parameters: Some(parameters), what }
}

const PAGES: [Entry; 21] = [
    show(
        "/certs",
        &[],
        "certificates by which listeners terminate TLS, and roots of their clients'; Secrets in `path`",
    ),
    show(
        "/clusters",
        &["filter", "format", "limit"],
        "clusters and their endpoints with live figures; ?filter=RE of names, ?limit=N, ?format=json",
    ),
    Entry {
        path: "/config_dump",
        access: Access::Show,
        parameters: None,
        what: "the declared configuration, as Envoy's, with its origins; ?resource=FIELD, ?name_regex=RE",
    },
    change(
        "/drain_listeners",
        &["graceful", "inboundonly", "skip_exit"],
        "POST: listeners accept no more; ?inboundonly, ?graceful tells connections to close first, &skip_exit only that",
    ),
    Entry {
        path: "/explain",
        access: Access::Own,
        parameters: None,
        what: "why a request goes where it goes: POST ?url=URL&method=M&header=N:V, ?tcp=ADDRESS&sni=NAME; way, source, \
               mtls, certificate, destination, listener, draw, pick; ?format=json",
    },
    show("/errors", &["format"], "what failed in the last hour, by cause; ?format=json"),
    show(
        "/findings",
        &["filter", "format", "limit"],
        "what is wrong or not honoured in the configuration; ?filter=RE, ?limit=N, ?format=json",
    ),
    change("/healthcheck/fail", &[], "POST: readiness fails, connections are closed after their next answer"),
    change("/healthcheck/ok", &[], "POST: takes that back"),
    show("/help", &[], "this list"),
    show(
        "/listeners",
        &["filter", "format", "limit"],
        "listeners and where they listen; ?filter=RE of names, ?limit=N, ?format=json also their filter chains",
    ),
    Entry {
        path: "/logging",
        access: Access::Own,
        parameters: None,
        what: "levels of the process's own log; POST ?level=LEVEL, ?NAME=LEVEL, ?paths=NAME:LEVEL,...",
    },
    show("/memory", &[], "memory of the process, as far as it is known"),
    show("/ready", &[], "200 when a configuration is served, 503 and the reason otherwise"),
    show(
        "/recorder",
        &["filter", "format", "id", "last"],
        "requests that failed or were sampled, newest first; ?last=N, ?filter=REGEX of a line or its cause, ?id=ID step by step, \
         an x-request-id or as it is listed; ?format=json",
    ),
    show(
        "/routes",
        &["filter", "format", "limit"],
        "rules of HTTP in the order they are tried, those of listeners too; ?filter=RE of names, ?limit=N, ?format=json",
    ),
    show("/server_info", &[], "version, state, uptime, arguments and node"),
    show(
        "/stats/prometheus",
        stats::PARAMETERS,
        "metrics in Prometheus' text format; ?filter=RE of names, ?usedonly without those that are 0",
    ),
    Entry {
        path: "/",
        access: Access::Show,
        parameters: None,
        what: "a page for people: all of this, and a form that explains a request; /?explain=QUERY asks at once, /?id=REQUEST_ID draws a recorded one",
    },
    show("/page.css", &[], "its style"),
    show("/page.js", &[], "its script"),
];

impl Console {
    /// What answers for it.
    pub(crate) fn answers(self) -> Answers {
        let console = Rc::new(self);
        Rc::new(move |head, _| {
            let console = console.clone();
            Box::pin(async move { console.answer(&head).await })
        })
    }

    async fn answer(&self, head: &RequestHead) -> Page {
        if let Some(refused) = browsers::refused(head) {
            return refused;
        }
        let Some(path) = head.path.as_ref().map(|path| path.path()) else {
            let what = "the request has no path that can be read; see /help\n".to_owned();
            return Page::text(StatusCode::BAD_REQUEST, what);
        };
        let Some(entry) = PAGES.iter().find(|entry| entry.path == path) else {
            return Page::text(StatusCode::NOT_FOUND, format!("there is no `{path}` here\n\n{}", help()));
        };
        match (&entry.access, &head.method) {
            (Access::Show, &Method::GET | &Method::HEAD)
            | (Access::Change, &Method::POST)
            | (Access::Own, _) => {}
            (Access::Show, _) => {
                return Page::only("GET, HEAD", "only GET and HEAD; this page changes nothing");
            }
            (Access::Change, _) => {
                return Page::only("POST", "this page changes something, which needs POST");
            }
        }
        let query = Query::of(head);
        if let Some(what) = entry.parameters.and_then(|parameters| query.not_understood(parameters)) {
            return Page::text(StatusCode::BAD_REQUEST, format!("{what}\n"));
        }
        match path {
            // The workers are asked.
            "/recorder" | "/errors" => self.recorder(path, &query).await,
            _ => self.page(path, &query, head),
        }
    }

    async fn recorder(&self, path: &str, query: &Query) -> Page {
        let recorded = self.status.recorded().await;
        self.with_world(|world| recorder::page(path, query, recorded, world))
    }

    /// A page about what decides now, if there is anything yet.
    fn with_world(&self, page: impl FnOnce(Option<&World<'_>>) -> Page) -> Page {
        let Some(published) = self.status.last_published() else { return page(None) };
        let findings = self.status.all_findings();
        let bound = listeners::addresses(&self.status);
        // Places in the objects are right for the snapshot of their own generation only.
        page(Some(&World {
            snapshot: &published.snapshot,
            objects: &published.objects,
            names: &published.names,
            proxy: &published.proxy,
            findings: &findings,
            told: self.status.told_since(),
            is_live: true,
            unserved: None,
            bound: &bound,
            allows_unenforced: self.status.allow_unenforced_security,
            limits: &self.limits,
        }))
    }

    fn page(&self, path: &str, query: &Query, head: &RequestHead) -> Page {
        match path {
            "/ready" => self.ready(),
            "/stats/prometheus" => {
                self.stats.page(query.filter().as_ref(), query.has("usedonly"), &head.headers)
            }
            "/clusters" => clusters::page(&self.reader.load(), query),
            "/config_dump" => self.config_dump(query::text(head)),
            "/explain" => self.explain(head),
            "/findings" => self.findings(query),
            "/listeners" => listeners::page(&self.status, query),
            "/routes" => match self.status.last_published() {
                Some(published) => routes::page(&published.resources, query),
                None => nothing_served(),
            },
            "/server_info" => Page::json(&process::server_info(&self.status, &self.process)),
            "/memory" => Page::json(&process::memory()),
            "/certs" => {
                Page::json(&process::certs(&self.reader.load(), self.status.identity_state().as_deref()))
            }
            "/logging" => logging::page(head, self.logging.as_deref()),
            "/healthcheck/fail" => self.set_health(true),
            "/healthcheck/ok" => self.set_health(false),
            "/drain_listeners" => self.drain_listeners(query),
            "/" => page::document(query),
            "/page.css" => page::style(),
            "/page.js" => page::script(),
            _ => Page::text(StatusCode::OK, help()),
        }
    }

    fn set_health(&self, failed: bool) -> Page {
        self.status.health.set_failed(failed);
        tracing::info!(failed, "health, by the admin console");
        Page::text(StatusCode::OK, "OK\n".to_owned())
    }

    fn drain_listeners(&self, query: &Query) -> Page {
        let asked = DrainListeners {
            inbound_only: query.has("inboundonly"),
            graceful: query.has("graceful"),
            skip_exit: query.has("skip_exit"),
        };
        if asked.skip_exit && !asked.graceful {
            let what = "skip_exit means nothing without graceful: say `?graceful&skip_exit`\n";
            return Page::text(StatusCode::BAD_REQUEST, what.to_owned());
        }
        if !self.status.is_serving() {
            let what = "there is no listener to drain yet; see /ready\n";
            return Page::text(StatusCode::SERVICE_UNAVAILABLE, what.to_owned());
        }
        (self.drain)(asked);
        Page::text(StatusCode::OK, "OK\n".to_owned())
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
                "not enforced: {endpoints} endpoints ask for TLS that cannot be spoken; requests to them are \
                 answered 503\n"
            ));
        }
        Page::text(StatusCode::OK, text)
    }

    fn explain(&self, head: &RequestHead) -> Page {
        if ![Method::GET, Method::HEAD, Method::POST].contains(&head.method) {
            return Page::only("GET, HEAD, POST", "only GET, HEAD and POST; this page changes nothing");
        }
        let asked = match Asked::parse(query::text(head)) {
            Ok(asked) => asked,
            Err(what) => return Page::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
        };
        self.with_world(|world| match world.map(|world| explain(world, &asked.question)) {
            None => nothing_served(),
            Some(Ok(explanation)) => recorder::explanation(&explanation, asked.json),
            Some(Err(what)) => Page::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
        })
    }

    fn config_dump(&self, query: &str) -> Page {
        let Some(published) = self.status.last_published() else { return nothing_served() };
        let version = self.status.generation().to_string();
        match config_dump::selection(query) {
            Ok(selection) => Page::json_pieces(envoy_json::config_dump(
                &published.resources,
                &published.proxy,
                &version,
                &selection,
            )),
            Err(Refusal::Malformed(what)) => Page::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
            Err(Refusal::NotFound(what)) => Page::text(StatusCode::NOT_FOUND, format!("{what}\n")),
        }
    }

    fn findings(&self, query: &Query) -> Page {
        let findings = self.status.all_findings();
        let chosen = query.choose(0..findings.len(), |at, filter| match findings.get(*at) {
            Some(finding) => filter.is_match(&finding.to_string()),
            None => false,
        });
        let Chosen { rows, matching } = chosen;
        let (shown, found) = (rows.into_iter(), findings);
        if query.wants_json() {
            let json = shown.filter_map(move |at| serde_json::to_value(found.get(at)?).ok());
            return Page::json_list("[", json, "]");
        }
        if matching == 0 {
            let what = "nothing to say: everything is honoured as it is written\n";
            return Page::text(StatusCode::OK, what.to_owned());
        }
        Page::lines(shown.filter_map(move |at| Some(format!("{}\n", found.get(at)?))))
    }
}

fn nothing_served() -> Page {
    let what = "no configuration is served yet; see /ready\n";
    Page::text(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
}

fn help() -> String {
    let mut text = String::from("weft admin console\n\n");
    for Entry { path, what, .. } in &PAGES {
        text.push_str(&format!("  {path:<20} {what}\n"));
    }
    text
}
