//! What is in the kernel's tables, and changing it: the steps of which applying and removing are made.

use super::iptables::{self, State};
use super::nftables;
use super::rule::{Family, Rule, Table};
use super::rules::rules;
use super::settings::{Mode, Settings, Variant};
use super::tools::{self, Failure, Iptables};

/// All rules that these settings may have brought about, whatever the mode and the machine's addresses were then.
pub(super) fn conceivable(settings: &Settings) -> Vec<Rule> {
    rules(&conceivable_settings(settings))
}

/// Settings that ask for everything that these may have asked for.
pub(super) fn conceivable_settings(settings: &Settings) -> Settings {
    Settings { mode: Mode::Tproxy, ipv6: true, ..settings.clone() }
}

/// What of ours is in the tables. Rules in the kernel's chains that do not lead to a chain of ours are ours if they are
/// among the conceivable ones.
pub(super) fn look(tools: &Iptables, conceivable: &State) -> Result<State, Failure> {
    let mut state = iptables::found(&tools.saved()?);
    if !state.is_empty() {
        for (table, rule) in iptables::plain_hooks(conceivable) {
            if tools.has(table.name(), &iptables::check(rule)) {
                state.entry(table).or_default().rules.push(rule.clone());
            }
        }
    }
    Ok(state)
}

/// Takes one state out and puts another one in.
pub(super) fn change_tables(tools: &Iptables, from: &State, to: &State) -> Result<(), Failure> {
    let transaction = iptables::transaction(from, to);
    if transaction.is_empty() { Ok(()) } else { tools.restore(&transaction) }
}

/// The two variants of iptables.
pub(super) fn variants(family: Family) -> [Iptables; 2] {
    [Variant::Nft, Variant::Legacy].map(|variant| Iptables::of(family, variant))
}

/// Our tables of nftables, as input for nft that makes them again.
pub(super) fn nftables_before() -> Result<String, Failure> {
    let tables = tools::run("nft", &["list", "tables"], None)?;
    let mut text = String::new();
    for table in Table::ALL.map(nftables::table_name) {
        if tables.lines().any(|line| line.trim() == format!("table {table}")) {
            let arguments: Vec<&str> = ["list", "table"].into_iter().chain(table.split(' ')).collect();
            text.push_str(&tools::run("nft", &arguments, None)?);
        }
    }
    Ok(text)
}

/// Runs transactions of nft.
pub(super) fn nft(input: &str) -> Result<(), Failure> {
    tools::run("nft", &["-f", "-"], Some(input)).map(drop)
}

/// How many rules, in words.
pub(super) fn count(state: &State) -> String {
    match iptables::all(state).count() {
        0 => "no rules".to_owned(),
        count => format!("{count} rules"),
    }
}

/// Deletes tables that iptables has made in nftables and that nothing is in any more. Whoever wants one again, makes it
/// again. One that somebody has just put a rule in stays, because its chain cannot be deleted then; without nft, all do.
pub(super) fn tidy(tools: &Iptables, family: Family, tables: &State) {
    if *tools != Iptables::of(family, Variant::Nft) {
        return;
    }
    let family = nftables::ip(family);
    for table in tables.keys().map(|table| table.name()) {
        if let Ok(listing) = tools::run("nft", &["list", "table", family, table], None)
            && let Some(deletion) = nftables::deletion(family, table, &listing)
            && let Err(failure) = nft(&deletion)
        {
            tracing::debug!(%failure, "a table stays");
        }
    }
}
