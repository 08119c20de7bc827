use std::time::Duration;

use config::{
    DirectResponse, HeaderMatch, HeaderMatcher, MatchedHeader, PathMatch, QueryParameterMatcher, RouteAction,
    RouteConfiguration, RouteMatch, StringMatch,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::http::codec::Version;
use crate::snapshot::{Mismatch, NoTrace};

/// A request, written `METHOD authority path`, and its headers.
fn request(line: &str, headers: &[(&'static str, &str)]) -> RequestHead {
    let mut parts = line.split(' ');
    let mut part = || parts.next().unwrap();
    RequestHead {
        method: Method::from_bytes(part().as_bytes()).unwrap(),
        version: Version::Http11,
        authority: Some(part().parse().unwrap()),
        scheme: None,
        path: Some(part().parse().unwrap()),
        headers: headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect::<HeaderMap>(),
    }
}

fn any() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".into()),
        case_sensitive: true,
        headers: Vec::new(),
        query_parameters: Vec::new(),
    }
}

fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..any() }
}

fn header(name: MatchedHeader, value: HeaderMatch) -> HeaderMatcher {
    HeaderMatcher { name, value, invert: false, treat_missing_as_empty: false }
}

fn named(name: &'static str) -> MatchedHeader {
    MatchedHeader::Header(HeaderName::from_static(name))
}

fn exact(text: &str) -> HeaderMatch {
    HeaderMatch::Value(StringMatch::Exact(text.into()))
}

fn route(matches: RouteMatch) -> config::Route {
    config::Route {
        name: "".into(),
        matches,
        action: RouteAction::DirectResponse(DirectResponse {
            status: StatusCode::OK,
            body: [].into(),
            limit: None,
        }),
        headers: None,
        operation: "".into(),
        origin: None,
        delegation: None,
    }
}

fn host(domains: &[&str], routes: Vec<config::Route>) -> Arc<config::VirtualHost> {
    Arc::new(config::VirtualHost {
        name: (*domains.first().unwrap()).into(),
        domains: domains.iter().map(|domain| (*domain).into()).collect(),
        routes,
        include_request_attempt_count: true,
    })
}

fn table(virtual_hosts: Vec<Arc<config::VirtualHost>>) -> RouteTable {
    let declared =
        RouteConfiguration { name: "8000".into(), virtual_hosts, ignore_port_in_host_matching: true };
    RouteTable::resolve(&Arc::new(declared), None, 1)
}

#[test]
fn virtual_hosts_exact_before_longest_wildcard_before_all() {
    let hosts =
        [&["catalog", "catalog.shop"][..], &["*.shop.example"], &["*.example"], &["*-x.example"], &["*"]];
    let table = table(hosts.iter().map(|domains| host(domains, vec![route(any())])).collect());
    let check = |authority: &str, expected: &str| {
        let request = request(&format!("GET {authority} /"), &[]);
        let found = table.route(&request, &mut NoTrace).unwrap();
        assert_eq!(&*table.virtual_hosts()[found.virtual_host].declared.name, expected, "{authority}");
    };
    check("catalog", "catalog");
    check("CATALOG.Shop", "catalog");
    check("catalog:8000", "catalog");
    check("catalog.shop:1", "catalog");
    check("catalog.other", "*");
    check("a.shop.example", "*.shop.example");
    check("a.b.shop.example:443", "*.shop.example");
    check("shop.example", "*.example");
    check(".shop.example", "*.example");
    check("a-x.example", "*-x.example");
    check("example", "*");
    check("[::1]:8000", "*");
    check("[::1]", "*");
    check(&"x".repeat(300), "*");
}

#[test]
fn without_a_catch_all_an_unknown_host_finds_nothing() {
    let table = table(vec![host(&["catalog"], vec![route(any())])]);
    assert!(table.route(&request("GET other /", &[]), &mut NoTrace).is_none());
}

#[test]
fn the_port_counts_where_it_is_not_ignored() {
    let declared = RouteConfiguration {
        name: "x".into(),
        virtual_hosts: vec![host(&["catalog"], vec![route(any())])],
        ignore_port_in_host_matching: false,
    };
    let table = RouteTable::resolve(&Arc::new(declared), None, 1);
    assert!(table.route(&request("GET catalog /", &[]), &mut NoTrace).is_some());
    assert!(table.route(&request("GET catalog:80 /", &[]), &mut NoTrace).is_none());
}

