//! `/config_dump`: the declared configuration in the form of Envoy's page of that name, with where it comes from.
//!
//! Of Envoy's parameters, `resource` and `name_regex` choose a part of it; endpoints are always shown, as with
//! `include_eds`. There is no secret in any declared resource, so none can get out here.

use config::Resources;
use config::compile::Proxy;
use config::envoy_json;
use regex::Regex;
use serde_json::{Value, json};

/// What is shown of the configuration.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// A field of Envoy's dump, such as `dynamic_active_clusters`; all when not given.
    resource: Option<String>,
    /// What names must match from begin to end.
    name: Option<Regex>,
}

/// Why a dump is not shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was asked for in a way that is not understood.
    Malformed(String),
    /// There is no such part.
    NotFound(String),
}

impl Selection {
    /// Reads the query of the request.
    pub(super) fn of(query: &str) -> Result<Selection, Refusal> {
        let mut selection = Selection::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            match name {
                "include_eds" => {}
                "resource" => selection.resource = Some(value.into_owned()),
                "name_regex" => {
                    let whole = Regex::new(&format!(r"\A(?:{value})\z"));
                    let regex = whole.map_err(|error| Refusal::Malformed(format!("name_regex: {error}")))?;
                    selection.name = Some(regex);
                }
                _ => {
                    let what = format!("`{name}` is not one of include_eds, resource, name_regex");
                    return Err(Refusal::Malformed(what));
                }
            }
        }
        Ok(selection)
    }
}

/// The dump of what was published as `version`.
pub(super) fn page(
    resources: &Resources,
    proxy: &Proxy,
    version: u64,
    selection: &Selection,
) -> Result<Value, Refusal> {
    let mut dump = envoy_json::config_dump(resources, &version.to_string());
    let configs = dump.get_mut("configs").and_then(Value::as_array_mut);
    let Some(configs) = configs else { return Ok(dump) };
    configs.insert(0, envoy_json::bootstrap_dump(proxy));
    if let Some(name) = &selection.name {
        for field in configs.iter_mut().filter_map(Value::as_object_mut).flatten() {
            if let Value::Array(entries) = field.1 {
                entries.retain(|entry| name.is_match(name_of(entry)));
            }
        }
    }
    let Some(resource) = &selection.resource else { return Ok(dump) };
    let found = configs.iter_mut().find_map(|config| config.get_mut(resource).map(Value::take));
    match found {
        Some(Value::Array(entries)) => Ok(json!({ "configs": entries })),
        Some(value) => Ok(json!({ "configs": [value] })),
        None => Err(Refusal::NotFound(format!("there is no `{resource}` in the dump"))),
    }
}

/// The name of the resource in an entry of a dump.
fn name_of(entry: &Value) -> &str {
    let resource = ["cluster", "route_config"].iter().find_map(|field| entry.get(field)).unwrap_or(entry);
    let name = resource.get("name").or_else(|| entry.pointer("/endpoint_config/cluster_name"));
    name.and_then(Value::as_str).unwrap_or_default()
}
