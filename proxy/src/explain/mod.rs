//! Why a request goes where it goes, or fails: the decisions of the data path, made once more with a trace that remembers.
//!
//! [`explain`] asks the very functions that serve traffic (listener and filter chain, admission, route table, draw of the
//! destination, balancer, refusals) and turns what they tell into [`Step`]s, each with the object, file and line behind it,
//! and for a setting that no object tells whose default it is. Nothing is sent and nothing changes: random draws are the
//! question's, and counts and ejections are read where a proxy runs.
//!
//! Reading order: [`question`], [`connection`], [`handshake`], [`request`], [`upstream`], [`mod@text`].

mod again;
mod asked;
mod conditions;
mod connection;
mod handshake;
mod question;
mod recorded;
mod request;
mod settings;
mod text;
mod trace;
mod transport;
mod upstream;
mod whereabouts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use config::NameTable;
use config::ToldBy;
use config::compile::Proxy;
use config::finding::{Finding, Severity, code};
use config::objects::Objects;
use config::origin::{ObjectRef, Origin};
use serde::{Deserialize, Serialize};

use crate::snapshot::{Listener, Snapshot};
use crate::telemetry::flight::Cause;
pub(crate) use asked::Asked;
pub(crate) use question::{Question, Way, address};
pub(crate) use recorded::{RecordedAs, recorded, time_of_day};
pub(crate) use text::text;

/// What is asked about: what would decide, and what is known beside it.
pub(crate) struct World<'w> {
    /// What would decide.
    pub(crate) snapshot: &'w Snapshot,
    /// The objects it was compiled from, to name them.
    pub(crate) objects: &'w Objects,
    /// The names of the mesh, as the workload resolves them.
    pub(crate) names: &'w NameTable,
    /// The workload.
    pub(crate) proxy: &'w Proxy,
    /// What there is to say about the configuration.
    pub(crate) findings: &'w [Finding],
    /// Since when the objects and findings are these; the same generation may have been made of others before.
    pub(crate) told: SystemTime,
    /// Whether a proxy serves by it, so that counts say something.
    pub(crate) is_live: bool,
    /// Why a proxy that starts by it serves nothing at all, where it is so.
    pub(crate) unserved: Option<&'w str>,
    /// Names of listeners, and where they were bound: the kernel chooses a port where 0 is asked for.
    pub(crate) bound: &'w [(String, SocketAddr)],
    /// Whether what guards the workload and is not enforced yet is passed over (`--allow-unenforced-security`).
    pub(crate) allows_unenforced: bool,
    /// Limits of the process.
    pub(crate) limits: &'w config::Limits,
}

/// A decision, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// What was asked, in one line.
    pub(crate) asked: String,
    /// The workload whose proxy decides.
    pub(crate) workload: String,
    /// The generation that a running proxy serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// The decision.
    pub(crate) steps: Vec<Step>,
    /// What comes of it.
    pub(crate) outcome: Outcome,
    /// What there is to say about the objects that had a part in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<String>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// What kind of step it is, such as `filter_chain` or `rule`.
    pub(crate) step: String,
    /// What was decided, in words.
    pub(crate) what: String,
    /// The object that made it so, with file and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<Named>,
    /// Whose default it is, where no object made it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    /// Its parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
}

/// An object, and where it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
}

/// What becomes of a request or connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Does {
    /// A request goes to an endpoint.
    Forwards,
    /// A connection goes to an endpoint, its bytes as they are.
    PassesOn,
    /// The proxy answers by itself.
    Answers,
    /// The connection is closed.
    #[default]
    Closes,
}

/// What comes of a decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What becomes of it.
    pub(crate) does: Does,
    /// Why, where it fails: what an access log calls details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<String>,
    /// The status of an answer of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// The `grpc-status` of an answer of ours to a gRPC request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u8>,
    /// The response flags of the access log, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flags: Option<String>,
    /// Where a redirect leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    /// Name of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// All clusters that the rule may draw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) clusters: Vec<Arc<str>>,
    /// The cluster that was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<Arc<str>>,
    /// The endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<SocketAddr>,
    /// The authority that the upstream sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// The path that the upstream sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
}

