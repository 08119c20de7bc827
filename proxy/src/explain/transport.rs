//! What carries the bytes to an endpoint, and who says so: a DestinationRule, or else what the endpoint itself takes.

use std::net::SocketAddr;

use config::compile::{Behind, mutual_tls_of_pod};
use config::origin::Origin;
use config::{ServerCertificate, Setting, StringMatch, ToldBy, TransportSocket, UpstreamTls};

use super::whereabouts::behind;
use super::{Step, World};
use crate::http::error::Refusal;
use crate::snapshot::{Cluster, Endpoint, Transport};

/// Label of a pod whose sidecar takes mutual TLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// Names that are told of a list.
const NAMES_TOLD_MAX: usize = 3;

/// What is spoken: the mode, the name that is asked for, what is shown, and who is believed.
fn spoken(tls: &UpstreamTls) -> String {
    let mut text = format!("{:?} TLS", tls.mode);
    match (&*tls.sni, tls.by_request.sni) {
        ("", true) => text.push_str(" to the server that the request names"),
        ("", false) => {}
        (sni, _) => text.push_str(&format!(" to the server {sni}")),
    }
    if let Some(certificate) = &tls.certificate {
        text.push_str(&format!(", with the certificate {certificate}"));
    }
    match &tls.server {
        ServerCertificate::Any => text.push_str("; anybody is believed"),
        ServerCertificate::Refused(why) => text.push_str(&format!("; {why}")),
        ServerCertificate::Verified(trust) => {
            text.push_str(&format!("; believed by {}", trust.roots));
            if tls.by_request.name {
                text.push_str(" with the name of the request");
            }
            text.push_str(&named(&trust.subject_alt_names));
        }
    }
    text
}

/// The names of which a certificate has one.
pub(super) fn named(names: &[StringMatch]) -> String {
    let told = names.iter().take(NAMES_TOLD_MAX).map(|name| match name {
        StringMatch::Exact(name) => name.to_string(),
        StringMatch::Prefix(prefix) => format!("{prefix}*"),
        StringMatch::SafeRegex(regex) => format!("{regex} as a regular expression"),
    });
    let told: Vec<String> = told.collect();
    match names.len().saturating_sub(told.len()) {
        _ if told.is_empty() => String::new(),
        0 => format!(" as {}", told.join(" or ")),
        more => format!(" as {} or {more} more", told.join(", ")),
    }
}

/// Whether the bytes can be carried there.
pub(super) fn reachable(
    world: &World<'_>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    steps: &mut Vec<Step>,
) -> Result<SocketAddr, Refusal> {
    let (what, refusal) = match &endpoint.transport {
        Transport::Plain => {
            let declared = cluster.declared.socket_for(&endpoint.metadata);
            let what = match declared {
                TransportSocket::Tls(tls) => {
                    format!("plain text, though {:?} TLS is asked for: --allow-unenforced-security", tls.mode)
                }
                TransportSocket::RawBuffer => "plain text".to_owned(),
            };
            (what, None)
        }
        Transport::Tls(client) => (spoken(client.declared()), None),
        Transport::Unusable(why) => {
            (format!("TLS that cannot be spoken: {why}"), Some(Refusal::tls_unusable(false)))
        }
        Transport::TlsNotEnforced(mode) => {
            let what = format!(
                "{mode:?} TLS, for which this workload has no identity: --allow-unenforced-security sends plain text, and \
                 `explain` tells by --assume-identity what one with an identity does"
            );
            (what, Some(Refusal::TlsNotEnforced(*mode)))
        }
    };
    let (why, origin) = because(world, cluster, endpoint);
    let step = Step::new("transport", format!("{what}{why}"));
    steps.push(match origin {
        Some(_) => step.by(origin.as_ref()),
        None => step,
    });
    refusal.map_or(Ok(endpoint.address), Err)
}

/// Why it is that transport, and the object that makes it so.
fn because(world: &World<'_>, cluster: &Cluster, endpoint: &Endpoint) -> (String, Option<Origin>) {
    let metadata = &cluster.declared.metadata;
    if metadata.told.by(Setting::Tls) == ToldBy::Object {
        return (", as `tls.mode` says".to_owned(), metadata.origin_of(Setting::Tls).cloned());
    }
    if let TransportSocket::Tls(tls) = cluster.declared.socket_for(&endpoint.metadata)
        && let Some(origin) = &tls.origin
    {
        return (String::new(), Some((**origin).clone()));
    }
    if metadata.external {
        return (", as it is outside of the mesh".to_owned(), world.service_of(&cluster.declared));
    }
    if cluster.declared.transport_socket_matches.is_empty() {
        return (String::new(), world.service_of(&cluster.declared));
    }
    let Behind { pod, origin } = behind(world, cluster, &[endpoint]).pop().unwrap_or_default();
    let Some(pod) = pod else {
        let takes = if endpoint.metadata.tls_mode.is_some() {
            "takes mutual TLS"
        } else {
            "is known to have no sidecar"
        };
        return (
            format!(", as the endpoint {takes}"),
            origin.or_else(|| world.service_of(&cluster.declared)),
        );
    };
    let of_pod = (&**pod.namespace(), &**pod.name());
    let mode = mutual_tls_of_pod(world.objects, world.proxy, of_pod, endpoint.address.port());
    let (mode, policy) = mode.map_or(("", None), |mode| (mode.mode, mode.origin));
    match (&endpoint.metadata.tls_mode, policy) {
        (None, Some(policy)) if mode == "DISABLE" => {
            (", as the endpoint takes no mutual TLS: mode DISABLE".to_owned(), Some(policy))
        }
        (None, _) => {
            (format!(", as the endpoint has no sidecar: its pod has no label {TLS_MODE}"), Some(pod.origin()))
        }
        (Some(_), Some(policy)) => (
            format!("; the endpoint takes mutual TLS: its pod has the label {TLS_MODE}, mode {mode}"),
            Some(policy),
        ),
        (Some(_), None) => {
            let why = format!(
                "; the endpoint takes mutual TLS: its pod has the label {TLS_MODE}, mode {mode} (Istio default)"
            );
            (why, Some(pod.origin()))
        }
    }
}
