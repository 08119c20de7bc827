//! Which kinds there are, in which groups and versions, and what weft does with each.

use super::suggest;
use crate::finding::code;

/// A kind that weft reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespace,
    Node,
    Service,
    EndpointSlice,
    Pod,
    Secret,
    VirtualService,
    DestinationRule,
    ProxyConfig,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    Sidecar,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
}

impl Kind {
    /// Whether its objects are in a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Namespace | Kind::Node)
    }

    /// Whether it is Istio's, and read strictly.
    pub(crate) fn is_istio(self) -> bool {
        !matches!(
            self,
            Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Secret
        )
    }

    /// Whether its objects guard the inbound traffic of workloads.
    pub(crate) fn guards_inbound(self) -> bool {
        matches!(self, Kind::PeerAuthentication | Kind::RequestAuthentication | Kind::AuthorizationPolicy)
    }
}

/// What weft does with a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recognized {
    /// Reads it.
    Read(Kind),
    /// Knows it, but does not honour it yet.
    NotHonoured,
    /// Skips it: it is not for a proxy.
    Skipped,
    /// Refuses it: it looks like one of these and is none.
    Refused {
        /// Which kind it is for all that, where only its version is none; otherwise it is not known which object it is.
        is: Option<Versioned>,
        /// One of [`code`].
        code: &'static str,
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A kind that is known, in a version that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versioned {
    /// One that weft reads.
    Read(Kind),
    /// One that weft does not honour yet.
    NotHonoured,
}

/// One kind of Istio's.
struct IstioKind {
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    is: Recognized,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const OTHER: Recognized = Recognized::NotHonoured;

/// All kinds that Istio 1.32 serves, with their versions.
const ISTIO: &[IstioKind] = &[
    istio(NETWORKING, "VirtualService", ALL, Recognized::Read(Kind::VirtualService)),
    istio(NETWORKING, "DestinationRule", ALL, Recognized::Read(Kind::DestinationRule)),
    istio(NETWORKING, "Gateway", ALL, Recognized::Read(Kind::Gateway)),
    istio(NETWORKING, "ServiceEntry", ALL, Recognized::Read(Kind::ServiceEntry)),
    istio(NETWORKING, "WorkloadEntry", ALL, Recognized::Read(Kind::WorkloadEntry)),
    istio(NETWORKING, "WorkloadGroup", ALL, OTHER),
    istio(NETWORKING, "Sidecar", ALL, Recognized::Read(Kind::Sidecar)),
    istio(NETWORKING, "EnvoyFilter", &["v1alpha3"], OTHER),
    istio(NETWORKING, "ProxyConfig", &["v1beta1"], Recognized::Read(Kind::ProxyConfig)),
    istio(SECURITY, "PeerAuthentication", &["v1", "v1beta1"], Recognized::Read(Kind::PeerAuthentication)),
    istio(
        SECURITY,
        "RequestAuthentication",
        &["v1", "v1beta1"],
        Recognized::Read(Kind::RequestAuthentication),
    ),
    istio(SECURITY, "AuthorizationPolicy", &["v1", "v1beta1"], Recognized::Read(Kind::AuthorizationPolicy)),
    istio("telemetry.istio.io", "Telemetry", &["v1", "v1alpha1"], OTHER),
    istio("extensions.istio.io", "WasmPlugin", &["v1alpha1"], OTHER),
    istio("extensions.istio.io", "TrafficExtension", &["v1alpha1"], OTHER),
];

impl IstioKind {
    fn remedy(&self) -> String {
        format!("write `apiVersion: {}/{}`", self.group, self.versions.first().unwrap_or(&"v1"))
    }
}

/// The kinds of Kubernetes' that weft reads, with their versions.
const KUBERNETES: &[(&str, &str, Kind)] = &[
    ("v1", "Namespace", Kind::Namespace),
    ("v1", "Node", Kind::Node),
    ("v1", "Service", Kind::Service),
    ("v1", "Pod", Kind::Pod),
    ("v1", "Secret", Kind::Secret),
    ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
];

const fn istio(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    is: Recognized,
) -> IstioKind {
    IstioKind { group, kind, versions, is }
}

/// What weft does with objects of that version and kind.
pub(crate) fn recognize(api_version: &str, kind: &str) -> Recognized {
    if let Some((_, _, read)) = KUBERNETES.iter().find(|known| (known.0, known.1) == (api_version, kind)) {
        return Recognized::Read(*read);
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group.ends_with(".istio.io") {
        return recognize_istio(group, version, kind);
    }
    // A kind of Istio's without its group, and a core kind that is misspelt: skipped, its object would be gone.
    if let Some(known) = ISTIO.iter().find(|known| known.kind == kind)
        && (group.is_empty() || group.contains("istio"))
    {
        let what = format!("`{api_version}` has no kind `{kind}`");
        return Recognized::Refused { is: None, code: code::UNKNOWN_KIND, what, remedy: known.remedy() };
    }
    let near = KUBERNETES.iter().filter(|known| known.0 == api_version && group.is_empty());
    let near: Vec<_> = near.map(|known| known.1).collect();
    match suggest::nearest(kind, &near) {
        Some(near) => {
            let what = format!("Kubernetes has no kind `{kind}` in `{api_version}`");
            let remedy = format!("did you mean `{near}`?");
            Recognized::Refused { is: None, code: code::UNKNOWN_KIND, what, remedy }
        }
        None => Recognized::Skipped,
    }
}

fn recognize_istio(group: &str, version: &str, kind: &str) -> Recognized {
    let Some(known) = ISTIO.iter().find(|known| known.group == group && known.kind == kind) else {
        let kinds: Vec<_> = ISTIO.iter().map(|known| known.kind).collect();
        let elsewhere = ISTIO.iter().find(|known| known.kind == kind);
        let remedy = elsewhere.map_or_else(|| suggest::remedy(kind, &kinds), IstioKind::remedy);
        let what = format!("Istio has no kind `{kind}` in `{group}`");
        return Recognized::Refused { is: None, code: code::UNKNOWN_KIND, what, remedy };
    };
    if !known.versions.contains(&version) {
        let what = format!("Istio does not serve {kind} as `{version}`");
        let is = match known.is {
            Recognized::Read(kind) => Some(Versioned::Read(kind)),
            Recognized::NotHonoured => Some(Versioned::NotHonoured),
            Recognized::Skipped | Recognized::Refused { .. } => None,
        };
        return Recognized::Refused { is, code: code::UNKNOWN_VERSION, what, remedy: known.remedy() };
    }
    known.is.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_recognized() {
        let check = |api_version: &str, kind: &str, expected: Recognized| {
            assert_eq!(recognize(api_version, kind), expected, "{api_version} {kind}");
        };
        check("v1", "Service", Recognized::Read(Kind::Service));
        check("networking.istio.io/v1alpha3", "VirtualService", Recognized::Read(Kind::VirtualService));
        check("networking.istio.io/v1beta1", "DestinationRule", Recognized::Read(Kind::DestinationRule));
        check("security.istio.io/v1", "AuthorizationPolicy", Recognized::Read(Kind::AuthorizationPolicy));
        check("networking.istio.io/v1alpha3", "EnvoyFilter", OTHER);
        check("apps/v1", "Deployment", Recognized::Skipped);
        check("v1", "ConfigMap", Recognized::Skipped);
        check("gateway.networking.k8s.io/v1", "Gateway", Recognized::Skipped);
        check("discovery.k8s.io/v1beta1", "EndpointSlice", Recognized::Skipped);
        for kind in ["ServiceAccount", "PodTemplate", "Endpoints", "Event", "LimitRange", "ConfigMap"] {
            check("v1", kind, Recognized::Skipped);
        }
    }

    #[test]
    fn what_looks_like_one_of_these_and_is_none_is_refused() {
        let check = |api_version: &str, kind: &str, expected_code: &str, expected_remedy: &str| {
            let Recognized::Refused { code, remedy, .. } = recognize(api_version, kind) else {
                panic!("{api_version} {kind} is not refused");
            };
            assert_eq!((code, remedy.as_str()), (expected_code, expected_remedy), "{api_version} {kind}");
        };
        let v1 = "networking.istio.io/v1";
        check(v1, "VirtualServce", code::UNKNOWN_KIND, "did you mean `VirtualService`?");
        check(v1, "PeerAuthentication", code::UNKNOWN_KIND, "write `apiVersion: security.istio.io/v1`");
        check(v1, "EnvoyFilter", code::UNKNOWN_VERSION, "write `apiVersion: networking.istio.io/v1alpha3`");
        check(
            "networking.istio.io/v2",
            "Gateway",
            code::UNKNOWN_VERSION,
            "write `apiVersion: networking.istio.io/v1`",
        );
    }
}
