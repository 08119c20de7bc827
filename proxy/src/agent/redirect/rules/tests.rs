//! The rules for sets of arguments, by what the contract says of each. `cases/` has them: a case names another one that
//! it is like, and writes out every chain in which it differs; `none` says that there is no such chain. Each is checked
//! in both back ends.

use std::collections::{BTreeMap, HashMap};

use clap::Parser as _;

use crate::agent::redirect::arguments::Arguments;
use crate::agent::redirect::host::Host;
use crate::agent::redirect::print::print;
use crate::agent::redirect::settings::Settings;

/// Chains by kind (v4, v6, nft), table and name, with their rules; and what `ip` is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Expected {
    chains: BTreeMap<(String, String, String), Vec<String>>,
    ip: Vec<String>,
}

/// A set of arguments on a host.
#[derive(Debug, Clone, Default)]
struct Case {
    arguments: Vec<String>,
    variables: HashMap<String, String>,
    addresses: Vec<String>,
    resolvers: Vec<String>,
    users: String,
    expected: Expected,
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

impl Case {
    fn text(&self, more: &[&str]) -> String {
        let words = self.arguments.iter().map(String::as_str).chain(more.iter().copied());
        let command = Command::try_parse_from(["redirect"].into_iter().chain(words)).expect("arguments");
        let addresses = self.addresses.iter().map(|text| text.parse().expect("an address")).collect();
        let resolvers: String = self.resolvers.iter().map(|text| format!("nameserver {text}\n")).collect();
        let host = Host {
            variables: self.variables.clone(),
            addresses: Ok(addresses),
            resolvers: Ok(resolvers),
            users: self.users.clone(),
        };
        print(&Settings::new(&command.arguments, &host).expect("settings"))
    }

    /// What is printed for both back ends, in the form of what is expected.
    fn printed(&self) -> Expected {
        let mut printed = Expected::default();
        read_iptables(&self.text(&[]), &mut printed);
        let iptables_ip = std::mem::take(&mut printed.ip);
        read_nftables(&self.text(&["--native-nftables"]), &mut printed);
        assert_eq!(printed.ip, iptables_ip, "what ip does depends on the back end");
        printed
    }
}

fn read_iptables(text: &str, printed: &mut Expected) {
    let (mut kind, mut table) = ("", "");
    let mut declared = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let key = |chain: &str| (kind.to_owned(), table.to_owned(), chain.to_owned());
        match words.as_slice() {
            ["iptables-restore", "--noflush", "--wait", "30", "<<'END'"] => kind = "v4",
            ["ip6tables-restore", "--noflush", "--wait", "30", "<<'END'"] => kind = "v6",
            ["COMMIT" | "END"] => {}
            ["-N", chain] => declared.push(key(chain)),
            ["-A", chain, rule @ ..] => {
                printed.chains.entry(key(chain)).or_default().push(rule.join(" "));
            }
            ["-I", chain, "1", rule @ ..] => {
                printed.chains.entry(key(chain)).or_default().insert(0, rule.join(" "));
            }
            ["ip", rest @ ..] => printed.ip.push(rest.join(" ")),
            [name] if name.starts_with('*') => table = &line[1..],
            _ => panic!("{line}"),
        }
    }
    let ours: Vec<_> = printed.chains.keys().filter(|(.., chain)| chain.starts_with("ISTIO_")).collect();
    declared.sort();
    assert_eq!(declared.iter().collect::<Vec<_>>(), ours, "each chain of ours is made, once");
}

fn read_nftables(text: &str, printed: &mut Expected) {
    let body = text.strip_prefix("nft -f - <<'END'\n").expect("nft");
    let (mut table, mut chain) = (String::new(), String::new());
    for line in body.lines() {
        let words: Vec<&str> = line.trim().split(' ').collect();
        match words.as_slice() {
            ["add" | "delete", "table", "inet", name] => assert!(name.starts_with("istio-proxy-")),
            ["table", "inet", name, "{"] => name["istio-proxy-".len()..].clone_into(&mut table),
            ["chain", name, "{"] => (*name).clone_into(&mut chain),
            ["}" | "END"] => {}
            ["ip", "-4" | "-6", ..] => printed.ip.push(line["ip ".len()..].to_owned()),
            _ => {
                let key = ("nft".to_owned(), table.clone(), chain.clone());
                printed.chains.entry(key).or_default().push(line.trim().to_owned());
            }
        }
    }
}

