//! The query of a request to the console. Nothing in it is passed over: what a page does not know is refused.

use percent_encoding::percent_decode_str;
use regex::Regex;

use crate::http::codec::RequestHead;

/// Names and values, in order, decoded. A name without `=` has the value ``.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    /// That of a request.
    pub(super) fn of(head: &RequestHead) -> Query {
        Query::parse(text(head))
    }

    fn parse(text: &str) -> Query {
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parameters = text.split('&').filter(|parameter| !parameter.is_empty());
        let pairs = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        Query(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// What of it a page with these parameters does not understand. Of `format` it understands `json` and `text`, of
    /// `filter` a regular expression, of `last` and `limit` a whole number, of `id` anything; the others are said or not, and have no
    /// value.
    pub(super) fn not_understood(&self, parameters: &[&str]) -> Option<String> {
        self.0.iter().enumerate().find_map(|(index, (name, value))| {
            if !parameters.contains(&name.as_str()) {
                return Some(match parameters {
                    [] => format!("`{name}`: this page takes no parameters"),
                    known => format!("`{name}` is not one of {}", known.join(", ")),
                });
            }
            if self.0.iter().take(index).any(|(before, _)| before == name) {
                return Some(format!("`{name}` comes twice"));
            }
            match name.as_str() {
                "format" if matches!(value.as_str(), "json" | "text") => None,
                "format" => Some(format!("`{value}` is not a format; there are json and text")),
                "filter" => {
                    Regex::new(value).err().map(|_| format!("filter: `{value}` is not a regular expression"))
                }
                "last" | "limit" => {
                    value.parse::<usize>().err().map(|_| format!("{name}: `{value}` is not a whole number"))
                }
                "id" => None,
                _ if value.is_empty() => None,
                _ => Some(format!("`{name}` takes no value; leave it out when it is not meant")),
            }
        })
    }

    /// Whether a parameter is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// What a parameter says.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Which names are wanted; all when nothing is said.
    pub(super) fn filter(&self) -> Option<Regex> {
        self.value("filter").and_then(|value| Regex::new(value).ok())
    }

    /// How many are wanted, if it says so.
    pub(super) fn last(&self) -> Option<usize> {
        self.value("last").and_then(|value| value.parse().ok())
    }

    /// What `filter` lets through of `rows`, and the first `limit` of it.
    pub(super) fn choose<T>(
        &self,
        rows: impl Iterator<Item = T>,
        matches: impl Fn(&T, &Regex) -> bool,
    ) -> Chosen<T> {
        let limit = self.value("limit").and_then(|value| value.parse().ok()).unwrap_or(usize::MAX);
        let (filter, mut chosen) = (self.filter(), Chosen { rows: Vec::new(), matching: 0 });
        for row in rows.filter(|row| filter.as_ref().is_none_or(|filter| matches(row, filter))) {
            chosen.matching += 1;
            if chosen.rows.len() < limit {
                chosen.rows.push(row);
            }
        }
        chosen
    }

    /// Whether the page is wanted as JSON.
    pub(super) fn wants_json(&self) -> bool {
        self.value("format") == Some("json")
    }
}

/// The rows of a page that are wanted.
pub(super) struct Chosen<T> {
    /// Those that are shown.
    pub(super) rows: Vec<T>,
    /// How many there are, with those that are too many to be shown.
    pub(super) matching: usize,
}

/// As it was written.
pub(super) fn text(head: &RequestHead) -> &str {
    head.path.as_ref().and_then(|path| path.query()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood() {
        let check = |text: &str, expected: Option<&str>| {
            let refused =
                Query::parse(text).not_understood(&["format", "graceful", "filter", "id", "last", "limit"]);
            assert_eq!(refused.as_deref(), expected, "{text}");
        };
        for text in [
            "",
            "&",
            "format=json",
            "format=text",
            "graceful",
            "graceful=&format=json",
            "f%6frmat=json",
            "filter=^a%5B0-9%5D",
            "id=&last=0",
            "limit=20",
            "id=a%20b&last=18446744073709551615",
        ] {
            check(text, None);
        }
        check("formt=json", Some("`formt` is not one of format, graceful, filter, id, last, limit"));
        check("last=all", Some("last: `all` is not a whole number"));
        check("limit=-1", Some("limit: `-1` is not a whole number"));
        check("last", Some("last: `` is not a whole number"));
        check("id=a&id=b", Some("`id` comes twice"));
        check("filter=(", Some("filter: `(` is not a regular expression"));
        check("format=yaml", Some("`yaml` is not a format; there are json and text"));
        check("format", Some("`` is not a format; there are json and text"));
        check("graceful=false", Some("`graceful` takes no value; leave it out when it is not meant"));
        check("graceful&graceful", Some("`graceful` comes twice"));
        let none = Query::parse("a=b").not_understood(&[]);
        assert_eq!(none.as_deref(), Some("`a`: this page takes no parameters"));
    }
}
