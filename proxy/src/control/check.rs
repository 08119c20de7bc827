//! What there is to say about a configuration, without running it for anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::compile::{ExplicitListener, ListenTarget, Mode, Proxy, Request, TrustAnchors, compile_as};
use config::finding::{Finding, Severity};
use config::objects::Objects;
use config::store::Store;
use config::{Limits, NameTable, Resources, validate, yaml};

use super::files::{Change, Content, Files, Place, too_long};
use super::revoked::RevokedFile;
use super::secret_files::{IdentityFiles, SecretFiles};
use super::watch::Watcher;
use super::{AboutFiles, Workload};
use crate::snapshot::{Builder, ProcessShared, Snapshot};
use crate::time;
use crate::tls::{Expected, Secrets, check_roots};

/// Namespaces whose view of the mesh is looked at; what only others see is not compiled.
const NAMESPACES_MAX: usize = 256;

/// Gateways whose Secrets are looked at.
const GATEWAYS_MAX: usize = 64;

/// The path that stands for standard input, and the name under which findings speak of it.
const STANDARD_INPUT: (&str, &str) = ("-", "<stdin>");

/// What there is to say about the configuration at `paths`, by file and line, for a mesh of this revision of Istio. The
/// path `-` is standard input.
///
/// # Errors
///
/// When a path cannot be looked at.
pub(crate) fn check(
    paths: &[PathBuf],
    mesh_config: Option<&Path>,
    revision: &str,
    limits: &Limits,
) -> Result<Vec<Finding>, String> {
    let (store, about_files) = read(paths, mesh_config, revision, limits)?;
    let objects = store.objects();
    let flaws = TrustAnchors::flaws(&objects.mesh, check_roots);
    let mut findings = before_compile(&store, &about_files, &objects, &flaws);
    findings.extend(compiled(&objects, store.limits().mesh_products_max));
    findings.extend(of_gateways(&objects, store.limits().mesh_products_max));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Reads what is at `paths`.
pub(super) fn read(
    paths: &[PathBuf],
    mesh_config: Option<&Path>,
    revision: &str,
    limits: &Limits,
) -> Result<(Store, AboutFiles), String> {
    let mut places = Vec::new();
    let mut store = Store::with_limits(yaml::Limits::of(limits)).of_revision(revision);
    for path in paths {
        if path.as_os_str() == STANDARD_INPUT.0 {
            let text =
                standard_input(limits.file_bytes()).map_err(|error| format!("standard input: {error}"))?;
            super::take::take(&mut store, Change::Text(STANDARD_INPUT.1.into(), Content::Objects, text));
            continue;
        }
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        places.push(if metadata.is_dir() {
            Place::Directory(path.clone())
        } else {
            Place::File(path.clone())
        });
    }
    places.extend(mesh_config.map(|path| Place::MeshConfig(path.to_owned())));
    let mut found = Files::new(places, limits.file_bytes()).look(&Watcher::deaf(), time::now());
    let about_files = AboutFiles::of(&mut found);
    for change in found.changes {
        super::take::take(&mut store, change);
    }
    Ok((store, about_files))
}

/// What there is to say of files, of objects, of what they refer to, and of the mesh's authorities, which have these flaws.
fn before_compile(
    store: &Store,
    about_files: &AboutFiles,
    objects: &Objects,
    flaws: &[Option<String>],
) -> Vec<Finding> {
    let said = about_files.findings().chain(store.findings());
    let referring = validate::references(objects, store.limits());
    said.chain(referring).chain(TrustAnchors::unreadable(objects, flaws)).collect()
}

/// The proxy beside `workload`; when the workload is not known, why.
pub(super) fn proxy_beside(workload: &Workload, objects: &Objects) -> Result<Proxy, String> {
    let resolved = workload.resolve(objects);
    resolved.map(|resolved| resolved.proxy).map_err(|finding| format!("{}; {}", finding.what, finding.remedy))
}

/// What a configuration makes of a proxy, without running one.
pub(crate) struct Loaded {
    /// The objects that hold.
    pub(crate) objects: Objects,
    /// What there is to say about them.
    pub(crate) findings: Vec<Finding>,
    /// The workload.
    pub(crate) proxy: Proxy,
    /// The names it knows.
    pub(crate) names: NameTable,
    /// What would decide.
    pub(crate) snapshot: Snapshot,
    /// Why a proxy that starts by it serves nothing at all.
    pub(crate) unserved: Option<String>,
}

/// The identity of a workload whose proxy does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GivenIdentity {
    /// It has none.
    Nothing,
    /// It has one, and nobody says which.
    Assumed,
    /// What these files hold.
    Files(IdentityFiles),
}

