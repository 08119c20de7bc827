//! Policies that guard a workload and are not enforced.

use super::{Config, URL};

/// What guards a workload and is passed over is not passed over in silence.
#[test]
fn policies_that_are_not_enforced() {
    let policy = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let config = Config::of(&[
        ("deny.yaml", &policy("AuthorizationPolicy", "deny", "{action: DENY, rules: [{}]}")),
        (
            "jwt.yaml",
            &policy("RequestAuthentication", "jwt", "{jwtRules: [{issuer: a, jwksUri: 'https://a/'}]}"),
        ),
        ("strict.yaml", &policy("PeerAuthentication", "strict", "{mtls: {mode: STRICT}}")),
        (
            "other.yaml",
            &policy(
                "AuthorizationPolicy",
                "other",
                "{selector: {matchLabels: {app: cart}}, action: DENY, rules: [{}]}",
            ),
        ),
    ]);
    let url = "http://web:8000/";
    let told = config.run(&["--inbound", "--allow-unenforced-security", url]);
    for (what, object) in [
        (
            "AuthorizationPolicy shop/deny guards the workload and is not enforced yet",
            "AuthorizationPolicy shop/deny (deny.yaml:1)",
        ),
        (
            "RequestAuthentication shop/jwt guards the workload and is not enforced yet",
            "RequestAuthentication shop/jwt (jwt.yaml:1)",
        ),
        (
            "mode STRICT, which wants mutual TLS, and the workload has no identity",
            "PeerAuthentication shop/strict (strict.yaml:4)",
        ),
    ] {
        let served = "it is served as if that were not there (--allow-unenforced-security)";
        let expected = format!("not enforced: {what}: {served}\n    by {object}\n");
        assert!(told.contains(&expected), "no `{expected}` in\n{told}");
    }
    assert!(told.contains("=> forwarded to ") || told.contains("=> passed on as it is"), "{told}");
    assert!(!told.contains("shop/other"), "{told}");
    // Closed, it is told as ever; outbound, nobody guards.
    assert!(!config.run(&["--inbound", url]).contains("not enforced: "));
    assert!(!config.run(&["--allow-unenforced-security", URL]).contains("not enforced: "));
}
