//! What a real istiod 1.32 sent the proxies of the shop, held against what compile makes of the shop's YAML.
//!
//! Both become declared resources: the recorded streams by `convert`, the YAML by `compile`. The first leaf that differs and
//! is not named in a list ends the test, with its path. The counts of leaves are asserted, so that a list which grows, or a
//! comparison that looks at less, is seen.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, what is not as expected ends the test"
)]

mod hostile;
mod shared;
mod shop;
mod uncompiled;

use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Closed, NetworkFilter};
use xds_client::compare::{Comparison, DROPPED, Listed, UNCOMPILED, compare};
use xds_client::convert::{FieldName, Kind, Notes, coverage};
use xds_client::stream::{Declared, Response, read};

use shared::{Shared, shared};
use shop::{Edit, Shop};

/// What a comparison counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Resources on both sides.
    resources: usize,
    /// Leaves that are the same on both sides.
    equal: usize,
    /// Leaves that are named in [`DROPPED`].
    dropped: usize,
    /// Fields of the stream that are harmless.
    harmless: usize,
    /// Leaves of fields of the stream that are declared and not run yet, and leaves that are named in [`UNCOMPILED`].
    uncompiled: usize,
}

impl Counts {
    fn of(comparison: &Comparison, notes: &Notes) -> Counts {
        Counts {
            resources: comparison.resources,
            equal: comparison.equal,
            dropped: comparison.dropped.values().sum(),
            harmless: notes.harmless.values().sum(),
            uncompiled: notes.leaves.values().sum::<usize>() + comparison.uncompiled.values().sum::<usize>(),
        }
    }
}

const fn counts(
    resources: usize,
    equal: usize,
    dropped: usize,
    harmless: usize,
    uncompiled: usize,
) -> Counts {
    Counts { resources, equal, dropped, harmless, uncompiled }
}

/// What each proxy's stream counts.
const PROXIES: [(&str, Counts); 6] = [
    ("web", counts(65, 2102, 31, 426, 501)),
    ("catalog", counts(66, 2218, 33, 479, 695)),
    ("reviews", counts(65, 2213, 32, 463, 581)),
    ("cart", counts(65, 2101, 31, 426, 501)),
    ("ledger", counts(65, 2079, 31, 426, 484)),
    ("gateway", counts(47, 1202, 25, 240, 113)),
];

/// What `web` counts after each step of `web-updates`, and the edit that the step is: those before it stay.
const STEPS: [(&[Edit], Counts); 7] = [
    (&[], counts(65, 2102, 31, 426, 501)),
    (&[Edit::EvenWeights], counts(65, 2102, 31, 426, 501)),
    (&[Edit::EvenWeights, Edit::Endpoint], counts(65, 2107, 31, 426, 501)),
    (&[Edit::EvenWeights, Edit::Endpoint, Edit::Service], counts(67, 2159, 31, 436, 501)),
    (&[Edit::EvenWeights, Edit::Endpoint, Edit::Service, Edit::Balancer], counts(67, 2159, 31, 436, 501)),
    (&[Edit::EvenWeights, Edit::Endpoint], counts(65, 2107, 31, 426, 501)),
    (&[], counts(65, 2102, 31, 426, 501)),
];

fn responses(shared: &Shared, name: &str) -> Vec<Response> {
    read(&shared.bytes(&format!("xds/{name}/stream.bin"))).expect("a recording")
}

/// Compares what a stream declared with what compile makes of the shop with those edits.
#[track_caller]
fn check(shared: &Shared, name: &str, declared: &Declared, edits: &[Edit], expected: Counts) {
    let refused: Vec<String> = declared
        .refused()
        .map(|(kind, name, refused)| format!("{} {name}: {refused}", kind.name()))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let compiled = Shop::new(shared, edits).compile(shared, name);
    let comparison = compare(&declared.update(), &compiled);
    if let Some(first) = comparison.differences.first() {
        panic!("{name} {edits:?}: {} differences, the first:\n{first}", comparison.differences.len());
    }
    let counts = Counts::of(&comparison, &declared.notes());
    println!("{name} {edits:?}: {counts:?}");
    assert_eq!(counts, expected, "{name} {edits:?}");
}

#[test]
fn each_proxy_gets_what_compile_makes() {
    let Some(shared) = shared("xds/web/stream.bin") else { return };
    for (name, expected) in PROXIES {
        check(&shared, name, &Declared::of(responses(&shared, name)), &[], expected);
    }
}

