//! The rules of the house, kept by reading the sources: who imports whom, which names stay in which files, and how
//! files look. A rule that is in the way is changed here, in the commit that needs it, with the reason beside it.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod layers;
mod manifests;
mod source;

use source::Source;

/// Lines of a file; one that nears them holds two things.
const LINES_MAX: usize = 500;

/// All packages.
const PACKAGES: [&str; 5] = ["benches", "config", "proxy", "tests", "xds-client"];

/// Files that may name what others may not.
const CLOCK: &str = "proxy/src/time.rs";
const CODEC: &str = "proxy/src/http/codec/";
const XDS_CLIENT: &str = "xds-client/src/";
/// Where the messages are that proxies tell each other.
const PEERS_WIRE: &str = "proxy/src/peers/wire.rs";
/// What makes connections for tonic has to hand them over as hyper takes them.
const TONIC_CONNECTORS: [&str; 2] = ["xds-client/src/certificate/client.rs", "xds-client/src/secrets/mod.rs"];
/// An upstream of the simulation of pools, which is no part of the proxy, and does what no codec of ours would.
const SIMULATED_UPSTREAM: &str = "proxy/src/upstream/pool/simulation/http2/upstream.rs";
const CONVERT: &str = "xds-client/src/convert/";

#[track_caller]
fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

/// Sources of the packages that are shipped.
fn shipped() -> Vec<Source> {
    ["config/src", "proxy/src", "xds-client/src"].into_iter().flat_map(Source::under).collect()
}

#[test]
fn imports_follow_the_layers() {
    let offences: Vec<String> = Source::under("proxy/src").iter().flat_map(layers::offences).collect();
    assert_none(&offences);
}

#[test]
fn names_stay_where_they_belong() {
    let offences: Vec<String> = shipped().iter().flat_map(names_out_of_place).collect();
    assert_none(&offences);
}

#[test]
fn files_are_as_they_should() {
    let offences: Vec<String> =
        PACKAGES.into_iter().flat_map(Source::under).flat_map(|file| looks(&file)).collect();
    assert_none(&offences);
}

/// Names that only some files may use, and none of which a use in another file is a matter of taste.
fn names_out_of_place(source: &Source) -> Vec<String> {
    let file = source.path.as_str();
    let of_tests = |within: &[String]| within.iter().any(|module| module == "tests" || module == "testing");
    let names = source.names();
    let offences = names.iter().filter_map(|name| {
        let path: Vec<&str> = name.path.iter().map(String::as_str).collect();
        let why = match path.as_slice() {
            ["hyper" | "hyper_util" | "h2", ..]
                if !file.starts_with(CODEC)
                    && !TONIC_CONNECTORS.contains(&file)
                    && file != SIMULATED_UPSTREAM =>
            {
                "the wire libraries are known to http/codec only, so that they can be replaced"
            }
            ["std", "sync", "Mutex" | "RwLock", ..] => {
                "workers share the snapshot, padded atomics and queues only"
            }
            [.., "Instant" | "SystemTime", "now"] if file != CLOCK => "there is one clock: time.rs",
            ["std", "fs" | "thread" | "process" | "env", ..]
                if file.starts_with("config/") && !of_tests(&name.within) =>
            {
                "config is pure data in, pure data out"
            }
            ["std", "fs" | "net" | "thread" | "process" | "env", ..] | ["tokio" | "tonic", ..]
                if file.starts_with(CONVERT) && !is_address(&path) && !of_tests(&name.within) =>
            {
                "what is received becomes declared resources without I/O"
            }
            // What proxies tell each other is protobuf, too, and no message of xDS.
            ["prost", ..] if file == PEERS_WIRE => return None,
            ["envoy_types" | "prost" | "tonic", ..] if !file.starts_with(XDS_CLIENT) => {
                "the messages of xDS are known to xds-client only"
            }
            _ => return None,
        };
        Some(format!("{file}:{}: {}: {why}", name.line, path.join("::")))
    });
    offences.collect()
}

/// Whether a path is of an address, which is data; the sockets of the same module are not.
fn is_address(path: &[&str]) -> bool {
    matches!(path, ["std", "net", name, ..] if name.contains("Addr"))
}

/// Rules of form.
fn looks(source: &Source) -> Vec<String> {
    let file = source.path.as_str();
    let mut offences = Vec::new();
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        offences.push(format!("{file}: {lines} lines; at most {LINES_MAX}"));
    }
    // Tests beside a module are of that module, which says what it is for.
    if !source.text.starts_with("//!") && !file.ends_with("/tests.rs") {
        offences.push(format!("{file}: begins without saying what it is for (`//!`)"));
    }
    for (line, exception) in source.exceptions() {
        if !exception.contains("reason =") {
            offences.push(format!("{file}:{line}: an exception from a lint without a reason: {exception}"));
        }
    }
    offences
}

#[test]
fn what_is_found() {
    let check = |path: &str, module: &str, text: &str, expected: &[&str]| {
        let source = Source::of(path, module, text);
        let found: Vec<String> = names_out_of_place(&source)
            .iter()
            .map(|offence| offence.split(": ").nth(1).unwrap_or_default().to_owned())
            .collect();
        assert_eq!(found, expected, "{path}: {text}");
    };
    check("proxy/src/http/codec/h1.rs", "http::codec::h1", "use hyper::Body;", &[]);
    check(
        "proxy/src/http/body.rs",
        "http::body",
        "use hyper::Body; use h2::client;",
        &["hyper::Body", "h2::client"],
    );
    check(
        "proxy/src/a.rs",
        "a",
        "use std::sync::{Arc, Mutex}; use parking_lot::Mutex;",
        &["std::sync::Mutex"],
    );
    check(
        "proxy/src/a.rs",
        "a",
        "fn f() { std::time::Instant::now(); tokio::time::Instant::now() }",
        &["std::time::Instant::now", "tokio::time::Instant::now"],
    );
    check("proxy/src/time.rs", "time", "fn f() { Instant::now() }", &[]);
    check("config/src/a.rs", "a", "use std::fs; mod tests { use std::fs; }", &["std::fs"]);
    check("config/src/a.rs", "a", "use std::net::IpAddr;", &[]);
    check(
        "xds-client/src/convert/a.rs",
        "convert::a",
        "use std::net::{SocketAddr, TcpStream}; use tonic::Status; use prost::Message;",
        &["std::net::TcpStream", "tonic::Status"],
    );
    check("proxy/src/a.rs", "a", "use prost::Message;", &["prost::Message"]);

    let long = format!("//! A.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(looks(&Source::of("a.rs", "", &long)), ["a.rs: 501 lines; at most 500"]);
    assert_eq!(
        looks(&Source::of("a.rs", "", "fn f() {}")),
        ["a.rs: begins without saying what it is for (`//!`)"]
    );
    let bare = looks(&Source::of("a.rs", "", "//! A.\n#[allow(b)]\nfn f() {}"));
    assert_eq!(bare, ["a.rs:2: an exception from a lint without a reason: b"]);
}
