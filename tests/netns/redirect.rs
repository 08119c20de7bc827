//! Redirect rules in real tables: they come, prove themselves, and go without a trace, in every back end and mode.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use support::{Namespace, binary, skip::skip};

/// Back ends, as arguments.
pub(crate) const BACK_ENDS: [&str; 3] =
    ["--force-iptables-binary=nft", "--force-iptables-binary=legacy", "--native-nftables"];

/// How inbound connections are caught.
pub(crate) const MODES: [&str; 2] = ["REDIRECT", "TPROXY"];

/// The status of a proof that failed.
pub(crate) const UNPROVED: i32 = 126;

/// Somebody else's rules.
const FOREIGN: &str = "\
*mangle
-A PREROUTING -p tcp -m tcp --dport 9 -j MARK --set-mark 7
COMMIT
*nat
-N THEIRS
-A PREROUTING -i eth5 -j ACCEPT
-A OUTPUT -p udp -m udp --dport 9 -j THEIRS
-A THEIRS -j RETURN
COMMIT
*raw
-A OUTPUT -p udp -m udp --dport 9 -j NOTRACK
COMMIT
";

/// A namespace with addresses of both families. `None` as for [`bare_namespace`].
pub(crate) fn namespace(test: &str) -> Option<Namespace> {
    let namespace = bare_namespace(test)?;
    namespace.add_address("10.244.7.1".parse().expect("an address"));
    namespace.add_address("fd00:10:244:7::1".parse().expect("an address"));
    Some(namespace)
}

/// A namespace without addresses. `None`, and the test is skipped, where there is none or where the kernel does not have
/// what the rules are made of.
pub(crate) fn bare_namespace(test: &str) -> Option<Namespace> {
    let needed = "*mangle\n-A PREROUTING -p tcp -m conntrack --ctstate INVALID -j TPROXY --on-port 1\nCOMMIT\n\
                  *nat\n-A OUTPUT -p tcp -m owner --uid-owner 1 -j REDIRECT --to-ports 1\nCOMMIT\n\
                  *raw\n-A OUTPUT -p udp -j CT --zone 1\nCOMMIT\n";
    let trial = Namespace::new(test)?;
    let works = trial.run(|| async move {
        let restores = ["iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore"];
        restores.into_iter().all(|program| run_with(program, &[], needed).status.success())
    });
    if !works {
        skip(&format!("{test}@no-netfilter"), "the kernel has not all that redirect rules are made of");
        return None;
    }
    Namespace::new(test)
}

/// Runs a program in the namespace of this thread.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    run_with(program, arguments, "")
}

pub(crate) fn run_with(program: &str, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    // One that ends before it has read all says why.
    drop(child.stdin.take().expect("a pipe").write_all(input.as_bytes()));
    child.wait_with_output().expect("it ends")
}

/// Runs `weft redirect`; returns the status and all it says.
pub(crate) fn redirect(arguments: &[&str]) -> (i32, String) {
    redirect_with(None, arguments)
}

