//! The load generator, the backend and the floor of the measurements, in one small binary.
//!
//! It must cost little: it shares one core with nobody but itself while the proxy has the other. So: one thread, epoll,
//! no allocation a request in the load, and only as much HTTP as is checked. See `benches/README.md`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use serde_json::json;

use crate::arguments::Command;

mod arguments;
mod ask;
mod backend;
mod clock;
mod connection;
mod cpu;
mod drive;
mod floor;
mod histogram;
mod http1;
mod http2;
mod poll;
mod report;
mod response;
#[cfg(test)]
mod tests;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match arguments::parse(&arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("load: {error}; see load --help");
            return ExitCode::from(2);
        }
    };
    match execute(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Help => print(arguments::USAGE)?,
        Command::Load(plan) => {
            let report::Report(report) = drive::run(&plan)?;
            print(&report.to_string())?;
            if report.get("errors").and_then(serde_json::Value::as_u64) != Some(0) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Backend { versions, streams_max } => {
            let versions = backend::bind(&versions)?;
            announce(versions.iter().map(|version| &version.listener))?;
            backend::serve(&versions, streams_max)?;
        }
        Command::Ask(target) => ask::run(target, io::stdin().lock(), io::stdout().lock())?,
        Command::Floor(target) => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            announce([&listener])?;
            floor::forward(&listener, target)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells on standard output what was bound, for whoever started this process.
fn announce<'a>(listeners: impl IntoIterator<Item = &'a TcpListener>) -> io::Result<()> {
    let bound = listeners.into_iter().map(|listener| Ok(listener.local_addr()?.to_string()));
    print(&json!({ "listening": bound.collect::<io::Result<Vec<_>>>()? }).to_string())
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
