//! `/logging`: the levels of the process's own log, shown and set.

use http::{Method, StatusCode};
use tracing::level_filters::LevelFilter;

use super::Page;
use super::query::Query;
use crate::http::codec::RequestHead;
use crate::telemetry::logging::{LOGGERS, Logging, level_of};

const USAGE: &str = "\
usage: POST /logging?NAME=LEVEL (one logger)
usage: POST /logging?paths=NAME:LEVEL,NAME:LEVEL,... (several)
usage: POST /logging?level=LEVEL (everything)
levels: trace debug info warning error critical off; nothing is critical, so it is the same as off
";

/// What a request asks to be set.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    All(LevelFilter),
    Some(Vec<(&'static str, LevelFilter)>),
}

/// Shows the levels to GET; sets them by POST, and shows them then.
pub(super) fn page(head: &RequestHead, logging: Option<&Logging>) -> Page {
    let query = Query::of(head);
    match head.method {
        Method::GET | Method::HEAD if query.0.is_empty() => {}
        Method::GET | Method::HEAD => return Page::only("POST", "levels are set by POST"),
        Method::POST => {}
        _ => return Page::only("GET, HEAD, POST", "GET shows the levels, POST sets them"),
    }
    let Some(logging) = logging else {
        let what = "weft is a part of another program here, and the log is that program's\n";
        return Page::text(StatusCode::NOT_IMPLEMENTED, what.to_owned());
    };
    let change = match change(&query) {
        Ok(change) => change,
        Err(what) => return Page::text(StatusCode::BAD_REQUEST, format!("error: {what}\n\n{USAGE}")),
    };
    let set = match change {
        Change::Nothing => Ok(()),
        Change::All(level) => logging.set_all(level),
        Change::Some(levels) => logging.set(&levels),
    };
    match set {
        Ok(()) => Page::text(StatusCode::OK, shown(logging)),
        Err(why) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("error: {why}\n")),
    }
}

fn shown(logging: &Logging) -> String {
    let loggers = logging.levels().into_iter().map(|(name, level)| format!("  {name}: {level}\n"));
    format!("active loggers:\n{}\nthe same as --log {}\n", loggers.collect::<String>(), logging.filter())
}

fn change(query: &Query) -> Result<Change, String> {
    let (name, value) = match query.0.as_slice() {
        [] => return Ok(Change::Nothing),
        [(name, value)] => (name.as_str(), value.as_str()),
        _ => return Err("invalid number of parameters; there is one".to_owned()),
    };
    Ok(match name {
        "level" => Change::All(level(value)?),
        "paths" => {
            let paths = value.split(',').map(|path| {
                let (name, value) =
                    path.split_once(':').ok_or_else(|| format!("`{path}` is not NAME:LEVEL"))?;
                Ok((logger(name)?, level(value)?))
            });
            Change::Some(paths.collect::<Result<_, String>>()?)
        }
        name => Change::Some(vec![(logger(name)?, level(value)?)]),
    })
}

fn logger(name: &str) -> Result<&'static str, String> {
    let known = LOGGERS.into_iter().find(|known| *known == name);
    known.ok_or_else(|| format!("unknown logger name `{name}`; there are {}", LOGGERS.join(", ")))
}

fn level(name: &str) -> Result<LevelFilter, String> {
    level_of(name).ok_or_else(|| format!("unknown logger level `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        let check = |pairs: &[(&str, &str)], expected: Result<Change, &str>| {
            let query = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let change = change(&Query(query.collect()));
            assert_eq!(change, expected.map_err(str::to_owned), "{pairs:?}");
        };
        check(&[], Ok(Change::Nothing));
        check(&[("level", "debug")], Ok(Change::All(LevelFilter::DEBUG)));
        check(&[("http", "warning")], Ok(Change::Some(vec![("http", LevelFilter::WARN)])));
        let both = vec![("http", LevelFilter::TRACE), ("control", LevelFilter::OFF)];
        check(&[("paths", "http:trace,control:critical")], Ok(Change::Some(both)));
        check(&[("level", "loud")], Err("unknown logger level `loud`"));
        check(&[("paths", "http")], Err("`http` is not NAME:LEVEL"));
        check(&[("http", "")], Err("unknown logger level ``"));
        check(&[("http", "info"), ("app", "info")], Err("invalid number of parameters; there is one"));
        let names =
            "admin, agent, app, cli, control, engine, http, listener, net, tcp, telemetry, upstream, worker";
        check(&[("router", "info")], Err(&format!("unknown logger name `router`; there are {names}")));
        check(&[("paths", "http:info,:info")], Err(&format!("unknown logger name ``; there are {names}")));
    }
}
