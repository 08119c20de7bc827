//! h2spec, which knows RFC 7540 and HPACK by heart, against the proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::skip::skip;
use support::{Mesh, TestBackend, TestProxy};

/// Cases that do not pass: a line for each, of its identifier and why, separated by a colon.
const EXCEPTIONS: &str = include_str!("h2spec.exceptions");

/// Where `go install` puts it for us.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/h2spec")
}

/// The cases of a JUnit report that did not pass, and why, by their identifiers; and how many there are in all.
fn failures(report: &str) -> (BTreeMap<String, String>, usize) {
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    let failed = cases.iter().filter_map(|case| {
        let (package, name) = (attribute(case, "package")?, attribute(case, "classname")?);
        let why = case.split_once("<failure>").or_else(|| case.split_once("<error>"))?.1;
        let why = why.split_once("</").map_or(why, |(why, _)| why).trim().replace('\n', "; ");
        Some((format!("{package} {name}"), why))
    });
    (failed.collect(), cases.len())
}

fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(&format!("{name}=\""))?.1.split_once('"').map(|(value, _)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_passes_or_is_an_exception() {
    let program = program();
    if !program.is_file() {
        let why = "no h2spec; tests/run builds it where there is Go";
        return skip("h2spec::every_case_passes_or_is_an_exception", why);
    }
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new().service("catalog", "http/8000").endpoint("catalog", "http", "v1", backend.address);
    let proxy = TestProxy::of(mesh).listen("catalog", 8000).ready().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let report = directory.path().join("report.xml");
    let ran = tokio::process::Command::new(program)
        .args(["--strict", "--timeout", "2", "--host", "127.0.0.1", "--port"])
        .arg(proxy.listener(0).port().to_string())
        .arg("--junit-report")
        .arg(&report)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("h2spec runs");
    let report = std::fs::read_to_string(report);
    let report =
        report.unwrap_or_else(|error| panic!("no report: {error}: {}", String::from_utf8_lossy(&ran.stdout)));
    let (failed, count) = failures(&report);
    assert!(count >= 140, "{count} cases");
    let exceptions: BTreeMap<&str, &str> = EXCEPTIONS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(": ").expect("CASE: WHY"))
        .collect();
    let mut wrong: Vec<String> = failed
        .iter()
        .filter(|(case, _)| !exceptions.contains_key(case.as_str()))
        .map(|(case, why)| format!("fails: {case}: {why}"))
        .collect();
    wrong.extend(
        exceptions.keys().filter(|case| !failed.contains_key(**case)).map(|case| format!("passes: {case}")),
    );
    assert!(wrong.is_empty(), "of {count} cases:\n{}", wrong.join("\n"));
}
