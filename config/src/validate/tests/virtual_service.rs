//! VirtualServices.

use super::{check, check_http};

/// Checks one HTTP rule to `catalog` that also says `extra`.
fn check_rule(extra: &str, expected: &[&str]) {
    check_http(&format!("  - route: [{{destination: {{host: catalog}}}}]\n    {extra}\n"), expected);
}

/// Checks one match of an HTTP rule.
fn check_match(wanted: &str, expected: &[&str]) {
    check_rule(&format!("match: [{wanted}]"), expected);
}

const RULE: &str = "http: [{route: [{destination: {host: catalog}}]}]";

#[test]
fn virtual_services() {
    let check = |spec: &str, expected: &[&str]| check("VirtualService", &format!("  {{{spec}}}\n"), expected);
    check(&format!("hosts: [catalog], {RULE}"), &[]);
    check(
        &format!("hosts: ['*.shop', a.b], gateways: [mesh, shop/public], exportTo: [., other], {RULE}"),
        &[],
    );
    check(&format!("hosts: [10.0.0.1], {RULE}"), &[]);
    check(RULE, &[]);
    check("hosts: [a]", &["error missing-field spec"]);
    check(&format!("hosts: ['*'], {RULE}"), &["error bad-value spec.hosts[0]"]);
    check(&format!("hosts: ['*'], gateways: [public], {RULE}"), &[]);
    check(&format!("hosts: [a_b], {RULE}"), &["error bad-value spec.hosts[0]"]);
    check(&format!("hosts: [a, a], {RULE}"), &["error bad-value spec.hosts[1]"]);
    check(&format!("hosts: ['*.b', a.b], {RULE}"), &["error bad-value spec.hosts[1]"]);
    check(&format!("gateways: [mesh], {RULE}"), &["error conflicting-fields spec.gateways"]);
    check(&format!("hosts: [a], gateways: [a/b/c], {RULE}"), &["error bad-value spec.gateways[0]"]);
    check(
        &format!("hosts: [a], gateways: [public.shop.svc], {RULE}"),
        &["warning deprecated-field spec.gateways[0]"],
    );
    check(&format!("hosts: [a], exportTo: ['*', x], {RULE}"), &["error conflicting-fields spec.exportTo"]);
    check(&format!("hosts: [a], exportTo: [., shop], {RULE}"), &["error bad-value spec.exportTo[1]"]);
    check(&format!("hosts: [a], exportTo: [~], {RULE}"), &["error wrong-type spec.exportTo[0]"]);
    check(&format!("hosts: [a], exportTo: ['~'], {RULE}"), &["error bad-value spec.exportTo[0]"]);
}

#[test]
fn what_a_rule_does() {
    check_http("  - {}\n", &["error missing-field spec.http[0]"]);
    check_rule("redirect: {uri: /a}", &["error conflicting-fields spec.http[0]"]);
    check_rule("directResponse: {status: 200}", &["error conflicting-fields spec.http[0]"]);
    check_rule("delegate: {name: b}", &["error conflicting-fields spec.http[0]"]);
    check_http(
        "  - {redirect: {uri: /a}, directResponse: {status: 200}}\n",
        &["error conflicting-fields spec.http[0]"],
    );
    check_http("  - {redirect: {uri: /a}, rewrite: {uri: /b}}\n", &["error conflicting-fields spec.http[0]"]);
    check_http(
        "  - {directResponse: {status: 200}, rewrite: {uri: /b}}\n",
        &["error conflicting-fields spec.http[0]"],
    );
    check_http("  - {delegate: {name: b}}\n", &[]);
    let delegate = "  http: [{delegate: {name: b}}]\n";
    check("VirtualService", delegate, &["error conflicting-fields spec.http[0].delegate"]);
}

