//! Hostile files, one after the other, given to one running proxy: each costs bounded time and memory and is told at its
//! place with what to do; what other files say goes on to be served, and what was good last in the same file too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use process::{Bound, Weft, answer, eventually, get, mesh, send};

/// How long one file may occupy the proxy, not optimized and beside other tests.
const TIME_MAX: Duration = Duration::from_secs(15);

/// The rule of a host of its own, which answers by itself. Its first line is that of the object.
fn answers(host: &str, body: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\nspec:\n  hosts: [{host}]\n  \
         http:\n  - directResponse: {{status: 200, body: {{string: \"{body}\"}}}}\n"
    )
}

/// A rule for the host `bad`, which begins at line 7.
fn rule(http: &str) -> Vec<u8> {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad, namespace: shop}}\nspec:\n  hosts: [bad]\n  \
         http:\n  - {http}\n"
    )
    .into_bytes()
}

/// A Service with these ports on line 5, and the rule that was good.
fn service(ports: &str) -> Vec<u8> {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: shop}\nspec:\n";
    format!("{service}  ports: [{ports}]\n---\n{}", answers("bad", "last good")).into_bytes()
}

/// A file, what must be said of it, as `LINE: SEVERITY: ...` parts in this order, and by how many MiB it may raise the most
/// memory held.
struct Case {
    name: &'static str,
    text: Vec<u8>,
    told: &'static [&'static str],
    mib_max: u64,
}

