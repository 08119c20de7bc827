//! `config.route.v3.RouteConfiguration` and what is in it.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde_json::{Map, Value, json};

use super::proto;
use crate::resource::{
    Destinations, DirectResponse, Forward, HeaderAppendAction, HeaderMatch, HeaderMatcher, HeaderMutations,
    HeaderToAdd, MatchedHeader, PathMatch, PathRewrite, QueryParameterMatcher, Redirect, RedirectPath,
    RetryBackOff, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, StringMatch, VirtualHost,
    WeightedCluster,
};

/// Bound of direct responses that istiod sets; Envoy's own is 4 KiB.
const DIRECT_RESPONSE_BODY_BYTES_MAX: u32 = 1024 * 1024;
/// Envoy's default of `retry_back_off.base_interval`.
const RETRY_BASE_INTERVAL: Duration = Duration::from_millis(25);
/// Envoy's default of `retry_back_off.max_interval`, as a multiple of the base.
const RETRY_MAX_INTERVAL_FACTOR: u32 = 10;

/// A route configuration in Envoy's JSON.
pub fn route_configuration(routes: &RouteConfiguration) -> Value {
    let mut value = without_hosts(routes);
    if let Some(fields) = value.as_object_mut() {
        let hosts = routes.virtual_hosts.iter().map(|host| virtual_host(host));
        fields.insert("virtual_hosts".to_owned(), hosts.collect());
    }
    value
}

/// All of it but the virtual hosts.
pub(super) fn without_hosts(routes: &RouteConfiguration) -> Value {
    json!({
        "name": &*routes.name,
        "validate_clusters": false,
        "max_direct_response_body_size_bytes": DIRECT_RESPONSE_BODY_BYTES_MAX,
        "ignore_port_in_host_matching": routes.ignore_port_in_host_matching,
    })
}

pub(super) fn virtual_host(host: &VirtualHost) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(&*host.name));
    fields.insert("domains".to_owned(), host.domains.iter().map(|domain| json!(&**domain)).collect());
    if !host.routes.is_empty() {
        fields.insert("routes".to_owned(), host.routes.iter().map(route).collect());
    }
    if host.include_request_attempt_count {
        fields.insert("include_request_attempt_count".to_owned(), json!(true));
    }
    Value::Object(fields)
}

/// A rule in Envoy's JSON.
pub fn route(route: &Route) -> Value {
    let mut fields = Map::new();
    if !route.name.is_empty() {
        fields.insert("name".to_owned(), json!(&*route.name));
    }
    fields.insert("match".to_owned(), route_match(&route.matches));
    let (kind, action) = match &route.action {
        RouteAction::Forward(action) => ("route", forward(action)),
        RouteAction::Redirect(action) => ("redirect", redirect(action)),
        RouteAction::DirectResponse(action) => ("direct_response", direct_response(action)),
    };
    fields.insert(kind.to_owned(), action);
    if !route.operation.is_empty() {
        fields.insert("decorator".to_owned(), json!({ "operation": &*route.operation }));
    }
    if let Some(changes) = &route.headers {
        headers(&mut fields, changes);
    }
    // A redirect that a Gateway asks for is no route of Envoy's, but `require_tls` of its virtual host.
    let origin = route.origin.as_deref().filter(|origin| *origin.object.kind != *"Gateway");
    let metadata = proto::metadata(origin, Map::new());
    fields.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
    Value::Object(fields)
}

fn route_match(matches: &RouteMatch) -> Value {
    let mut fields = Map::new();
    let (kind, path) = match &matches.path {
        PathMatch::Prefix(prefix) => ("prefix", json!(&**prefix)),
        PathMatch::Path(path) => ("path", json!(&**path)),
        PathMatch::SafeRegex(regex) => ("safe_regex", json!({ "regex": &**regex })),
    };
    fields.insert(kind.to_owned(), path);
    if !matches.case_sensitive {
        fields.insert("case_sensitive".to_owned(), json!(false));
    }
    if !matches.headers.is_empty() {
        fields.insert("headers".to_owned(), matches.headers.iter().map(header_matcher).collect());
    }
    if !matches.query_parameters.is_empty() {
        let parameters = matches.query_parameters.iter().map(query_parameter_matcher);
        fields.insert("query_parameters".to_owned(), parameters.collect());
    }
    Value::Object(fields)
}

