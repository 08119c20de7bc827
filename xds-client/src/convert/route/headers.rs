//! Changes to headers: `config.core.v3.HeaderValueOption` and lists of names.

use config::{HeaderAppendAction, HeaderMutations, HeaderToAdd};
use envoy_types::pb::envoy::config::core::v3 as core;
use http::HeaderName;

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told as _, open, variants};
use crate::convert::values::{enumerated, format, header_name, needed};

use core::header_value_option::HeaderAppendAction as Append;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![core::HeaderValueOption::MESSAGE, core::HeaderValue::MESSAGE, Append::MESSAGE]
}

variants!(Append as "envoy.config.core.v3.HeaderValueOption.HeaderAppendAction" {
    honoured: AppendIfExistsOrAdd, OverwriteIfExistsOrAdd;
    refused: AddIfAbsent, OverwriteIfExists;
});

/// The four lists that stand in several messages.
pub(super) struct Told {
    pub(super) request_add: Vec<core::HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<core::HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
}

pub(super) fn mutations(told: Told, at: &At<'_>) -> Result<HeaderMutations, Refused> {
    Ok(HeaderMutations {
        request_remove: names(&told.request_remove, "request_headers_to_remove", at)?,
        request_add: additions(told.request_add, "request_headers_to_add", at)?,
        response_remove: names(&told.response_remove, "response_headers_to_remove", at)?,
        response_add: additions(told.response_add, "response_headers_to_add", at)?,
    })
}

fn names(told: &[String], field: &str, at: &At<'_>) -> Result<Vec<HeaderName>, Refused> {
    told.iter().enumerate().map(|(index, name)| header_name(name, &at.index(field, index))).collect()
}

fn additions(
    told: Vec<core::HeaderValueOption>,
    field: &str,
    at: &At<'_>,
) -> Result<Vec<HeaderToAdd>, Refused> {
    told.into_iter().enumerate().map(|(index, told)| addition(told, &at.index(field, index))).collect()
}

fn addition(told: core::HeaderValueOption, at: &At<'_>) -> Result<HeaderToAdd, Refused> {
    open!(told, at, core::HeaderValueOption as "envoy.config.core.v3.HeaderValueOption" {
        honoured: header, append_action;
        refused: append, keep_empty_value;
    });
    let at_action = at.field("append_action");
    let action = match enumerated::<Append>(append_action, &at_action)?.choose(&at_action)? {
        Append::AppendIfExistsOrAdd => HeaderAppendAction::AppendIfExistsOrAdd,
        Append::OverwriteIfExistsOrAdd => HeaderAppendAction::OverwriteIfExistsOrAdd,
        Append::AddIfAbsent | Append::OverwriteIfExists => return Err(at_action.not_honoured()),
    };
    let at = at.field("header");
    open!(needed(header, &at)?, at, core::HeaderValue as "envoy.config.core.v3.HeaderValue" {
        honoured: key, value;
        refused: raw_value;
    });
    Ok(HeaderToAdd {
        name: header_name(&key, &at.field("key"))?,
        value: format(&value, &at.field("value"))?,
        action,
    })
}
