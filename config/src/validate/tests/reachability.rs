//! HTTP rules and matches that have no effect.

use super::{check, check_http, findings};

#[test]
fn rules_that_never_match() {
    let to = "route: [{destination: {host: catalog}}]";
    let rules = |matches: &[&str]| {
        let rule = |wanted: &&str| format!("  - {{{to}{wanted}}}\n");
        matches.iter().map(rule).collect::<String>()
    };
    let check = |matches: &[&str], expected: &[&str]| check_http(&rules(matches), expected);
    let unreachable = ["warning unreachable-rule spec.http[1]"];
    check(&["", ", match: [{uri: {exact: /a}}]"], &unreachable);
    check(&[", match: [{uri: {prefix: /}}]", ", match: [{uri: {exact: /a}}]"], &unreachable);
    check(
        &[", match: [{uri: {prefix: /a}}]", ", match: [{uri: {prefix: /a/b}, method: {exact: GET}}]"],
        &unreachable,
    );
    // Regular expressions that every path, or every method, meets.
    for any in ["uri: {regex: '/.*'}", "uri: {regex: '^/.*$'}", "uri: {regex: '.+'}", "uri: {regex: '(/.*)'}"]
    {
        check(&[&format!(", match: [{{{any}}}]"), ""], &unreachable);
        check(&[&format!(", match: [{{{any}}}]"), ", match: [{uri: {regex: '/[a-z]+'}}]"], &unreachable);
    }
    check(&[", match: [{uri: {prefix: /}, method: {regex: '.*'}}]", ""], &unreachable);
    check(&[", match: [{authority: {regex: '.*'}}]", ", match: [{authority: {prefix: a}}]"], &unreachable);
    check(&[", match: [{uri: {regex: '/a.*'}}]", ""], &[]);
    check(&[", match: [{uri: {prefix: /}, method: {regex: 'G.*'}}]", ""], &[]);
    check(&[", match: [{headers: {x: {regex: '.*'}}}]", ""], &[]);
    check(&[", match: [{name: x, port: 80}]", ", match: [{name: y, port: 80}]"], &unreachable);
    check(
        &[", match: [{uri: {prefix: /A}, ignoreUriCase: true}]", ", match: [{uri: {exact: /a}}]"],
        &unreachable,
    );
    check(&[", match: [{uri: {prefix: /a}}]", ", match: [{uri: {prefix: /A}, ignoreUriCase: true}]"], &[]);
    check(&[", match: [{uri: {exact: /a}}]", ", match: [{uri: {prefix: /a}}]"], &[]);
    check(
        &[", match: [{uri: {prefix: /a}, headers: {x: {exact: b}}}]", ", match: [{uri: {prefix: /a}}]"],
        &[],
    );
    check(&[", match: [{sourceLabels: {app: a}}]", ", match: [{sourceLabels: {app: b}}]"], &[]);
    let one_of_two = ["warning ineffective-match spec.http[1].match[0]"];
    check(
        &[", match: [{uri: {prefix: /a}}]", ", match: [{uri: {exact: /a}}, {uri: {exact: /b}}]"],
        &one_of_two,
    );
    // What asks only that there is a value takes each; what begins so takes what is so.
    let both = |field: &str, before: &str, after: &str, expected: &[&str]| {
        let rule = |value: &str| format!(", match: [{{{field}: {{x: {value}}}}}]");
        check(&[&rule(before), &rule(after)], expected);
    };
    for field in ["headers", "queryParams"] {
        both(field, "{}", "{exact: q}", &unreachable);
        both(field, "{}", "{prefix: q}", &unreachable);
        both(field, "{prefix: ab}", "{exact: abc}", &unreachable);
        both(field, "{prefix: ab}", "{prefix: abc}", &unreachable);
        both(field, "{exact: q}", "{}", &[]);
        both(field, "{prefix: abc}", "{exact: ab}", &[]);
        both(field, "{exact: ab}", "{prefix: ab}", &[]);
        both(field, "{prefix: ab}", "{regex: abc}", &[]);
        both(field, "{}", "{regex: abc}", &[]);
        both(field, "{regex: 'a.*'}", "{exact: abc}", &[]);
    }
    // The other way round where it must not be.
    both("withoutHeaders", "{exact: abc}", "{prefix: ab}", &unreachable);
    both("withoutHeaders", "{exact: abc}", "{}", &unreachable);
    both("withoutHeaders", "{prefix: ab}", "{exact: abc}", &[]);
    both("withoutHeaders", "{}", "{exact: abc}", &[]);
    both("withoutHeaders", "{regex: 'a.*'}", "{}", &[]);
    check(&[", match: [{method: {prefix: P}}]", ", match: [{method: {exact: PUT}}]"], &unreachable);
    check(&[", match: [{headers: {x: {}}}]", ", match: [{headers: {y: {exact: q}}}]"], &[]);
    // A rule that delegates takes only what its delegate takes.
    check_http(&format!("  - delegate: {{name: d}}\n{}", rules(&[""])), &[]);
}

