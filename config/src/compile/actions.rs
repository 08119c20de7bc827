//! Answers without an upstream: redirects and direct responses.

use std::sync::Arc;

use http::StatusCode;

use super::routes::Unusable;
use crate::istio::{HttpDirectResponse, HttpRedirect, RedirectPortSelection};
use crate::resource::{DirectResponse, Redirect, RedirectPath};

/// At the beginning of a redirect's `uri`: only the matched prefix is replaced.
const PREFIX: &str = "%PREFIX()%";

/// The redirect of requests to the plain-text listener of `listener_port`.
///
/// Istio honours `%PREFIX()%` only in rules it makes itself from the Gateway API; here it works wherever it stands,
/// as no path that a client could follow begins like that.
pub(super) fn redirect(told: &HttpRedirect, listener_port: u16) -> Result<Redirect, Unusable> {
    let status = match told.redirect_code.unwrap_or(0) {
        0 | 301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            let why = format!("{other} is not 301, 302, 303, 307 or 308");
            return Err(("redirect.redirectCode".to_owned(), why));
        }
    };
    let text =
        |field: &Option<String>| field.as_deref().filter(|text| !text.is_empty()).map(Arc::<str>::from);
    let path = text(&told.uri).map(|uri| match uri.strip_prefix(PREFIX) {
        Some(rest) => RedirectPath::Prefix(rest.into()),
        None => RedirectPath::Full(uri),
    });
    let scheme = text(&told.scheme);
    Ok(Redirect {
        status,
        port: port(told, scheme.as_deref(), listener_port)?,
        scheme,
        host: text(&told.authority),
        path,
    })
}

/// The port to redirect to; `None` also where it is the default of the scheme.
fn port(told: &HttpRedirect, scheme: Option<&str>, listener_port: u16) -> Result<Option<u16>, Unusable> {
    let port = match (told.port, told.derive_port) {
        (Some(port), _) => {
            u16::try_from(port).map_err(|_| ("redirect.port".to_owned(), format!("{port} is not a port")))?
        }
        (None, Some(RedirectPortSelection::FromRequestPort)) => listener_port,
        (None, Some(RedirectPortSelection::FromProtocolDefault) | None) => 0,
    };
    let is_default = matches!((scheme.unwrap_or("http"), port), (_, 0) | ("http", 80) | ("https", 443));
    Ok((!is_default).then_some(port))
}

/// An answer as it is told.
pub(super) fn direct_response(told: &HttpDirectResponse) -> Result<DirectResponse, Unusable> {
    let status = u16::try_from(told.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    // Envoy answers with 200 to 599 only.
    let status = status.filter(|status| (200..600).contains(&status.as_u16())).ok_or_else(|| {
        ("directResponse.status".to_owned(), format!("{} is not a status from 200 to 599", told.status))
    })?;
    let body = told.body.as_ref();
    let text = body.and_then(|body| body.string.as_ref()).map(|text| text.as_bytes().to_vec());
    let bytes = body.and_then(|body| body.bytes.as_ref()).map(|bytes| {
        base64(bytes).ok_or_else(|| ("directResponse.body.bytes".to_owned(), "it is not base64".to_owned()))
    });
    let body = text.map(Ok).or(bytes).transpose()?.unwrap_or_default();
    Ok(DirectResponse { status, body: body.into(), limit: None })
}

/// Decodes base64 of either alphabet (RFC 4648 sections 4 and 5), with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let check = |yaml: &str, expected: Result<Redirect, &str>| {
            let told: HttpRedirect = crate::testing::from_yaml(yaml).unwrap();
            assert_eq!(
                redirect(&told, 8000).map_err(|(path, _)| path),
                expected.map_err(str::to_owned),
                "{yaml}"
            );
        };
        let plain = Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            host: None,
            port: None,
            path: None,
        };
        check("{}", Ok(plain.clone()));
        check("{uri: /b}", Ok(Redirect { path: Some(RedirectPath::Full("/b".into())), ..plain.clone() }));
        check(
            "{uri: '%PREFIX()%/b'}",
            Ok(Redirect { path: Some(RedirectPath::Prefix("/b".into())), ..plain.clone() }),
        );
        check("{authority: a.b, redirectCode: 308}", {
            Ok(Redirect { host: Some("a.b".into()), status: StatusCode::PERMANENT_REDIRECT, ..plain.clone() })
        });
        check("{port: 80}", Ok(plain.clone()));
        check("{port: 443}", Ok(Redirect { port: Some(443), ..plain.clone() }));
        check("{port: 443, scheme: https}", Ok(Redirect { scheme: Some("https".into()), ..plain.clone() }));
        check("{derivePort: FROM_REQUEST_PORT}", Ok(Redirect { port: Some(8000), ..plain.clone() }));
        check("{derivePort: FROM_PROTOCOL_DEFAULT}", Ok(plain));
        check("{redirectCode: 304}", Err("redirect.redirectCode"));
        check("{port: 70000}", Err("redirect.port"));
    }

    #[test]
    fn direct_responses() {
        let check = |yaml: &str, expected: Result<(u16, &[u8]), &str>| {
            let told: HttpDirectResponse = crate::testing::from_yaml(yaml).unwrap();
            let answer = direct_response(&told);
            let answer =
                answer.as_ref().map(|it| (it.status.as_u16(), &*it.body)).map_err(|(path, _)| path.as_str());
            assert_eq!(answer, expected, "{yaml}");
        };
        check("{status: 204}", Ok((204, b"")));
        check("{status: 503, body: {string: later}}", Ok((503, b"later")));
        check("{status: 200, body: {bytes: 'AP-_'}}", Ok((200, &[0, 255, 191])));
        check("{status: 200, body: {bytes: 'aGk='}}", Ok((200, b"hi")));
        check("{status: 200, body: {bytes: 'a'}}", Err("directResponse.body.bytes"));
        check("{status: 200, body: {bytes: '!!!!'}}", Err("directResponse.body.bytes"));
        check("{status: 100}", Err("directResponse.status"));
        check("{status: 70000}", Err("directResponse.status"));
    }
}
