//! `weft demo`: the tour by itself, and the table that follows an edit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("demo").stdin(Stdio::null()).env_remove("WEFT_LOG");
    command
}

#[test]
fn the_tour_holds_and_says_only_what_it_does() {
    let output = demo().arg("--once").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{text}");
    let steps: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ok   ")).map(|line| line[..16].trim()).collect();
    assert_eq!(steps, ["split", "header route", "mutual TLS", "endpoint killed", "hot swap", "bad file"]);
    assert!(text.contains("catalog.yaml:8: error: ") && text.contains("did you mean `http`?"), "{text}");
    assert!(text.contains("plaintext refused by 4 of 4 sidecars"), "{text}");
    assert!(text.contains("URI=spiffe://cluster.local/ns/shop/sa/web\n"), "{text}");
    assert!(text.ends_with("\nall steps held\n"), "{text}");
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?}: {text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn the_table_follows_an_edit() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo()
        .args(["--dir", directory.path().to_str().unwrap()])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut line = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        let mut seen = Vec::new();
        for line in lines.by_ref().take(30) {
            if is_it(&line) {
                return line;
            }
            seen.push(line);
        }
        panic!("{what} is not among {seen:#?}");
    };
    line("a curl", &|line| line.starts_with("  curl http://127.0.0.1:"));
    let catalog = directory.path().join("catalog.yaml");
    line("the file to edit", &|line| line.trim() == catalog.to_str().unwrap());
    let first = line("both versions", &|line| line.contains(" v1 ") && line.contains(" v2 "));
    assert!(first.contains(" 0 failed "), "{first}");
    let text = fs::read_to_string(&catalog).unwrap();
    fs::write(&catalog, text.replace("weight: 90", "weight: 0")).unwrap();
    let edited = line("all to v2", &|line| line.contains("(100%)"));
    assert!(edited.contains(" v2 ") && edited.contains(" 0 failed "), "{edited}");
    fs::write(&catalog, text.replace("  http:", "  htpp:")).unwrap();
    line("what is refused", &|line| {
        line.contains("refused: catalog.yaml:8: spec.htpp: there is no field `htpp`")
    });
    let interrupted = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(interrupted.unwrap().success());
    line("where the YAML is", &|line| line.starts_with("the YAML stays in "));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn files_of_somebody_else_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, "rootNamespace: mine\n").unwrap();
    let output = demo().args(["--once", "--dir", directory.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("mesh.yaml is not the demo's; name another directory"), "{said}");
    assert_eq!(fs::read_to_string(file).unwrap(), "rootNamespace: mine\n");
}
