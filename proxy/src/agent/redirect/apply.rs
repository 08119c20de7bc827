//! Putting the rules in force.
//!
//! Each step is taken whole by the kernel. Before one is taken, it is noted how to take it back; when a later one fails,
//! or a signal comes that would end the process, all before it are taken back in reverse.

use super::interrupt::Interrupts;
use super::iptables::{self, State};
use super::kernel::{
    change_tables, conceivable, conceivable_settings, count, look, nft, nftables_before, nftables_difference,
    refuse_foreign, tidy, variants, warn_of_doubtful,
};
use super::lock::Lock;
use super::network::{self, Step};
use super::nftables;
use super::rule::{Family, Rule};
use super::rules::rules;
use super::settings::{Backend, Settings, Variant};
use super::tools::{Failure, Iptables};

/// Puts the rules in force; says what was done. What is as it should be is left alone.
///
/// # Errors
///
/// A sentence that says what is wrong and what to do. Then nothing has changed, or the sentence says what has.
pub(crate) fn apply(settings: &Settings) -> Result<Vec<String>, String> {
    let mut interrupts = Interrupts::note()?;
    let _lock = Lock::take(&mut interrupts)?;
    let mut changes = Changes { interrupts, made: Vec::new(), said: Vec::new() };
    // A signal that comes during the last step counts as well.
    let result = take(settings, &mut changes).and_then(|()| changes.interrupts.check());
    result.map_err(|why| match changes.take_back() {
        Ok(0) => why,
        Ok(_) => format!("{why}; what had been changed before is as it was"),
        Err(also) => format!("{why}; and what had been changed before could not be taken back: {also}"),
    })?;
    changes.interrupts.end_the_process();
    Ok(changes.said)
}

fn take(settings: &Settings, changes: &mut Changes) -> Result<(), String> {
    let rules = rules(settings);
    match settings.backend {
        Backend::Iptables(forced) => by_iptables(settings, forced, &rules, changes)?,
        Backend::Nftables => by_nft(settings, &rules, changes)?,
    }
    let steps = network::steps(settings);
    for step in &steps {
        changes.interrupts.check()?;
        if step.add().map_err(|failure| failure.to_string())? {
            changes.note(Change::Added(*step), format!("ip {}", step.addition().join(" ")));
        }
    }
    if settings.reconcile {
        // What the rules that were replaced may have needed, and these do not.
        let others = network::steps(&conceivable_settings(settings));
        for step in others.iter().filter(|step| !steps.contains(step)) {
            changes.interrupts.check()?;
            if step.remove().map_err(|failure| failure.to_string())? {
                changes.note(Change::Removed(*step), format!("ip {} undone", step.addition().join(" ")));
            }
        }
    }
    Ok(())
}

/// What has been changed.
struct Changes {
    /// What would end the process is asked for before each change.
    interrupts: Interrupts,
    made: Vec<Change>,
    said: Vec<String>,
}

/// One change, with what was before.
enum Change {
    /// Tables of iptables.
    Iptables(Target),
    /// Tables of nftables: what there was, as input for nft.
    Nftables(String),
    /// What `ip` has added.
    Added(Step),
    /// What `ip` has removed.
    Removed(Step),
}

/// Tables of iptables of one family that are to be changed.
#[derive(Clone)]
struct Target {
    tools: Iptables,
    family: Family,
    /// What may be there now or later.
    conceivable: State,
    before: State,
    wanted: State,
}

impl Changes {
    fn note(&mut self, change: Change, said: String) {
        self.made.push(change);
        self.said.push(said);
    }

    /// Changes tables of iptables.
    fn change(&mut self, target: &Target) -> Result<(), String> {
        self.interrupts.check()?;
        let said = format!("{}: {}", target.tools, count(&target.wanted));
        // Noted before it is done: one table may be changed when the next one fails.
        self.note(Change::Iptables(target.clone()), said);
        let changed = change_tables(&target.tools, &target.before, &target.wanted);
        changed.map_err(|failure| failure.to_string())?;
        if !target.before.is_empty() {
            tidy(&target.tools, target.family, &target.before);
            warn_of_doubtful(&target.tools, &target.conceivable);
        }
        Ok(())
    }

    /// Takes all back; says how many there were, or what could not be taken back. All the rest is.
    fn take_back(&mut self) -> Result<usize, String> {
        let count = self.made.len();
        let mut failures = Vec::new();
        while let Some(change) = self.made.pop() {
            if let Err(failure) = undo(&change) {
                failures.push(failure.to_string());
            }
        }
        if failures.is_empty() { Ok(count) } else { Err(failures.join("; ")) }
    }
}

fn undo(change: &Change) -> Result<(), Failure> {
    match change {
        Change::Iptables(Target { tools, family, conceivable, before, .. }) => {
            let now = look(tools, conceivable)?;
            if now != *before {
                change_tables(tools, &now, before)?;
            }
            if before.is_empty() {
                tidy(tools, *family, &now);
            }
            Ok(())
        }
        Change::Nftables(before) => nft(&(nftables::removal() + before)),
        Change::Added(step) => step.remove().map(drop),
        Change::Removed(step) => step.add().map(drop),
    }
}

