//! Running the tools of the kernel's maintainers: iptables, nft, ip.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::{fmt, thread};

use super::rule::Family;
use super::settings::Variant;

/// How long to wait for whoever else is changing rules, in seconds.
pub(super) const LOCK_WAIT_S: &str = "30";

/// Why a tool did not do what it was to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not on this machine.
    Missing {
        /// Its name.
        program: String,
    },
    /// It failed.
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        why: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Missing { program } => {
                let package = match program.as_str() {
                    "ip" => "iproute2",
                    "nft" => "nftables",
                    _ => "iptables",
                };
                write!(f, "{program} is not in $PATH; install the package {package}")?;
                match package {
                    "iptables" => f.write_str(", or use nft with --native-nftables"),
                    "nftables" => f.write_str(", or leave out --native-nftables to use iptables"),
                    _ => Ok(()),
                }
            }
            Failure::Failed { command, why } => {
                write!(f, "{command}: {why}")?;
                if why.contains("Permission denied") || why.contains("not permitted") {
                    f.write_str("; it needs root, or the capabilities NET_ADMIN and NET_RAW")?;
                }
                Ok(())
            }
        }
    }
}

impl Failure {
    /// Whether the tool is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Failure::Missing { .. })
    }
}

/// Runs a tool to its end and returns what it prints.
pub(super) fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, Failure> {
    let command = || [&[program], arguments].concat().join(" ");
    let failed = |why: String| Failure::Failed { command: command(), why };
    let of_start = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing { program: program.to_owned() },
        _ => failed(error.to_string()),
    };
    tracing::debug!(command = command(), input, "run");
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .args(arguments)
        // What is printed is read; it must not depend on the user's language.
        .env("LC_ALL", "C")
        // A key that ends what runs in the foreground is for this process, which sees to it that nothing is done by halves.
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(of_start)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // A tool that fails may not read all; what it says counts, not that.
        scope.spawn(move || stdin.zip(input).map(|(mut stdin, input)| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.map_err(|error| failed(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let said = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    Err(failed(said))
}

/// The programs of one variant of iptables for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Iptables {
    /// Name of the program; those that save and restore have longer ones.
    program: String,
}

impl Iptables {
    /// The programs by the names that both variants may have.
    pub(super) fn plain(family: Family) -> Iptables {
        Iptables { program: base(family).to_owned() }
    }

    /// The programs of a variant.
    pub(super) fn of(family: Family, variant: Variant) -> Iptables {
        let suffix = match variant {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        };
        Iptables { program: format!("{}-{suffix}", base(family)) }
    }

    /// Those that are to be used, as Istio chooses: the old ones where they have rules already, else those on nftables,
    /// else what is there.
    pub(super) fn choose(family: Family, forced: Option<Variant>) -> Result<Iptables, Failure> {
        if let Some(variant) = forced {
            let forced = Iptables::of(family, variant);
            return forced.saved().map(|_| forced);
        }
        let legacy = Iptables::of(family, Variant::Legacy);
        let of_legacy = legacy.saved();
        if of_legacy.as_ref().is_ok_and(|saved| saved.lines().any(|line| line.starts_with("-A "))) {
            return Ok(legacy);
        }
        let mut why = Failure::Missing { program: base(family).to_owned() };
        for candidate in [Iptables::of(family, Variant::Nft), Iptables::plain(family)] {
            match candidate.saved() {
                Ok(_) => return Ok(candidate),
                // Why one that is there does not work says more than that another one is not there.
                Err(failure) if !failure.is_missing() && why.is_missing() => why = failure,
                Err(_) => {}
            }
        }
        of_legacy.map(|_| legacy).map_err(|_| why)
    }

    /// The name of the program that takes transactions, and its arguments.
    pub(super) fn restore_command(&self) -> (String, [&'static str; 3]) {
        (format!("{}-restore", self.program), ["--noflush", "--wait", LOCK_WAIT_S])
    }

    /// All rules that there are.
    pub(super) fn saved(&self) -> Result<String, Failure> {
        run(&format!("{}-save", self.program), &[], None)
    }

    /// Runs transactions.
    pub(super) fn restore(&self, transaction: &str) -> Result<(), Failure> {
        let (program, arguments) = self.restore_command();
        run(&program, &arguments, Some(transaction)).map(drop)
    }

    /// Whether a rule is there.
    pub(super) fn has(&self, table: &str, check: &[&str]) -> bool {
        let arguments = [&["--wait", LOCK_WAIT_S, "--table", table], check].concat();
        run(&self.program, &arguments, None).is_ok()
    }
}

impl fmt::Display for Iptables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)
    }
}

fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}
