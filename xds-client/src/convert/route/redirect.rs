//! Answers without an upstream: `config.route.v3.RedirectAction` and `DirectResponseAction`.

use std::sync::Arc;

use config::{DirectResponse, Redirect, RedirectPath};
use envoy_types::pb::envoy::config::route::v3 as pb;
use http::StatusCode;

use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};

use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{enumerated, port, status};
use crate::convert::{Refused, access_log};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::RedirectAction::MESSAGE,
        SchemeRewriteSpecifier::MESSAGE,
        PathRewriteSpecifier::MESSAGE,
        RedirectResponseCode::MESSAGE,
        pb::DirectResponseAction::MESSAGE,
    ]
}

variants!(SchemeRewriteSpecifier as "envoy.config.route.v3.RedirectAction.scheme_rewrite_specifier" {
    honoured: HttpsRedirect, SchemeRedirect;
});

variants!(PathRewriteSpecifier as "envoy.config.route.v3.RedirectAction.path_rewrite_specifier" {
    honoured: PathRedirect, PrefixRewrite;
    refused: RegexRewrite, PathRewrite;
});

variants!(RedirectResponseCode as "envoy.config.route.v3.RedirectAction.RedirectResponseCode" {
    honoured: MovedPermanently, Found, SeeOther, TemporaryRedirect, PermanentRedirect;
});

pub(super) fn redirect(told: pb::RedirectAction, at: &At<'_>) -> Result<Redirect, Refused> {
    open!(told, at, pb::RedirectAction as "envoy.config.route.v3.RedirectAction" {
        honoured: host_redirect, port_redirect, response_code, scheme_rewrite_specifier, path_rewrite_specifier;
        refused: strip_query;
    });
    let at_code = at.field("response_code");
    let status = match enumerated::<RedirectResponseCode>(response_code, &at_code)?.choose(&at_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let scheme: Option<Arc<str>> = match scheme_rewrite_specifier.map(|told| told.choose(at)).transpose()? {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.into()),
    };
    let path = match path_rewrite_specifier.map(|told| told.choose(at)).transpose()? {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Full(path.into())),
        Some(PathRewriteSpecifier::PrefixRewrite(path)) => Some(RedirectPath::Prefix(path.into())),
        Some(_) => return Err(at.not_honoured()),
    };
    let told_port = Some(port(port_redirect, &at.field("port_redirect"))?);
    Ok(Redirect {
        status,
        scheme,
        host: Some(host_redirect).filter(|host| !host.is_empty()).map(Arc::from),
        port: told_port.filter(|port| *port > 0),
        path,
    })
}

pub(super) fn direct_response(
    told: pb::DirectResponseAction,
    at: &At<'_>,
) -> Result<DirectResponse, Refused> {
    open!(told, at, pb::DirectResponseAction as "envoy.config.route.v3.DirectResponseAction" {
        honoured: status, body;
        refused: body_format;
    });
    let at_body = at.field("body");
    let body = body.map(|told| access_log::data(told, &at_body)).transpose()?.unwrap_or_default();
    Ok(DirectResponse { status: self::status(status, &at.field("status"))?, body: body.into(), limit: None })
}
