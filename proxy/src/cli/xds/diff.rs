//! `weft xds diff`: a recorded stream of an xDS server, held against what weft compiles for the same proxy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::compile::{Mode, Request};
use xds_client::compare::{Comparison, DROPPED, Listed, UNCOMPILED, compare, subject};
use xds_client::convert::{FieldName, Kind, Notes, Standing, coverage};
use xds_client::stream::{Declared, read};

use super::super::run::parse_pod;
use super::super::{complain, counted, print_text};
use crate::app::Workload;
use crate::control;

/// Largest recording that is read.
const STREAM_BYTES_MAX: u64 = 1 << 30;

/// The listener that only sidecars have.
const SIDECARS_LISTENER: &str = "virtualOutbound";

/// Compare what istiod sent a proxy with what weft compiles for it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory whose YAML and JSON files are the configuration of the mesh, or one such file; may be given several times.
    #[arg(long, required = true, value_name = "DIR|FILE")]
    config: Vec<PathBuf>,

    /// MeshConfig, when it is not `mesh.yaml` in a directory or in Istio's ConfigMap.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// Revision of Istio whose ConfigMap `istio-REVISION` holds the MeshConfig; `istio` when not given.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REVISION")]
    revision: String,

    /// The workload whose proxy the stream was sent to.
    #[arg(long = "as", value_name = "POD.NAMESPACE", value_parser = parse_pod)]
    pod: (String, String),

    /// What was sent: for each response a length of four bytes, the most significant first, and so many bytes of an
    /// envoy.service.discovery.v3.DeltaDiscoveryResponse. What holds at its end is compared.
    #[arg(long, value_name = "FILE")]
    stream: PathBuf,

    /// What the proxy is; when not given, a sidecar if the stream has the listener virtualOutbound, or else a gateway.
    #[arg(long, value_enum)]
    mode: Option<ModeArgument>,

    /// Show all differences, and all that is named in the lists; otherwise the first difference, and counts.
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
Both become listeners, routes, clusters and endpoints as weft declares them, and are compared leaf by leaf. Leaves that differ
on purpose are named one by one in a list, as is what compile does not make yet; --all shows which were met, and why.

Examples:
  weft xds diff --config mesh/ --as web-1.shop --stream web/stream.bin
  weft xds diff --config mesh/ --as web-1.shop --stream web/stream.bin --all
  weft xds diff --config mesh/ --as ingress-1.istio-system --mode gateway --stream gateway/stream.bin

Exit status: 0 nothing differs, 1 something does, is refused, or has fields that weft does not know, 2 one of the two cannot be
looked at.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeArgument {
    /// It stands beside a workload.
    Sidecar,
    /// It is at the edge of the mesh.
    Gateway,
}

/// Compares, and prints what came of it.
pub(super) fn diff(arguments: &Arguments) -> ExitCode {
    match compared(arguments) {
        Ok((text, true)) => {
            print_text(&text);
            ExitCode::SUCCESS
        }
        Ok((text, false)) => {
            print_text(&text);
            ExitCode::FAILURE
        }
        Err(what) => {
            complain(&what);
            ExitCode::from(2)
        }
    }
}

/// What there is to say, and whether nothing differs.
fn compared(arguments: &Arguments) -> Result<(String, bool), String> {
    let named = |what: &dyn std::fmt::Display| format!("{}: {what}", arguments.stream.display());
    let recording = bytes(&arguments.stream).map_err(|what| named(&what))?;
    let declared = Declared::of(read(&recording).map_err(|broken| named(&broken))?);
    if declared.entries.is_empty() {
        return Err(named(&"there is no cluster, endpoint, listener or route in it"));
    }
    let workload = Workload {
        pod: Some(arguments.pod.clone()),
        revision: arguments.revision.clone(),
        ..Workload::default()
    };
    let mode = match arguments.mode {
        Some(ModeArgument::Sidecar) => Mode::Sidecar,
        Some(ModeArgument::Gateway) => Mode::Gateway,
        None => {
            let is_sidecar = declared.entries.contains_key(&(Kind::Listener, SIDECARS_LISTENER.to_owned()));
            if is_sidecar { Mode::Sidecar } else { Mode::Gateway }
        }
    };
    let request = Request { mode, ..Request::default() };
    let (compiled, errors) =
        control::declared(&arguments.config, arguments.mesh_config.as_deref(), &workload, &request)?;
    let comparison = compare(&declared.update(), &compiled);
    // What is not known cannot be the same.
    let is_known = declared.notes().unknown.is_empty();
    let is_same = comparison.is_equal() && is_known && declared.refused().next().is_none();
    let mut text = told(&declared, &comparison, arguments.all);
    if !errors.is_empty() {
        let errors = counted(errors.len(), "error");
        let _ = writeln!(text, "{errors} in the configuration, which may be why; `weft check` tells them");
    }
    Ok((text, is_same))
}