#[test]
fn destinations() {
    let check = |destinations: &str, expected: &[&str]| {
        check_http(&format!("  - route: [{destinations}]\n"), expected);
    };
    let a = "destination: {host: a, subset: v1, port: {number: 80}}";
    check(&format!("{{{a}}}"), &[]);
    check(&format!("{{{a}, weight: 90}}, {{{a}, weight: 10}}"), &[]);
    check(&format!("{{{a}, weight: 1000}}, {{{a}}}"), &[]);
    check(&format!("{{{a}}}, {{{a}}}"), &["error bad-value spec.http[0].route"]);
    check(&format!("{{{a}, weight: -1}}"), &["error bad-value spec.http[0].route[0].weight"]);
    let big = format!("{{{a}, weight: 2000000000}}");
    check(&format!("{big}, {big}"), &["error bad-value spec.http[0].route"]);
    check("{destination: {host: ''}}", &["error missing-field spec.http[0].route[0].destination.host"]);
    check("{destination: {host: '*'}}", &["error bad-value spec.http[0].route[0].destination.host"]);
    check("{destination: {host: 'a b'}}", &["error bad-value spec.http[0].route[0].destination.host"]);
    check(
        "{destination: {host: a, subset: v_1}}",
        &["error bad-value spec.http[0].route[0].destination.subset"],
    );
    for port in ["0", "65536"] {
        let path = "error bad-value spec.http[0].route[0].destination.port.number";
        check(&format!("{{destination: {{host: a, port: {{number: {port}}}}}}}"), &[path]);
    }
    check("{weight: 1}", &["error missing-field spec.http[0].route[0]"]);
}

#[test]
fn matches() {
    let at = "spec.http[0].match[0]";
    check_match(
        "{uri: {prefix: /}, method: {exact: GET}, headers: {x-a: {}, b: {regex: 'a|b'}}, port: 80}",
        &[],
    );
    check_match("{uri: {prefix: ''}}", &[]);
    check_match(
        "{sourceLabels: {app: web}, sourceNamespace: shop, gateways: [mesh], queryParams: {a: {exact: ''}}}",
        &[],
    );
    check_match("{withoutHeaders: {x: {regex: '*'}}}", &[]);
    check_match("{method: {prefix: ''}}", &[&format!("error bad-value {at}.method.prefix")]);
    check_match("{uri: {prefix: /, exact: /}}", &[&format!("error conflicting-fields {at}.uri")]);
    check_match("{uri: {regex: ''}}", &[&format!("error bad-regex {at}.uri.regex")]);
    check_match("{uri: {regex: '['}}", &[&format!("error bad-regex {at}.uri.regex")]);
    check_match("{uri: {regex: 'a(?=b)'}}", &[&format!("error bad-regex {at}.uri.regex")]);
    check_match("{uri: {regex: '(a)\\1'}}", &[&format!("error bad-regex {at}.uri.regex")]);
    check_match(
        &format!("{{uri: {{regex: '{}'}}}}", "a".repeat(1025)),
        &[&format!("error bad-regex {at}.uri.regex")],
    );
    check_match("{uri: {regex: '(\\pL{100}){100}'}}", &[&format!("error bad-regex {at}.uri.regex")]);
    check_match("{headers: {':path': {exact: /}}}", &[&format!("error bad-value {at}.headers[:path]")]);
    check_match("{withoutHeaders: {'a b': {}}}", &[&format!("error bad-value {at}.withoutHeaders[a b]")]);
    check_match(
        "{headers: {'@request.auth.claims.sub': {exact: a}}}",
        &[&format!("error bad-value {at}.headers[@request.auth.claims.sub]")],
    );
    check_match("{port: 70000}", &[&format!("error bad-value {at}.port")]);
    check_match("{sourceLabels: {'-': a}}", &[&format!("error bad-value {at}.sourceLabels")]);
    check_match("{sourceLabels: {a: 'b c'}}", &[&format!("error bad-value {at}.sourceLabels")]);
    check_match("{sourceNamespace: a.b}", &[&format!("error bad-value {at}.sourceNamespace")]);
    check_match("{statPrefix: a}", &[&format!("warning field-not-honoured {at}.statPrefix")]);
}

