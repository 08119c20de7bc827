//! `weft check`: what is wrong or not honoured in a configuration, for people and pipelines.

use std::path::PathBuf;
use std::process::ExitCode;

use config::finding::{Finding, Severity};

use super::counted;
use super::limits::LimitArguments;
use crate::control;

/// Say what is wrong or not honoured in a configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directories or files to check; `-` is standard input.
    #[arg(required = true, value_name = "DIR|FILE|-")]
    config: Vec<PathBuf>,

    /// MeshConfig, when it is not `mesh.yaml` in a directory or in Istio's ConfigMap.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// Revision of Istio whose ConfigMap `istio-REVISION` holds the MeshConfig; `istio` when not given.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REVISION")]
    revision: String,

    /// How findings are shown.
    #[arg(long, default_value = "human", value_name = "FORM")]
    output: Output,

    /// What makes the check fail: the exit status is 1 when there is a finding this bad or worse.
    #[arg(long, default_value = "error", value_name = "SEVERITY")]
    fail_on: FailOn,

    #[command(flatten)]
    limits: LimitArguments,
}

const EXAMPLES: &str = "\
Examples:
  weft check config/
  weft check config/ --output json --fail-on warning
  kubectl get configmap istio -n istio-system -o yaml | weft check -
  kubectl get vs,dr,svc,endpointslices,pods,nodes,ns -A -o yaml | weft check -

Exit status: 0 nothing that bad, 1 findings that bad, 2 the configuration cannot be looked at.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line or two for each.
    Human,
    /// One JSON array.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Objects that are refused.
    Error,
    /// Also what does not act as written.
    Warning,
    /// Nothing.
    Never,
}

/// Checks a configuration and prints what there is to say.
pub(super) fn check(arguments: &Arguments) -> ExitCode {
    let Arguments { config, mesh_config, revision, .. } = arguments;
    let limits = arguments.limits.limits();
    let findings = match control::check(config, mesh_config.as_deref(), revision, &limits) {
        Ok(findings) => findings,
        Err(what) => {
            super::complain(&what);
            return ExitCode::from(2);
        }
    };
    let text = match arguments.output {
        Output::Human => Ok(human(&findings)),
        Output::Json => serde_json::to_string_pretty(&findings).map(|text| text + "\n"),
    };
    match text {
        Ok(text) => super::print_text(&text),
        Err(error) => return super::fail(&error),
    }
    let worst = findings.iter().map(|finding| finding.severity).max();
    let fails = match arguments.fail_on {
        FailOn::Error => worst == Some(Severity::Error),
        FailOn::Warning => worst >= Some(Severity::Warning),
        FailOn::Never => false,
    };
    if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn human(findings: &[Finding]) -> String {
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let count = |severity, noun| {
        counted(findings.iter().filter(|finding| finding.severity == severity).count(), noun)
    };
    text.push_str(&format!(
        "{}, {}, {}\n",
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note")
    ));
    text
}
