//! `weft redirect`: the rules by which a pod's traffic comes to the proxy.

use std::process::ExitCode;

use super::print;
use crate::agent::redirect::{self, Host, Settings};

/// Status when the rules are not proved; Istio's CNI looks for it.
const UNPROVED: u8 = 126;

/// The rules by which a pod's traffic comes to the proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what would be run, and run nothing.
    Print(redirect::Arguments),
    /// Put the rules in force, all or none.
    Apply(redirect::Arguments),
    /// Take the rules away, with the arguments they were applied with. Somebody else's rules stay.
    Remove(Removal),
    /// Prove that the rules are in force, by a connection.
    Verify(redirect::Arguments),
}

#[derive(Debug, clap::Args)]
struct Removal {
    #[command(flatten)]
    arguments: redirect::Arguments,

    /// Take chains that are called as ours away even if somebody else has put rules there, with those rules.
    #[arg(long)]
    force: bool,
}

impl Arguments {
    /// Those that apply rules.
    pub(super) fn applying(arguments: redirect::Arguments) -> Arguments {
        Arguments { action: Action::Apply(arguments) }
    }
}

const EXAMPLES: &str = "\
Examples:
  weft redirect print                                     what would be run for a sidecar?
  weft redirect apply -m TPROXY -b 8080,9090 -x 10.0.0.1/32
  weft redirect apply --native-nftables --run-validation  with nft, and prove it
  weft redirect remove

Exit status: 0 done, 1 not done, 2 an argument is wrong, 126 the rules are not proved.";

/// Prints, applies, removes or verifies redirect rules.
pub(super) fn redirect(arguments: &Arguments) -> ExitCode {
    match &arguments.action {
        Action::Print(arguments) => run(arguments, |settings, _| {
            print(redirect::print(settings));
            ExitCode::SUCCESS
        }),
        Action::Apply(arguments) => apply(arguments),
        Action::Remove(removal) => apply(&removal.arguments.to_remove(removal.force)),
        Action::Verify(arguments) => run(arguments, |settings, host| verify(settings, host, UNPROVED)),
    }
}

/// Applies redirect rules as istio-iptables does: what is not to be applied, removed instead or proved in the end is
/// said by arguments too.
pub(super) fn apply(arguments: &redirect::Arguments) -> ExitCode {
    run(arguments, |settings, host| {
        if settings.dry_run && settings.cleanup_only {
            print("all redirect rules would be removed\n");
        } else if settings.dry_run {
            print(redirect::print(settings));
        } else if settings.cleanup_only {
            return tell(redirect::remove(settings));
        } else if !settings.skip_rule_apply {
            match redirect::apply(settings) {
                Ok(said) if said.is_empty() => print("the rules are in force already\n"),
                Ok(said) => print(lines(&said)),
                // Names may be known elsewhere than this looks, so that only who applies them can tell.
                Err(why) => match settings.unknown_user(host) {
                    Some(user) => return super::fail(&format!("{user} ({why})")),
                    None => return super::fail(&why),
                },
            }
        }
        if settings.run_validation && !settings.dry_run {
            verify(settings, host, 0)
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Does something with what the arguments mean here, or in the network namespace that they name.
fn run(arguments: &redirect::Arguments, act: impl FnOnce(&Settings, &Host) -> ExitCode) -> ExitCode {
    let host = Host::environment();
    if let Some(namespace) = Settings::network_namespace(arguments, &host)
        && let Err(why) = redirect::enter(&namespace)
    {
        return super::fail(&why);
    }
    let host = host.look();
    match Settings::new(arguments, &host) {
        Ok(settings) => act(&settings, &host),
        Err(why) if host.is_to_blame(&why) => super::fail(&why),
        Err(why) => {
            eprintln!("weft: {why}");
            ExitCode::from(2)
        }
    }
}

/// Proves the rules; `refused` is the status when they are in force and refuse a family of addresses that the pod has. As
/// Istio starts such a pod, `apply` has none for it.
fn verify(settings: &Settings, host: &Host, refused: u8) -> ExitCode {
    match redirect::verify(settings, host) {
        Ok(said) => {
            print(lines(&said));
            let Some(why) = settings.refused() else { return ExitCode::SUCCESS };
            eprintln!("weft: {why}");
            ExitCode::from(refused)
        }
        Err(why) => {
            eprintln!("weft: {why}");
            ExitCode::from(UNPROVED)
        }
    }
}

fn tell(result: Result<Vec<String>, String>) -> ExitCode {
    match result {
        Ok(said) if said.is_empty() => print("there are no rules\n"),
        Ok(said) => print(lines(&said)),
        Err(why) => return super::fail(&why),
    }
    ExitCode::SUCCESS
}

fn lines(said: &[String]) -> String {
    said.iter().map(|line| format!("{line}\n")).collect()
}
