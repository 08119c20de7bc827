//! Which mode of mutual TLS holds for a port of this workload.
//!
//! Of policies of the mesh, the namespace and the workload the narrower wins, and of several of one kind the oldest; the
//! mode of a port, which only a policy of the workload has, wins over all. UNSET is as if nothing were written.

use std::collections::BTreeMap;

use super::Scope;
use super::findings::Findings;
use super::workload::WorkloadLabels;
use crate::finding::{Severity, code};
use crate::istio::{MutualTlsMode, PeerAuthentication};
use crate::objects::{Key, Object};
use crate::origin::Origin;

/// Whether a port takes plain text and mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Plain text only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl Mode {
    /// Istio's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Disable => "DISABLE",
            Mode::Permissive => "PERMISSIVE",
            Mode::Strict => "STRICT",
        }
    }
}

/// A mode, and the policy that says it; `None` for Istio's default.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) mode: Mode,
    pub(super) origin: Option<Origin>,
}

/// The modes of all ports of this workload.
pub(super) struct Modes {
    whole: Told,
    ports: BTreeMap<u16, Told>,
}

impl Modes {
    /// The modes of the proxy of `scope`.
    pub(super) fn new(scope: &Scope<'_>) -> Modes {
        Modes::of_workload(scope, &scope.proxy.namespace, &WorkloadLabels::of_proxy(scope))
    }

    /// The modes of a workload with these labels.
    pub(super) fn of_workload(scope: &Scope<'_>, namespace: &str, own: &WorkloadLabels<'_>) -> Modes {
        // Those of other namespaces say nothing of it, and there may be many.
        let mut policies: Vec<&Object<PeerAuthentication>> =
            policies_of(scope, scope.root_namespace).collect();
        if namespace != scope.root_namespace {
            policies.extend(policies_of(scope, namespace));
        }
        policies.sort_by_key(|object| super::age(&object.metadata));

        let (mut mesh, mut of_namespace, mut workload) = (None, None, None);
        for object in policies {
            let of_root = **object.namespace() == *scope.root_namespace;
            let of_own = **object.namespace() == *namespace;
            let selector = object.spec.selector.as_ref().map(|selector| &selector.match_labels);
            match selector.filter(|labels| !labels.is_empty()) {
                None if of_root => mesh = mesh.or(Some(object)),
                None if of_own => of_namespace = of_namespace.or(Some(object)),
                // Policies of the root namespace are the mesh's only, as with istiod.
                Some(labels) if of_own && !of_root && own.carries(labels) => {
                    workload = workload.or(Some(object));
                }
                None | Some(_) => {}
            }
        }
        let mut ports: BTreeMap<u16, (MutualTlsMode, Origin)> = BTreeMap::new();
        if let Some(object) = workload {
            for (port, mtls) in &object.spec.port_level_mtls {
                let Ok(number) = port.parse() else { continue };
                ports.insert(number, (mtls.mode, object.origin_at(&format!("spec.portLevelMtls[{port}]"))));
            }
        }
        // In the root namespace itself the policy of the mesh is also that of the namespace.
        let mut whole = Told { mode: Mode::Permissive, origin: None };
        for object in [mesh, of_namespace, workload].into_iter().flatten() {
            let Some(mode) = object.spec.mtls.and_then(|mtls| mode(mtls.mode)) else { continue };
            whole = Told { mode, origin: Some(object.origin_at("spec.mtls.mode")) };
        }
        let ports = ports.into_iter().map(|(number, (told, origin))| {
            let told = mode(told).map(|mode| Told { mode, origin: Some(origin) });
            (number, told.unwrap_or_else(|| whole.clone()))
        });
        Modes { ports: ports.collect(), whole }
    }

    /// What holds for a port of the workload, where no policy names the port for all of them.
    pub(super) fn of(&self, port: u16) -> &Told {
        self.ports.get(&port).unwrap_or(&self.whole)
    }

    /// What holds for ports that no policy names.
    pub(super) fn whole(&self) -> &Told {
        &self.whole
    }

    /// Finds policies that ask for mutual TLS, for a workload that has no identity to speak it with.
    pub(super) fn find_without_identity(&self, findings: &mut Findings) {
        let strict = self.ports.values().chain([&self.whole]).filter(|told| told.mode == Mode::Strict);
        let origins: Vec<&Origin> = strict.filter_map(|told| told.origin.as_ref()).collect();
        for origin in origins {
            let what =
                "it asks for mutual TLS, and this workload has no identity: its inbound traffic is refused";
            let remedy = "give it a certificate, or run with `--allow-unenforced-security`";
            let code = code::SECURITY_NOT_ENFORCED;
            findings.add_about(origin, Severity::Warning, code, what.to_owned(), remedy);
        }
    }

    /// The ports that a policy names.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }
}

/// The policies that are written in a namespace.
fn policies_of<'o>(
    scope: &Scope<'o>,
    namespace: &'o str,
) -> impl Iterator<Item = &'o Object<PeerAuthentication>> {
    let from: Key = (namespace.into(), "".into());
    let objects = scope.objects.peer_authentications.range(from..);
    objects.take_while(move |((of, _), _)| **of == *namespace).map(|(_, object)| &**object)
}

/// Whether any policy turns mutual TLS off anywhere.
pub(super) fn any_disables(scope: &Scope<'_>) -> bool {
    any_says(scope, MutualTlsMode::Disable)
}

/// Whether any policy asks for mutual TLS anywhere.
pub(super) fn any_is_strict(scope: &Scope<'_>) -> bool {
    any_says(scope, MutualTlsMode::Strict)
}

fn any_says(scope: &Scope<'_>, mode: MutualTlsMode) -> bool {
    scope.objects.peer_authentications.values().any(|object| {
        let spec = &object.spec;
        spec.mtls.iter().chain(spec.port_level_mtls.values()).any(|it| it.mode == mode)
    })
}

fn mode(told: MutualTlsMode) -> Option<Mode> {
    match told {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(Mode::Disable),
        MutualTlsMode::Permissive => Some(Mode::Permissive),
        MutualTlsMode::Strict => Some(Mode::Strict),
    }
}