/// Whether a request matches; the trace must say the same.
fn check(matches: RouteMatch, request: &RequestHead, expected: Result<(), Mismatch>) {
    struct Remember(Result<(), Mismatch>);
    impl Trace for Remember {
        fn rule_mismatch(&mut self, _: usize, why: Mismatch) {
            self.0 = Err(why);
        }
        fn rule_match(&mut self, _: usize) {
            self.0 = Ok(());
        }
    }
    let text = format!("{matches:?} {request:?}");
    let table = table(vec![host(&["*"], vec![route(matches)])]);
    let mut trace = Remember(Err(Mismatch::Connect));
    let found = table.route(request, &mut trace);
    assert_eq!(trace.0, expected, "{text}");
    assert_eq!(found.is_some(), expected.is_ok(), "{text}");
}

#[test]
fn paths() {
    let no = Err(Mismatch::Path);
    let prefix = || path(PathMatch::Prefix("/items".into()));
    check(prefix(), &request("GET h /items", &[]), Ok(()));
    check(prefix(), &request("GET h /items/7?x=1", &[]), Ok(()));
    check(prefix(), &request("GET h /itemsandmore", &[]), Ok(()));
    check(prefix(), &request("GET h /Items", &[]), no);
    check(prefix(), &request("GET h /item", &[]), no);
    check(RouteMatch { case_sensitive: false, ..prefix() }, &request("GET h /ITEMS/7", &[]), Ok(()));
    let whole = || path(PathMatch::Path("/shop".into()));
    check(whole(), &request("GET h /shop", &[]), Ok(()));
    check(whole(), &request("GET h /shop?x=/shop", &[]), Ok(()));
    check(whole(), &request("GET h /shop/", &[]), no);
    check(RouteMatch { case_sensitive: false, ..whole() }, &request("GET h /SHOP", &[]), Ok(()));
    let regex = || path(PathMatch::SafeRegex("/v[0-9]+/items/.*".into()));
    check(regex(), &request("GET h /v1/items/7", &[]), Ok(()));
    check(regex(), &request("GET h /x/v1/items/7", &[]), no);
    check(regex(), &request("GET h /v1/items", &[]), no);
    check(regex(), &request("GET h /v1/items/?x=/y", &[]), Ok(()));
}

#[test]
fn headers() {
    let no = Err(Mismatch::Header(0));
    let with = |matcher: HeaderMatcher| RouteMatch { headers: vec![matcher], ..any() };
    let tester = || header(named("x-user"), exact("tester"));
    check(with(tester()), &request("GET h /", &[("x-user", "tester")]), Ok(()));
    check(with(tester()), &request("GET h /", &[("x-user", "Tester")]), no);
    check(with(tester()), &request("GET h /", &[]), no);
    // Of several values one is enough; they are not compared joined.
    let both = || request("GET h /", &[("x-user", "a"), ("x-user", "tester")]);
    check(with(tester()), &both(), Ok(()));
    check(with(header(named("x-user"), exact("a,tester"))), &both(), no);
    check(with(HeaderMatcher { invert: true, ..tester() }), &both(), no);
    // Turned around, a header that is missing still does not match.
    let inverted = || HeaderMatcher { invert: true, ..tester() };
    check(with(inverted()), &request("GET h /", &[("x-user", "other")]), Ok(()));
    check(with(inverted()), &request("GET h /", &[("x-user", "tester")]), no);
    check(with(inverted()), &request("GET h /", &[]), no);
    let lenient = || HeaderMatcher { treat_missing_as_empty: true, ..inverted() };
    check(with(lenient()), &request("GET h /", &[]), Ok(()));
    let present = |invert| HeaderMatcher { invert, ..header(named("x-user"), HeaderMatch::Present) };
    check(with(present(false)), &request("GET h /", &[("x-user", "")]), Ok(()));
    check(with(present(false)), &request("GET h /", &[]), no);
    check(with(present(true)), &request("GET h /", &[]), Ok(()));
    check(with(present(true)), &request("GET h /", &[("x-user", "a")]), no);
    let prefix = HeaderMatch::Value(StringMatch::Prefix("te".into()));
    check(with(header(named("x-user"), prefix)), &request("GET h /", &[("x-user", "tester")]), Ok(()));
    let regex = HeaderMatch::Value(StringMatch::SafeRegex("t.*r".into()));
    check(with(header(named("x-user"), regex)), &request("GET h /", &[("x-user", "tester")]), Ok(()));
}