/// What a comparison of texts does not tell.
#[test]
fn rules_that_take_less_than_they_seem_to() {
    let check = |before: &str, after: &str, is_told: bool| {
        let rule =
            |matched: &str| format!("  - {{match: [{matched}], route: [{{destination: {{host: a}}}}]}}\n");
        let told: &[&str] = if is_told { &["warning unreachable-rule spec.http[1]"] } else { &[] };
        check_http(&format!("{}{}", rule(before), rule(after)), told);
    };
    let headers = |field: &str, before: &str, after: &str, is_told: bool| {
        check(&format!("{{{field}: {{x: {before}}}}}"), &format!("{{{field}: {{x: {after}}}}}"), is_told);
    };
    // An empty value is one; a header that must not be empty must be there.
    for field in ["headers", "queryParams"] {
        headers(field, "{exact: ''}", "{exact: q}", false);
        headers(field, "{exact: ''}", "{exact: ''}", true);
    }
    headers("withoutHeaders", "{exact: ''}", "{}", false);
    headers("withoutHeaders", "{exact: ''}", "{exact: ''}", true);
    // Case does not matter in the name of a header.
    check("{headers: {X-A: {exact: q}}}", "{headers: {x-a: {exact: q}}}", true);
    check("{withoutHeaders: {x-a: {exact: q}}}", "{withoutHeaders: {X-A: {exact: q}}}", true);
    check("{queryParams: {A: {exact: q}}}", "{queryParams: {a: {exact: q}}}", false);
    // `*` begins with no `/`.
    check("{uri: {prefix: /}}", "{uri: {exact: '*'}}", false);
    check("{name: all}", "{uri: {exact: '*'}}", true);
    check("{uri: {prefix: '*'}}", "{uri: {exact: '*'}}", true);
    // Where gateways are named, clients are not asked for labels.
    let (from_a, of_mesh) = ("{sourceLabels: {app: a}}", "{gateways: [mesh], sourceLabels: {app: a}}");
    check(from_a, of_mesh, false);
    check(of_mesh, "{gateways: [mesh]}", true);
    check("{sourceNamespace: n}", "{gateways: [mesh], sourceNamespace: n}", false);
    check(from_a, from_a, true);
}

/// One that matches something may be left out where another object delegates to it, so it takes nothing for sure.
#[test]
fn rules_of_a_delegate_that_never_match() {
    let rule = |matches: &str| format!("  - {{route: [{{destination: {{host: a}}}}]{matches}}}\n");
    let check = |rules: &[&str], expected: &[&str]| {
        let rules: String = rules.iter().map(|matches| rule(matches)).collect();
        assert_eq!(findings("VirtualService", &format!("  http:\n{rules}")), expected, "{rules}");
    };
    let (wide, narrow) = (", match: [{uri: {prefix: /a}}]", ", match: [{uri: {exact: /a/b}}]");
    check(&[wide, narrow], &[]);
    check(&["", narrow], &["warning unreachable-rule spec.http[1]"]);
    let never = ", match: [{uri: {prefix: a}}]";
    check(&[wide, never], &["warning unreachable-rule spec.http[1].match[0].uri.prefix"]);
}

