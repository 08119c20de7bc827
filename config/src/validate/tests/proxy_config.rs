//! ProxyConfig.

use super::check;

#[test]
fn fields_and_what_becomes_of_them() {
    let check = |spec: &str, expected: &[&str]| check("ProxyConfig", spec, expected);
    check("  concurrency: 2\n  selector: {matchLabels: {app: web}}\n", &[]);
    check("  concurrency: 0\n  environmentVariables: {ISTIO_META_A: b}\n", &[]);
    check("  concurrency: -1\n", &["error bad-value spec.concurrency"]);
    check("  concurrency: two\n", &["error wrong-type spec.concurrency"]);
    check("  concurency: 2\n", &["error unknown-field spec.concurency"]);
    check("  selector: {}\n", &["warning ineffective-value spec.selector"]);
    check("  image: {imageType: distroless}\n", &["warning field-not-honoured spec.image"]);
    check("  image: {type: distroless}\n", &["error unknown-field spec.image.type"]);
    check(
        "  environmentVariables: {GODEBUG: x, ISTIO_META_A: b}\n",
        &["warning field-not-honoured spec.environmentVariables[GODEBUG]"],
    );
}
