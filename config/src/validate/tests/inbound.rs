//! Policies that guard inbound traffic.

use super::check;

const NOT_ENFORCED: &str = "warning kind-not-honoured ";

#[test]
fn peer_authentications() {
    let check =
        |spec: &str, expected: &[&str]| check("PeerAuthentication", &format!("  {{{spec}}}\n"), expected);
    check("mtls: {mode: STRICT}", &[]);
    check("", &[]);
    check("mtls: {mode: DISABLE}", &[]);
    check("mtls: {mode: MAYBE}", &["error bad-value spec.mtls.mode"]);
    let selector = "selector: {matchLabels: {app: a}}";
    check(&format!("{selector}, portLevelMtls: {{'80': {{mode: DISABLE}}}}"), &[]);
    check(&format!("{selector}, portLevelMtls: {{'80': {{mode: STRICT}}}}"), &[]);
    check("portLevelMtls: {'80': {mode: DISABLE}}", &["error missing-field spec.portLevelMtls"]);
    let bad = format!("{selector}, portLevelMtls: {{'0': {{mode: DISABLE}}, x: {{mode: DISABLE}}}}");
    check(&bad, &["error bad-value spec.portLevelMtls[0]", "error bad-value spec.portLevelMtls[x]"]);
    check(
        "selector: {matchLabels: {app: '*'}}, mtls: {mode: DISABLE}",
        &["error bad-value spec.selector.matchLabels", "error bad-value spec.selector.matchLabels"],
    );
}

#[test]
fn authorization_policies() {
    let check =
        |spec: &str, expected: &[&str]| check("AuthorizationPolicy", &format!("  {{{spec}}}\n"), expected);
    check("", &[NOT_ENFORCED]);
    check(
        "rules: [{from: [{source: {principals: ['*']}}], to: [{operation: {ports: ['80']}}]}]",
        &[NOT_ENFORCED],
    );
    check("action: DENY, rules: [{}]", &[NOT_ENFORCED]);
    check("action: DENY", &["warning ineffective-value spec.rules", NOT_ENFORCED]);
    check("action: AUDIT, rules: [{}]", &["warning kind-not-honoured spec.action"]);
    check("action: CUSTOM, provider: {name: a}, rules: [{}]", &[NOT_ENFORCED]);
    check("action: CUSTOM, rules: [{}]", &["error missing-field spec.provider.name", NOT_ENFORCED]);
    check("provider: {name: a}", &["error conflicting-fields spec.provider", NOT_ENFORCED]);
    check(
        "rules: [{when: [{key: source.ip}]}]",
        &["error missing-field spec.rules[0].when[0]", NOT_ENFORCED],
    );
    check("rules: [{form: []}]", &["error unknown-field spec.rules[0].form"]);
    check(
        "selector: {}, targetRefs: [{kind: Service, name: a}]",
        &["error conflicting-fields spec", NOT_ENFORCED],
    );
}

#[test]
fn request_authentications() {
    let check =
        |spec: &str, expected: &[&str]| check("RequestAuthentication", &format!("  {{{spec}}}\n"), expected);
    check("jwtRules: [{issuer: a, jwks: '{}', fromHeaders: [{name: x}]}]", &[NOT_ENFORCED]);
    check("jwtRules: [{jwks: '{}'}]", &["error missing-field spec.jwtRules[0].issuer", NOT_ENFORCED]);
    check(
        "jwtRules: [{issuer: a, jwks: '{}', jwksUri: 'http://a'}]",
        &["error conflicting-fields spec.jwtRules[0]", NOT_ENFORCED],
    );
}
