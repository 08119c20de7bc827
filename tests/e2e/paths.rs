//! Path normalization: what MeshConfig says happens to a path before anything looks at it.

use support::mesh::virtual_service;
use support::{Mesh, Sides, TestBackend, TestProxy, ask};

/// A path, and what becomes of it with NONE, BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES. An empty text stands for
/// 400.
const TABLE: &[(&str, [&str; 4])] = &[
    ("/a/../b", ["/a/../b", "/b", "/b", "/b"]),
    ("/a/./b", ["/a/./b", "/a/b", "/a/b", "/a/b"]),
    ("/a/b/..", ["/a/b/..", "/a/", "/a/", "/a/"]),
    ("/../../a", ["/../../a", "/a", "/a", "/a"]),
    ("/a//b", ["/a//b", "/a//b", "/a/b", "/a/b"]),
    ("/a///b/../c", ["/a///b/../c", "/a///c", "/a/c", "/a/c"]),
    ("//", ["//", "//", "//", "//"]),
    ("///a/", ["///a/", "///a/", "/a/", "/a/"]),
    ("/a/%2e%2E/b", ["/a/%2e%2E/b", "/b", "/b", "/b"]),
    ("/a/..;x/b", ["/a/..;x/b", "/b", "/b", "/b"]),
    ("/a;x=1/../b", ["/a;x=1/../b", "/b", "/b", "/b"]),
    ("/%41bc%7E", ["/%41bc%7E", "/Abc~", "/Abc~", "/Abc~"]),
    ("/a%20b%2B%3F%23", ["/a%20b%2B%3F%23"; 4]),
    ("/a%2Fb", ["/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"]),
    ("/a%2f/../c", ["/a%2f/../c", "/c", "/c", "/a/c"]),
    ("/a%5Cb", ["/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b"]),
    ("/a\\b", ["/a\\b", "/a/b", "/a/b", "/a/b"]),
    ("/a\\..\\b", ["/a\\..\\b", "/b", "/b", "/b"]),
    ("/a|b^{c}\"", ["/a|b^{c}\"", "/a%7Cb%5E%7Bc%7D%22", "/a%7Cb%5E%7Bc%7D%22", "/a%7Cb%5E%7Bc%7D%22"]),
    ("/a%00b", ["/a%00b", "", "", ""]),
    ("/a%zz%4", ["/a%zz%4"; 4]),
    // What is decoded once is not decoded twice.
    ("/%2%41", ["/%2%41", "/%252A", "/%252A", "/%252A"]),
    ("/%a%41", ["/%a%41", "/%25aA", "/%25aA", "/%25aA"]),
    ("/%%41b", ["/%%41b", "/%25Ab", "/%25Ab", "/%25Ab"]),
    ("/%%41g", ["/%%41g", "/%Ag", "/%Ag", "/%Ag"]),
    ("/%%34%31", ["/%%34%31", "/%2541", "/%2541", "/%2541"]),
    // A parameter of a dot segment reaches to the next slash.
    ("/a/.;b\\..\\c/d", ["/a/.;b\\..\\c/d", "/a/d", "/a/d", "/a/d"]),
    ("/a\\..;b", ["/a\\..;b", "/a/..;b", "/a/..;b", "/a/..;b"]),
    ("/a?x=/../y//z%2F", ["/a?x=/../y//z%2F"; 4]),
    ("/?", ["/?"; 4]),
    ("/a?x#part", ["/a?x"; 4]),
    ("/a#part?x", ["/a"; 4]),
];

async fn catalog(normalization: &str) -> (TestBackend, Sides) {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("mesh.yaml", &format!("pathNormalization: {{normalization: {normalization}}}\n"));
    (backend, TestProxy::of(mesh).listen("catalog", 8000).both().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode() {
    for (index, mode) in ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"].into_iter().enumerate()
    {
        let (_backend, proxies) = catalog(mode).await;
        for side in proxies.each() {
            for (path, expected) in TABLE {
                let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
                let seen = if answer.status == 200 {
                    answer.json()["path"].as_str().unwrap_or_default().to_owned()
                } else {
                    assert_eq!(answer.status, 400, "{} {mode} {path}", side.name());
                    String::new()
                };
                assert_eq!(seen, expected[index], "{} {mode} {path}", side.name());
            }
        }
    }
}

/// What is matched is what is forwarded: no spelling of a path gets around a rule.
#[tokio::test(flavor = "multi_thread")]
async fn rules_see_normalized_paths() {
    let backend = TestBackend::echo("catalog").await;
    let mesh = Mesh::new()
        .service("catalog", "http/8000")
        .endpoint("catalog", "http", "v1", backend.address)
        .with("mesh.yaml", "{}")
        .with(
            "rules.yaml",
            &virtual_service(
                "catalog",
                "  - {match: [{uri: {prefix: /admin}}], directResponse: {status: 403}}\n  \
                 - {match: [{uri: {regex: '/secret.*'}}], directResponse: {status: 403}}\n  \
                 - {route: [{destination: {host: catalog}}]}",
            ),
        );
    let proxies = TestProxy::of(mesh).listen("catalog", 8000).both().await;
    let spellings = [
        "/admin",
        "/x/../admin",
        "/./admin/x",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/x\\..\\admin",
        "/secret?x",
        "/%73ecret",
        "/x/..;/secret",
    ];
    for side in proxies.each() {
        for path in spellings {
            let answer = ask(side.listener(0), &format!("GET {path} HTTP/1.1\nHost: catalog\n\n")).await;
            assert_eq!(answer.status, 403, "{}: {path}", side.name());
        }
        // An encoded slash is none, unless the mesh says so.
        let answer = ask(side.listener(0), "GET /x%2F..%2Fadmin HTTP/1.1\nHost: catalog\n\n").await;
        assert_eq!(answer.status, 200, "{}", side.name());
    }
}

/// Pieces that paths are made of at random.
const PIECES: [&str; 36] = [
    "/", "/", "//", "/./", "/../", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "a", "b", "%41", "%7e",
    "%zz", "%", "%2", "%25", "%%", ";", ";x", "=", "+", "~", "@", ":", "%20", "|", "{", "^", "%c3%a9", "%00",
    "?", "#",
];

/// Envoy and weft agree about paths nobody would think of.
#[tokio::test(flavor = "multi_thread")]
async fn paths_at_random() {
    // xorshift: the same paths every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap_or_default()
    };
    for mode in ["BASE", "DECODE_AND_MERGE_SLASHES"] {
        let (_backend, proxies) = catalog(mode).await;
        for _ in 0..400 {
            let pieces = 1 + draw(8);
            let path: String = (0..pieces).map(|_| PIECES[draw(PIECES.len())]).collect();
            let request = format!("GET /{path} HTTP/1.1\nHost: catalog\n\n");
            let mut seen = Vec::new();
            for side in proxies.each() {
                let answer = ask(side.listener(0), &request).await;
                let forwarded = (answer.status == 200).then(|| answer.json()["path"].to_string());
                seen.push((answer.status, forwarded));
            }
            assert!(seen.iter().all(|one| *one == seen[0]), "{mode} /{path}: {seen:?}");
            let (status, forwarded) = &seen[0];
            assert!(*status == 200 || *status == 400, "{mode} /{path}: {status}");
            let path_only = forwarded.as_deref().unwrap_or_default().split('?').next().unwrap_or_default();
            let dots = path_only.contains("/../") || path_only.contains("/./");
            assert!(!dots, "{mode} /{path}: {forwarded:?}");
        }
    }
}