#[test]
fn headers() {
    let check =
        |operations: &str, expected: &[&str]| check_rule(&format!("headers: {{{operations}}}"), expected);
    check(
        "request: {set: {x-a: 'b %START_TIME% 100%%', ':authority': c}, add: {x-b: ''}, remove: [x-c]}",
        &[],
    );
    check("response: {set: {x-a: '%RESP(x-b)%'}}", &[]);
    check("request: {set: {te: trailers}}", &[]);
    for (field, name, value) in [
        ("request.set", "Content-Length", "a"),
        ("response.add", "connection", "a"),
        ("request.set", "te", "gzip"),
        ("request.add", "TE", "'%REQ(x-te)%'"),
        ("response.set", "te", "trailers"),
    ] {
        let (direction, operation) = field.split_once('.').unwrap();
        let expected = format!("warning field-not-honoured spec.http[0].headers.{field}[{name}]");
        check(&format!("{direction}: {{{operation}: {{{name}: {value}}}}}"), &[&expected]);
    }
    check("request: {set: {x-a: '100%'}}", &["error bad-value spec.http[0].headers.request.set[x-a]"]);
    check("request: {set: {x-a: '%NO_SUCH%'}}", &["error bad-value spec.http[0].headers.request.set[x-a]"]);
    check("request: {add: {x-a: \"a\\nb\"}}", &["error bad-value spec.http[0].headers.request.add[x-a]"]);
    check("request: {set: {':path': /}}", &["error bad-value spec.http[0].headers.request.set[:path]"]);
    check("request: {remove: [Host]}", &["error bad-value spec.http[0].headers.request.remove[0]"]);
    check("request: {remove: ['a b']}", &["error bad-value spec.http[0].headers.request.remove[0]"]);
    check("response: {set: {host: a}}", &["error bad-value spec.http[0].headers.response.set[host]"]);
    check("request: {set: {host: a}, add: {':authority': b}}", &["error conflicting-fields spec.http[0]"]);
    let both = "rewrite: {authority: a}\n    headers: {request: {set: {host: b}}}";
    check_rule(both, &["error conflicting-fields spec.http[0]"]);
    let inner = "  - route: [{destination: {host: a}, headers: {response: {remove: [':status']}}}]\n";
    check_http(inner, &["error bad-value spec.http[0].route[0].headers.response.remove[0]"]);
}

#[test]
fn rewrites_redirects_and_answers() {
    let rewrite = |rewrite: &str, expected: &[&str]| check_rule(&format!("rewrite: {{{rewrite}}}"), expected);
    rewrite("uri: /a, authority: b", &[]);
    rewrite("uriRegexRewrite: {match: '^/v[0-9]+(/.*)$', rewrite: '\\0\\1\\\\'}", &[]);
    rewrite("", &["error missing-field spec.http[0].rewrite"]);
    rewrite(
        "uri: /a, uriRegexRewrite: {match: a, rewrite: b}",
        &["error conflicting-fields spec.http[0].rewrite"],
    );
    for (field, value) in [("uri", "/a b"), ("uri", "/a\\r\\nX: b"), ("uri", "a"), ("authority", "a\\r\\nb")]
    {
        let expected = format!("error bad-value spec.http[0].rewrite.{field}");
        rewrite(&format!("{field}: \"{value}\""), &[&expected]);
    }
    let regex = "spec.http[0].rewrite.uriRegexRewrite";
    rewrite("uriRegexRewrite: {match: a, rewrite: 'y z'}", &[&format!("error bad-value {regex}.rewrite")]);
    rewrite("uriRegexRewrite: {match: 'a', rewrite: '\\1'}", &[&format!("error bad-value {regex}.rewrite")]);
    rewrite("uriRegexRewrite: {match: 'a', rewrite: 'b\\'}", &[&format!("error bad-value {regex}.rewrite")]);
    rewrite("uriRegexRewrite: {match: 'a', rewrite: '\\x'}", &[&format!("error bad-value {regex}.rewrite")]);
    rewrite("uriRegexRewrite: {match: '(', rewrite: a}", &[&format!("error bad-regex {regex}.match")]);
    rewrite("uriRegexRewrite: {match: a}", &[&format!("error missing-field {regex}")]);

    let redirect =
        |redirect: &str, expected: &[&str]| check_http(&format!("  - redirect: {{{redirect}}}\n"), expected);
    redirect("uri: /a, redirectCode: 308, scheme: https, port: 443", &[]);
    redirect("derivePort: FROM_REQUEST_PORT", &[]);
    redirect("", &["error missing-field spec.http[0].redirect"]);
    redirect("uri: /a, redirectCode: 200", &["error bad-value spec.http[0].redirect.redirectCode"]);
    redirect("uri: /a, redirectCode: 305", &["error bad-value spec.http[0].redirect.redirectCode"]);
    for (field, value) in [("uri", "/a\\r\\nSet-Cookie: b"), ("uri", "/a\\tc"), ("authority", "e\\r\\nvil")] {
        let expected = format!("error bad-value spec.http[0].redirect.{field}");
        redirect(&format!("{field}: \"{value}\""), &[&expected]);
    }
    redirect("scheme: ftp", &["error bad-value spec.http[0].redirect.scheme"]);
    redirect("port: 65536", &["error bad-value spec.http[0].redirect.port"]);
    redirect("port: 80, derivePort: FROM_REQUEST_PORT", &["error conflicting-fields spec.http[0].redirect"]);

    let answer = |answer: &str, expected: &[&str]| {
        check_http(&format!("  - directResponse: {{{answer}}}\n"), expected);
    };
    answer("status: 503, body: {string: 'no'}", &[]);
    answer("status: 200, body: {bytes: 'aGVsbG8='}", &[]);
    answer("status: 99", &["error bad-value spec.http[0].directResponse.status"]);
    answer("status: 600", &["error bad-value spec.http[0].directResponse.status"]);
    answer("status: 200, body: {bytes: '???'}", &["error bad-value spec.http[0].directResponse.body.bytes"]);
    answer(
        "status: 200, body: {string: a, bytes: aGVs}",
        &["error conflicting-fields spec.http[0].directResponse.body"],
    );
    let big = format!("status: 200, body: {{string: '{}'}}", "a".repeat(1 << 20 | 1));
    answer(&big, &["error bad-value spec.http[0].directResponse.body"]);
}