#[test]
fn pseudo_headers() {
    let no = Err(Mismatch::Header(0));
    let with = |name, value: &str| RouteMatch { headers: vec![header(name, exact(value))], ..any() };
    check(with(MatchedHeader::Method, "POST"), &request("POST h /", &[]), Ok(()));
    check(with(MatchedHeader::Method, "POST"), &request("GET h /", &[]), no);
    check(with(MatchedHeader::Authority, "h:80"), &request("GET h:80 /", &[]), Ok(()));
    check(with(MatchedHeader::Authority, "h"), &request("GET h:80 /", &[]), no);
    check(
        with(MatchedHeader::Scheme, "https"),
        &request("GET h /", &[("x-forwarded-proto", "https")]),
        Ok(()),
    );
    check(with(MatchedHeader::Scheme, "http"), &request("GET h /", &[]), Ok(()));
}

#[test]
fn query_parameters() {
    let no = Err(Mismatch::QueryParameter(0));
    let with = |name: &str, value: Option<StringMatch>| RouteMatch {
        query_parameters: vec![QueryParameterMatcher { name: name.into(), value }],
        ..any()
    };
    let beta = || with("beta", Some(StringMatch::Exact("1".into())));
    check(beta(), &request("GET h /?beta=1", &[]), Ok(()));
    check(beta(), &request("GET h /?a=2&beta=1&beta=2", &[]), Ok(()));
    check(beta(), &request("GET h /?beta=2&beta=1", &[]), no);
    check(beta(), &request("GET h /?beta", &[]), no);
    check(beta(), &request("GET h /", &[]), no);
    // As in Envoy, nothing is decoded.
    check(beta(), &request("GET h /?%62eta=1", &[]), no);
    check(beta(), &request("GET h /?beta=%31", &[]), no);
    check(with("beta", None), &request("GET h /?beta", &[]), Ok(()));
    check(with("beta", None), &request("GET h /?beat", &[]), no);
    check(with("a", Some(StringMatch::Exact("b c".into()))), &request("GET h /?a=b+c", &[]), no);
}

#[test]
fn connect_is_for_nobody() {
    let mut connect = request("CONNECT h:80 /", &[]);
    connect.path = None;
    check(any(), &connect, Err(Mismatch::Connect));
}

#[test]
fn the_first_rule_wins_and_unchanged_hosts_stay_built() {
    let rules = vec![route(path(PathMatch::Prefix("/a".into()))), route(any())];
    let declared = Arc::new(RouteConfiguration {
        name: "x".into(),
        virtual_hosts: vec![host(&["*"], rules)],
        ignore_port_in_host_matching: true,
    });
    let first = RouteTable::resolve(&declared, None, 1);
    assert_eq!(first.route(&request("GET h /a", &[]), &mut NoTrace).unwrap().index, 0);
    assert_eq!(first.route(&request("GET h /b", &[]), &mut NoTrace).unwrap().index, 1);
    let mut grown = (*declared).clone();
    grown.virtual_hosts.insert(0, host(&["new"], vec![route(any())]));
    let second = RouteTable::resolve(&Arc::new(grown), Some(&first), 2);
    let before = &first.virtual_hosts()[0].routes()[0];
    let after = &second.virtual_hosts()[1].routes()[0];
    assert!(Arc::ptr_eq(before, after));
    let since: Vec<u64> = second.virtual_hosts().iter().map(|host| host.since).collect();
    assert_eq!((since, second.since), (vec![2, 1], 2));
}

#[test]
fn weights_are_drawn_as_they_are_declared() {
    let weighted = |weights: &[u32]| {
        let clusters = weights.iter().map(|weight| config::WeightedCluster {
            cluster: weight.to_string().into(),
            weight: *weight,
            headers: config::HeaderMutations::default(),
            host_rewrite: None,
        });
        let forward = config::Forward {
            destinations: config::Destinations::Weighted(clusters.collect()),
            timeout: Duration::ZERO,
            max_grpc_timeout: None,
            retry_policy: None,
            path_rewrite: None,
            host_rewrite: None,
            told: config::Told::default(),
        };
        let rule = config::Route { action: RouteAction::Forward(Box::new(forward)), ..route(any()) };
        table(vec![host(&["*"], vec![rule])])
    };
    let table = weighted(&[90, 10]);
    let routes = table.virtual_hosts()[0].routes();
    let crate::snapshot::Action::Forward(forward) = &routes[0].action else { panic!() };
    let drawn: Vec<usize> = (0..200).map(|random| forward.draw(random)).collect();
    assert_eq!(drawn.iter().filter(|index| **index == 1).count(), 20);
    assert_eq!(forward.draw(89), 0);
    assert_eq!(forward.draw(90), 1);
    assert_eq!(forward.draw(100), 0);
}