fn header_matcher(matcher: &HeaderMatcher) -> Value {
    let mut fields = Map::new();
    let name = match &matcher.name {
        MatchedHeader::Method => ":method",
        MatchedHeader::Authority => ":authority",
        MatchedHeader::Scheme => ":scheme",
        MatchedHeader::Header(name) => name.as_str(),
    };
    fields.insert("name".to_owned(), json!(name));
    match &matcher.value {
        HeaderMatch::Value(value) => fields.insert("string_match".to_owned(), string_match(value)),
        HeaderMatch::Present => fields.insert("present_match".to_owned(), json!(true)),
    };
    if matcher.invert {
        fields.insert("invert_match".to_owned(), json!(true));
    }
    if matcher.treat_missing_as_empty {
        fields.insert("treat_missing_header_as_empty".to_owned(), json!(true));
    }
    Value::Object(fields)
}

fn query_parameter_matcher(matcher: &QueryParameterMatcher) -> Value {
    match &matcher.value {
        Some(value) => json!({ "name": &*matcher.name, "string_match": string_match(value) }),
        None => json!({ "name": &*matcher.name, "present_match": true }),
    }
}

fn string_match(value: &StringMatch) -> Value {
    match value {
        StringMatch::Exact(exact) => json!({ "exact": &**exact }),
        StringMatch::Prefix(prefix) => json!({ "prefix": &**prefix }),
        StringMatch::SafeRegex(regex) => json!({ "safe_regex": { "regex": &**regex } }),
    }
}

fn forward(action: &Forward) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match &action.destinations {
        Destinations::Cluster(cluster) => set("cluster", json!(&**cluster)),
        Destinations::Weighted(clusters) => {
            let clusters: Value = clusters.iter().map(weighted_cluster).collect();
            set("weighted_clusters", json!({ "clusters": clusters }))
        }
    };
    set("timeout", proto::duration(action.timeout));
    if let Some(timeout) = action.max_grpc_timeout {
        set("max_grpc_timeout", proto::duration(timeout));
    }
    if let Some(policy) = &action.retry_policy {
        set("retry_policy", retry_policy(policy));
    }
    match &action.path_rewrite {
        Some(PathRewrite::Prefix(prefix)) => {
            set("prefix_rewrite", json!(&**prefix));
        }
        Some(PathRewrite::Regex(regex)) => {
            let rewrite =
                json!({ "pattern": { "regex": &*regex.pattern }, "substitution": &*regex.substitution });
            set("regex_rewrite", rewrite);
        }
        None => {}
    }
    if let Some(host) = &action.host_rewrite {
        set("host_rewrite_literal", json!(&*host.literal));
    }
    Value::Object(fields)
}

fn weighted_cluster(cluster: &WeightedCluster) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(&*cluster.cluster));
    fields.insert("weight".to_owned(), json!(cluster.weight));
    headers(&mut fields, &cluster.headers);
    if let Some(host) = &cluster.host_rewrite {
        fields.insert("host_rewrite_literal".to_owned(), json!(&*host.literal));
    }
    Value::Object(fields)
}

fn retry_policy(policy: &RetryPolicy) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    let names: Vec<&str> = policy.retry_on.iter().map(|condition| condition.name()).collect();
    set("retry_on", json!(names.join(",")));
    set("num_retries", json!(policy.num_retries));
    if !policy.retriable_status_codes.is_empty() {
        let codes = policy.retriable_status_codes.iter().map(|code| json!(code.as_u16()));
        set("retriable_status_codes", codes.collect());
    }
    if !policy.per_try_timeout.is_zero() {
        set("per_try_timeout", proto::duration(policy.per_try_timeout));
    }
    if let Some(back_off) = retry_back_off(policy.back_off) {
        set("retry_back_off", back_off);
    }
    if policy.avoid_previous_hosts {
        set(
            "retry_host_predicate",
            json!([proto::extension(
                "envoy.retry_host_predicates.previous_hosts",
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                json!({}),
            )]),
        );
    }
    // 1 is what it is anyway; 64-bit numbers are strings in proto-JSON.
    if policy.host_selection_retry_max_attempts != 1 {
        let attempts = policy.host_selection_retry_max_attempts.to_string();
        set("host_selection_retry_max_attempts", json!(attempts));
    }
    if policy.avoid_previous_priorities {
        set(
            "retry_priority",
            proto::extension(
                "envoy.retry_priorities.previous_priorities",
                "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                json!({ "update_frequency": 2 }),
            ),
        );
    }
    Value::Object(fields)
}