pub(crate) fn redirect_with(path: Option<&Path>, arguments: &[&str]) -> (i32, String) {
    static WEFT: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(WEFT.get_or_init(binary::weft));
    command.arg("redirect").args(arguments).stdin(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().expect("weft can be run");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a status"), String::from_utf8(said).expect("text"))
}

/// All tables, rules, routes and addresses, without what counts and when it was looked at.
pub(crate) fn snapshot() -> String {
    let commands = [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "nft -s list ruleset",
        "ip -4 rule show",
        "ip -6 rule show",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip address show",
    ];
    let mut text = String::new();
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let output = run(words[0], &words[1..]);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        text.push_str(&format!("== {command}\n"));
        for line in String::from_utf8(output.stdout).expect("text").lines() {
            // What counts stands in brackets behind the name of a chain.
            let line = if line.starts_with(':') { line.split('[').next().unwrap_or_default() } else { line };
            if !line.starts_with('#') {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Asserts that two snapshots are the same, and shows the first lines that are not.
#[track_caller]
pub(crate) fn assert_same(is: &str, should: &str, what: &str) {
    let different = is.lines().zip(should.lines()).find(|(is, should)| is != should);
    assert!(is == should, "{what}: {different:?}\n{is}\n--- should be\n{should}");
}

/// Arguments that bring about rules of all kinds.
pub(crate) fn everything<'a>(verb: &'a str, back_end: &'a str, mode: &'a str) -> Vec<&'a str> {
    let text =
        "-c eth9 -k vm+ -o 6379 -x 10.9.0.0/16,fd09::/16 --redirect-dns --capture-all-dns --drop-invalid";
    let mut arguments = vec![verb, back_end, "-m", mode, "--dual-stack"];
    arguments.extend(text.split(' '));
    arguments
}

#[test]
fn rules_come_and_go_without_a_trace() {
    const TEST: &str = "netns::redirect::rules_come_and_go_without_a_trace";
    for back_end in BACK_ENDS {
        for mode in MODES {
            let Some(namespace) = namespace(TEST) else { return };
            namespace.run(|| async move {
                for kind in ["nft", "legacy"] {
                    for family in ["iptables", "ip6tables"] {
                        let restore = format!("{family}-{kind}-restore");
                        assert!(run_with(&restore, &["--noflush"], FOREIGN).status.success(), "{restore}");
                    }
                }
                let what = format!("{back_end} {mode}");
                let before = snapshot();
                let mut verify = everything("verify", back_end, mode);
                verify.extend(["--probe-timeout", "300ms"]);
                let (status, said) = redirect(&verify);
                assert_eq!(status, UNPROVED, "{what}: {said}");
                assert!(said.contains("no connection to 127.0.0.6:15002 arrived"), "{what}: {said}");
                assert_eq!(redirect(&everything("apply", back_end, mode)).0, 0, "{what}");
                let applied = snapshot();
                assert!(applied != before, "{what}: nothing was done");
                assert_eq!(redirect(&everything("apply", back_end, mode)).0, 0, "{what}");
                assert_same(&snapshot(), &applied, &format!("{what}: applied twice"));
                let (status, said) = redirect(&everything("verify", back_end, mode));
                assert_eq!(status, 0, "{what}: {said}");
                let expected = "IPv4: a connection to 127.0.0.6:15002 arrived on port 15006\n\
                                IPv6: a connection to [::6]:15002 arrived on port 15006\n";
                assert_eq!(said, expected, "{what}");
                assert_same(&snapshot(), &applied, &format!("{what}: proved"));
                let (status, said) = redirect(&everything("remove", back_end, mode));
                assert_eq!(status, 0, "{what}: {said}");
                assert_same(&snapshot(), &before, &format!("{what}: removed"));
                let (status, said) = redirect(&["remove"]);
                assert_eq!((status, said.as_str()), (0, "there are no rules\n"), "{what}");
            });
        }
    }
}

/// Whoever removed the rules without the arguments that name interfaces is told so, and can do it afterwards.
#[test]
fn rules_for_interfaces_go_when_they_are_named() {
    const TEST: &str = "netns::redirect::rules_for_interfaces_go_when_they_are_named";
    const NAMED: [&str; 4] = ["-c", "eth+", "-k", "tap+"];
    for back_end in ["--force-iptables-binary=nft", "--force-iptables-binary=legacy"] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            let tool = back_end.replace("--force-iptables-binary=", "iptables-");
            // Somebody else's, of the same shape.
            let foreign = ["-t", "nat", "-A", "PREROUTING", "-i", "eth5", "-j", "RETURN"];
            assert!(run(&tool, &foreign).status.success());
            let before = snapshot();
            assert_eq!(redirect(&[&["apply", back_end][..], &NAMED[..]].concat()).0, 0);
            let (status, said) = redirect(&["remove"]);
            assert_eq!(status, 0, "{said}");
            assert!(said.contains("remove the rules with that argument"), "{said}");
            let left = snapshot();
            assert!(left.contains("-A OUTPUT -o eth+ -j RETURN"), "{left}");
            // Without them there is no telling whose they are.
            assert_eq!(redirect(&["remove"]), (0, "there are no rules\n".to_owned()));
            assert_same(&snapshot(), &left, &format!("{back_end}: not named"));
            let (status, said) = redirect(&[&["remove"][..], &NAMED[..]].concat());
            assert_eq!(status, 0, "{said}");
            assert!(said.starts_with(&format!("{tool}: 3 rules removed\n")), "{said}");
            assert_same(&snapshot(), &before, &format!("{back_end}: named"));
        });
    }
}

