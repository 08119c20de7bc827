//! Taking the rules away. What has begun is ended: a signal that would end the process counts before and after.

use super::interrupt::Interrupts;
use super::iptables::{self, State};
use super::kernel::{
    change_tables, conceivable, conceivable_settings, count, look_for_leftovers, nft, nftables_before, tidy,
    variants, warn_of_doubtful,
};
use super::lock::Lock;
use super::network;
use super::nftables;
use super::rule::Family;
use super::settings::Settings;
use super::tools::Iptables;

/// Takes the rules away, whoever keeps them; says what was done. Somebody else's rules stay.
///
/// # Errors
///
/// What could not be taken away, and why. All the rest is.
pub(crate) fn remove(settings: &Settings) -> Result<Vec<String>, String> {
    let mut interrupts = Interrupts::note()?;
    let _lock = Lock::take(&mut interrupts)?;
    let rules = conceivable(settings);
    let (mut said, mut failures) = (Vec::new(), Vec::new());
    let mut works = false;
    for family in [Family::V4, Family::V6] {
        let conceivable = iptables::wanted(&rules, family);
        let [nft, legacy] = variants(family);
        let usable: Vec<Iptables> = [nft, legacy].into_iter().filter(|tools| tools.saved().is_ok()).collect();
        let usable = if usable.is_empty() { vec![Iptables::plain(family)] } else { usable };
        for tools in usable {
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
            Ok(()) => said.push("nft: tables removed".to_owned()),
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
