//! What an object would guard if it were good: asked of its tree, so that also an object that cannot be read tells.

use super::kinds::Kind;
use super::tree::{Node, Value};

/// A policy that guards trust, by what it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The host that it is for; `None` when that cannot be read.
    pub host: Option<String>,
}

impl Guard {
    /// What the object at `root` guards: a DestinationRule that asks for TLS, its host; a security policy, what it
    /// selects, which nobody tries to read where something else in it is wrong.
    pub(super) fn of(kind: Kind, root: &Node<'_>) -> Option<Guard> {
        if kind.guards_inbound() {
            return Some(Guard { host: None });
        }
        let spec = (kind == Kind::DestinationRule).then(|| root.get("spec")).flatten()?;
        asks_for_tls(spec).then(|| Guard { host: host(root) })
    }

    /// The same of an object that could not be read to its end: `head` could, `text` is all of it.
    pub(super) fn of_broken(kind: Kind, head: &Node<'_>, text: &str) -> Option<Guard> {
        if kind.guards_inbound() {
            return Some(Guard { host: None });
        }
        (kind == Kind::DestinationRule && text.contains("tls")).then(|| Guard { host: host(head) })
    }
}

fn host(root: &Node<'_>) -> Option<String> {
    root.get("spec")?.get("host")?.text().filter(|host| !host.is_empty()).map(str::to_owned)
}

/// Whether there is a `tls` anywhere whose mode is another than DISABLE; one that cannot be read is.
fn asks_for_tls(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Scalar { .. } => false,
        Value::Sequence(items) => items.iter().any(asks_for_tls),
        Value::Mapping(entries) => entries.iter().any(|entry| {
            if entry.key != "tls" {
                return asks_for_tls(&entry.value);
            }
            // Without a mode it is DISABLE.
            let mode = entry.value.get("mode").map(|mode| mode.text().unwrap_or_default());
            let readable = matches!(entry.value.value, Value::Mapping(_));
            !readable || mode.is_some_and(|mode| mode != "DISABLE")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Limits, build, documents};

    #[test]
    fn what_guards() {
        let check = |spec: &str, expected: Option<Option<&str>>| {
            let text = format!("spec: {{{spec}}}");
            let document = documents(&text).next().unwrap();
            let root = build(&document, &Limits::DEFAULT).unwrap().root.unwrap();
            let found = Guard::of(Kind::DestinationRule, &root);
            assert_eq!(found.as_ref().map(|guard| guard.host.as_deref()), expected, "{spec}");
            assert_eq!(Guard::of(Kind::VirtualService, &root), None);
            assert_eq!(Guard::of(Kind::PeerAuthentication, &root), Some(Guard { host: None }));
        };
        check("host: a", None);
        check("host: a, trafficPolicy: {tls: {mode: SIMPLE}}", Some(Some("a")));
        check("host: a, trafficPolicy: {tls: {mode: SIMPEL}}", Some(Some("a")));
        check("host: a, trafficPolicy: {tls: {mode: 7}}", Some(Some("a")));
        check("host: a, trafficPolicy: {tls: SIMPLE}", Some(Some("a")));
        check("host: a, trafficPolicy: {tls: {mode: DISABLE}}", None);
        check("host: a, trafficPolicy: {tls: {}}", None);
        check("host: [a], subsets: [{trafficPolicy: {tls: {mode: MUTUAL}}}]", Some(None));
        check("trafficPolicy: {portLevelSettings: [{tls: {mode: ISTIO_MUTUAL}}]}", Some(None));
    }
}