#[test]
fn a_namespace_without_tables_has_none_afterwards() {
    const TEST: &str = "netns::redirect::a_namespace_without_tables_has_none_afterwards";
    // Tables of the old iptables cannot be deleted once they are there.
    for back_end in ["--force-iptables-binary=nft", "--native-nftables"] {
        for mode in MODES {
            let Some(namespace) = namespace(TEST) else { return };
            namespace.run(|| async move {
                let before = snapshot();
                assert_eq!(redirect(&["apply", back_end, "-m", mode]).0, 0);
                // Whoever removes them needs not know the mode.
                let (status, said) = redirect(&["remove"]);
                assert_eq!(status, 0, "{said}");
                assert_same(&snapshot(), &before, &format!("{back_end} {mode}"));
            });
        }
    }
}

#[test]
fn what_is_there_and_differs_is_refused_or_replaced() {
    const TEST: &str = "netns::redirect::what_is_there_and_differs_is_refused_or_replaced";
    for back_end in ["--force-iptables-binary=nft", "--force-iptables-binary=legacy"] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            assert_eq!(redirect(&["apply", back_end, "-b", "80", "--dual-stack"]).0, 0);
            let wanted = snapshot();
            let old =
                ["apply", back_end, "-m", "TPROXY", "--dual-stack", "--redirect-dns", "--capture-all-dns"];
            let (status, said) = redirect(&old);
            assert_eq!(status, 1, "{said}");
            assert!(said.contains("replace them with --reconcile"), "{said}");
            assert_same(&snapshot(), &wanted, "refused");
            assert_eq!(redirect(&[&old[..], &["--reconcile"]].concat()).0, 0);
            let (status, said) = redirect(&["apply", back_end, "-b", "80", "--dual-stack", "--reconcile"]);
            assert_eq!(status, 0, "{said}");
            let now = snapshot();
            assert_eq!(now.matches("ISTIO_TPROXY").count(), 0, "{back_end}: nothing is left of the old ones");
            let (status, said) = redirect(&["apply", back_end, "-b", "80", "--dual-stack"]);
            assert_eq!((status, said.as_str()), (0, "the rules are in force already\n"), "{back_end}");
            // One rule that is missing, and one that is too many, are noticed.
            let delete =
                ["-t", "nat", "-D", "ISTIO_INBOUND", "-p", "tcp", "--dport", "80", "-j", "ISTIO_IN_REDIRECT"];
            let tool = back_end.replace("--force-iptables-binary=", "iptables-");
            assert!(run(&tool, &delete).status.success());
            let (status, said) = redirect(&["apply", back_end, "-b", "80", "--dual-stack"]);
            assert_eq!(status, 1, "{said}");
            assert!(said.contains("chain ISTIO_INBOUND of table nat has 1 of our rules, not 2"), "{said}");
            assert_eq!(redirect(&["apply", back_end, "-b", "80", "--dual-stack", "--reconcile"]).0, 0);
            assert_same(&snapshot(), &now, "mended");
        });
    }
}

#[test]
fn rules_in_another_place_are_refused_or_replaced() {
    const TEST: &str = "netns::redirect::rules_in_another_place_are_refused_or_replaced";
    for (first, second) in [(0, 2), (2, 0), (2, 1), (0, 1), (1, 0)] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            let (first, second) = (BACK_ENDS[first], BACK_ENDS[second]);
            assert_eq!(redirect(&["apply", first]).0, 0);
            let applied = snapshot();
            let (status, said) = redirect(&["apply", second]);
            assert_eq!(status, 1, "{first} then {second}: {said}");
            assert_same(&snapshot(), &applied, "refused");
            let (status, said) = redirect(&["apply", second, "--reconcile"]);
            assert_eq!(status, 0, "{first} then {second}: {said}");
            // Tables of nftables refuse the other family.
            let proved = if second == BACK_ENDS[2] { UNPROVED } else { 0 };
            assert_eq!(redirect(&["verify", second]).0, proved);
            // Only in the new place.
            assert_eq!(redirect(&["apply", second]).0, 0, "{first} then {second}");
        });
    }
}

#[test]
fn those_who_apply_at_the_same_time_do_not_undo_each_other() {
    const TEST: &str = "netns::redirect::those_who_apply_at_the_same_time_do_not_undo_each_other";
    for back_end in BACK_ENDS {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            std::thread::scope(|scope| {
                let apply = || redirect(&everything("apply", back_end, "TPROXY"));
                let all: Vec<_> = (0..4).map(|_| scope.spawn(apply)).collect();
                for one in all {
                    let (status, said) = one.join().expect("it ends");
                    assert_eq!(status, 0, "{back_end}: {said}");
                }
            });
            let (status, said) = redirect(&everything("verify", back_end, "TPROXY"));
            assert_eq!(status, 0, "{back_end}: {said}");
        });
    }
}

