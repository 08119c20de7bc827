//! What is in the kernel's tables, and changing it: the steps of which applying and removing are made.

use super::iptables::{self, State};
use super::nftables;
use super::rule::{Family, Rule, Table};
use super::rules::rules;
use super::settings::{InboundPorts, Mode, Settings, Variant};
use super::tools::{self, Failure, Iptables};

/// All rules that these settings may have brought about, whatever the mode and the machine's addresses were then.
pub(super) fn conceivable(settings: &Settings) -> Vec<Rule> {
    rules(&conceivable_settings(settings))
}

/// Settings that ask for everything that these may have asked for.
pub(super) fn conceivable_settings(settings: &Settings) -> Settings {
    let inbound = InboundPorts::AllExcept(Vec::new());
    Settings { mode: Mode::Tproxy, inbound, ipv6: true, ..settings.clone() }
}

/// What of ours is in the tables. Rules in the kernel's chains that do not lead to a chain of ours are ours if they are
/// among the conceivable ones.
pub(super) fn look(tools: &Iptables, conceivable: &State) -> Result<State, Failure> {
    let saved = tools.saved()?;
    let mut state = iptables::found(&saved);
    if !state.is_empty() {
        add_hooks(tools, &saved, iptables::plain_hooks(conceivable), &mut state);
    }
    Ok(state)
}

/// As [`look`], for who takes all away: rules for interfaces that the arguments name count even if they are all that is
/// left, as they are when the rest was removed without those arguments.
pub(super) fn look_for_leftovers(tools: &Iptables, conceivable: &State) -> Result<State, Failure> {
    let mut state = look(tools, conceivable)?;
    if state.is_empty() {
        add_hooks(tools, &tools.saved()?, iptables::interface_hooks(conceivable), &mut state);
    }
    Ok(state)
}

/// Refuses rules of somebody else in chains that are called as ours are.
///
/// # Errors
///
/// When there are any, with what to do about it; or when there is no telling.
pub(super) fn refuse_foreign(tools: &Iptables, settings: &Settings) -> Result<(), String> {
    let saved = tools.saved().map_err(|failure| failure.to_string())?;
    let foreign = iptables::foreign(&saved, settings);
    let Some(first) = foreign.first() else { return Ok(()) };
    let more = match foreign.len() {
        1 => String::new(),
        count => format!(" and {} more", count.saturating_sub(1)),
    };
    Err(format!(
        "{tools} has rules in or to chains that are called as ours are, and that are not ours ({first}{more}); move them \
         to a chain of another name, or take these chains away with all that is in them: `weft redirect remove --force`"
    ))
}

/// Adds those of the hooks that are there.
fn add_hooks<'h>(
    tools: &Iptables,
    saved: &str,
    hooks: impl Iterator<Item = (Table, &'h String)>,
    state: &mut State,
) {
    for (table, rule) in hooks {
        // Asking about a table of the old iptables that is not there would make it.
        if iptables::has_table(saved, table) && tools.has(table.name(), &iptables::check(rule)) {
            state.entry(table).or_default().rules.push(rule.clone());
        }
    }
}

/// Says which rules stay that may have been ours under other arguments.
pub(super) fn warn_of_doubtful(tools: &Iptables, conceivable: &State) {
    for rule in iptables::doubtful(&tools.saved().unwrap_or_default(), conceivable) {
        tracing::warn!(
            "{tools}: {rule} stays; if it was applied with -c or -k, remove the rules with that argument"
        );
    }
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
    Ok(listings(nftables::table_name, &["list", "table"])?.concat())
}

/// How nft tells the tables of these names, by a command; one that is not there is told by nothing.
fn listings(name: impl Fn(Table) -> String, command: &[&str]) -> Result<Vec<String>, Failure> {
    let tables = tools::run("nft", &["list", "tables"], None)?;
    let listing = |table: String| {
        if !tables.lines().any(|line| line.trim() == format!("table {table}")) {
            return Ok(String::new());
        }
        let arguments: Vec<&str> = command.iter().copied().chain(table.split(' ')).collect();
        tools::run("nft", &arguments, None)
    };
    Table::ALL.map(name).into_iter().map(listing).collect()
}

/// How our tables of nftables differ from what these rules make; `None` when they do not.
pub(super) fn nftables_difference(rules: &[Rule]) -> Result<Option<String>, Failure> {
    // Without what has been counted.
    const COMMAND: [&str; 3] = ["--stateless", "list", "table"];
    let are = listings(nftables::table_name, &COMMAND)?;
    nft(&nftables::likeness(rules))?;
    let wanted = listings(nftables::likeness_name, &COMMAND);
    nft(&nftables::likeness_removal())?;
    let differ = Table::ALL.into_iter().zip(are.iter().zip(&wanted?)).find_map(|(table, (is, wanted))| {
        let (is, wanted) = (nftables::lines(is), nftables::lines(wanted));
        let common = is.iter().zip(&wanted).take_while(|(is, wanted)| is == wanted).count();
        let [is, wanted] =
            [is.get(common), wanted.get(common)].map(|line| line.copied().unwrap_or("nothing"));
        (is != wanted)
            .then(|| format!("table {} has `{is}` in the place of `{wanted}`", nftables::table_name(table)))
    });
    Ok(differ)
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

/// Deletes chains and tables that iptables has made in nftables for rules of ours and in which nothing is any more.
/// Whoever wants one again, makes it again. One that somebody has just put a rule in stays, because it cannot be deleted
/// then; without nft, all do.
pub(super) fn tidy(tools: &Iptables, family: Family, removed: &State) {
    if *tools != Iptables::of(family, Variant::Nft) {
        return;
    }
    let family = nftables::ip(family);
    for (table, part) in removed {
        let hooked: Vec<&str> = part.hooked().collect();
        if let Ok(listing) = tools::run("nft", &["list", "table", family, table.name()], None)
            && let Some(deletion) = nftables::deletion(family, table.name(), &listing, &hooked)
            && let Err(failure) = nft(&deletion)
        {
            tracing::debug!(%failure, "an empty chain stays");
        }
    }
}
