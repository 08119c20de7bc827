use config::{CidrRange, TransportProtocol};

use super::*;
use crate::snapshot::NoTrace;

use TransportProtocol::{RawBuffer, Tls};

/// A chain's match from words: `:9080` a port, `10.0.0.0/8` a range, `tls` or `raw`, `sni=` a server name, and
/// otherwise an application protocol.
fn chain(words: &str) -> FilterChainMatch {
    let mut chain = FilterChainMatch::default();
    for word in words.split_whitespace() {
        match word {
            "any" => {}
            "tls" => chain.transport_protocol = Some(Tls),
            "raw" => chain.transport_protocol = Some(RawBuffer),
            _ => {
                if let Some(port) = word.strip_prefix(':') {
                    chain.destination_port = Some(port.parse().unwrap());
                } else if let Some(name) = word.strip_prefix("sni=") {
                    chain.server_names.push(name.into());
                } else if let Some(range) = CidrRange::parse(word) {
                    chain.prefix_ranges.push(range);
                } else {
                    chain.application_protocols.push(word.into());
                }
            }
        }
    }
    chain
}

/// A connection from words: its destination, `tls`, `sni=` a server name, and what it offers.
fn choose(table: &MatchTable, words: &str, trace: &mut impl Trace) -> Option<usize> {
    let mut words = words.split_whitespace();
    let destination = words.next().unwrap().parse().unwrap();
    let (mut transport, mut server_name, mut offered) = (RawBuffer, None, Vec::new());
    for word in words {
        match word.strip_prefix("sni=") {
            Some(name) => server_name = Some(name),
            None if word == "tls" => transport = Tls,
            None => offered.push(Arc::from(word)),
        }
    }
    let facts = Facts { destination, server_name, transport, application_protocols: &offered };
    table.choose(&facts, trace)
}

/// Checks which of `chains` serves each connection; the last is the default chain where it is `default`.
fn check(chains: &[&str], connections: &[(&str, Option<usize>)]) {
    let has_default = chains.last() == Some(&"default");
    let matches = chains.iter().filter(|words| **words != "default").map(|words| chain(words));
    let table = MatchTable::new(matches, has_default);
    for (words, expected) in connections {
        assert_eq!(choose(&table, words, &mut NoTrace), *expected, "{words}");
    }
}

#[test]
fn the_destination_decides_first() {
    check(
        &["any", ":80", ":80 10.0.0.0/8", ":80 10.1.0.0/16 192.168.0.0/16", "default"],
        &[
            ("1.2.3.4:99", Some(0)),
            ("1.2.3.4:80", Some(1)),
            ("10.2.3.4:80", Some(2)),
            ("10.1.3.4:80", Some(3)),
            ("192.168.3.4:80", Some(3)),
            ("192.168.3.4:81", Some(0)),
            ("[2001:db8::1]:80", Some(1)),
        ],
    );
    // A port that is named leaves no way to the chains of every port.
    check(&["any", ":80 10.0.0.0/8"], &[("10.0.0.1:80", Some(1)), ("1.2.3.4:80", None)]);
    check(&["any", ":80 10.0.0.0/8", "default"], &[("1.2.3.4:80", Some(2))]);
    check(
        &["2001:db8::/32", "2001:db8:1::/48"],
        &[("[2001:db8::1]:1", Some(0)), ("[2001:db8:1::1]:1", Some(1)), ("10.0.0.1:1", None)],
    );
}

#[test]
fn server_names() {
    check(
        &["sni=a.example.com", "sni=*.example.com", "sni=*.com sni=b.example.org", "tls", "any"],
        &[
            ("1.1.1.1:443 tls sni=a.example.com", Some(0)),
            ("1.1.1.1:443 tls sni=b.example.com", Some(1)),
            ("1.1.1.1:443 tls sni=x.y.example.com", Some(1)),
            ("1.1.1.1:443 tls sni=example.com", Some(2)),
            ("1.1.1.1:443 tls sni=b.example.org", Some(2)),
            ("1.1.1.1:443 tls sni=example.org", Some(3)),
            ("1.1.1.1:443 tls", Some(3)),
            ("1.1.1.1:443", Some(4)),
        ],
    );
    // What asks for a name that a chain has is that chain's alone, though its transport is another.
    check(&["sni=a tls h2", "tls"], &[("1.1.1.1:443 tls sni=a http/1.1", None)]);
}

