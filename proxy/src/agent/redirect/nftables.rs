//! The rules in nft's words.
//!
//! Ours are in tables of our own, for both families at once. One input of nft is one transaction: it puts all three
//! tables in the place of those that were there, or changes nothing.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use super::rule::{Action, Chain, Family, Match, Rule, Table};

/// The full name of one of our tables.
pub(crate) fn table_name(table: Table) -> String {
    format!("inet istio-proxy-{}", table.name())
}

/// The full name of a table that is like one of ours, and has no effect.
pub(crate) fn likeness_name(table: Table) -> String {
    format!("{}-likeness", table_name(table))
}

/// What such a table is: the kernel passes nothing by its chains.
const DORMANT: &str = "flags dormant";

/// Input of nft that takes our tables away, those that are there and those that are not.
pub(crate) fn removal() -> String {
    removal_of(table_name)
}

/// The same for those that are like them.
pub(crate) fn likeness_removal() -> String {
    removal_of(likeness_name)
}

fn removal_of(name: impl Fn(Table) -> String) -> String {
    let mut text = String::new();
    for table in Table::ALL.map(name) {
        // Adding first makes deleting one that is not there no error.
        let _ = write!(text, "add table {table}\ndelete table {table}\n");
    }
    text
}

/// Input of nft that puts our tables as they should be in the place of those that are there.
pub(crate) fn replacement(rules: &[Rule]) -> String {
    let mut text = removal();
    push_tables(&mut text, rules, table_name, None);
    text
}

/// Input of nft that makes tables like those that should be there, without effect: nft tells rules in other words than it is
/// told them, and so it is asked how it would tell these.
pub(crate) fn likeness(rules: &[Rule]) -> String {
    let mut text = likeness_removal();
    push_tables(&mut text, rules, likeness_name, Some(DORMANT));
    text
}

/// The lines by which listings of a table and of its likeness differ or not: all but its name and that it is dormant.
pub(crate) fn lines(listing: &str) -> Vec<&str> {
    let lines = listing.lines().map(str::trim).filter(|line| !line.is_empty() && *line != DORMANT);
    lines.filter(|line| !line.starts_with("table ") && !line.starts_with('#')).collect()
}

fn push_tables(text: &mut String, rules: &[Rule], name: impl Fn(Table) -> String, flags: Option<&str>) {
    for table in Table::ALL {
        let of_table: Vec<&Rule> = rules.iter().filter(|rule| rule.table == table).collect();
        if !of_table.is_empty() {
            push_table(text, (table, &name(table)), flags, &of_table);
        }
    }
}

/// Input of nft that deletes those of the chains `hooked` that are empty: hooked in, and without rules. With them goes
/// the table of which this is the listing, if there is nothing else in it. A chain that has got a rule meanwhile makes
/// all of it fail. `None` when there is nothing to delete.
pub(crate) fn deletion(family: &str, table: &str, listing: &str, hooked: &[&str]) -> Option<String> {
    let mut text = String::new();
    let (mut chain, mut is_empty, mut is_last) = ("", false, true);
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", ..] => {}
            ["chain", name, "{"] => (chain, is_empty) = (name, false),
            ["type", .., "policy", "accept;"] if hooked.contains(&chain) => is_empty = true,
            ["}"] if chain.is_empty() => {}
            ["}"] => {
                if is_empty {
                    let _ = writeln!(text, "delete chain {family} {table} {chain}");
                }
                is_last &= is_empty;
                chain = "";
            }
            _ => (is_empty, is_last) = (false, false),
        }
    }
    if is_last {
        let _ = writeln!(text, "delete table {family} {table}");
    }
    (!text.is_empty()).then_some(text)
}