fn case(name: &'static str, text: impl Into<Vec<u8>>, told: &'static [&'static str]) -> Case {
    Case { name, text: text.into(), told, mib_max: 16 }
}

fn texts() -> Vec<Case> {
    let route = "route: [{destination: {host: catalog}}]";
    vec![
        case("malformed", "kind: [\n", &[":1: error: ", "[malformed-yaml]", "remedy: "]),
        case("a template", "a: {{ .Values.x }}\n", &[":1: error: ", "[malformed-yaml]"]),
        case(
            "duplicate keys",
            rule(&format!("name: a\n    name: b\n    {route}")),
            &[":8: error: VirtualService shop/bad: spec.http[0].name: ", "[duplicate-key]"],
        ),
        case(
            "a wrong type",
            rule(&format!("timeout: 5\n    {route}")),
            &[":7: error: VirtualService shop/bad: spec.http[0].timeout: ", "[wrong-type]", "remedy: "],
        ),
        case(
            "a list for a mapping",
            rule("route: {destination: {host: catalog}}"),
            &[":7: error: ", "[wrong-type]"],
        ),
        case(
            "weights of 0",
            rule("route: [{destination: {host: catalog}, weight: 0}, {destination: {host: b}, weight: 0}]"),
            &[
                ":7: error: VirtualService shop/bad: spec.http[0].route: the weights of all destinations are 0",
                "remedy: give one of them a weight",
            ],
        ),
        case(
            "a negative weight",
            rule("route: [{destination: {host: catalog}, weight: -1}]"),
            &[":7: error: ", "the weight -1 is negative"],
        ),
        case(
            "port 0",
            rule("route: [{destination: {host: catalog, port: {number: 0}}}]"),
            &[
                ":7: error: VirtualService shop/bad: spec.http[0].route[0].destination.port.number: 0 is not a port",
                "remedy: write a number from 1 to 65535",
            ],
        ),
        case(
            "port 70000",
            rule("route: [{destination: {host: catalog, port: {number: 70000}}}]"),
            &[":7: error: ", "70000 is not a port"],
        ),
        case(
            "port 70000 of a Service",
            service("{port: 70000}"),
            &[
                ":5: error: Service shop/other: spec.ports[0].port: ",
                "[bad-value]",
                "remedy: write a whole number from 0 to 65535",
            ],
        ),
        case(
            "port 0 of a Service",
            service("{port: 0}"),
            &[":1: error: Service shop/other: spec.ports[0].port: ", "[bad-value]"],
        ),
        case(
            "a regex that explodes",
            rule(&format!("match: [{{uri: {{regex: '(a{{1000}}){{1000}}'}}}}]\n    {route}")),
            &[
                ":7: error: VirtualService shop/bad: spec.http[0].match[0].uri.regex: ",
                "takes more than 1048576 bytes when compiled",
                "[bad-regex]",
                "remedy: use smaller repetitions",
            ],
        ),
        case(
            "a regex that nests",
            rule(&format!(
                "match: [{{uri: {{regex: '{}a{}'}}}}]\n    {route}",
                "(".repeat(400),
                ")*".repeat(400)
            )),
            &[":7: error: ", "[bad-regex]"],
        ),
        case(
            "a long regex",
            rule(&format!("match: [{{uri: {{regex: '{}'}}}}]\n    {route}", "a".repeat(1025))),
            &[":7: error: ", "longer than 1024 bytes"],
        ),
        case(
            "NUL bytes",
            &b"apiVersion: v1\nkind: Service\nmetadata: {name: b\0ad}\n"[..],
            &[":3: error: ", "[malformed-yaml]"],
        ),
        case("only NUL bytes", vec![0; 1 << 20], &[":1: error: ", "[malformed-yaml]"]),
        case(
            "not UTF-8",
            &b"# fine\nkind: \xff\xfe\n"[..],
            &[
                ":2: error: there are bytes that are not UTF-8 [malformed-yaml]",
                "remedy: save the file as UTF-8",
            ],
        ),
        case("UTF-16", &b"\xff\xfek\0i\0n\0d\0"[..], &[":1: error: there are bytes that are not UTF-8"]),
        case("a BOM inside", "apiVersion: v1\n\u{feff}kind: Service\n", &[":2: error: "]),
        case(
            "CRLF",
            "apiVersion: v1\r\nkind: Service\r\nmetadata: {name: other, namespace: shop}\r\nspec: {ports: [{port: 70000}]}\r\n---\r\nkind: [\r\n",
            &[":4: error: Service shop/other: spec.ports[0].port: "],
        ),
    ]
}

/// Files that are large, or become so.
fn floods() -> Vec<Case> {
    let many = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let bomb = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let alias = format!("*a{}, ", level - 1).repeat(9);
        format!("{text}a{level}: &a{level} [{alias}]\n")
    });
    let regexes = many(400, &|_| "    - uri: {regex: '(a{100}){150}'}\n".to_owned());
    vec![
        Case {
            mib_max: 64,
            ..case("an alias bomb", bomb, &["error: ", "alias_nodes_max", "[limit-exceeded]", "remedy: "])
        },
        case(
            "deep nesting",
            format!("a: {}", "[".repeat(1 << 20)),
            &[":1: error: ", "document_depth_max, which is 64", "[limit-exceeded]", "remedy: "],
        ),
        case(
            "deep blocks",
            many(2_000, &|depth| format!("{}a:\n", " ".repeat(depth))),
            &["error: ", "document_depth_max", "[limit-exceeded]"],
        ),
        case(
            "regexes that explode together",
            rule(&format!("match:\n{regexes}    route: [{{destination: {{host: catalog}}}}]")),
            &[
                ":72: error: VirtualService shop/bad: spec.http[0].match[64].uri.regex: ",
                "object_pattern_bytes_max",
                "[limit-exceeded]",
                "remedy: use smaller repetitions",
            ],
        ),
        Case {
            mib_max: 96,
            ..case(
                "50,000 hosts of one object, one of them twice",
                format!(
                    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad, namespace: shop}}\nspec:\n  hosts:\n{}  \
                     - h0\n  http:\n  - directResponse: {{status: 200}}\n",
                    many(50_000, &|number| format!("  - h{number}\n"))
                ),
                &[
                    ":50006: error: VirtualService shop/bad: spec.hosts[50000]: `h0` and `h0` stand for the same names",
                ],
            )
        },
        // A rule is 2 KiB when it is read, however short it was.
        Case {
            mib_max: 160,
            ..case(
                "50,000 rules of one object, each of them bad",
                rule(&format!("{{}}\n{}", many(50_000, &|_| "  - {}\n".to_owned()))),
                &[
                    ":263: error: VirtualService shop/bad: spec.http[256]: and 49745 more",
                    "object_findings_max, which is 256",
                    "[limit-exceeded]",
                    "remedy: ",
                ],
            )
        },
        // Three bytes of text, most of a KiB when it is read.
        Case {
            mib_max: 320,
            ..case(
                "an object of many items",
                rule(&format!("{{}}\n{}", many(400_000, &|_| "  - {}\n".to_owned()))),
                &[
                    "error: VirtualService shop/bad: spec.http[",
                    "the object takes more memory than the limit object_bytes_max, which is 134217728",
                    "[limit-exceeded]",
                    "remedy: split it into several objects",
                ],
            )
        },
        Case {
            mib_max: 96,
            ..case(
                "4,000 rules that lead to as many subsets, all of them missing",
                answers("bad", "last good")
                    + &format!(
                        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: other, namespace: shop}}\nspec:\n  \
                         hosts: [other]\n  http:\n{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: other, namespace: shop}}\nspec:\n  \
                         ports:\n{}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: other, namespace: shop}}\nspec:\n  \
                         host: other\n  subsets:\n{}",
                        many(4_000, &|number| format!(
                            "  - {{match: [{{uri: {{exact: /{number}}}}}], route: [{{destination: {{host: other, subset: v{number}}}}}]}}\n"
                        )),
                        "  - {name: http, port: 8000}\n",
                        many(4_000, &|number| format!("  - {{name: s{number}, labels: {{version: a}}}}\n")),
                    ),
                &[
                    ":271: warning: VirtualService shop/other: spec.http[256].route[0].destination.subset: and 3744 more",
                    "object_findings_max, which is 256",
                ],
            )
        },
        Case {
            mib_max: 96,
            ..case(
                "10,000 VirtualServices for one host, each seen in a namespace of its own, the last in that of another",
                answers("bad", "last good")
                    + &many(10_000, &|number| {
                        let another = if number == 9_999 { ", n9998" } else { "" };
                        format!(
                            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: n{number}}}\nspec: \
                             {{exportTo: [n{number}{another}], hosts: [h.example], http: [{{directResponse: {{status: 200}}}}]}}\n",
                        )
                    }),
                &[": warning: VirtualService n9999/v: spec.hosts[0]: VirtualService n9998/v ("],
            )
        },
        Case {
            mib_max: 96,
            ..case(
                "10,000 documents, one of them bad",
                answers("bad", "last good")
                    + &many(10_000, &|number| {
                        let port = if number == 7_000 { 70_000 } else { 80 };
                        format!(
                            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
                        )
                    }),
                &[":35012: error: Service shop/s7000: spec.ports[0].port: ", "[bad-value]"],
            )
        },
        Case {
            mib_max: 96,
            ..case(
                "300,000 unknown fields of one object",
                format!(
                    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad, namespace: shop}}\nspec:\n{}",
                    many(300_000, &|number| format!("  f{number}: 1\n"))
                ),
                &[
                    ":68: error: VirtualService shop/bad: spec.f63: there is no field `f63` here; and 299936 more",
                    "past the limit document_problems_max, which is 64",
                ],
            )
        },
        Case {
            mib_max: 128,
            ..case(
                "150,000 unknown fields",
                many(3_000, &|number| {
                    let fields = many(50, &|field| format!("f{field}: 1, "));
                    format!(
                        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{number}, namespace: shop}}\nspec: {{{fields}}}\n"
                    )
                }) + "---\n"
                    + &answers("bad", "last good"),
                &[":5: error: VirtualService shop/v0: spec.f0: ", "[unknown-field]"],
            )
        },
        Case {
            mib_max: 32,
            ..case(
                "more documents than may be",
                many(100_002, &|_| "---\na\n".to_owned()),
                &["error: ", "file_documents_max, which is 100000", "[limit-exceeded]", "remedy: split it"],
            )
        },
        // Last, because it raises what is most.
        Case {
            mib_max: 256,
            ..case(
                "a long document",
                format!("a: \"{}\"\n", "x".repeat(33 << 20)),
                &[":1: error: ", "document_bytes_max", "[limit-exceeded]", "remedy: "],
            )
        },
    ]
}

