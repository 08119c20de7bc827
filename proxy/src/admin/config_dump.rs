//! `/config_dump`: the declared configuration in the form of Envoy's page of that name, with where it comes from.
//!
//! Of Envoy's parameters, `resource` and `name_regex` choose a part of it; endpoints are always shown, as with
//! `include_eds`. There is no secret in any declared resource, so none can get out here.

use config::envoy_json::{DumpPart, DumpSelection};
use regex::Regex;

/// Why a dump is not shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was asked for in a way that is not understood.
    Malformed(String),
    /// There is no such part.
    NotFound(String),
}

/// What the query of a request wants.
pub(super) fn selection(query: &str) -> Result<DumpSelection, Refusal> {
    let mut selection = DumpSelection::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        match name {
            "include_eds" => {}
            "resource" => {
                let part = DumpPart::ALL.into_iter().find(|part| part.field() == value);
                let what = || Refusal::NotFound(format!("there is no `{value}` in the dump"));
                selection.part = Some(part.ok_or_else(what)?);
            }
            // From begin to end, as Envoy's.
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
