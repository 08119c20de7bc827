//! What would be run, as a shell would run it.

use super::iptables::{self, State};
use super::network;
use super::nftables;
use super::rule::Family;
use super::rules::rules;
use super::settings::{Backend, Settings};
use super::tools::Iptables;

/// What `apply` runs where nothing of ours is there yet. Which variant of iptables it takes is found only then, so plain
/// names stand for it.
pub(crate) fn print(settings: &Settings) -> String {
    let rules = rules(settings);
    let mut text = String::new();
    match settings.backend {
        Backend::Iptables(variant) => {
            let families = if settings.ipv6 { &[Family::V4, Family::V6][..] } else { &[Family::V4] };
            for family in families {
                let tools =
                    variant.map_or(Iptables::plain(*family), |variant| Iptables::of(*family, variant));
                let (program, arguments) = tools.restore_command();
                let input = iptables::transaction(&State::new(), &iptables::wanted(&rules, *family));
                text.push_str(&with_input(&format!("{program} {}", arguments.join(" ")), &input));
            }
        }
        Backend::Nftables => text.push_str(&with_input("nft -f -", &nftables::replacement(&rules))),
    }
    for step in network::steps(settings) {
        text.push_str(&format!("ip {}\n", step.addition().join(" ")));
    }
    text
}

fn with_input(command: &str, input: &str) -> String {
    format!("{command} <<'END'\n{input}END\n")
}
