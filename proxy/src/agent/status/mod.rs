//! The agent's port, Istio's 15020: what the kubelet and Prometheus ask beside the proxy. It answers on a thread of its own
//! and is not redirected, so that it tells the truth also while the proxy cannot.

mod health_check;
mod metrics;
mod probe;
mod probers;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use config::WORKLOAD_SOURCE_V4;
use http::{Method, StatusCode};

use self::metrics::{Application, Merged};
use self::probe::Prober;
use self::probers::Probers;
use super::ask::Asker;
use crate::admin::health;
use crate::admin::{Answer, Answers, Page, Stats, Wanted};
use crate::control::Status;
use crate::http::codec::RequestHead;

pub(crate) use self::metrics::VARIABLE as METRICS_VARIABLE;
pub(crate) use self::probers::VARIABLE as PROBERS_VARIABLE;

/// What the injector tells the agent.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    probers: Probers,
    application: Option<Application>,
    asker: Asker,
}

impl Told {
    /// Reads the values of both variables.
    ///
    /// # Errors
    ///
    /// When one of them is not what the injector writes, which would make a sound application look ill.
    pub(crate) fn read(probers: &str, metrics: &str, status_port: u16) -> Result<Told, String> {
        Ok(Told {
            probers: probers::read(probers)?,
            application: metrics::read(metrics, status_port)?,
            asker: Asker::new()?,
        })
    }
}

/// What a local caller has the proxy do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Tell the clients of inbound connections to leave.
    Drain,
    /// End at once.
    Quit,
}

/// What the port needs.
pub(crate) struct Agent {
    /// What the injector told.
    pub(crate) told: Told,
    /// The pod's address, as the command line or the environment tells it: what counts until the workload is known.
    pub(crate) pod: Option<IpAddr>,
    /// The port itself.
    pub(crate) status_port: u16,
    /// What the control thread knows.
    pub(crate) status: Arc<Status>,
    /// The proxy's metrics.
    pub(crate) stats: Arc<Stats>,
    /// Has it done.
    pub(crate) order: Box<dyn Fn(Order) + Send>,
}

const HELP: &str = "\
  /healthz/ready      200 when the proxy serves, 503 with the reason otherwise
  /stats/prometheus   metrics of the proxy and of the application; also /metrics
  /app-health/...     the application's probes, as the injector rewrote them
  /app-lifecycle/...  the application's hooks
  /drain              POST, from this host: clients of inbound connections are told to leave
  /quitquitquit       POST, from this host: the proxy ends at once
";

impl Agent {
    /// What answers for it.
    pub(crate) fn answers(self) -> Answers {
        let Agent { told, pod, status_port, status, stats, order } = self;
        let prober = Prober { status: status.clone(), told: pod, status_port, asker: told.asker.clone() };
        let merged = Merged::new(stats, told.application, told.asker);
        let parts = Rc::new(Parts { prober, probers: told.probers, merged, status, order });
        Rc::new(move |head, peer| -> Answer {
            let parts = parts.clone();
            Box::pin(async move { parts.answer(head, peer).await })
        })
    }
}

struct Parts {
    prober: Prober,
    probers: Probers,
    merged: Merged,
    status: Arc<Status>,
    order: Box<dyn Fn(Order) + Send>,
}

impl Parts {
    async fn answer(&self, head: RequestHead, peer: SocketAddr) -> Page {
        let path = head.path.as_ref().map_or("/", |path| path.path());
        match path {
            "/healthz" | "/healthz/ready" => health::page(&head, &self.status),
            "/stats/prometheus" | "/metrics" if shows(&head.method) => match Wanted::of(&head) {
                Ok(wanted) => self.merged.page(&wanted, &head.headers).await,
                Err(page) => page,
            },
            "/stats/prometheus" | "/metrics" => {
                Page::only("GET, HEAD", "only GET and HEAD; this page changes nothing")
            }
            "/drain" => self.order(Order::Drain, &head.method, peer),
            "/quitquitquit" => self.order(Order::Quit, &head.method, peer),
            probe if probe.starts_with("/app-health/") || probe.starts_with("/app-lifecycle/") => {
                match self.probers.get(probe) {
                    Some(probe) => self.prober.answer(probe, head).await,
                    None => {
                        let what = format!("{} holds no probe `{probe}`\n", probers::VARIABLE);
                        Page::text(StatusCode::BAD_REQUEST, what)
                    }
                }
            }
            other => Page::text(StatusCode::NOT_FOUND, format!("there is no `{other}` here\n\n{HELP}")),
        }
    }

    fn order(&self, order: Order, method: &Method, peer: SocketAddr) -> Page {
        if !is_from_here(peer.ip()) {
            let what = "only requests from this host are allowed\n";
            return Page::text(StatusCode::FORBIDDEN, what.to_owned());
        }
        if method != Method::POST {
            return Page::only("POST", "this page changes something, which needs POST");
        }
        tracing::info!(?order, "by the agent's port");
        (self.order)(order);
        Page::text(StatusCode::OK, "OK\n".to_owned())
    }
}

/// Whether somebody on this host asks. The proxy itself does not count: what it dials from its own address of loopback is
/// passed on for a client elsewhere, where the redirect rules bring this port to it.
fn is_from_here(peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() && peer != WORKLOAD_SOURCE_V4
}

fn shows(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
