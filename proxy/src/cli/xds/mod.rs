//! `weft xds`: what comes from an xDS server, looked at without being run.

mod coverage;
mod diff;

use std::process::ExitCode;

/// Hold a configuration against what an xDS server sent, and say what of xDS is honoured.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare what istiod sent a proxy with what weft compiles for it.
    Diff(diff::Arguments),
    /// Say what of each message is honoured, harmless, not run yet, or refused.
    Coverage(coverage::Arguments),
}

/// Runs the command.
pub(super) fn xds(arguments: &Arguments) -> ExitCode {
    match &arguments.command {
        Command::Diff(arguments) => diff::diff(arguments),
        Command::Coverage(arguments) => coverage::coverage(arguments),
    }
}