fn push_table(text: &mut String, (table, table_name): (Table, &str), flags: Option<&str>, rules: &[&Rule]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "table {table_name} {{");
    if let Some(flags) = flags {
        let _ = writeln!(text, "\t{flags};");
    }
    let is_needed =
        |chain: &Chain| rules.iter().any(|rule| rule.chain == *chain || rule.action == Action::Jump(*chain));
    for chain in Chain::ALL.into_iter().filter(is_needed) {
        let _ = writeln!(text, "\tchain {} {{", name(chain));
        if let Some(hook) = hook(table, chain) {
            let _ = writeln!(text, "\t\t{hook}");
        }
        // The last of those that go first is the very first, as with iptables.
        let of_chain = || rules.iter().filter(|rule| rule.chain == chain);
        let first = of_chain().filter(|rule| rule.first).rev();
        for rule in first.chain(of_chain().filter(|rule| !rule.first)) {
            let _ = writeln!(text, "\t\t{}", line(rule));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
}

/// Where one of the kernel's chains is hooked in: where iptables has it. For marks set on what leaves to count for
/// its way, that chain is of type route.
fn hook(table: Table, chain: Chain) -> Option<String> {
    let hook = match chain {
        Chain::Prerouting => "prerouting",
        Chain::Output => "output",
        _ => return None,
    };
    let (kind, priority) = match (table, chain) {
        (Table::Nat, _) => ("nat", -100),
        (Table::Mangle, Chain::Output) => ("route", -150),
        (Table::Mangle, _) => ("filter", -150),
        (Table::Raw, _) => ("filter", -300),
    };
    Some(format!("type {kind} hook {hook} priority {priority}; policy accept;"))
}

/// A rule. Every one counts.
fn line(rule: &Rule) -> String {
    let mut text = String::new();
    let of_address = |part: &Match| matches!(part, Match::From(_) | Match::To(_) | Match::NotTo(_));
    let of_port = |part: &Match| matches!(part, Match::FromPort(_) | Match::ToPort(_) | Match::NotToPorts(_));
    if !rule.matches.iter().any(of_address) {
        // An address says which family is meant; nothing else does.
        text.push_str(match rule.family {
            Some(Family::V4) => "meta nfproto ipv4 ",
            Some(Family::V6) => "meta nfproto ipv6 ",
            None => "",
        });
    }
    let protocol = if rule.matches.contains(&Match::Udp) { "udp" } else { "tcp" };
    let has_port = rule.matches.iter().any(of_port);
    for part in &rule.matches {
        // A port says which protocol is meant.
        if !(has_port && matches!(part, Match::Tcp | Match::Udp)) {
            push_match(&mut text, part, protocol);
            text.push(' ');
        }
    }
    push_action(&mut text, rule);
    text
}

fn push_match(text: &mut String, part: &Match, protocol: &str) {
    // Writing to a string cannot fail.
    let _ = match part {
        Match::Tcp => write!(text, "meta l4proto tcp"),
        Match::Udp => write!(text, "meta l4proto udp"),
        Match::In(interface) => write!(text, "iifname {}", quoted(interface.name())),
        Match::Out(interface) => write!(text, "oifname {}", quoted(interface.name())),
        Match::From(cidr) => write!(text, "{} saddr {cidr}", ip(cidr.family())),
        Match::To(cidr) => write!(text, "{} daddr {cidr}", ip(cidr.family())),
        Match::NotTo(cidr) => write!(text, "{} daddr != {cidr}", ip(cidr.family())),
        Match::FromPort(port) => write!(text, "{protocol} sport {port}"),
        Match::ToPort(port) => write!(text, "{protocol} dport {port}"),
        Match::NotToPorts(ports) => match ports.as_slice() {
            [port] => write!(text, "{protocol} dport != {port}"),
            ports => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(text, "{protocol} dport != {{ {} }}", ports.join(", "))
            }
        },
        Match::User(owner) => write!(text, "meta skuid {owner}"),
        Match::NotUser(owner) => write!(text, "meta skuid != {owner}"),
        Match::Group(owner) => write!(text, "meta skgid {owner}"),
        Match::NotGroup(owner) => write!(text, "meta skgid != {owner}"),
        Match::Established => write!(text, "ct state related,established"),
        Match::Invalid => write!(text, "ct state invalid"),
        Match::Mark(mark) => write!(text, "meta mark {mark}"),
        Match::NotMark(mark) => write!(text, "meta mark != {mark}"),
        Match::ConnectionMark(mark) => write!(text, "ct mark {mark}"),
    };
}

fn push_action(text: &mut String, rule: &Rule) {
    // Writing to a string cannot fail.
    let _ = match rule.action {
        Action::Return => write!(text, "counter return"),
        Action::Accept => write!(text, "counter accept"),
        Action::Drop => write!(text, "counter drop"),
        Action::Jump(chain) => write!(text, "counter jump {}", name(chain)),
        Action::Redirect(port) => write!(text, "counter redirect to :{port}"),
        Action::Tproxy { port, mark } => {
            let family = ip(rule.family.unwrap_or(Family::V4));
            write!(text, "tproxy {family} to :{port} meta mark set {mark} counter accept")
        }
        Action::SetMark(mark) => write!(text, "counter meta mark set {mark}"),
        Action::SaveMark => write!(text, "counter ct mark set meta mark"),
        Action::RestoreMark => write!(text, "counter meta mark set ct mark"),
        Action::Zone(zone) => write!(text, "counter ct zone set {zone}"),
    };
}

fn quoted((name, begins): (&str, bool)) -> String {
    format!("\"{name}{}\"", if begins { "*" } else { "" })
}

/// A family as nft calls it.
pub(crate) fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "prerouting",
        Chain::Output => "output",
        Chain::Inbound => "istio-inbound",
        Chain::Outbound => "istio-output",
        Chain::OutboundDns => "istio-output-dns",
        Chain::Redirect => "istio-redirect",
        Chain::InboundRedirect => "istio-in-redirect",
        Chain::Divert => "istio-divert",
        Chain::Tproxy => "istio-tproxy",
        Chain::Drop => "istio-drop",
    }
}