#[test]
fn timeouts_and_retries() {
    check_rule("timeout: 3s", &[]);
    check_rule("timeout: 0s", &["error bad-value spec.http[0].timeout"]);
    check_rule("timeout: 1500us", &["error bad-value spec.http[0].timeout"]);
    let check = |retries: &str, expected: &[&str]| check_rule(&format!("retries: {{{retries}}}"), expected);
    check("attempts: 3, perTryTimeout: 800ms, retryOn: '5xx,reset,503,unavailable', backoff: 10ms", &[]);
    check("attempts: 0", &[]);
    check("attempts: 0, retryOn: 5xx", &["error conflicting-fields spec.http[0].retries"]);
    check("attempts: -1", &["error bad-value spec.http[0].retries.attempts"]);
    check("attempts: 1, perTryTimeout: 0s", &["error bad-value spec.http[0].retries.perTryTimeout"]);
    check("attempts: 1, retryOn: 5x", &["error bad-value spec.http[0].retries.retryOn"]);
    check("attempts: 1, retryOn: 'reset, 5xx'", &["error bad-value spec.http[0].retries.retryOn"]);
    check("attempts: 1, retryOn: 'reset,,5xx'", &["error bad-value spec.http[0].retries.retryOn"]);
    check("attempts: 1, retryOn: '799'", &["error bad-value spec.http[0].retries.retryOn"]);
    check(
        "attempts: 1, retryOn: retriable-headers",
        &["warning field-not-honoured spec.http[0].retries.retryOn"],
    );
}

