//! The rules in iptables' words, and what of them is in a table: texts in, texts out.
//!
//! Each table is changed by one transaction of iptables-restore, which the kernel takes as a whole. It takes out what of
//! ours was there and puts in what is wanted, and does not touch the rest.

mod foreign;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::rule::{Action, Chain, Family, Match, Rule, Table};

pub(crate) use foreign::foreign;
use foreign::{is_hook, leads_to_ours};

/// The kernel's chains, of any table.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// What of ours is in the tables of one family, or should be.
pub(crate) type State = BTreeMap<Table, Part>;

/// What of ours is in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Our chains.
    pub(crate) chains: Vec<String>,
    /// Rules in them, and ours in the kernel's chains, as commands that add them.
    pub(crate) rules: Vec<String>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }

    /// Rules in the kernel's chains.
    fn hooks(&self) -> impl Iterator<Item = &String> {
        self.rules.iter().filter(|rule| BUILT_IN.contains(&chain_of(rule)))
    }

    /// The kernel's chains in which there are rules.
    pub(crate) fn hooked(&self) -> impl Iterator<Item = &str> {
        BUILT_IN.into_iter().filter(|chain| self.hooks().any(|rule| chain_of(rule) == *chain))
    }
}

/// What should be in the tables.
pub(crate) fn wanted(rules: &[Rule], family: Family) -> State {
    let mut state = State::new();
    for rule in rules.iter().filter(|rule| rule.is_for(family)) {
        let part = state.entry(rule.table).or_default();
        if !rule.chain.is_built_in() {
            add_chain(part, rule.chain);
        }
        part.rules.push(line(rule));
    }
    // A chain that is jumped to has to be there, even if it has no rule.
    for rule in rules.iter().filter(|rule| rule.is_for(family)) {
        if let Action::Jump(to) = rule.action {
            add_chain(state.entry(rule.table).or_default(), to);
        }
    }
    state
}

fn add_chain(part: &mut Part, chain: Chain) {
    let name = name(chain);
    if part.chains.iter().all(|known| known != name) {
        part.chains.push(name.to_owned());
    }
}

/// What of ours is in the tables, by what iptables-save prints: our chains, and jumps to them from the kernel's.
pub(crate) fn found(saved: &str) -> State {
    let mut state = State::new();
    let mut table = None;
    for text in saved.lines() {
        if let Some(name) = text.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
            continue;
        }
        let Some(table) = table else { continue };
        if let Some(chain) = text.strip_prefix(':').and_then(|rest| rest.split_whitespace().next()) {
            if is_ours(chain) {
                state.entry(table).or_default().chains.push(chain.to_owned());
            }
        } else if text.starts_with("-A ") && (is_hook(text) || is_ours(chain_of(text))) {
            state.entry(table).or_default().rules.push(text.to_owned());
        }
    }
    state.retain(|_, part| !part.is_empty());
    state
}

/// Whether there is a table, by what iptables-save prints.
pub(crate) fn has_table(saved: &str, table: Table) -> bool {
    saved.lines().any(|line| line.strip_prefix('*').is_some_and(|name| name.trim() == table.name()))
}

/// Rules that are wanted in the kernel's chains and cannot be told from somebody else's by where they lead; iptables
/// has to be asked whether they are there.
pub(crate) fn plain_hooks(wanted: &State) -> impl Iterator<Item = (Table, &String)> {
    let hooks = wanted.iter().flat_map(|(table, part)| part.hooks().map(|rule| (*table, rule)));
    hooks.filter(|(_, rule)| !leads_to_ours(rule))
}

/// Those of [`plain_hooks`] that leave an interface alone, which the arguments name.
pub(crate) fn interface_hooks(wanted: &State) -> impl Iterator<Item = (Table, &String)> {
    plain_hooks(wanted).filter(|(_, rule)| leaves_interface_alone(&body(rule)))
}