/// Reads cases from files.
fn cases() -> Vec<(String, Case)> {
    let files = [
        include_str!("cases/base.txt"),
        include_str!("cases/inbound.txt"),
        include_str!("cases/tproxy.txt"),
        include_str!("cases/outbound.txt"),
        include_str!("cases/owners.txt"),
        include_str!("cases/interfaces.txt"),
        include_str!("cases/dns.txt"),
    ];
    let mut cases: Vec<(String, Case)> = Vec::new();
    let mut open = Vec::new();
    for line in files.iter().flat_map(|file| file.lines()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "case" {
            let case = Case { addresses: vec!["10.244.1.10".to_owned()], ..Case::default() };
            cases.push((rest.to_owned(), case));
            continue;
        }
        let like = || cases.iter().find(|(name, _)| name == rest).map(|(_, case)| case.clone());
        if word == "like" {
            let like = like().unwrap_or_else(|| panic!("no case `{rest}`"));
            // What is given again is given anew.
            let case = Case { variables: HashMap::new(), ..like };
            cases.last_mut().expect("a case").1 = case;
            continue;
        }
        let Some((_, case)) = cases.last_mut() else { continue };
        read_line(case, &mut open, line, (word, rest));
    }
    cases
}

fn read_line(case: &mut Case, open: &mut Vec<(String, String, String)>, line: &str, parts: (&str, &str)) {
    let words = || parts.1.split_whitespace().map(|word| if word == "''" { "" } else { word });
    let owned = || words().map(str::to_owned).collect();
    match parts.0 {
        "args" => case.arguments = owned(),
        "env" => {
            let (name, value) = parts.1.split_once('=').expect("NAME=VALUE");
            case.variables.insert(name.to_owned(), value.to_owned());
        }
        "addresses" => case.addresses = owned(),
        "resolvers" => case.resolvers = owned(),
        "user" => {
            let user: Vec<&str> = words().collect();
            case.users = format!("root:x:0:0::/:\n{}:x:{}:7::/:\n", user[0], user[1]);
        }
        "v4" | "v6" | "both" | "nft" => {
            let kinds = if parts.0 == "both" { vec!["v4", "v6"] } else { vec![parts.0] };
            let (table, chain) = parts.1.split_once(' ').expect("a table and a chain");
            *open = kinds.into_iter().map(|kind| (kind.into(), table.into(), chain.into())).collect();
            open.iter().for_each(|key| drop(case.expected.chains.remove(key)));
        }
        "ip" => {
            // The first one begins anew.
            if !open.is_empty() {
                case.expected.ip.clear();
                open.clear();
            }
            case.expected.ip.push(parts.1.to_owned());
        }
        "noip" => case.expected.ip.clear(),
        "" if line.trim() == "none" || line.is_empty() => {}
        "" => {
            for key in &*open {
                let rules = case.expected.chains.entry(key.clone()).or_default();
                rules.push(line.trim().to_owned());
            }
        }
        _ => assert!(line.starts_with('#'), "{line}"),
    }
}

#[test]
fn rules_are_those_of_the_contract() {
    let cases = cases();
    assert!(cases.len() >= 25, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let printed = case.printed();
        if printed.ip != case.expected.ip {
            wrong.push(format!("{name}: ip: {:#?}, expected {:#?}", printed.ip, case.expected.ip));
        }
        let keys = printed.chains.keys().chain(case.expected.chains.keys());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            let (is, should) = (printed.chains.get(key), case.expected.chains.get(key));
            if is != should {
                wrong.push(format!("{name}: {key:?}: {is:#?}, expected {should:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