#[test]
fn faults_mirrors_and_cross_origin_requests() {
    let not_honoured = |field: &str| format!("warning field-not-honoured spec.http[0].{field}");
    let fault = |fault: &str, expected: &[&str]| {
        let mut all = expected.to_vec();
        let warning = not_honoured("fault");
        all.push(&warning);
        check_rule(&format!("fault: {{{fault}}}"), &all);
    };
    fault("delay: {fixedDelay: 5s, percentage: {value: 0.1}}, abort: {httpStatus: 503}", &[]);
    fault("", &["error missing-field spec.http[0].fault"]);
    fault("abort: {}", &["warning ineffective-value spec.http[0].fault.abort"]);
    fault("abort: {httpStatus: 100}", &["error bad-value spec.http[0].fault.abort.httpStatus"]);
    fault("abort: {grpcStatus: NOT_FOUD}", &["error bad-value spec.http[0].fault.abort.grpcStatus"]);
    fault(
        "abort: {httpStatus: 503, percentage: {value: 101}}",
        &["error bad-value spec.http[0].fault.abort.percentage"],
    );
    fault("delay: {exponentialDelay: 1s}", &["error bad-value spec.http[0].fault.delay.exponentialDelay"]);
    let mirror = "mirror: {host: b}\n    mirrorPercentage: {value: 5}";
    check_rule(mirror, &[&not_honoured("mirror"), &not_honoured("mirrorPercentage")]);
    check_rule(
        "mirrors: [{destination: {host: ''}}]",
        &["error missing-field spec.http[0].mirrors[0].destination.host", &not_honoured("mirrors")],
    );
    let cors = |policy: &str, expected: &[&str]| {
        let mut all = expected.to_vec();
        let warning = not_honoured("corsPolicy");
        all.push(&warning);
        check_rule(&format!("corsPolicy: {{{policy}}}"), &all);
    };
    cors(
        "allowOrigins: [{exact: 'https://a'}], allowMethods: [GET], allowHeaders: ['*', x-a], maxAge: 24h",
        &[],
    );
    cors("allowOrigins: [{}]", &["error missing-field spec.http[0].corsPolicy.allowOrigins[0]"]);
    cors("allowMethods: [get]", &["error bad-value spec.http[0].corsPolicy.allowMethods[0]"]);
    cors("maxAge: 1500ms", &["error bad-value spec.http[0].corsPolicy.maxAge"]);
}

#[test]
fn layer_4_rules() {
    let tls = |rule: &str, expected: &[&str]| {
        check("VirtualService", &format!("  hosts: [a.b, '*.c']\n  tls: [{rule}]\n"), expected);
    };
    let route = "route: [{destination: {host: a}}]";
    tls(&format!("{{match: [{{sniHosts: [a.b, x.c], port: 443}}], {route}}}"), &[]);
    tls(&format!("{{{route}}}"), &["error missing-field spec.tls[0]"]);
    tls(&format!("{{match: [{{}}], {route}}}"), &["error missing-field spec.tls[0].match[0]"]);
    tls(
        &format!("{{match: [{{sniHosts: [b.b]}}], {route}}}"),
        &["error bad-value spec.tls[0].match[0].sniHosts[0]"],
    );
    let tcp = |rule: &str, expected: &[&str]| {
        check("VirtualService", &format!("  hosts: [a]\n  tcp: [{rule}]\n"), expected);
    };
    tcp(&format!("{{match: [{{port: 80, destinationSubnets: [10.0.0.0/8, '::1']}}], {route}}}"), &[]);
    tcp("{}", &["error missing-field spec.tcp[0]"]);
    tcp(
        &format!("{{match: [{{sourceSubnet: 10.0.0.0/8}}], {route}}}"),
        &["warning ineffective-value spec.tcp[0].match[0].sourceSubnet"],
    );
    tcp(
        &format!("{{match: [{{destinationSubnets: [10.0.0.0/33]}}], {route}}}"),
        &["error bad-value spec.tcp[0].match[0].destinationSubnets[0]"],
    );
    // What is for gateways must be right as well, and what of it is not honoured is said.
    let fault = "fault: {abort: {httpStatus: 503, percentage: {value: 1}}}";
    check(
        "VirtualService",
        &format!("  hosts: [a]\n  gateways: [g]\n  http: [{{{route}, {fault}}}]\n"),
        &["warning field-not-honoured spec.http[0].fault"],
    );
    check(
        "VirtualService",
        &format!("  hosts: [a]\n  gateways: [g]\n  tls: [{{{route}}}]\n"),
        &["error missing-field spec.tls[0]"],
    );
}

