//! The command line: one file a command.

mod ca;
mod check;
mod demo;
mod environment;
mod errors;
mod explain;
mod identity;
mod limits;
mod local;
mod pilot_agent;
mod pod_info;
mod redirect;
mod request;
mod run;
mod signals;
mod wait;
mod xds;

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::app::Logging;
use crate::telemetry::printable;
use crate::telemetry::stderr::Lines;

/// An L7 sidecar data-plane proxy for Istio meshes that can say why it did what it did.
#[derive(Debug, Parser)]
#[command(name = "weft", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as `info,weft=debug`; `info` when not
    /// given, and for the demo only failures.
    #[arg(long, global = true, env = "WEFT_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a proxy on a directory of Istio and Kubernetes YAML.
    Run(Box<run::Arguments>),
    /// Issue certificates of workloads from a root of one's own, as istiod does.
    Ca(ca::Arguments),
    /// Say what is wrong or not honoured in a configuration.
    Check(check::Arguments),
    /// Say why a request goes where it goes, or fails.
    Explain(Box<explain::Arguments>),
    /// Say what failed at a running proxy in the last hour, by cause.
    Errors(errors::Arguments),
    /// See it work: echo backends, a proxy before them, YAML to edit, a live table.
    Demo(demo::Arguments),
    /// Print, apply, remove or verify the rules by which a pod's traffic comes to the proxy.
    Redirect(Box<redirect::Arguments>),
    /// Wait until the proxy is ready.
    Wait(wait::Arguments),
    /// Ask a proxy of this host.
    Request(request::Arguments),
    /// Hold a configuration against what an xDS server sent, and say what of xDS is honoured.
    Xds(xds::Arguments),
}

const EXAMPLES: &str = "\
Examples:
  weft demo                                    see it work: backends, a proxy, YAML to edit
  weft check config/                           what is wrong with this configuration?
  weft explain --config config/ --as web-1.shop http://catalog:8000/items     why does it go there?
  weft run --config config/ --as web-1.shop --listen 127.0.0.1:8080=catalog.shop:8000";

impl Arguments {
    /// Reads them. What is wrong ends the process. A variable of the environment that is empty counts as not set: a pod spec
    /// often has variables that its template gave no value.
    fn read(given: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Arguments {
        let mut command = without_empty_variables(Arguments::command());
        let matches = command.try_get_matches_from_mut(given).unwrap_or_else(|error| error.exit());
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| {
        if argument.get_env().is_some_and(is_empty) { argument.env(None::<&str>) } else { argument }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Runs the command that the arguments name. By the name `pilot-agent`, or with that for a command, the arguments are those
/// of the Istio agent.
pub fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match pilot_agent::arguments_of(&given) {
        Some(given) => pilot_agent::parse(given),
        None => Arguments::read(given),
    };
    let log = arguments.log.as_deref().unwrap_or(match arguments.command {
        // The demo shows itself what there is to say about the configuration.
        Command::Demo(_) => "error,weft::control=off",
        // Nothing runs that would have something to log.
        Command::Explain(_) | Command::Errors(_) => "warn",
        _ => "info",
    });
    let filter = match EnvFilter::try_new(log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("weft: --log {log}: {error}");
            return ExitCode::from(2);
        }
    };
    let ansi = std::io::stderr().is_terminal();
    // What serves clients does not wait for who reads its log.
    let started = match arguments.command {
        Command::Run(_) => Lines::start(std::io::stderr()).map(Some),
        _ => Ok(None),
    };
    let (lines, ending) = match started {
        Ok(started) => started.unzip(),
        Err(error) => return fail(&error),
    };
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer(lines.clone()));
    let format = format.with_ansi(ansi).with_target(false).with_filter_reloading();
    let handle = format.reload_handle();
    format.init();
    let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    let logging = Logging::new(log, reload, lines);
    let code = match arguments.command {
        Command::Run(arguments) => run::run(&arguments, &logging),
        Command::Ca(arguments) => ca::ca(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Errors(arguments) => errors::errors(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Redirect(arguments) => redirect::redirect(&arguments),
        Command::Wait(arguments) => wait::wait(&arguments),
        Command::Request(arguments) => request::request(&arguments),
        Command::Xds(arguments) => xds::xds(&arguments),
    };
    drop(ending);
    code
}

/// Writes the process's log: by these lines, or to stderr itself.
fn writer(lines: Option<Lines>) -> BoxMakeWriter {
    match lines {
        Some(lines) => BoxMakeWriter::new(move || lines.clone()),
        None => BoxMakeWriter::new(std::io::stderr),
    }
}

/// Prints text, without what a terminal would obey: some of it is others'.
fn print_text(what: &str) {
    print(printable(what).as_bytes());
}

/// Prints what was asked for, as it is. Whoever reads no further, like `head`, has seen enough.
fn print(what: impl AsRef<[u8]>) {
    drop(std::io::stdout().lock().write_all(what.as_ref()));
}

/// Prints what was `told`, or says why there is nothing.
fn tell(told: Result<String, String>) -> ExitCode {
    match told {
        Ok(text) => {
            print_text(&text);
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// A count with its noun.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Says what went wrong.
fn complain(what: &dyn std::fmt::Display) {
    eprintln!("weft: {}", printable(&what.to_string()));
}

/// Says what went wrong and ends the process with a failure.
fn fail(what: &dyn std::fmt::Display) -> ExitCode {
    complain(what);
    ExitCode::FAILURE
}
