//! Rules that are not ours in chains that are called as ours are, and rules that lead there: whoever has written them needs
//! them, and they must not be taken away with ours.
//!
//! A rule is ours if some arguments bring about one that asks for the same things and does the same; the values (which
//! port, which user) are those of former arguments, of which nothing is known. iptables tells a rule in other words than
//! it is told it, and so both are compared by what they have in common. What arguments ask for both over TCP and over UDP
//! is ours only if both are there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{BUILT_IN, chain_of, is_ours, line};
use crate::agent::redirect::rule::{Cidr, Interface, Owner, Table};
use crate::agent::redirect::rules::rules;
use crate::agent::redirect::settings::{Dns, Groups, InboundPorts, Mode, Ranges, Settings};

/// What a rule asks for and does, without values.
type Shape<'a> = (Table, &'a str, BTreeSet<String>);

/// What only says how the rest is meant; iptables adds it by itself.
const DETAILS: [&str; 3] = ["--nfmask", "--ctmask", "--on-ip"];

/// Rules in our chains, and in other ones rules that lead to ours, that no arguments bring about, by what iptables-save
/// prints.
pub(crate) fn foreign(saved: &str, settings: &Settings) -> Vec<String> {
    let all: Vec<(Table, String)> =
        examples(settings).iter().flat_map(rules).map(|rule| (rule.table, line(&rule))).collect();
    let ours: BTreeSet<Shape<'_>> = all.iter().map(|(table, text)| shape(*table, text)).collect();
    let mut foreign = Vec::new();
    let mut table = None;
    for text in saved.lines() {
        if let Some(name) = text.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
        }
        let Some(table) = table.filter(|_| text.starts_with("-A ")) else { continue };
        let lacks_twin = || {
            let twin = twin(text).filter(|twin| ours.contains(&shape(table, twin)));
            twin.is_some_and(|twin| !saved.lines().any(|line| line == twin))
        };
        let is_brought_about = || ours.contains(&shape(table, text)) && !lacks_twin();
        if (is_ours(chain_of(text)) || leads_to_ours(text)) && !is_brought_about() {
            foreign.push(format!("`{text}` in table {}", table.name()));
        }
    }
    foreign
}

/// The same rule for the other of the two protocols, as iptables-save prints it.
fn twin(rule: &str) -> Option<String> {
    let swapped = |from: &str, to: &str| {
        let is_for = rule.contains(&format!(" -p {from} "));
        is_for.then(|| rule.replace(&format!(" {from} "), &format!(" {to} ")))
    };
    swapped("tcp", "udp").or_else(|| swapped("udp", "tcp"))
}

/// Whether a rule leads from another chain to one of ours.
pub(super) fn leads_to_ours(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    words.any(|word| matches!(word, "-j" | "-g")) && words.next().is_some_and(is_ours)
}

/// Whether a rule in one of the kernel's chains leads to one of ours.
pub(super) fn is_hook(rule: &str) -> bool {
    BUILT_IN.contains(&chain_of(rule)) && leads_to_ours(rule)
}

/// Settings that together bring about rules of every shape.
fn examples(settings: &Settings) -> Vec<Settings> {
    let v4 = |bits| Cidr { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), bits };
    let v6 = |bits| Cidr { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits };
    let owner = || vec![Owner("1".to_owned())];
    let interface = || vec![Interface("lo".to_owned())];
    let base = Settings {
        users: owner(),
        groups: owner(),
        outbound_ports: vec![1],
        outbound_ports_exclude: vec![1],
        // Of a range that is everywhere, iptables tells nothing.
        exclude: vec![v4(24), v4(0)],
        virtual_interfaces: interface(),
        exclude_interfaces: interface(),
        drop_invalid: true,
        ipv6: true,
        ..settings.clone()
    };
    let resolvers = vec![v4(32).address, v6(128).address];
    let mut all = Vec::new();
    for mode in [Mode::Redirect, Mode::Tproxy] {
        for inbound in [InboundPorts::AllExcept(vec![1]), InboundPorts::Only(vec![1])] {
            for include in [Ranges::All, Ranges::Only(vec![v4(24), v6(64)])] {
                for owner_groups in [Groups::AllExcept(owner()), Groups::Only(owner())] {
                    for dns in [None, Some(Dns::Everywhere), Some(Dns::Servers(resolvers.clone()))] {
                        let (inbound, include) = (inbound.clone(), include.clone());
                        let owner_groups = owner_groups.clone();
                        all.push(Settings { mode, inbound, include, owner_groups, dns, ..base.clone() });
                    }
                }
            }
        }
    }
    all
}