/// The recording, if it is not longer than it may be.
fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(STREAM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > STREAM_BYTES_MAX {
        return Err(format!("it is longer than {STREAM_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn told(declared: &Declared, comparison: &Comparison, all: bool) -> String {
    let mut text = String::new();
    let shown = if all { usize::MAX } else { 1 };
    let refused: Vec<_> = declared.refused().collect();
    for (kind, name, refused) in refused.iter().take(shown) {
        let _ = writeln!(text, "refused: {} {name}: {refused}", kind.name());
    }
    for difference in comparison.differences.iter().take(shown) {
        let _ = writeln!(text, "{difference}");
    }
    let notes = declared.notes();
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "{} on both sides", counted(comparison.resources, "resource"));
    let _ = writeln!(text, "{} the same", leaves(comparison.equal));
    list(&mut text, "different on purpose", &comparison.dropped, DROPPED, all);
    uncompiled(&mut text, comparison, &notes, all);
    fields(&mut text, &notes, all);
    let _ = writeln!(text, "{} refused", counted(refused.len(), "resource"));
    let _ = writeln!(text, "{}", counted(comparison.differences.len(), "difference"));
    if !all
        && [refused.len(), comparison.differences.len(), notes.unknown.len()].iter().any(|count| *count > 1)
    {
        text.push_str("the first of each is shown; --all shows them all\n");
    }
    text
}

/// Leaves that are named in a list.
fn list(text: &mut String, what: &str, met: &BTreeMap<&'static str, usize>, listed: &[Listed], all: bool) {
    let _ = writeln!(text, "{} {what}", leaves(met.values().sum()));
    for (path, count) in met.iter().filter(|_| all) {
        let why = listed.iter().find(|listed| listed.path == *path).map_or("", |listed| listed.why);
        let _ = writeln!(text, "  {count:5} {path}: {why}");
    }
}

/// Leaves that compile does not make yet, by what they are for: those of the stream that are not taken apart, and those that
/// are and are named in a list.
fn uncompiled(text: &mut String, comparison: &Comparison, notes: &Notes, all: bool) {
    let mut subjects: BTreeMap<&str, usize> = BTreeMap::new();
    for (field, count) in &notes.leaves {
        *subjects.entry(subject(*field)).or_default() += count;
    }
    for (path, count) in &comparison.uncompiled {
        *subjects.entry(path).or_default() += count;
    }
    let told: Vec<String> = subjects.iter().map(|(subject, count)| format!("{subject} {count}")).collect();
    let what = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
    let _ = writeln!(text, "{} not compiled yet{what}", leaves(subjects.values().sum()));
    explain(text, notes.leaves.iter().filter(|_| all));
    for (path, count) in comparison.uncompiled.iter().filter(|_| all) {
        let why = UNCOMPILED.iter().find(|listed| listed.path == *path).map_or("", |listed| listed.why);
        let _ = writeln!(text, "  {count:5} {path}: {why}");
    }
}

/// One line a field, with its count and the reason why nothing comes of it.
fn explain<'n>(text: &mut String, fields: impl Iterator<Item = (&'n FieldName, &'n usize)>) {
    let why: BTreeMap<FieldName, &str> = coverage()
        .into_iter()
        .flat_map(|message| message.fields.iter().map(move |field| ((message.name, field.name), field)))
        .filter_map(|(name, field)| match field.standing {
            Standing::Harmless(why) | Standing::NotRun(why) => Some((name, why)),
            Standing::Honoured | Standing::Refused => None,
        })
        .collect();
    for (name, count) in fields {
        let (message, field) = name;
        let why = why.get(name).copied().unwrap_or_default();
        let _ = writeln!(text, "  {count:5} {message}.{field}: {why}");
    }
}

/// Fields of the stream that say nothing weft would do otherwise, and messages with some that it does not know.
fn fields(text: &mut String, notes: &Notes, all: bool) {
    let _ = writeln!(text, "{} harmless", counted(notes.harmless.values().sum(), "field"));
    explain(text, notes.harmless.iter().filter(|_| all));
    let shown = if all { usize::MAX } else { 1 };
    for unknown in notes.unknown.iter().take(shown) {
        let _ = writeln!(text, "unknown fields in {unknown}");
    }
    if !notes.unknown.is_empty() {
        let _ =
            writeln!(text, "{} with fields that weft does not know", counted(notes.unknown.len(), "message"));
    }
}

/// A count of leaves.
fn leaves(count: usize) -> String {
    format!("{count} {}", if count == 1 { "leaf" } else { "leaves" })
}
