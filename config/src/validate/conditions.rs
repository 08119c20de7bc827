//! What a match of a VirtualService asks of the place where it is used, not of what is routed: a port of the service, and the
//! workload that is a client of it. Sidecars decide it when rules are compiled.

use std::collections::BTreeMap;

use super::virtual_service::MESH_GATEWAY;
use crate::istio::{HttpMatchRequest, L4MatchAttributes, TlsMatchAttributes};

/// The conditions of one match; none by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conditions<'c> {
    port: Option<u32>,
    gateways: &'c [String],
    labels: Option<&'c BTreeMap<String, String>>,
    namespace: Option<&'c str>,
}

impl<'c> Conditions<'c> {
    /// Those of a match of requests. One that names gateways is asked no more, as with istiod.
    pub(crate) fn of_http(wanted: &'c HttpMatchRequest) -> Conditions<'c> {
        let (port, gateways) = (told(wanted.port), wanted.gateways.as_slice());
        if !gateways.is_empty() {
            return Conditions { port, gateways, ..Conditions::default() };
        }
        let namespace = wanted.source_namespace.as_deref();
        Conditions { port, gateways, labels: Some(&wanted.source_labels), namespace }
    }

    /// Those of a match of TCP.
    pub(crate) fn of_tcp(wanted: &'c L4MatchAttributes) -> Conditions<'c> {
        let namespace = wanted.source_namespace.as_deref();
        let labels = Some(&wanted.source_labels);
        Conditions { port: told(wanted.port), gateways: &wanted.gateways, labels, namespace }
    }

    /// Those of a match of TLS.
    pub(crate) fn of_tls(wanted: &'c TlsMatchAttributes) -> Conditions<'c> {
        let namespace = wanted.source_namespace.as_deref();
        let labels = Some(&wanted.source_labels);
        Conditions { port: told(wanted.port), gateways: &wanted.gateways, labels, namespace }
    }

    /// Whether they hold for a sidecar wherever `other` do.
    pub(crate) fn cover(&self, other: &Conditions<'_>) -> bool {
        self.are_for_sidecars() && other.are_for_sidecars() && self.cover_where_both_are(other)
    }

    /// Whether they hold wherever `other` do, for sidecars and gateways.
    pub(crate) fn cover_anywhere(&self, other: &Conditions<'_>) -> bool {
        (self.gateways.is_empty() || self.gateways == other.gateways) && self.cover_where_both_are(other)
    }

    /// The same, gateways left aside.
    fn cover_where_both_are(&self, other: &Conditions<'_>) -> bool {
        let has = |key: &String, value: &String| other.labels.is_some_and(|of| of.get(key) == Some(value));
        self.port.is_none_or(|port| other.port == Some(port))
            && self.namespace().is_none_or(|namespace| other.namespace() == Some(namespace))
            && self.labels.into_iter().flatten().all(|(key, value)| has(key, value))
    }

    /// Whether both may hold for one sidecar and one port.
    pub(crate) fn may_meet(&self, other: &Conditions<'_>) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        let other_label = |key: &String| other.labels.and_then(|labels| labels.get(key));
        self.are_for_sidecars()
            && other.are_for_sidecars()
            && agree(self.port, other.port)
            && agree(self.namespace(), other.namespace())
            && self.labels.into_iter().flatten().all(|(key, value)| agree(Some(value), other_label(key)))
    }

    fn are_for_sidecars(&self) -> bool {
        self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == MESH_GATEWAY)
    }

    fn namespace(&self) -> Option<&'c str> {
        self.namespace.filter(|namespace| !namespace.is_empty())
    }
}

/// No port, or 0, is every port.
pub(crate) fn told(port: Option<u32>) -> Option<u32> {
    port.filter(|port| *port != 0)
}
