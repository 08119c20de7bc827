//! What packages of the workspace may depend on.

use std::fs;

use crate::source::workspace;

/// Packages, and the packages of the workspace that each may depend on.
const PACKAGES: [(&str, &[&str]); 6] = [
    ("config", &[]),
    ("xds-client", &["config"]),
    ("proxy", &["config", "xds-client"]),
    // Tests and measurements come from outside; nobody depends on them.
    ("tests", &["config", "proxy", "xds-client"]),
    ("tests/fuzz", &["config", "proxy", "xds-client"]),
    ("benches", &["config", "proxy"]),
];

/// Parts of what does I/O, that `config` must not depend on: it is pure data in, pure data out.
const NOT_IN_CONFIG: [&str; 12] = [
    "arc-swap",
    "h2",
    "hyper",
    "hyper-util",
    "notify",
    "prost",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
    "tonic",
    "tracing-subscriber",
];

/// A line of a manifest that names a dependency.
struct Dependency {
    line: usize,
    name: String,
    inherited: bool,
}

/// The dependencies of all kinds that a manifest names.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut inside = false;
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            inside = section.ends_with("dependencies]");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default().to_owned();
            found.push(Dependency { line: index + 1, name, inherited: line.contains("workspace = true") });
        }
    }
    found
}

/// What is wrong with the dependencies of one package, which is named by its directory.
fn offences(package: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = PACKAGES.iter().find(|(name, _)| *name == package) else {
        return vec![format!("{package} is not known; say in tests/architecture what it may depend on")];
    };
    let members = PACKAGES.map(|(name, _)| name);
    let mut offences = Vec::new();
    for Dependency { line, name, inherited } in dependencies(manifest) {
        let place = format!("{package}/Cargo.toml:{line}");
        // A package of the workspace goes by its directory, except for those of tests.
        let member = members.contains(&name.as_str()) || ["e2e", "fuzz"].contains(&name.as_str());
        if member && !allowed.contains(&name.as_str()) {
            offences.push(format!("{place}: {package} must not depend on {name}"));
        }
        if package == "config" && NOT_IN_CONFIG.contains(&name.as_str()) {
            offences.push(format!("{place}: config must not depend on {name}: it does no I/O"));
        }
        if !inherited {
            offences.push(format!(
                "{place}: {name} is to be named in the workspace's Cargo.toml, and taken from there"
            ));
        }
    }
    offences
}

#[test]
fn packages_depend_on_what_they_may() {
    let root = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace's manifest");
    let members = root.lines().find_map(|line| line.strip_prefix("members = [")).expect("a list of members");
    let mut found = Vec::new();
    for member in members.trim_end_matches(']').split(", ") {
        let member = member.trim_matches('"');
        let manifest = fs::read_to_string(workspace().join(member).join("Cargo.toml")).expect("a manifest");
        found.extend(offences(member, &manifest));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_is_found() {
    let check = |package: &str, manifest: &str, expected: &[&str]| {
        assert_eq!(offences(package, manifest), expected, "{manifest}");
    };
    check("proxy", "[package]\nname = \"e2e\"\n[dependencies]\nconfig.workspace = true\n", &[]);
    check(
        "config",
        "[dependencies]\nproxy.workspace = true\n",
        &["config/Cargo.toml:2: config must not depend on proxy"],
    );
    check(
        "config",
        "[dev-dependencies]\n# why\ntokio = { workspace = true }\n",
        &["config/Cargo.toml:3: config must not depend on tokio: it does no I/O"],
    );
    check(
        "proxy",
        "[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n",
        &["proxy/Cargo.toml:2: libc is to be named in the workspace's Cargo.toml, and taken from there"],
    );
    check(
        "proxy",
        "[build-dependencies]\ne2e = { path = \"../tests\", workspace = true }\n",
        &["proxy/Cargo.toml:2: proxy must not depend on e2e"],
    );
    check("novel", "", &["novel is not known; say in tests/architecture what it may depend on"]);
}