#[test]
fn so_does_web_after_each_change_of_the_mesh() {
    let Some(shared) = shared("xds/web-updates/stream.bin") else { return };
    let mut declared = Declared::default();
    let mut steps = STEPS.into_iter();
    let mut responses = responses(&shared, "web-updates").into_iter().peekable();
    while let Some(response) = responses.next() {
        declared.apply(response);
        // istiod begins every push with the clusters.
        if responses.peek().is_none_or(|next| next.kind == Some(Kind::Cluster)) {
            let (edits, expected) = steps.next().expect("a step for every push");
            check(&shared, "web", &declared, edits, expected);
        }
    }
    assert_eq!(steps.next(), None, "a push for every step");
}

/// The list of what is declared and not run yet may only get shorter: what the streams do not need any more goes, and
/// nothing comes.
#[test]
fn what_is_not_compiled_yet_is_listed() {
    let Some(shared) = shared("xds/web/stream.bin") else { return };
    let mut met: BTreeSet<FieldName> = BTreeSet::new();
    let (mut dropped, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    for (name, _) in PROXIES {
        let declared = Declared::of(responses(&shared, name));
        met.extend(declared.notes().declared.into_keys());
        let comparison = compare(&declared.update(), &Shop::new(&shared, &[]).compile(&shared, name));
        dropped.extend(comparison.dropped.into_keys());
        left_out.extend(comparison.uncompiled.into_keys());
    }
    let listed: BTreeSet<FieldName> = uncompiled::FIELDS.into_iter().collect();
    let new: Vec<&FieldName> = met.difference(&listed).collect();
    assert!(new.is_empty(), "declared and not run, but not listed: {new:#?}");
    let gone: Vec<&FieldName> = listed.difference(&met).collect();
    assert!(gone.is_empty(), "listed, but not met any more: {gone:#?}");
    let paths = |list: &'static [Listed]| list.iter().map(|listed| listed.path).collect::<BTreeSet<_>>();
    assert_eq!(dropped, paths(DROPPED));
    assert_eq!(left_out, paths(UNCOMPILED));
    assert!(DROPPED.iter().chain(UNCOMPILED).all(|listed| !listed.path.contains(['*', '['])), "no patterns");
}

/// A policy guards the catalog, and so its chains are closed; what they would serve is compared all the same.
#[test]
fn what_is_behind_a_closed_chain_is_compared() {
    let Some(shared) = shared("xds/catalog/stream.bin") else { return };
    let compiled = Shop::new(&shared, &[]).compile(&shared, "catalog");
    let told = Declared::of(responses(&shared, "catalog")).update();
    assert!(compare(&told, &compiled).is_equal());
    for open in [false, true] {
        let mut told = told.clone();
        let chains = told.listeners.iter_mut().flat_map(|listener| &mut listener.filter_chains);
        let mut closed = chains.filter(|chain| matches!(chain.filter, NetworkFilter::Closed(_)));
        let chain = closed.next().expect("a closed chain");
        let NetworkFilter::Closed(Closed { behind: Some(behind), .. }) = &mut chain.filter else {
            panic!("nothing is behind {}", chain.name);
        };
        if open {
            chain.filter = (**behind).clone();
        } else {
            match &mut **behind {
                NetworkFilter::Http(manager) => Arc::make_mut(manager).stat_prefix = "another".into(),
                NetworkFilter::TcpProxy(tcp) => Arc::make_mut(tcp).stat_prefix = "another".into(),
                NetworkFilter::Closed(_) => panic!("closed behind closed"),
            }
        }
        assert!(!compare(&told, &compiled).is_equal(), "open: {open}");
    }
}

/// Every field that a stream sets is a field of the tables: nothing is met that coverage does not tell.
#[test]
fn coverage_tells_all_that_is_met() {
    let Some(shared) = shared("xds/web/stream.bin") else { return };
    let told: BTreeSet<FieldName> = coverage()
        .into_iter()
        .flat_map(|message| message.fields.iter().map(move |field| (message.name, field.name)))
        .collect();
    for (name, _) in PROXIES {
        let notes = Declared::of(responses(&shared, name)).notes();
        assert_eq!(notes.unknown, Vec::<String>::new(), "{name}: fields that nobody knows");
        for field in notes.harmless.keys().chain(notes.declared.keys()) {
            assert!(told.contains(field), "{name}: {field:?}");
        }
    }
}
