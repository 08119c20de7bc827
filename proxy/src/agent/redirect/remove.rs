//! Taking the rules away. What has begun is ended: a signal that would end the process counts before and after.

use super::interrupt::Interrupts;
use super::iptables::{self, State};
use super::kernel::{
    change_tables, conceivable, conceivable_settings, count, look_for_leftovers, nft, nftables_before,
    refuse_foreign, tidy, variants, warn_of_doubtful,
};
use super::lock::Lock;
use super::network;
use super::nftables;
use super::rule::Family;
use super::settings::Settings;
use super::tools::Iptables;

/// Takes the rules away, whoever keeps them; says what was done. Somebody else's rules stay, but in nft's tables that are called
/// as Istio's are: those go whole, as Istio has it, since no one else has a reason to write there.
///
/// # Errors
///
/// What could not be taken away, and why. All the rest is; but nothing is where somebody else has rules in chains of iptables
/// that are called as ours are, unless it is forced.
pub(crate) fn remove(settings: &Settings) -> Result<Vec<String>, String> {
    let mut interrupts = Interrupts::note()?;
    let _lock = Lock::take(&mut interrupts)?;
    let rules = conceivable(settings);
    if !settings.force_remove {
        refuse_foreign_anywhere(settings)?;
    }
    let (mut said, mut failures) = (Vec::new(), Vec::new());
    let mut works = false;
    for family in [Family::V4, Family::V6] {
        let conceivable = iptables::wanted(&rules, family);
        for tools in usable(family) {
            match look_for_leftovers(&tools, &conceivable) {
                Ok(state) if state.is_empty() => works = true,
                Ok(state) => match change_tables(&tools, &state, &State::new()) {
                    Ok(()) => {
                        tidy(&tools, family, &state);
                        warn_of_doubtful(&tools, &conceivable);
                        said.push(format!("{tools}: {} removed", count(&state)));
                    }
                    Err(failure) => failures.push(failure.to_string()),
                },
                // IPv6 may be switched off, and then there is nothing.
                Err(failure) if failure.is_missing() || family == Family::V6 => {}
                Err(failure) => failures.push(failure.to_string()),
            }
        }
    }
    match nftables_before() {
        Ok(before) if before.is_empty() => works = true,
        Ok(_) => match nft(&nftables::removal()) {
            Ok(()) => said.push("nft: tables removed, with all that was in them".to_owned()),
            Err(failure) => failures.push(failure.to_string()),
        },
        Err(failure) if failure.is_missing() => {}
        Err(failure) => failures.push(failure.to_string()),
    }
    for step in network::steps(&conceivable_settings(settings)) {
        match step.remove() {
            Ok(true) => said.push(format!("ip {} undone", step.addition().join(" "))),
            Ok(false) => {}
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    if !works && said.is_empty() && failures.is_empty() {
        failures.push(
            "neither iptables nor nft is in $PATH; install one of the packages iptables and nftables".into(),
        );
    }
    interrupts.end_the_process();
    if failures.is_empty() { Ok(said) } else { Err(failures.join("; ")) }
}

/// The variants of iptables that work here; the plain name where neither does.
fn usable(family: Family) -> Vec<Iptables> {
    let usable: Vec<Iptables> = variants(family).into_iter().filter(|tools| tools.saved().is_ok()).collect();
    if usable.is_empty() { vec![Iptables::plain(family)] } else { usable }
}

/// Somebody else's rules are looked for in all places before anything is changed in one.
fn refuse_foreign_anywhere(settings: &Settings) -> Result<(), String> {
    let mut all = [Family::V4, Family::V6].into_iter().flat_map(usable);
    // What cannot be asked cannot be changed either, and is told then.
    all.try_for_each(|tools| if tools.saved().is_ok() { refuse_foreign(&tools, settings) } else { Ok(()) })
}