#[test]
fn the_environment_counts() {
    const TEST: &str = "netns::redirect::the_environment_counts";
    let Some(namespace) = namespace(TEST) else { return };
    namespace.run(|| async move {
        let mut command = Command::new(binary::weft());
        command.args(["redirect", "print"]).env("ISTIO_INBOUND_PORTS", "81").env("ISTIO_DUAL_STACK", "true");
        let output = command.output().expect("weft can be run");
        let printed = String::from_utf8(output.stdout).expect("text");
        let caught = "-A ISTIO_INBOUND -p tcp --dport 81 -j ISTIO_IN_REDIRECT\n";
        assert_eq!(printed.matches(caught).count(), 2, "{printed}");
        assert!(printed.ends_with("END\nip -6 addr add ::6/128 dev lo\n"), "{printed}");
    });
}

#[test]
fn the_iptables_that_has_rules_is_used() {
    const TEST: &str = "netns::redirect::the_iptables_that_has_rules_is_used";
    for (filled, used) in [(None, "nft"), (Some("nft"), "nft"), (Some("legacy"), "legacy")] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            if let Some(kind) = filled {
                assert!(
                    run_with(&format!("iptables-{kind}-restore"), &["--noflush"], FOREIGN).status.success()
                );
            }
            let (status, said) = redirect(&["apply"]);
            assert_eq!((status, said), (0, format!("iptables-{used}: 18 rules\n")), "{filled:?}");
        });
    }
}

/// A directory of programs in which one fails when `pattern` is among its arguments.
fn programs_but(program: &str, pattern: &str) -> (tempfile::TempDir, PathBuf) {
    programs_with(program, pattern, "echo 'it is broken' >&2; exit 3")
}

/// A directory of programs in which one does something else first when `pattern` is among its arguments.
pub(crate) fn programs_with(program: &str, pattern: &str, first: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    for place in ["/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        for name in ["ip", "nft", "sh"] {
            drop(symlink(Path::new(place).join(name), path.join(name)));
        }
        for family in ["iptables", "ip6tables"] {
            for end in ["", "-save", "-restore"] {
                for kind in ["-nft", "-legacy"] {
                    let name = format!("{family}{kind}{end}");
                    if Path::new(place).join(&name).exists() {
                        drop(symlink(Path::new(place).join(&name), path.join(&name)));
                    }
                }
            }
        }
    }
    let real = fs::read_link(path.join(program)).expect("the program is there");
    let script =
        format!("#!/bin/sh\ncase \"$*\" in {pattern}) {first};; esac\nexec {} \"$@\"\n", real.display());
    fs::remove_file(path.join(program)).expect("it can be replaced");
    fs::write(path.join(program), script).expect("a script");
    fs::set_permissions(path.join(program), fs::Permissions::from_mode(0o755)).expect("it can be run");
    (directory, path)
}

#[test]
fn a_later_failure_takes_back_what_was_done() {
    const TEST: &str = "netns::redirect::a_later_failure_takes_back_what_was_done";
    let cases = [
        (BACK_ENDS[0], "ip6tables-nft-restore", "*", true),
        (BACK_ENDS[1], "ip6tables-legacy-restore", "*", true),
        (BACK_ENDS[0], "ip", "*'rule add'*", true),
        (BACK_ENDS[0], "ip", "'-6 route add'*", true),
        (BACK_ENDS[2], "ip", "'-6 route add'*", true),
        (BACK_ENDS[2], "nft", "'-f -'", false),
    ];
    for (back_end, program, pattern, is_later) in cases {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            // Tables of the old iptables stay once they are there.
            assert_eq!(redirect(&everything("apply", BACK_ENDS[1], "TPROXY")).0, 0);
            assert_eq!(redirect(&everything("remove", BACK_ENDS[1], "TPROXY")).0, 0);
            let before = snapshot();
            let (_directory, path) = programs_but(program, pattern);
            let (status, said) = redirect_with(Some(&path), &everything("apply", back_end, "TPROXY"));
            assert_eq!(status, 1, "{program} {pattern}: {said}");
            assert!(said.contains("it is broken"), "{said}");
            assert_eq!(said.contains("what had been changed before is as it was"), is_later, "{said}");
            assert_same(&snapshot(), &before, &format!("{back_end}, {program} {pattern} fails"));
        });
    }
}