/// Whether a rule, as [`body`] has it, is what `-c` and `-k` bring about.
fn leaves_interface_alone(body: &[&str]) -> bool {
    matches!(body, ["PREROUTING", "-i", _, "-j", "RETURN"] | ["OUTPUT", "-o", _, "-j", "RETURN"])
}

/// Rules in the kernel's chains that leave an interface alone, as ours do, and are not conceivable: they may be of
/// former arguments, or somebody else's.
pub(crate) fn doubtful(saved: &str, conceivable: &State) -> Vec<String> {
    let known: Vec<_> = plain_hooks(conceivable).map(|(table, rule)| (table, body(rule))).collect();
    let mut doubtful = Vec::new();
    let mut table = None;
    for text in saved.lines() {
        if let Some(name) = text.strip_prefix('*') {
            table = [Table::Mangle, Table::Nat].into_iter().find(|table| table.name() == name.trim());
        }
        let words = body(text);
        let shape = leaves_interface_alone(&words);
        if let Some(table) = table.filter(|table| shape && !known.contains(&(*table, words))) {
            doubtful.push(format!("`{text}` in table {}", table.name()));
        }
    }
    doubtful
}

/// All rules that are wanted.
pub(crate) fn all(wanted: &State) -> impl Iterator<Item = (Table, &String)> {
    wanted.iter().flat_map(|(table, part)| part.rules.iter().map(|rule| (*table, rule)))
}

/// The command that asks whether a rule is there; the table is given before it.
pub(crate) fn check(rule: &str) -> Vec<&str> {
    let mut command = vec!["-C"];
    command.extend(body(rule));
    command
}

/// How two states differ by number, in words; `None` when they do not. Whether the rules are the same ones, iptables
/// has to be asked.
pub(crate) fn difference(found: &State, wanted: &State) -> Option<String> {
    let none = Part::default();
    for table in Table::ALL {
        let there = found.get(&table).unwrap_or(&none);
        let wish = wanted.get(&table).unwrap_or(&none);
        let name = table.name();
        if let Some(chain) = wish.chains.iter().find(|chain| !there.chains.contains(chain)) {
            return Some(format!("table {name} has no chain {chain}"));
        }
        if let Some(chain) = there.chains.iter().find(|chain| !wish.chains.contains(chain)) {
            return Some(format!("table {name} has a chain {chain} that is not asked for"));
        }
        let count =
            |part: &Part, chain: &str| part.rules.iter().filter(|rule| chain_of(rule) == chain).count();
        for chain in wish.chains.iter().map(String::as_str).chain(BUILT_IN) {
            let (is, should) = (count(there, chain), count(wish, chain));
            if is != should {
                return Some(format!("chain {chain} of table {name} has {is} of our rules, not {should}"));
            }
        }
    }
    None
}

/// Input of iptables-restore that takes out one state and puts in another, in one transaction a table.
pub(crate) fn transaction(from: &State, to: &State) -> String {
    let none = Part::default();
    let mut text = String::new();
    for table in Table::ALL {
        let from = from.get(&table).unwrap_or(&none);
        let to = to.get(&table).unwrap_or(&none);
        if from.is_empty() && to.is_empty() {
            continue;
        }
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        line(&format!("*{}", table.name()));
        for chain in to.chains.iter().filter(|chain| !from.chains.contains(chain)) {
            line(&format!("-N {chain}"));
        }
        for chain in &from.chains {
            line(&format!("-F {chain}"));
        }
        for hook in from.hooks() {
            line(&format!("-D {}", body(hook).join(" ")));
        }
        for rule in &to.rules {
            line(rule);
        }
        for chain in from.chains.iter().filter(|chain| !to.chains.contains(chain)) {
            line(&format!("-X {chain}"));
        }
        line("COMMIT");
    }
    text
}

/// Whether a chain is called as one of ours.
fn is_ours(chain: &str) -> bool {
    let mut ours = Chain::ALL.into_iter().filter(|chain| !chain.is_built_in());
    ours.any(|our| name(our) == chain)
}

