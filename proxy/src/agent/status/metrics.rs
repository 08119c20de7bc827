//! The application's own metrics, to be shown beside the proxy's. The injector takes over the annotations by which
//! Prometheus would find the application, and hands what they said to the agent. Semantics: the Istio agent's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

use crate::admin::{Page, Stats, Wanted};
use crate::agent::ask::{Asker, Failure, forward_headers};
use crate::http::codec::{RequestHead, Version};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Cell as Series, Shard};

/// The variable, whose value is a JSON object.
pub(crate) const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";

/// Bytes of the application's metrics; of more, none are shown, because a part would mislead.
const APPLICATION_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of them that are sent at once.
const APPLICATION_PART_BYTES: usize = 16 * 1024;

/// How long the application may take when Prometheus does not say how long it waits; its own default.
const SCRAPE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long Prometheus waits, in seconds.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The coding that is none.
const IDENTITY: &str = "identity";

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS_0_0_1: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";
const OPEN_METRICS_1_0_0: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The line that ends metrics in OpenMetrics' format.
const END: &str = "# EOF";

/// Where the application tells its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Application {
    port: u16,
    path: PathAndQuery,
    tls: bool,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Written {
    scrape: String,
    path: String,
    port: String,
    scheme: String,
}

impl Default for Written {
    fn default() -> Written {
        let text = str::to_owned;
        Written { scrape: text("true"), path: text(""), port: text(""), scheme: text("http") }
    }
}

/// Reads the value of the variable. An empty one holds for an application without metrics.
///
/// # Errors
///
/// When it is not what the injector writes, or would have the agent ask itself: why.
pub(crate) fn read(text: &str, status_port: u16) -> Result<Option<Application>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let written: Written = serde_json::from_str(text).map_err(|error| format!("{VARIABLE}: {error}"))?;
    if written.scrape == "false" {
        return Ok(None);
    }
    let port = if written.port.is_empty() { "80" } else { &written.port };
    let port: Option<u16> = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("{VARIABLE}: port: `{}` is none", written.port))?;
    if port == status_port {
        return Err(format!(
            "{VARIABLE}: port {port} is the agent's own, which would ask itself without end; annotate the pod with the \
             application's port, and see that it is not injected twice"
        ));
    }
    let path = match written.path.as_str() {
        "" => "/metrics".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let path = path.parse().map_err(|error| format!("{VARIABLE}: path: `{path}`: {error}"))?;
    let tls = match written.scheme.as_str() {
        "" | "http" => false,
        "https" => true,
        other => return Err(format!("{VARIABLE}: scheme: `{other}` is neither http nor https")),
    };
    Ok(Some(Application { port, path, tls }))
}

/// Shows the proxy's metrics and the application's as one page.
pub(crate) struct Merged {
    stats: Arc<Stats>,
    application: Option<Application>,
    asker: Asker,
    shard: Arc<Shard>,
    asked: Series,
    application_failures: Series,
}

/// What the application told.
struct Told {
    content_type: &'static str,
    text: Vec<u8>,
}

impl Merged {
    /// Of the proxy, and of the application if it has any.
    pub(crate) fn new(stats: Arc<Stats>, application: Option<Application>, asker: Asker) -> Merged {
        let registry = stats.registry().clone();
        let failures = |of| registry.series(Family::AgentScrapeFailures, &[of]);
        // The proxy's own can always be had. Istio's agent tells the series all the same.
        failures("envoy");
        Merged {
            shard: registry.shard(),
            asked: registry.series(Family::AgentScrapes, &[]),
            application_failures: failures("application"),
            stats,
            application,
            asker,
        }
    }

    /// What can be had: without the application's metrics the proxy's are shown all the same, and what is missing is
    /// counted.
    pub(crate) async fn page(&self, wanted: &Wanted, asked: &HeaderMap) -> Page {
        self.shard.increment(self.asked);
        let told = match &self.application {
            Some(application) => self.ask(application, asked).await,
            None => None,
        };
        let content_type = told.as_ref().map_or(TEXT, |told| told.content_type);
        let mut rest = told.map_or_else(Bytes::new, |told| told.text.into());
        let application = std::iter::from_fn(move || {
            let part = rest.split_to(rest.len().min(APPLICATION_PART_BYTES));
            (!part.is_empty()).then(|| part.to_vec())
        });
        // The application's come last: what they end with ends all.
        let parts = self.stats.parts(wanted.names.as_ref(), wanted.used_only).chain(application);
        Page::metrics(content_type, Box::new(parts), asked)
    }

    async fn ask(&self, application: &Application, asked: &HeaderMap) -> Option<Told> {
        let timeout = asked.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let timeout = timeout.unwrap_or(SCRAPE_TIMEOUT_DEFAULT);
        let answered = tokio::time::timeout(timeout, self.answered(application, asked)).await;
        let why = match answered {
            Ok(Ok(told)) => return Some(told),
            Ok(Err(why)) => why,
            Err(_) => format!("not within {timeout:?}"),
        };
        tracing::warn!(port = application.port, path = %application.path, why, "the application told no metrics");
        self.shard.increment(self.application_failures);
        None
    }

