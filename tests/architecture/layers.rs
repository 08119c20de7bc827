//! Who may import whom.

use crate::source::{Named, Source};

/// Parts of `proxy`, from the lowest, and what each stands on directly. It may import what it stands on, what that
/// stands on, and so on, besides the [`LEAVES`]; nothing else. A part comes after all that it stands on, so there is
/// no way round in a circle.
const LAYERS: [(&str, &[&str]); 19] = [
    // Settings, a request's head and a callout in; a verdict out.
    ("filters", &[]),
    ("snapshot", &["filters"]),
    // Who is at the other end of a connection, by its own word.
    ("peers", &[]),
    ("upstream", &["snapshot", "peers"]),
    // What the connections of one worker share, whatever they speak.
    ("engine", &["upstream"]),
    ("tcp", &["engine"]),
    ("http", &["engine"]),
    ("listener", &["http", "tcp"]),
    // The decisions of the data path once more, with their reasons.
    ("explain", &["listener"]),
    ("worker", &["listener"]),
    // What a request never waits for.
    ("control", &["snapshot"]),
    // The console shows what the pure decisions about upstreams say.
    ("admin", &["control", "upstream", "explain"]),
    // What the agent tells is served as the console's pages are.
    ("agent", &["control", "snapshot", "admin"]),
    ("app", &["worker", "control", "admin", "agent"]),
    // `check` reads a configuration without running a proxy.
    ("cli", &["app", "control", "explain"]),
    // What measurements call, down to single decisions.
    ("bench", &["worker", "control"]),
    // What fuzzing calls: what reads hostile bytes, without sockets.
    ("fuzz", &["listener"]),
    // The root: modules are declared there, and doors opened.
    ("", &["cli", "app", "bench", "fuzz"]),
    // The binary's root; it knows the library by its name only.
    ("main", &[]),
];

/// Parts that everybody may import. Of each other they know only those [`OF_LEAVES`].
///
/// The codec is one of them though it stands inside `http`: heads, bodies and frames are the words in which routing,
/// pools and the console speak of messages too. It knows no connection, no exchange and no upstream.
const LEAVES: [&str; 12] = [
    "allocator",
    "time",
    "net",
    "turn",
    "pipes",
    "telemetry",
    "tls",
    "overload",
    "reads",
    "health",
    "program",
    "http::codec",
];

/// Leaves that the others know too: the clock, which files are left, how long a task may go on, how much it reads at once, and a
/// client's stream, encrypted or not.
const OF_LEAVES: [&str; 5] = ["time", "net", "turn", "reads", "tls"];

/// What is wrong with the imports of a file of `proxy`.
pub(crate) fn offences(source: &Source) -> Vec<String> {
    source.names().iter().filter_map(|name| offence(source, name)).collect()
}

fn offence(source: &Source, name: &Named) -> Option<String> {
    let (root, rest) = name.path.split_first()?;
    if root != "crate" {
        return None;
    }
    // A type or function at the crate's root, such as `weft::main`, is of no part.
    let first = rest.first()?;
    let to = part(rest).or_else(|| first.starts_with(char::is_lowercase).then_some(first.as_str()))?;
    let place = format!("{}:{}", source.path, name.line);
    let Some(from) = part(&name.within) else {
        return Some(format!(
            "{place}: {} is in no part; say in tests/architecture what it is",
            name.within.join("::")
        ));
    };
    let allowed =
        from == to || is_leaf(to) && (!is_leaf(from) || OF_LEAVES.contains(&to)) || stands_on(from, to);
    (!allowed).then(|| format!("{place}: {from} must not import {}", name.path.join("::")))
}

/// The part a module belongs to, if there is one.
fn part(module: &[String]) -> Option<&'static str> {
    let module = module.join("::");
    let holds = |part: &str| {
        module == part
            || module.strip_prefix(part).is_some_and(|rest| part.is_empty() || rest.starts_with("::"))
    };
    let parts = LEAVES.into_iter().chain(LAYERS.map(|(name, _)| name));
    // Only the root itself is the root.
    parts.filter(|part| holds(part) && (!part.is_empty() || module.is_empty())).max_by_key(|part| part.len())
}

fn is_leaf(part: &str) -> bool {
    LEAVES.contains(&part)
}

/// Whether `upper` stands on `lower`, directly or not.
fn stands_on(upper: &str, lower: &str) -> bool {
    let below = LAYERS.iter().find(|(name, _)| *name == upper).map_or(&[][..], |(_, below)| below);
    below.iter().any(|part| *part == lower || stands_on(part, lower))
}

#[test]
fn a_part_stands_only_on_what_comes_before_it() {
    for (index, (name, below)) in LAYERS.iter().enumerate() {
        for part in *below {
            let known = LAYERS[..index].iter().any(|(lower, _)| lower == part);
            assert!(known, "{name} stands on {part}, which does not come before it");
        }
    }
}

#[test]
fn what_is_found() {
    let check = |module: &str, text: &str, expected: &[&str]| {
        assert_eq!(offences(&Source::of("f.rs", module, text)), expected, "{module}: {text}");
    };
    check("http::exchange", "use crate::upstream::Upstream; use super::codec::Body; use crate::time;", &[]);
    check("upstream", "use crate::http::codec;", &[]);
    check(
        "upstream",
        "use crate::engine::Engine;",
        &["f.rs:1: upstream must not import crate::engine::Engine"],
    );
    check(
        "http::codec::body",
        "use super::super::exchange;",
        &["f.rs:1: http::codec must not import crate::http::exchange"],
    );
    check(
        "http::exchange",
        "\nfn f() { crate::control::g() }",
        &["f.rs:2: http must not import crate::control::g"],
    );
    check("snapshot::tests", "use crate::upstream;", &["f.rs:1: snapshot must not import crate::upstream"]);
    check(
        "telemetry",
        "use crate::time; use crate::pipes;",
        &["f.rs:1: telemetry must not import crate::pipes"],
    );
    check(
        "worker",
        "use crate::{admin::Console, http};",
        &["f.rs:1: worker must not import crate::admin::Console"],
    );
    check("http", "use crate::novel::X;", &["f.rs:1: http must not import crate::novel::X"]);
    check(
        "novel",
        "use crate::http::X;",
        &["f.rs:1: novel is in no part; say in tests/architecture what it is"],
    );
    check("", "pub use cli::main; use crate::app::X;", &[]);
}
