//! `weft errors`: what failed at a running proxy in the last hour, by cause.

use std::net::SocketAddr;
use std::process::ExitCode;

use http::Method;

use super::explain::console;

/// What failed at the proxy of this host in the last hour, by cause, each with the object that made it so.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Its admin console.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    admin: SocketAddr,

    /// How it is told.
    #[arg(long, default_value = "text", value_name = "FORM")]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  weft errors
  weft explain --request-id 0f0e3bd8-0e22-4e5d-8f11-6a3a4f1b8c2d     one of them, step by step

Exit status: 0 it is told, 1 the proxy does not answer.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Lines, those that came most often first.
    Text,
    /// The same as JSON.
    Json,
}

/// Asks, and prints the answer.
pub(super) fn errors(arguments: &Arguments) -> ExitCode {
    let page = match arguments.output {
        Output::Text => "/errors",
        Output::Json => "/errors?format=json",
    };
    super::tell(console(Method::GET, arguments.admin, page))
}
