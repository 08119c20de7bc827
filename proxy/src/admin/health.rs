//! The health port: whether a kubelet or a load balancer should send traffic, and whether the process is alive. Paths are
//! those of the Istio agent, which Istio's injector writes into probes.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::Page;
use super::serve::{Answers, at_once};
use crate::control::Status;
use crate::http::codec::RequestHead;

/// What answers on the health port.
pub(crate) fn answers(status: Arc<Status>) -> Answers {
    at_once(move |head| page(head, &status))
}

/// The answer to one request.
pub(crate) fn page(head: &RequestHead, status: &Status) -> Page {
    let not_ready = match head.path.as_ref().map_or("/", |path| path.path()) {
        "/healthz/ready" => status.takes_no_traffic(),
        // Whoever is answered here knows that the process lives.
        "/healthz" => None,
        other => {
            let what = format!("there is no `{other}` here; there are /healthz/ready and /healthz\n");
            return Page::text(StatusCode::NOT_FOUND, what);
        }
    };
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Page::only("GET, HEAD", "only GET and HEAD; nothing here changes anything");
    }
    match not_ready {
        None => Page::text(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