/// Explains what would become of what is asked about.
///
/// # Errors
///
/// When the question has no answer: what is wrong with it.
pub(crate) fn explain(world: &World<'_>, question: &Question) -> Result<Explanation, String> {
    let asked = question.understand(world)?;
    let start = |why| Step::new("not_served", format!("a proxy that starts by this serves nothing: {why}"));
    let mut steps: Vec<Step> = world.unserved.map(start).into_iter().collect();
    steps.extend_from_slice(&asked.steps);
    let outcome = connection::follow(world, &asked, &mut steps);
    let findings = findings(world, &steps);
    let workload = workload(world);
    let generation = world.is_live.then_some(world.snapshot.generation);
    Ok(Explanation { asked: asked.line, workload, generation, steps, outcome, findings })
}

fn workload(world: &World<'_>) -> String {
    match &*world.proxy.name {
        "" => format!("a workload of namespace {}", world.proxy.namespace),
        name => format!("{name}.{}", world.proxy.namespace),
    }
}

/// Most findings that are told with a decision.
const FINDINGS_MAX: usize = 20;

/// What there is to say about the objects that had a part in it.
fn findings(world: &World<'_>, steps: &[Step]) -> Vec<String> {
    let mut named = Vec::new();
    collect(steps, &mut named);
    let of = world.findings.iter().filter(|finding| matters(world, finding, &named));
    // What is said about objects that are named comes first.
    let of = of.chain(world.findings.iter().filter(|finding| may_have_decided(world, finding, &named)));
    of.take(FINDINGS_MAX).map(ToString::to_string).collect()
}

/// Whether a finding says something about the decision: that an object of it is refused or has a rule that cannot match, or
/// something about the very place that is named.
fn matters(world: &World<'_>, finding: &Finding, named: &[&Named]) -> bool {
    let Some(object) = &finding.object else { return false };
    let mut of_object = named.iter().filter(|named| named.is_of(object)).peekable();
    if of_object.peek().is_none() {
        return false;
    }
    let always = [code::UNREACHABLE_RULE, code::LAST_GOOD_SERVES];
    if finding.severity == Severity::Error || always.contains(&finding.code) {
        return true;
    }
    let rule = finding.path.split_inclusive(']').next().filter(|path| path.starts_with("spec.http["));
    let place = match rule {
        Some(rule) => {
            let key = (object.namespace.clone(), object.name.clone());
            let object = world.objects.virtual_services.get(&key);
            object.and_then(|object| object.origin_at(rule).place)
        }
        None if finding.severity == Severity::Warning => return true,
        None => finding.place.clone(),
    };
    place.is_some_and(|place| of_object.any(|named| named.line == Some(place.line)))
}

/// Whether an object is refused that may have decided: of a kind that had no part, with no good version that serves, near to
/// what had. Which hosts it is for nobody knows, for its text says nothing that holds.
fn may_have_decided(world: &World<'_>, finding: &Finding, named: &[&Named]) -> bool {
    let Some(object) = finding.object.as_ref().filter(|_| finding.severity == Severity::Error) else {
        return false;
    };
    let key = (object.namespace.clone(), object.name.clone());
    let serves = match &*object.kind {
        "VirtualService" => world.objects.virtual_services.contains_key(&key),
        "DestinationRule" => world.objects.destination_rules.contains_key(&key),
        _ => return false,
    };
    let is_near = object.namespace == world.proxy.namespace
        || named.iter().any(|named| *named.namespace == *object.namespace);
    !serves && is_near && !named.iter().any(|named| *named.kind == *object.kind)
}