/// `None` for Envoy's default.
fn retry_back_off(back_off: RetryBackOff) -> Option<Value> {
    let RetryBackOff { base_interval, max_interval } = back_off;
    let is_default_max = max_interval == base_interval.saturating_mul(RETRY_MAX_INTERVAL_FACTOR);
    match (base_interval == RETRY_BASE_INTERVAL, is_default_max) {
        (true, true) => None,
        (false, true) => Some(json!({ "base_interval": proto::duration(base_interval) })),
        (_, false) => Some(json!({
            "base_interval": proto::duration(base_interval),
            "max_interval": proto::duration(max_interval),
        })),
    }
}

fn redirect(action: &Redirect) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    let code = match action.status {
        StatusCode::FOUND => Some("FOUND"),
        StatusCode::SEE_OTHER => Some("SEE_OTHER"),
        StatusCode::TEMPORARY_REDIRECT => Some("TEMPORARY_REDIRECT"),
        StatusCode::PERMANENT_REDIRECT => Some("PERMANENT_REDIRECT"),
        // MOVED_PERMANENTLY is the default.
        _ => None,
    };
    if let Some(code) = code {
        set("response_code", json!(code));
    }
    if let Some(scheme) = &action.scheme {
        set("scheme_redirect", json!(&**scheme));
    }
    if let Some(host) = &action.host {
        set("host_redirect", json!(&**host));
    }
    if let Some(port) = action.port {
        set("port_redirect", json!(port));
    }
    match &action.path {
        Some(RedirectPath::Full(path)) => {
            set("path_redirect", json!(&**path));
        }
        Some(RedirectPath::Prefix(prefix)) => {
            set("prefix_rewrite", json!(&**prefix));
        }
        None => {}
    }
    Value::Object(fields)
}

fn direct_response(action: &DirectResponse) -> Value {
    let status = action.status.as_u16();
    if action.body.is_empty() {
        return json!({ "status": status });
    }
    let body = match std::str::from_utf8(&action.body) {
        Ok(text) => json!({ "inline_string": text }),
        Err(_) => json!({ "inline_bytes": proto::base64(&action.body) }),
    };
    json!({ "status": status, "body": body })
}

fn headers(fields: &mut Map<String, Value>, headers: &HeaderMutations) {
    let add = |headers: &[HeaderToAdd]| headers.iter().map(header_to_add).collect::<Vec<_>>();
    let remove = |headers: &[HeaderName]| headers.iter().map(|name| json!(name.as_str())).collect::<Vec<_>>();
    let lists = [
        ("request_headers_to_add", add(&headers.request_add)),
        ("request_headers_to_remove", remove(&headers.request_remove)),
        ("response_headers_to_add", add(&headers.response_add)),
        ("response_headers_to_remove", remove(&headers.response_remove)),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            fields.insert(name.to_owned(), Value::Array(list));
        }
    }
}

fn header_to_add(header: &HeaderToAdd) -> Value {
    let mut value = json!({ "header": { "key": header.name.as_str(), "value": header.value.text() } });
    if let Some(fields) = value.as_object_mut() {
        match header.action {
            // The default.
            HeaderAppendAction::AppendIfExistsOrAdd => {}
            HeaderAppendAction::OverwriteIfExistsOrAdd => {
                fields.insert("append_action".to_owned(), json!("OVERWRITE_IF_EXISTS_OR_ADD"));
            }
        }
    }
    value
}
