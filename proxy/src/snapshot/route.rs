//! One rule, resolved: Envoy's `Route` with its action.

use std::sync::Arc;
use std::time::Duration;

use config::format::Operator;
use http::{HeaderName, HeaderValue};
use regex::bytes::Regex;

use super::Mismatch;
use super::matchers::{RouteMatcher, Subject};

/// A resolved [`config::Route`].
#[derive(Debug)]
pub(crate) struct Route {
    host: Arc<config::VirtualHost>,
    index: usize,
    matcher: RouteMatcher,
    /// What it does.
    pub(crate) action: Action,
    /// Headers it changes.
    pub(crate) mutations: Mutations,
    /// `x-envoy-decorator-operation`; `None` when the operation is empty or cannot be a header value.
    pub(crate) operation: Option<HeaderValue>,
    /// Whether headers of the response are made of those of the request.
    pub(crate) response_asks_request: bool,
}

/// A resolved [`config::RouteAction`].
#[derive(Debug)]
pub(crate) enum Action {
    /// To a cluster.
    Forward(Box<Forward>),
    /// A redirect, which is applied as it was declared.
    Redirect(config::Redirect),
    /// An answer at once.
    DirectResponse(config::DirectResponse),
}

/// A resolved [`config::Forward`].
#[derive(Debug)]
pub(crate) struct Forward {
    /// Where to, by weight; never empty.
    pub(crate) destinations: Box<[Destination]>,
    /// Sum of the weights; over 0.
    total_weight: u64,
    /// From the end of the request to the end of the response; `None` for no limit.
    pub(crate) timeout: Option<Duration>,
    /// See [`config::Forward::max_grpc_timeout`].
    pub(crate) max_grpc_timeout: Option<Duration>,
    /// When to try again.
    pub(crate) retry_policy: Option<config::RetryPolicy>,
    /// What the upstream sees as path.
    pub(crate) path_rewrite: Option<PathRewrite>,
    /// What the upstream sees as authority.
    pub(crate) host_rewrite: Option<HeaderValue>,
}

/// A resolved [`config::WeightedCluster`], or the only cluster.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Name of the cluster.
    pub(crate) cluster: Arc<str>,
    weight: u32,
    /// Headers changed for it.
    pub(crate) mutations: Mutations,
    /// Authority for it, unless the rule has one.
    pub(crate) host_rewrite: Option<HeaderValue>,
}

/// A resolved [`config::PathRewrite`].
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// The matched part becomes this.
    Prefix(Arc<str>),
    /// Every match becomes the substitution.
    Regex {
        /// What is looked for.
        pattern: Regex,
        /// What each match becomes, in the regular expression library's own syntax.
        substitution: Box<[u8]>,
    },
}

/// Resolved [`config::HeaderMutations`].
#[derive(Debug, Default)]
pub(crate) struct Mutations {
    /// Removed towards the upstream.
    pub(crate) request_remove: Box<[HeaderName]>,
    /// Written towards the upstream.
    pub(crate) request_add: Box<[HeaderToAdd]>,
    /// Removed towards the client.
    pub(crate) response_remove: Box<[HeaderName]>,
    /// Written towards the client.
    pub(crate) response_add: Box<[HeaderToAdd]>,
    /// Whether what is written towards the client is made of headers of the request.
    response_asks_request: bool,
}

/// A resolved [`config::HeaderToAdd`].
#[derive(Debug)]
pub(crate) struct HeaderToAdd {
    /// Its name.
    pub(crate) name: HeaderName,
    /// Its value.
    pub(crate) value: HeaderValueTemplate,
    /// What happens to values already there.
    pub(crate) action: config::HeaderAppendAction,
}

/// A header value: made beforehand when nothing in it has to be looked up.
#[derive(Debug)]
pub(crate) enum HeaderValueTemplate {
    /// Always this.
    Literal(HeaderValue),
    /// To be written for each request.
    Format(config::format::Format),
}

impl Route {
    /// Resolves the rule with this index of `host`, if there is one.
    pub(super) fn resolve(host: &Arc<config::VirtualHost>, index: usize) -> Option<Arc<Route>> {
        let declared = host.routes.get(index)?;
        let action = Action::resolve(&declared.action);
        let mutations = declared.headers.as_deref().map(Mutations::resolve).unwrap_or_default();
        let asks = |destination: &Destination| destination.mutations.response_asks_request;
        let response_asks_request = mutations.response_asks_request
            || matches!(&action, Action::Forward(forward) if forward.destinations.iter().any(asks));
        Some(Arc::new(Route {
            response_asks_request,
            host: host.clone(),
            index,
            matcher: RouteMatcher::resolve(&declared.matches),
            action,
            mutations,
            operation: Some(&declared.operation)
                .filter(|operation| !operation.is_empty())
                .and_then(|operation| HeaderValue::from_str(operation).ok()),
        }))
    }

    /// What it was resolved from.
    pub(crate) fn declared(&self) -> Option<&config::Route> {
        self.host.routes.get(self.index)
    }