fn by_iptables(
    settings: &Settings,
    forced: Option<Variant>,
    rules: &[Rule],
    changes: &mut Changes,
) -> Result<(), String> {
    let all = conceivable(settings);
    let mut targets = Vec::new();
    for family in [Family::V4, Family::V6] {
        let is_asked = family == Family::V4 || settings.ipv6;
        let tools = match Iptables::choose(family, forced) {
            Ok(tools) => tools,
            // What is not there has no rules either.
            Err(_) if !is_asked => continue,
            Err(failure) => return Err(failure.to_string()),
        };
        // By the plain name it is not known which variant is used; but then the others do not work.
        if tools != Iptables::plain(family) {
            targets.extend(leftovers(settings, family, Some(&tools))?);
        }
        let wanted = if is_asked { iptables::wanted(rules, family) } else { State::new() };
        let conceivable = iptables::wanted(&all, family);
        refuse_foreign(&tools, settings)?;
        let before = look(&tools, &conceivable).map_err(|failure| failure.to_string())?;
        if is_due(settings, &tools, &before, &wanted)? {
            targets.push(Target { tools, family, conceivable, before, wanted });
        }
    }
    replace_nftables(settings, changes)?;
    targets.iter().try_for_each(|target| changes.change(target))
}

fn by_nft(settings: &Settings, rules: &[Rule], changes: &mut Changes) -> Result<(), String> {
    let before = nftables_before().map_err(|failure| failure.to_string())?;
    let is_due = is_nftables_due(settings, &before, rules)?;
    let mut targets = Vec::new();
    for family in [Family::V4, Family::V6] {
        targets.extend(leftovers(settings, family, None)?);
    }
    targets.iter().try_for_each(|target| changes.change(target))?;
    if !is_due {
        return Ok(());
    }
    changes.interrupts.check()?;
    nft(&nftables::replacement(rules)).map_err(|failure| failure.to_string())?;
    changes.note(Change::Nftables(before), format!("nft: {} rules", rules.len()));
    changes.said.extend(settings.refused().map(str::to_owned));
    Ok(())
}

/// The same for the tables of nftables.
fn is_nftables_due(settings: &Settings, before: &str, rules: &[Rule]) -> Result<bool, String> {
    if before.is_empty() || settings.reconcile || settings.force_apply {
        return Ok(true);
    }
    match nftables_difference(rules).map_err(|failure| failure.to_string())? {
        None => Ok(false),
        Some(difference) => Err(refusal("nftables", &difference)),
    }
}

/// Whether tables are to be changed. What is there and differs is replaced only if that is asked for.
fn is_due(settings: &Settings, tools: &Iptables, before: &State, wanted: &State) -> Result<bool, String> {
    if before.is_empty() {
        return Ok(!wanted.is_empty());
    }
    let difference = iptables::difference(before, wanted).or_else(|| {
        let mut all = iptables::all(wanted);
        let missing = all.find(|(table, rule)| !tools.has(table.name(), &iptables::check(rule)));
        missing.map(|(table, rule)| format!("table {} lacks `{rule}`", table.name()))
    });
    match difference {
        None => Ok(settings.force_apply),
        Some(_) if settings.reconcile || settings.force_apply => Ok(true),
        Some(difference) => Err(refusal(&tools.to_string(), &difference)),
    }
}

fn refusal(place: &str, what: &str) -> String {
    format!(
        "{place} has redirect rules that are not the ones asked for ({what}); replace them with --reconcile, or take \
         them away first with `weft redirect remove`"
    )
}

/// Rules of ours in variants of iptables other than the one chosen: they would count beside those that are applied.
fn leftovers(settings: &Settings, family: Family, chosen: Option<&Iptables>) -> Result<Vec<Target>, String> {
    let conceivable = iptables::wanted(&conceivable(settings), family);
    let mut targets = Vec::new();
    for tools in variants(family).into_iter().filter(|tools| Some(tools) != chosen) {
        // What does not work has no rules of ours.
        let before = look(&tools, &conceivable).unwrap_or_default();
        if before.is_empty() {
            continue;
        }
        refuse_foreign(&tools, settings)?;
        if !settings.reconcile {
            return Err(refusal(&tools.to_string(), "no rules are to be there"));
        }
        let (conceivable, wanted) = (conceivable.clone(), State::new());
        targets.push(Target { tools, family, conceivable, before, wanted });
    }
    Ok(targets)
}

/// Takes tables of nftables away that would count beside the rules of iptables.
fn replace_nftables(settings: &Settings, changes: &mut Changes) -> Result<(), String> {
    // Without nft there is no telling, and most likely nothing to tell.
    let before = nftables_before().unwrap_or_default();
    if before.is_empty() {
        return Ok(());
    }
    if !settings.reconcile {
        return Err(refusal("nftables", "no tables are to be there"));
    }
    changes.interrupts.check()?;
    nft(&nftables::removal()).map_err(|failure| failure.to_string())?;
    changes.note(Change::Nftables(before), "nft: no rules".to_owned());
    Ok(())
}
