//! What a configuration declares for a proxy, without running it.

use std::path::{Path, PathBuf};

use config::compile::{Request, compile_as};
use config::finding::{Finding, Severity};
use config::{Limits, Update};

use super::Workload;
use super::check::{proxy_beside, read};

/// What compile makes of the configuration at `paths` for a proxy beside `workload`, as `request` says, and what in the
/// configuration is refused. What DNS would tell is not asked for.
///
/// # Errors
///
/// When a path cannot be looked at or read, or the workload is not known.
pub(crate) fn declared(
    paths: &[PathBuf],
    mesh_config: Option<&Path>,
    workload: &Workload,
    request: &Request,
) -> Result<(Update, Vec<Finding>), String> {
    let (store, about_files) = read(paths, mesh_config, &workload.revision, &Limits::default())?;
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    if let Some(finding) = about_files.findings().find(is_error) {
        return Err(finding.to_string());
    }
    let refused = store.findings().into_iter().filter(is_error).collect();
    let objects = store.objects();
    let proxy = proxy_beside(workload, &objects)?;
    Ok((compile_as(&objects, &proxy, request).update, refused))
}