    /// Its name; may be empty.
    pub(crate) fn name(&self) -> &str {
        self.declared().map_or("", |declared| &declared.name)
    }

    /// Its index in the virtual host.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The virtual host it belongs to.
    pub(crate) fn virtual_host(&self) -> &config::VirtualHost {
        &self.host
    }

    /// Whether it applies, or the first condition that does not hold.
    pub(super) fn matches(&self, subject: &Subject<'_>) -> Result<(), Mismatch> {
        self.matcher.matches(subject)
    }

    /// The length of the part of `path` that a prefix rewrite or prefix redirect replaces.
    pub(crate) fn matched_length(&self, path: &str) -> usize {
        self.matcher.matched_length(path)
    }
}

impl Action {
    fn resolve(declared: &config::RouteAction) -> Action {
        match declared {
            config::RouteAction::Forward(forward) => Action::Forward(Box::new(Forward::resolve(forward))),
            config::RouteAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
            config::RouteAction::DirectResponse(response) => Action::DirectResponse(response.clone()),
        }
    }
}

impl Forward {
    fn resolve(declared: &config::Forward) -> Forward {
        let destinations: Box<[Destination]> = match &declared.destinations {
            config::Destinations::Cluster(cluster) => Box::new([Destination {
                cluster: cluster.clone(),
                weight: 1,
                mutations: Mutations::default(),
                host_rewrite: None,
            }]),
            config::Destinations::Weighted(clusters) => clusters.iter().map(Destination::resolve).collect(),
        };
        Forward {
            total_weight: destinations.iter().map(|destination| u64::from(destination.weight)).sum(),
            destinations,
            timeout: Some(declared.timeout).filter(|timeout| !timeout.is_zero()),
            max_grpc_timeout: declared.max_grpc_timeout,
            retry_policy: declared.retry_policy.clone(),
            path_rewrite: declared.path_rewrite.as_ref().and_then(PathRewrite::resolve),
            host_rewrite: resolve_host(declared.host_rewrite.as_ref()),
        }
    }

    /// Draws the destination of one request, by index; it is kept across the request's retries.
    pub(crate) fn draw(&self, random: u64) -> usize {
        if self.destinations.len() < 2 || self.total_weight == 0 {
            return 0;
        }
        let mut point = random % self.total_weight;
        for (index, destination) in self.destinations.iter().enumerate() {
            match point.checked_sub(u64::from(destination.weight)) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        0
    }
}

impl Destination {
    /// Its share of the rule's requests.
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    fn resolve(declared: &config::WeightedCluster) -> Destination {
        Destination {
            cluster: declared.cluster.clone(),
            weight: declared.weight,
            mutations: Mutations::resolve(&declared.headers),
            host_rewrite: resolve_host(declared.host_rewrite.as_ref()),
        }
    }
}

fn resolve_host(declared: Option<&config::HostRewrite>) -> Option<HeaderValue> {
    declared.and_then(|rewrite| HeaderValue::from_str(&rewrite.literal).ok())
}

impl PathRewrite {
    fn resolve(declared: &config::PathRewrite) -> Option<PathRewrite> {
        Some(match declared {
            config::PathRewrite::Prefix(prefix) => PathRewrite::Prefix(prefix.clone()),
            config::PathRewrite::Regex(rewrite) => PathRewrite::Regex {
                pattern: config::pattern::search(&rewrite.pattern).ok()?,
                substitution: config::pattern::substitution(&rewrite.substitution).into_bytes().into(),
            },
        })
    }
}

impl Mutations {
    fn resolve(declared: &config::HeaderMutations) -> Mutations {
        let asks = |operator: &Operator| matches!(operator, Operator::RequestHeader(_));
        let resolve = |headers: &[config::HeaderToAdd], in_request| {
            headers.iter().filter_map(|header| HeaderToAdd::resolve(header, in_request)).collect()
        };
        let mut written = declared.response_add.iter().flat_map(|header| header.value.operators());
        Mutations {
            response_asks_request: written.any(asks),
            request_remove: declared.request_remove.clone().into(),
            request_add: resolve(&declared.request_add, true),
            response_remove: declared.response_remove.clone().into(),
            response_add: resolve(&declared.response_add, false),
        }
    }
}

impl HeaderToAdd {
    /// `None` for a value that is empty, which Envoy does not write, for one that no header can have, which validation has
    /// refused before it comes here, and for a name that is not written.
    fn resolve(declared: &config::HeaderToAdd, in_request: bool) -> Option<HeaderToAdd> {
        let literal = declared.value.as_literal();
        if !config::HeaderToAdd::is_honoured(&declared.name, literal, in_request) {
            return None;
        }
        let value = match literal {
            Some("") => return None,
            Some(text) => HeaderValueTemplate::Literal(HeaderValue::from_str(text).ok()?),
            None => HeaderValueTemplate::Format(declared.value.clone()),
        };
        Some(HeaderToAdd { name: declared.name.clone(), value, action: declared.action })
    }
}