struct Fixture {
    weft: Weft,
    bound: Bound,
    directory: tempfile::TempDir,
}

impl Fixture {
    /// A proxy with a file of good rules, and one that will be bad.
    fn start() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        mesh(directory.path(), SocketAddr::from(([127, 0, 0, 1], 9)));
        fs::write(directory.path().join("good.yaml"), answers("good", "good")).unwrap();
        fs::write(directory.path().join("bad.yaml"), answers("bad", "last good")).unwrap();
        let config = directory.path().to_str().unwrap();
        let arguments = ["--config", config, "--namespace", "shop", "--listen", "127.0.0.1:0=outbound:8000"];
        let mut weft = Weft::run(&[&arguments[..], &["--workers", "1", "--log", "off"]].concat());
        let bound = weft.ready();
        // A host of a rule needs a service of its port.
        let services: String = ["good", "bad"].map(|name| {
            format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{name: http, port: 8000}}]}}\n")
        }).concat();
        fs::write(directory.path().join("services.yaml"), services).unwrap();
        let fixture = Fixture { weft, bound, directory };
        eventually("both are served", || {
            (fixture.asked("good") == "good" && fixture.asked("bad") == "last good").then_some(())
        });
        fixture
    }

    fn asked(&self, host: &str) -> String {
        let stream = send(
            self.bound.listeners[0].1,
            &format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
        );
        answer(&stream).1
    }

    fn findings(&self) -> String {
        get(self.bound.admin, "/findings").1
    }

    /// Replaces a file at once.
    fn write(&self, name: &str, text: &[u8]) {
        let draft = self.directory.path().join(".draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, self.directory.path().join(name)).unwrap();
    }

    /// Whether these parts are told of `bad.yaml`, in this order.
    fn is_told(&self, parts: &[&str]) -> bool {
        let findings = self.findings();
        findings.match_indices("bad.yaml").any(|(at, name)| {
            let rest = &findings[at + name.len()..];
            let mut rest = rest.split("bad.yaml").next().unwrap_or_default();
            parts.iter().all(|part| {
                let after = rest.split_once(part).map(|(_, after)| after);
                rest = after.unwrap_or_default();
                after.is_some()
            })
        })
    }

    /// Gives it a bad file and looks that it is borne.
    #[expect(clippy::disallowed_methods, reason = "the time that another process takes")]
    fn bears(&self, case: &Case) {
        let Case { name, text, told, mib_max } = case;
        let (before, began) = (self.weft.memory_peak_kib(), Instant::now());
        self.write("bad.yaml", text);
        eventually(name, || self.is_told(told).then_some(()));
        let (took, grew) = (began.elapsed(), self.weft.memory_peak_kib().saturating_sub(before));
        assert!(took < TIME_MAX, "{name}: it took {took:?}");
        assert!(grew <= mib_max * 1024, "{name}: memory grew by {grew} KiB");
        println!("{name}: {took:?}, {grew} KiB");
        assert_eq!(self.asked("good"), "good", "{name}");
        assert_eq!(self.asked("bad"), "last good", "{name}");
        // What other files say is still heard.
        self.write("good.yaml", answers("good", name).as_bytes());
        eventually("another file's change is live", || (self.asked("good") == *name).then_some(()));
        self.write("bad.yaml", answers("bad", "last good").as_bytes());
        self.write("good.yaml", answers("good", "good").as_bytes());
        eventually("it is mended", || {
            (self.asked("good") == "good" && !self.findings().contains("error: ")).then_some(())
        });
    }
}