/// Loads the configuration at `paths` as a proxy beside `workload` would, with the listeners that `request` asks for and
/// this identity, within these limits. What DNS would tell is not asked for.
///
/// # Errors
///
/// When a path cannot be looked at, or the workload is not known.
pub(crate) fn load(
    paths: &[PathBuf],
    mesh_config: Option<&Path>,
    workload: &Workload,
    request: &Request,
    (identity, limits): (GivenIdentity, &Limits),
) -> Result<Loaded, String> {
    let (store, about_files) = read(paths, mesh_config, &workload.revision, limits)?;
    let objects = store.objects();
    let unserved = about_files.hides_what_decides(&store);
    let flaws = TrustAnchors::flaws(&objects.mesh, check_roots);
    let mut findings = before_compile(&store, &about_files, &objects, &flaws);
    let proxy = proxy_beside(workload, &objects)?;
    let request = Request {
        identity: identity != GivenIdentity::Nothing,
        products_max: Some(store.limits().mesh_products_max),
        ..request.clone()
    };
    let compiled = compile_as(&objects, &proxy, &request);
    findings.extend(compiled.findings);
    let mut resources = Resources::default();
    resources.apply(compiled.update);
    let is_assumed = identity == GivenIdentity::Assumed;
    let identity_files = match identity {
        GivenIdentity::Files(files) => Some(files),
        GivenIdentity::Nothing | GivenIdentity::Assumed => None,
    };
    // What the mesh has revoked is taken from beside the roots.
    let revoked = identity_files.as_ref().map(|files| files.roots.with_file_name("ca-crl.pem"));
    let mut files = SecretFiles::new(identity_files, revoked, Vec::new(), limits.file_bytes());
    files.want(&resources);
    files.look(time::now());
    let declared = resources.secrets.values().chain(files.secrets());
    let anchors = TrustAnchors::new(&objects.mesh, &proxy, None, &flaws);
    let declared = TrustAnchors::among(anchors.as_ref(), files.with_revoked(declared).iter());
    let (secrets, unusable) = Secrets::resolve(&declared, &Secrets::default(), &Expected::default());
    findings.extend(unusable.into_iter().map(|it| super::certificates::about_secret(it, false)));
    findings.extend(files.revoked().and_then(RevokedFile::finding));
    findings.extend(secrets.doubts(time::wall()).iter().map(super::certificates::about_doubt));
    findings.sort();
    findings.dedup();
    let secrets = if is_assumed { secrets.with_assumed_identity() } else { secrets };
    let process = ProcessShared::new(limits, time::now());
    let builder = Builder::new(request.allow_unenforced_security, process);
    let snapshot = builder.build(&resources, &secrets, &Snapshot::default(), None);
    Ok(Loaded { objects, findings, proxy, names: compiled.names, snapshot, unserved })
}

fn standard_input(bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(yaml::text_of(bytes))
}

/// What only shows when the mesh is compiled for a proxy: here for one of every namespace that has rules of its own, on
/// every port that a service has.
fn compiled(objects: &Objects, products_max: usize) -> Vec<Finding> {
    let ports: BTreeSet<u16> = objects
        .services
        .values()
        .flat_map(|service| &service.spec.spec.ports)
        .map(|port| port.port)
        .collect();
    let listeners: Vec<ExplicitListener> = ports
        .into_iter()
        .map(|port| ExplicitListener {
            address: ([127, 0, 0, 1], 0).into(),
            target: ListenTarget::Outbound { port },
        })
        .collect();
    let rules = objects.virtual_services.keys().chain(objects.destination_rules.keys());
    let namespaces: BTreeSet<_> = rules.map(|(namespace, _)| namespace.clone()).collect();
    // Whether the workload has an identity is known where its proxy runs.
    let request =
        Request { listeners, identity: true, products_max: Some(products_max), ..Request::default() };
    let mut findings = Vec::new();
    let nobody = Proxy::default();
    let of_namespaces = namespaces.into_iter().take(NAMESPACES_MAX);
    let proxies = of_namespaces.map(|namespace| Proxy { namespace, ..Proxy::default() });
    for (number, proxy) in std::iter::once(nobody).chain(proxies).enumerate() {
        let found = compile_as(objects, &proxy, &request).findings;
        // What is about the whole mesh is said once, not as every namespace sees it.
        findings.extend(found.into_iter().filter(|finding| number == 0 || finding.place.is_some()));
    }
    findings
}

/// What there is to say about the Secrets that gateways ask for. Where the configuration has none at all, they are elsewhere.
fn of_gateways(objects: &Objects, products_max: usize) -> Vec<Finding> {
    let pods = objects.pods.keys();
    let pods = pods.filter_map(|(namespace, name)| Proxy::of_pod(objects, namespace, name, &BTreeMap::new()));
    let pods: BTreeSet<_> = pods.map(|pod| (pod.namespace, pod.labels)).collect();
    let mut workloads = BTreeSet::new();
    for gateway in objects.gateways.values().filter(|it| it.spec.servers.iter().any(|it| it.tls.is_some())) {
        let selector = &gateway.spec.selector;
        let carries = |labels: &BTreeMap<String, String>| {
            selector.iter().all(|(name, value)| labels.get(name) == Some(value))
        };
        let mut selected = pods.iter().filter(|(_, labels)| carries(labels)).cloned().peekable();
        if selected.peek().is_none() {
            workloads.insert((gateway.namespace().clone(), selector.clone()));
        }
        workloads.extend(selected);
    }
    let request = Request {
        mode: Mode::Gateway,
        identity: true,
        products_max: Some(products_max),
        ..Request::default()
    };
    let mut findings = Vec::new();
    for (namespace, labels) in workloads.into_iter().take(GATEWAYS_MAX) {
        let proxy = Proxy { namespace, labels, node_type: Mode::Gateway.into(), ..Proxy::default() };
        let secrets: Vec<_> =
            compile_as(objects, &proxy, &request).update.secrets.into_iter().map(Arc::new).collect();
        let (secrets, unusable) = Secrets::resolve(&secrets, &Secrets::default(), &Expected::default());
        findings.extend(unusable.into_iter().map(|it| super::certificates::about_secret(it, false)));
        let now = time::wall();
        findings
            .extend(secrets.lives(now).iter().filter(|it| it.ends_soon).map(super::certificates::about_life));
        findings.extend(secrets.doubts(now).iter().map(super::certificates::about_doubt));
    }
    if objects.secrets.is_empty() {
        findings.iter_mut().for_each(|finding| finding.severity = Severity::Note);
    }
    findings
}