    async fn answered(&self, application: &Application, asked: &HeaderMap) -> Result<Told, String> {
        let head = application.head(asked);
        let mut last = None;
        for localhost in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let to = (localhost, application.port).into();
            match self.asker.ask(None, to, application.tls, &head, APPLICATION_BYTES_MAX).await {
                Err(Failure::Connect(error)) => last = last.or(Some(error)),
                Err(failure) => return Err(failure.to_string()),
                Ok(answered) if answered.status != StatusCode::OK => {
                    return Err(format!("HTTP status {}", answered.status));
                }
                Ok(answered) if answered.headers.get(CONTENT_ENCODING).is_some_and(|it| it != IDENTITY) => {
                    return Err("it is encoded, which was not asked for".to_owned());
                }
                Ok(answered) if answered.cut => {
                    return Err(format!("more than {APPLICATION_BYTES_MAX} bytes"));
                }
                Ok(answered) => {
                    let content_type = content_type(answered.headers.get(CONTENT_TYPE));
                    return Ok(Told { content_type, text: ended(&answered.body, content_type) });
                }
            }
        }
        Err(last.map_or_else(String::new, |error| format!("cannot connect: {error}")))
    }
}

impl Application {
    /// The question, with what Prometheus says of itself.
    fn head(&self, asked: &HeaderMap) -> RequestHead {
        let mut headers = HeaderMap::new();
        for name in [ACCEPT, USER_AGENT, SCRAPE_TIMEOUT] {
            if let Some(value) = asked.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        forward_headers(&mut headers);
        // What is shown beside other metrics is not unpacked before.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(IDENTITY));
        RequestHead {
            method: Method::GET,
            version: Version::Http11,
            authority: HeaderValue::from_str(&format!("localhost:{}", self.port)).ok(),
            scheme: None,
            path: Some(self.path.clone()),
            headers,
        }
    }
}

/// The format of the whole: that of the application's part.
fn content_type(told: Option<&HeaderValue>) -> &'static str {
    let told = told.and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut parts = told.split(';').map(str::trim);
    if parts.next() != Some("application/openmetrics-text") {
        return TEXT;
    }
    match parts.find_map(|part| part.strip_prefix("version=")).map(|version| version.trim_matches('"')) {
        Some("1.0.0") => OPEN_METRICS_1_0_0,
        Some("0.0.1") | None => OPEN_METRICS_0_0_1,
        Some(_) => TEXT,
    }
}

/// The application's metrics with the end that the format has: OpenMetrics' last line, or none.
fn ended(body: &[u8], content_type: &str) -> Vec<u8> {
    let body = body.trim_ascii_end();
    let without = body.strip_suffix(END.as_bytes()).filter(|rest| rest.is_empty() || rest.ends_with(b"\n"));
    let mut text = without.unwrap_or(body).to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    if content_type != TEXT {
        text.extend_from_slice(END.as_bytes());
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_injector_writes() {
        let check = |text: &str, expected: Option<(u16, &str, bool)>| {
            let expected =
                expected.map(|(port, path, tls)| Application { port, path: path.parse().unwrap(), tls });
            assert_eq!(read(text, 15020), Ok(expected), "{text}");
        };
        check("", None);
        check(r#"{"scrape": "false", "port": "1"}"#, None);
        check("{}", Some((80, "/metrics", false)));
        check(r#"{"scrape": "", "path": "", "port": ""}"#, Some((80, "/metrics", false)));
        check(r#"{"scrape": "true", "path": "a?b=c", "port": "9"}"#, Some((9, "/a?b=c", false)));
        check(r#"{"scheme": "https", "port": "9"}"#, Some((9, "/metrics", true)));
        for bad in
            ["[", r#"{"port": "x"}"#, r#"{"port": "0"}"#, r#"{"port": "15020"}"#, r#"{"scheme": "ftp"}"#]
        {
            assert!(read(bad, 15020).unwrap_err().starts_with(VARIABLE), "{bad}");
        }
    }

    #[test]
    fn formats() {
        let check = |told: &'static str, expected: &str| {
            assert_eq!(content_type(Some(&HeaderValue::from_static(told))), expected, "{told}");
        };
        check("text/plain", TEXT);
        check("application/openmetrics-text", OPEN_METRICS_0_0_1);
        check("application/openmetrics-text; version=0.0.1; charset=utf-8", OPEN_METRICS_0_0_1);
        check("Application/OpenMetrics-Text;version=\"1.0.0\"", OPEN_METRICS_1_0_0);
        check("application/openmetrics-text; version=2.0.0", TEXT);
        check("application/vnd.google.protobuf", TEXT);
        assert_eq!(content_type(None), TEXT);
    }

    #[test]
    fn ends() {
        let check = |body: &str, text: &str, open_metrics: &str| {
            assert_eq!(ended(body.as_bytes(), TEXT), text.as_bytes(), "{body:?}");
            assert_eq!(ended(body.as_bytes(), OPEN_METRICS_1_0_0), open_metrics.as_bytes(), "{body:?}");
        };
        check("a 1\n", "a 1\n", "a 1\n# EOF\n");
        check("a 1", "a 1\n", "a 1\n# EOF\n");
        check("a 1\n# EOF\n", "a 1\n", "a 1\n# EOF\n");
        check("a 1\n# EOF", "a 1\n", "a 1\n# EOF\n");
        check("# EOF\n", "", "# EOF\n");
        check("", "", "# EOF\n");
        check("# HELP a # EOF\n", "# HELP a # EOF\n", "# HELP a # EOF\n# EOF\n");
    }
}