fn collect<'s>(steps: &'s [Step], named: &mut Vec<&'s Named>) {
    for step in steps {
        named.extend(&step.object);
        collect(&step.steps, named);
    }
}

impl Step {
    fn new(step: &str, what: impl Into<String>) -> Step {
        Step { step: step.to_owned(), what: what.into(), object: None, default: None, steps: Vec::new() }
    }

    /// Because of this object.
    fn by(mut self, origin: Option<&Origin>) -> Step {
        self.object = origin.map(Named::of);
        self
    }

    /// A setting that `origin` told, or the mesh, or nobody.
    fn told(self, by: ToldBy, origin: Option<&Origin>) -> Step {
        match by.whose_default() {
            None => self.by(origin),
            Some(whose) => self.default_of(whose),
        }
    }

    /// Because of this object, or else by a default.
    fn by_or(self, origin: Option<&Origin>, whose: &str) -> Step {
        match origin {
            Some(_) => self.by(origin),
            None => self.default_of(whose),
        }
    }

    fn default_of(mut self, whose: &str) -> Step {
        self.default = Some(whose.to_owned());
        self
    }

    fn with(mut self, steps: Vec<Step>) -> Step {
        self.steps = steps;
        self
    }
}

impl Named {
    fn is_of(&self, object: &ObjectRef) -> bool {
        *self.kind == *object.kind && *self.namespace == *object.namespace && *self.name == *object.name
    }

    fn of(origin: &Origin) -> Named {
        let ObjectRef { kind, namespace, name } = &origin.object;
        Named {
            kind: kind.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            file: origin.place.as_ref().map(|place| place.file.to_string()),
            line: origin.place.as_ref().map(|place| place.line),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name)?,
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name)?,
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            _ => Ok(()),
        }
    }
}

impl World<'_> {
    /// A cause in words; where it names no object, with the Service or ServiceEntry of its cluster.
    pub(crate) fn cause(&self, cause: &Cause) -> Arc<str> {
        match cause.service.as_ref().and_then(|service| self.service(service)) {
            Some(origin) => format!("{} of {origin}", cause.text).into(),
            None => cause.text.clone(),
        }
    }

    /// The Service or ServiceEntry behind a service of a cluster.
    fn service(&self, service: &config::ServiceRef) -> Option<Origin> {
        let key = (service.namespace.clone(), service.name.clone());
        let kubernetes = self.objects.services.get(&key).map(|object| object.origin());
        kubernetes.or_else(|| self.objects.service_entries.get(&key).map(|object| object.origin())).or_else(
            || {
                // A ServiceEntry is not known by its own name there, but by its host.
                let has = |object: &&Arc<config::objects::Object<config::istio::ServiceEntry>>| {
                    object.namespace() == &service.namespace
                        && object.spec.hosts.iter().any(|host| host.eq_ignore_ascii_case(&service.host))
                };
                self.objects.service_entries.values().find(has).map(|object| object.origin())
            },
        )
    }

    /// Where a listener was bound.
    fn bound(&self, listener: &config::Listener) -> SocketAddr {
        let mut bound = self.bound.iter().filter(|(name, _)| **name == *listener.name);
        bound.next().map_or(listener.address, |(_, address)| *address)
    }

    /// The listener of the command line for which the kernel chose this very port.
    fn bound_at(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        let is_it = |bound: &SocketAddr| {
            let ip = bound.ip();
            let is_any = ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4();
            bound.port() == address.port() && (ip == address.ip() || is_any)
        };
        let mut bound = self.bound.iter().filter(|(_, bound)| is_it(bound));
        bound.find_map(|(name, _)| {
            let listener = self.snapshot.listeners.get(name.as_str())?;
            (listener.declared.address.port() == 0).then_some(listener)
        })
    }

    /// The service of a cluster, if it has one.
    fn service_of(&self, cluster: &config::Cluster) -> Option<Origin> {
        cluster.metadata.services.first().and_then(|service| self.service(service))
    }
}