#[test]
fn bad_texts_are_refused_alone() {
    let fixture = Fixture::start();
    texts().iter().for_each(|case| fixture.bears(case));
}

#[test]
fn floods_cost_bounded_time_and_memory() {
    let fixture = Fixture::start();
    floods().iter().for_each(|case| fixture.bears(case));
}

#[test]
fn a_file_of_100_megabytes_is_not_read() {
    let fixture = Fixture::start();
    let before = fixture.weft.memory_peak_kib();
    let file = fs::File::create(fixture.directory.path().join("bad.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    drop(file);
    let told = [
        ":1: error: it cannot be read: it is past the limit file_bytes_max, which is 67108864",
        "remedy: ",
        "split it",
    ];
    eventually("it is told", || fixture.is_told(&told).then_some(()));
    assert!(fixture.weft.memory_peak_kib().saturating_sub(before) < 8 * 1024);
    assert_eq!((fixture.asked("good").as_str(), fixture.asked("bad").as_str()), ("good", "last good"));
}

#[test]
fn what_editors_of_other_systems_write_is_read() {
    let fixture = Fixture::start();
    let windows = format!("\u{feff}{}", answers("bad", "from afar").replace('\n', "\r\n"));
    fixture.write("bad.yaml", windows.as_bytes());
    eventually("it is served", || (fixture.asked("bad") == "from afar").then_some(()));
    assert!(!fixture.findings().contains("error: "), "{}", fixture.findings());
}

/// Half of a file may be a whole text of YAML that says something else.
#[test]
fn a_file_that_grows_while_it_is_read_is_not_believed_before_it_is_whole() {
    let fixture = Fixture::start();
    let path = fixture.directory.path().join("bad.yaml");
    let texts = (1..=20).map(|round| {
        let first = "  - match: [{uri: {prefix: /never}}]\n    directResponse: {status: 200}\n".repeat(200);
        answers("bad", &format!("round {round}"))
            .replace("  - directResponse", &format!("{first}  - directResponse"))
    });
    for (round, text) in texts.enumerate() {
        let before = fixture.asked("bad");
        let mut file = fs::File::create(&path).unwrap();
        // Cut between rules, so that each part is good YAML that answers otherwise.
        for part in text.split_inclusive("{status: 200}\n").collect::<Vec<_>>().chunks(40) {
            file.write_all(part.concat().as_bytes()).unwrap();
            assert_eq!(fixture.asked("bad"), before, "round {round}");
        }
        drop(file);
        let expected = format!("round {}", round + 1);
        eventually("all of it is served", || {
            let answer = fixture.asked("bad");
            assert!(answer == before || answer == expected, "{answer} instead of {before} or {expected}");
            (answer == expected).then_some(())
        });
    }
    assert!(Path::new(&path).exists());
}