#[test]
fn application_protocols_by_the_clients_preference() {
    check(
        &["tls h2", "tls http/1.1", "tls"],
        &[
            ("1.1.1.1:443 tls http/1.1 h2", Some(1)),
            ("1.1.1.1:443 tls h2 http/1.1", Some(0)),
            ("1.1.1.1:443 tls spdy", Some(2)),
            ("1.1.1.1:443", None),
        ],
    );
}

/// The inbound modes of PeerAuthentication, each with a port of HTTP, of TCP and of neither, as istiod writes them.
#[test]
fn inbound_modes() {
    const MTLS_HTTP: &str = "istio-http/1.0 istio-http/1.1 istio-h2";
    const MTLS: &str = "istio istio-peer-exchange istio-http/1.0 istio-http/1.1 istio-h2";
    let strict = [":80 tls", ":90 tls", &format!(":99 tls {MTLS_HTTP}"), ":99 tls"];
    check(
        &strict,
        &[
            ("10.0.0.1:80 tls istio-h2", Some(0)),
            ("10.0.0.1:80 http/1.1", None),
            ("10.0.0.1:90 tls istio", Some(1)),
            ("10.0.0.1:90", None),
            ("10.0.0.1:99 tls istio-http/1.1 istio", Some(2)),
            ("10.0.0.1:99 tls istio-peer-exchange istio", Some(3)),
            ("10.0.0.1:99 http/1.1", None),
        ],
    );
    let permissive = [
        &format!(":80 tls {MTLS}"),
        ":80 raw",
        &format!(":90 tls {MTLS}"),
        ":90 tls",
        ":90 raw",
        &format!(":99 tls {MTLS_HTTP}"),
        ":99 raw http/1.1 h2c",
        ":99 tls istio-peer-exchange istio",
        ":99 raw",
        ":99 tls",
    ];
    check(
        &permissive,
        &[
            ("10.0.0.1:80 tls istio", Some(0)),
            ("10.0.0.1:80 tls h2", None),
            ("10.0.0.1:80 http/1.1", Some(1)),
            ("10.0.0.1:80", Some(1)),
            ("10.0.0.1:90 tls istio-peer-exchange istio", Some(2)),
            ("10.0.0.1:90 tls h2", Some(3)),
            ("10.0.0.1:90", Some(4)),
            ("10.0.0.1:99 tls istio-h2 istio h2", Some(5)),
            ("10.0.0.1:99 http/1.1", Some(6)),
            ("10.0.0.1:99 h2c", Some(6)),
            ("10.0.0.1:99 tls istio", Some(7)),
            ("10.0.0.1:99", Some(8)),
            ("10.0.0.1:99 http/1.0", Some(8)),
            ("10.0.0.1:99 tls http/1.1", Some(9)),
        ],
    );
    let disable = [":80 raw", ":90 raw", ":99 raw http/1.1 h2c", ":99 raw"];
    check(
        &disable,
        &[
            ("10.0.0.1:80", Some(0)),
            ("10.0.0.1:80 tls", None),
            ("10.0.0.1:90", Some(1)),
            ("10.0.0.1:99 h2c", Some(2)),
            ("10.0.0.1:99", Some(3)),
        ],
    );
}

/// Remembers why each chain was left behind.
#[derive(Default)]
struct Reasons(Vec<(usize, Field)>, Option<usize>);

impl Trace for Reasons {
    fn chain_mismatch(&mut self, index: usize, why: Field) {
        self.0.push((index, why));
    }

    fn chain_match(&mut self, index: usize) {
        self.1 = Some(index);
    }
}

#[test]
fn the_decision_says_why() {
    let chains = [":81", "10.0.0.0/8", "sni=a", "tls", "raw h2c", "raw"];
    let table = MatchTable::new(chains.map(chain), true);
    let mut reasons = Reasons::default();
    assert_eq!(choose(&table, "1.2.3.4:80 http/1.1", &mut reasons), Some(5));
    let expected = [
        (0, Field::DestinationPort),
        (1, Field::PrefixRanges),
        (2, Field::ServerNames),
        (3, Field::TransportProtocol),
        (4, Field::ApplicationProtocols),
    ];
    assert_eq!((reasons.0, reasons.1), (expected.to_vec(), Some(5)));
    let possible: Vec<usize> = table.possible("1.2.3.4:80".parse().unwrap()).collect();
    assert_eq!(possible, [2, 3, 4, 5, 6]);
}