/// The chain of a command that adds a rule.
fn chain_of(rule: &str) -> &str {
    rule.split_whitespace().nth(1).unwrap_or_default()
}

/// A rule without the command and the number where it is put.
fn body(rule: &str) -> Vec<&str> {
    let mut words = rule.split_whitespace();
    let inserts = words.next() == Some("-I");
    let chain = words.next();
    if inserts {
        words.next();
    }
    chain.into_iter().chain(words).collect()
}

/// The command that adds a rule.
fn line(rule: &Rule) -> String {
    let mut text = match rule.first {
        false => format!("-A {}", name(rule.chain)),
        true => format!("-I {} 1", name(rule.chain)),
    };
    for part in &rule.matches {
        text.push(' ');
        push_match(&mut text, part);
    }
    text.push_str(" -j ");
    push_action(&mut text, rule.action);
    text
}

fn push_match(text: &mut String, part: &Match) {
    // Writing to a string cannot fail.
    let _ = match part {
        Match::Tcp => write!(text, "-p tcp"),
        Match::Udp => write!(text, "-p udp"),
        Match::In(interface) => write!(text, "-i {interface}"),
        Match::Out(interface) => write!(text, "-o {interface}"),
        Match::From(cidr) => write!(text, "-s {cidr}"),
        Match::To(cidr) => write!(text, "-d {cidr}"),
        Match::NotTo(cidr) => write!(text, "! -d {cidr}"),
        Match::FromPort(port) => write!(text, "--sport {port}"),
        Match::ToPort(port) => write!(text, "--dport {port}"),
        Match::NotToPorts(ports) => match ports.as_slice() {
            [port] => write!(text, "! --dport {port}"),
            ports => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(text, "-m multiport ! --dports {}", ports.join(","))
            }
        },
        Match::User(owner) => write!(text, "-m owner --uid-owner {owner}"),
        Match::NotUser(owner) => write!(text, "-m owner ! --uid-owner {owner}"),
        Match::Group(owner) => write!(text, "-m owner --gid-owner {owner}"),
        Match::NotGroup(owner) => write!(text, "-m owner ! --gid-owner {owner}"),
        Match::Established => write!(text, "-m conntrack --ctstate RELATED,ESTABLISHED"),
        Match::Invalid => write!(text, "-m conntrack --ctstate INVALID"),
        Match::Mark(mark) => write!(text, "-m mark --mark {mark}"),
        Match::NotMark(mark) => write!(text, "-m mark ! --mark {mark}"),
        Match::ConnectionMark(mark) => write!(text, "-m connmark --mark {mark}"),
    };
}

fn push_action(text: &mut String, action: Action) {
    // Writing to a string cannot fail.
    let _ = match action {
        Action::Return => write!(text, "RETURN"),
        Action::Accept => write!(text, "ACCEPT"),
        Action::Drop => write!(text, "DROP"),
        Action::Jump(chain) => write!(text, "{}", name(chain)),
        Action::Redirect(port) => write!(text, "REDIRECT --to-ports {port}"),
        Action::Tproxy { port, mark } => {
            write!(text, "TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}")
        }
        Action::SetMark(mark) => write!(text, "MARK --set-mark {mark}"),
        Action::SaveMark => write!(text, "CONNMARK --save-mark"),
        Action::RestoreMark => write!(text, "CONNMARK --restore-mark"),
        Action::Zone(zone) => write!(text, "CT --zone {zone}"),
    };
}

fn name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "PREROUTING",
        Chain::Output => "OUTPUT",
        Chain::Inbound => "ISTIO_INBOUND",
        Chain::Outbound => "ISTIO_OUTPUT",
        Chain::OutboundDns => "ISTIO_OUTPUT_DNS",
        Chain::Redirect => "ISTIO_REDIRECT",
        Chain::InboundRedirect => "ISTIO_IN_REDIRECT",
        Chain::Divert => "ISTIO_DIVERT",
        Chain::Tproxy => "ISTIO_TPROXY",
        Chain::Drop => "ISTIO_DROP",
    }
}