/// Of connections: what catches all ends the search, and of two for one range or one list of names the first holds.
#[test]
fn rules_of_connections_that_never_match() {
    let to = "route: [{destination: {host: a}}]";
    let rules = |kind: &str, rules: &[&str], more: &str, expected: &[&str]| {
        let rule = |wanted: &&str| format!("  - {{{to}{wanted}}}\n");
        let rules: String = rules.iter().map(rule).collect();
        let spec = format!("  hosts: [a, '*.b']\n{more}  {kind}:\n{rules}");
        check("VirtualService", &spec, expected);
    };
    let tcp = |all: &[&str], expected: &[&str]| rules("tcp", all, "", expected);
    let unreachable = ["warning unreachable-rule spec.tcp[1]"];
    tcp(&["", ", match: [{port: 1}]"], &unreachable);
    tcp(&["", ", match: [{destinationSubnets: [10.0.0.0/8]}]"], &unreachable);
    tcp(&[", match: [{port: 1}]", ", match: [{port: 1, sourceLabels: {x: y}}]"], &unreachable);
    tcp(
        &[", match: [{port: 1}]", ", match: [{port: 2}, {port: 1}]"],
        &["warning ineffective-match spec.tcp[1].match[1]"],
    );
    let range = ", match: [{destinationSubnets: [10.0.0.0/8]}]";
    tcp(&[range, range], &unreachable);
    tcp(&[range, ", match: [{destinationSubnets: [10.1.0.0/16]}]"], &[]);
    tcp(&[range, ""], &[]);
    tcp(&[", match: [{port: 1}]", ""], &[]);
    tcp(&[", match: [{port: 1, sourceLabels: {x: y}}]", ", match: [{port: 1}]"], &[]);
    rules("tcp", &["", ", match: [{port: 1}]"], "  gateways: [mesh, g]\n", &[]);
    let tls = |all: &[&str], expected: &[&str]| rules("tls", all, "", expected);
    let unreachable = ["warning unreachable-rule spec.tls[1]"];
    tls(&[", match: [{sniHosts: [a]}]", ", match: [{port: 1, sniHosts: [a]}]"], &unreachable);
    tls(&[", match: [{port: 1, sniHosts: [a]}]", ", match: [{sniHosts: [a]}]"], &[]);
    // The more specific name wins.
    tls(&[", match: [{sniHosts: ['*.b']}]", ", match: [{sniHosts: [x.b]}]"], &[]);
    // The range of one match holds for those after it.
    let ranged = ", match: [{sniHosts: [a], destinationSubnets: [10.0.0.0/8]}]";
    tls(&[ranged, ", match: [{sniHosts: [a]}]"], &unreachable);
    tls(&[", match: [{sniHosts: [a]}]", ranged], &[]);
    tls(&[ranged, ", match: [{sniHosts: [a], destinationSubnets: [10.1.0.0/16]}]"], &[]);
    tls(&[ranged, ranged], &unreachable);
}

/// Comparing each host with each took longer than a minute.
#[test]
fn many_hosts_are_not_compared_each_with_each() {
    let count = 50_000;
    let hosts: String = (0..count).map(|number| format!("  - h{number}.a\n")).collect();
    let names: String = (0..count).map(|number| format!("      - h{number}.a\n")).collect();
    let rule =
        format!("  tls:\n  - route: [{{destination: {{host: a}}}}]\n    match:\n    - sniHosts:\n{names}");
    check(
        "VirtualService",
        &format!("  hosts:\n{hosts}  - '*.a'\n{rule}"),
        &[&format!("error bad-value spec.hosts[{count}]")],
    );
}

/// Comparing each rule with the first 2,000 took longer than a minute.
#[test]
fn many_rules_are_compared_as_far_as_there_is_room() {
    let rule = |path: &str| {
        format!("  - {{match: [{{uri: {{prefix: {path}}}}}], route: [{{destination: {{host: a}}}}]}}\n")
    };
    let rules: String = (0..30_000).map(|number| rule(&format!("/{number}/"))).collect();
    check(
        "VirtualService",
        &format!("  hosts: [a]\n  http:\n{}{}{rules}", rule("/x"), rule("/x/y")),
        &["warning unreachable-rule spec.http[1]"],
    );
}