/// Matches for gateways that the object is not for.
#[test]
fn matches_for_other_gateways() {
    let check = |gateways: &str, wanted: &str, is_told: bool| {
        let to = "route: [{destination: {host: a}}]";
        for (kind, more) in [("http", ""), ("tls", "sniHosts: [catalog], "), ("tcp", "")] {
            let after = if kind == "http" { format!(", {{{to}}}") } else { String::new() };
            let rules = format!(
                "  {{hosts: [catalog], gateways: [{gateways}], {kind}: [{{match: [{{{more}gateways: [{wanted}]}}], {to}}}{after}]}}\n"
            );
            let told = format!("warning unreachable-rule spec.{kind}[0].match[0].gateways");
            let expected: Vec<&str> = is_told.then_some(told.as_str()).into_iter().collect();
            check("VirtualService", &rules, &expected);
        }
    };
    check("", "mesh", false);
    check("", "g", true);
    check("mesh", "g", true);
    check("g", "mesh", true);
    check("g, mesh", "h, mesh", false);
    check("g, mesh", "h, i", true);
    // One name, however it is written.
    check("g", "shop/g", false);
    check("shop/g", "g", false);
    check("ops/g", "g", true);
    // A delegate is for the gateways of those that delegate to it.
    let delegate = "  {http: [{match: [{gateways: [g]}], route: [{destination: {host: a}}]}]}\n";
    assert_eq!(findings("VirtualService", delegate), Vec::<String>::new());
}

#[test]
fn matches_that_never_hold() {
    let check = |matches: &str, expected: &[&str]| {
        let rules = format!(
            "  - {{match: [{matches}], route: [{{destination: {{host: catalog}}}}]}}\n  - {{route: [{{destination: {{host: catalog}}}}]}}\n"
        );
        check_http(&rules, expected);
    };
    check("{uri: {exact: items}}", &["warning unreachable-rule spec.http[0].match[0].uri.exact"]);
    check("{uri: {prefix: items}}", &["warning unreachable-rule spec.http[0].match[0].uri.prefix"]);
    check(
        "{uri: {exact: /items}}, {uri: {exact: items}}",
        &["warning ineffective-match spec.http[0].match[1].uri.exact"],
    );
    // The query is no part of what is compared.
    for uri in ["exact: '/a?b=1'", "exact: '/a#b'", "prefix: '/a?'"] {
        let field = uri.split(':').next().unwrap();
        let told = format!("warning unreachable-rule spec.http[0].match[0].uri.{field}");
        check(&format!("{{uri: {{{uri}}}}}"), &[&told]);
    }
    // OPTIONS * has no other path.
    for uri in ["{exact: '*'}", "{prefix: '*'}", "{regex: items}", "{exact: /}"] {
        check(&format!("{{uri: {uri}}}"), &[]);
    }
    let headers = |headers: &str, without: &str, is_told: bool| {
        let told = ["warning unreachable-rule spec.http[0].match[0].withoutHeaders[x]"];
        let expected: &[&str] = if is_told { &told } else { &[] };
        check(&format!("{{headers: {{x: {headers}}}, withoutHeaders: {{x: {without}}}}}"), expected);
    };
    headers("{exact: a}", "{exact: a}", true);
    headers("{exact: a}", "{}", true);
    headers("{}", "{}", true);
    headers("{exact: ab}", "{prefix: a}", true);
    headers("{regex: a+}", "{regex: a+}", true);
    headers("{prefix: a}", "{exact: ab}", false);
    headers("{}", "{exact: a}", false);
    headers("{exact: a}", "{exact: ''}", false);
    headers("{exact: a}", "{regex: '*'}", true);
    headers("{exact: a}", "{exact: b}", false);
    headers("{regex: a+}", "{prefix: a}", false);
    check("{headers: {x: {exact: a}}, withoutHeaders: {y: {exact: a}}}", &[]);
    // What is not there is as an empty value.
    let without = |wanted: &str, is_told: bool| {
        let told = ["warning unreachable-rule spec.http[0].match[0].withoutHeaders[x]"];
        check(&format!("{{withoutHeaders: {{x: {wanted}}}}}"), if is_told { &told } else { &[] });
    };
    for all in [".*", "^.*$", "(.*)"] {
        without(&format!("{{regex: '{all}'}}"), true);
    }
    for some in ["{}", "{regex: '*'}", "{regex: '.+'}", "{exact: ''}", "{regex: 'a.*'}"] {
        without(some, false);
    }
    let other_case = ["warning unreachable-rule spec.http[0].match[0].withoutHeaders[x]"];
    check("{headers: {x: {exact: a}}, withoutHeaders: {X: {}}}", &other_case);
    // One that never holds takes nothing from those after it.
    let rule = |uri: &str| {
        format!("  - {{match: [{{uri: {{prefix: {uri}}}}}], route: [{{destination: {{host: catalog}}}}]}}\n")
    };
    check_http(
        &format!("{}{}", rule("items"), rule("items/new")),
        &[
            "warning unreachable-rule spec.http[0].match[0].uri.prefix",
            "warning unreachable-rule spec.http[1].match[0].uri.prefix",
        ],
    );
}