/// The shape of a rule, as iptables is told it or as it tells it.
fn shape(table: Table, rule: &str) -> Shape<'_> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let skipped = if words.first() == Some(&"-I") { 3 } else { 2 };
    let mut parts = BTreeSet::new();
    let mut words = words.into_iter().skip(skipped).peekable();
    let mut not = "";
    while let Some(word) = words.next() {
        // What stands behind a flag, up to the next one.
        let mut values = Vec::new();
        while word != "!"
            && let Some(value) = words.next_if(|word| !word.starts_with(['-', '!']))
        {
            values.push(value);
        }
        match word {
            "!" => {
                not = "!";
                continue;
            }
            // Which match it is, its flags say.
            "-m" => continue,
            "-s" | "-d" if not.is_empty() && values.iter().all(|range| range.ends_with("/0")) => {}
            "-p" | "-j" | "-g" => drop(parts.insert(format!("{not}{word} {}", values.join(" ")))),
            "--set-mark" | "--set-xmark" => drop(parts.insert("--set-mark".to_owned())),
            detail if DETAILS.contains(&detail) => {}
            flag => drop(parts.insert(format!("{not}{flag}"))),
        }
        not = "";
    }
    (table, chain_of(rule), parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::redirect::arguments::Arguments;
    use crate::agent::redirect::host::Host;

    fn settings() -> Settings {
        let addresses = Ok(vec![IpAddr::from([10, 244, 1, 10])]);
        let host = Host { addresses, ..Host::environment() };
        Settings::new(&Arguments::default(), &host).expect("defaults")
    }

    /// Each rule as iptables-save prints it.
    #[test]
    fn rules_of_other_arguments_are_ours() {
        let saved = "\
*mangle
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP
-A ISTIO_DIVERT -j MARK --set-xmark 0x7/0xffffffff
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_DROP -j DROP
-A ISTIO_INBOUND -p tcp -m mark --mark 0x7 -j RETURN
-A ISTIO_INBOUND -s 127.0.0.6/32 -i lo -p tcp -j RETURN
-A ISTIO_INBOUND -i lo -p tcp -m mark ! --mark 0x53a -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 22 -j RETURN
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -m tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 16006 --on-ip 0.0.0.0 --tproxy-mark 0x7/0xffffffff
COMMIT
*nat
-A PREROUTING -d 10.0.0.0/8 -i vm+ -j ISTIO_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p tcp -m tcp --dport 6379 -j RETURN
-A ISTIO_OUTPUT -p udp -m udp --dport 6379 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 7 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 7 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp -m tcp ! --dport 53 -m owner ! --uid-owner 7 -j RETURN
-A ISTIO_OUTPUT -m owner ! --gid-owner 7 -m owner ! --gid-owner 8 -j RETURN
-A ISTIO_OUTPUT -d 172.16.0.0/12 -j RETURN
-A ISTIO_OUTPUT -j RETURN
-A ISTIO_OUTPUT -p tcp -m tcp --dport 53 -d 10.0.0.10/32 -j ISTIO_OUTPUT_DNS
COMMIT
*raw
-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -m owner --uid-owner 7 -j CT --zone 1
COMMIT
";
        let dns =
            "`-A ISTIO_OUTPUT -p tcp -m tcp --dport 53 -d 10.0.0.10/32 -j ISTIO_OUTPUT_DNS` in table nat";
        assert_eq!(foreign(saved, &settings()), [dns], "the last one is none of ours");
    }

    #[test]
    fn what_no_arguments_bring_about_is_foreign() {
        let check = |rule: &str| {
            let expected = format!("`{rule}` in table nat");
            assert_eq!(foreign(&format!("*nat\n{rule}\nCOMMIT\n"), &settings()), [expected]);
        };
        check("-A ISTIO_OUTPUT -p udp -m udp --dport 9 -j ACCEPT");
        check("-A ISTIO_OUTPUT -p tcp -m comment --comment \"mine\" -j RETURN");
        check("-A ISTIO_REDIRECT -p udp -j REDIRECT --to-ports 15001");
        check("-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_THEIRS");
        check("-A ISTIO_OUTPUT -p tcp -m tcp --dport 9 -j RETURN");
        check("-A ISTIO_OUTPUT -p udp -m udp --dport 9 -j RETURN");
        check("-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053");
        check("-A OUTPUT -p udp -m udp --dport 9 -j ISTIO_OUTPUT");
        check("-A THEIRS -g ISTIO_OUTPUT");
        let other =
            "*nat\n:ISTIO_THEIRS - [0:0]\n-A ISTIO_THEIRS -j ACCEPT\n-A OUTPUT -j ISTIO_THEIRS\nCOMMIT\n";
        assert_eq!(foreign(other, &settings()), [""; 0], "such a chain is not ours at all");
        assert_eq!(foreign("*filter\n-A ISTIO_OUTPUT -j ACCEPT\nCOMMIT\n", &settings()), [""; 0]);
    }
}