#[test]
fn a_failed_replacement_leaves_what_was_there() {
    const TEST: &str = "netns::redirect::a_failed_replacement_leaves_what_was_there";
    for (back_end, program, pattern) in
        [(BACK_ENDS[0], "ip6tables-nft-restore", "*"), (BACK_ENDS[2], "ip", "*'rule add'*")]
    {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            assert_eq!(redirect(&["apply", back_end, "--dual-stack", "-b", "80"]).0, 0);
            let (_directory, path) = programs_but(program, pattern);
            let new = ["apply", back_end, "--dual-stack", "-m", "TPROXY", "--reconcile"];
            let before = snapshot();
            let (status, said) = redirect_with(Some(&path), &new);
            assert_eq!(status, 1, "{said}");
            let after = snapshot();
            assert_eq!(redirect(&["verify", back_end, "--dual-stack"]).0, 0, "they still work");
            let (status, said) = redirect(&["apply", back_end, "--dual-stack", "-b", "80"]);
            assert_eq!(status, 0, "they are what they were: {said}");
            if back_end == BACK_ENDS[2] {
                assert_same(&after, &before, back_end);
            }
        });
    }
}

#[test]
fn what_is_not_installed_is_asked_for() {
    const TEST: &str = "netns::redirect::what_is_not_installed_is_asked_for";
    let Some(namespace) = namespace(TEST) else { return };
    namespace.run(|| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let ip = [Path::new("/usr/sbin/ip"), Path::new("/sbin/ip"), Path::new("/usr/bin/ip")];
        let ip = ip.into_iter().find(|path| path.exists()).expect("ip is there");
        symlink(ip, directory.path().join("ip")).expect("a link");
        let check = |arguments: &[&str], status: i32, expected: &str| {
            let (is, said) = redirect_with(Some(directory.path()), arguments);
            assert_eq!(is, status, "{arguments:?}: {said}");
            assert!(said.contains(expected), "{arguments:?}: {said}");
        };
        check(&["apply"], 1, "iptables is not in $PATH; install the package iptables, or use nft with");
        check(&["apply", "--native-nftables"], 1, "nft is not in $PATH; install the package nftables");
        check(&["remove"], 1, "neither iptables nor nft is in $PATH");
        check(&["print"], 0, "iptables-restore --noflush --wait 30 <<'END'\n*nat\n");
        check(&["apply", "--dry-run"], 0, "-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n");
        let empty = tempfile::tempdir().expect("a directory");
        let (status, said) = redirect_with(Some(empty.path()), &["apply"]);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("ip is not in $PATH; install the package iproute2"), "{said}");
    });
}

#[test]
fn a_proof_says_what_is_in_its_way() {
    const TEST: &str = "netns::redirect::a_proof_says_what_is_in_its_way";
    let Some(namespace) = namespace(TEST) else { return };
    namespace.run(|| async move {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 15006)).expect("the port is free");
        let (status, said) = redirect(&["apply", "--run-validation"]);
        assert_eq!(status, UNPROVED, "{said}");
        assert!(said.contains("127.0.0.1:15006"), "{said}");
        assert!(said.contains("something listens there, such as the proxy"), "{said}");
        drop(taken);
        let (status, said) = redirect(&["apply", "--skip-rule-apply", "--run-validation"]);
        assert_eq!(
            (status, said.as_str()),
            (0, "IPv4: a connection to 127.0.0.6:15002 arrived on port 15006\n")
        );
        // For other ports than those of the rules it does not arrive.
        let other = ["verify", "-z", "16006", "-p", "16001", "--probe-timeout", "300ms"];
        let (status, said) = redirect(&other);
        assert_eq!(status, UNPROVED, "{said}");
        assert!(
            said.contains("no connection to 127.0.0.6:15002 arrived on port 16001 or 16006 within 300ms")
        );
    });
}

#[test]
fn another_namespace_is_entered() {
    const TEST: &str = "netns::redirect::another_namespace_is_entered";
    let Some(namespace) = namespace(TEST) else { return };
    let file = format!("/run/netns/{}", namespace.name());
    for verb in ["apply", "verify", "remove"] {
        let (status, said) = redirect(&[verb, "--network-namespace", &file]);
        assert_eq!(status, 0, "{verb}: {said}");
    }
    let (status, said) = redirect(&["apply", "--network-namespace", "/run/netns/nowhere"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("--network-namespace /run/netns/nowhere: No such file"), "{said}");
}
