//! Where a chain terminates TLS: with which certificates, whom it lets in, and so whether this client gets behind it.

use std::time::{Duration, SystemTime};

use config::{ClientCertificates, DownstreamTls, OWN_CERTIFICATE, TlsVersion};
use http::HeaderValue;

use super::question::{Hello, Understood};
use super::{Step, World, transport};
use crate::snapshot::Listener;
use crate::tls::{AlternativeName, Certificate, Server, Shows};

/// What a time is told in that is at least twice as long, and else in seconds.
const UNITS: [(u64, &str); 3] = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];

/// What the filters of a chain get of a client.
pub(super) struct Behind {
    /// Whether TLS was terminated.
    pub(super) tls: bool,
    /// Whether they see what the client says, and not the TLS that hides it.
    pub(super) is_understood: bool,
    /// What `x-forwarded-client-cert` says of the client.
    pub(super) certificate: Option<HeaderValue>,
}

/// Makes the handshake, where the chain terminates TLS; otherwise why nothing becomes of the connection.
pub(super) fn terminate(
    world: &World<'_>,
    asked: &Understood,
    listener: &Listener,
    chain: Option<usize>,
    steps: &mut Vec<Step>,
) -> Result<Behind, &'static str> {
    let Some(server) = chain.and_then(|chain| listener.tls(chain)) else {
        return Ok(Behind { tls: false, is_understood: asked.hello.is_none(), certificate: None });
    };
    let mut step = told(world, server.declared(), Some(server));
    let Some(hello) = &asked.hello else {
        step.steps
            .push(Step::new("handshake", "fails, because what comes is no TLS: the connection is closed"));
        steps.push(step);
        return Err("malformed");
    };
    let outcome = match server.admits(&hello.shows) {
        Ok(()) => {
            step.steps.push(Step::new("handshake", succeeds(server, hello)));
            Ok(Behind { tls: true, is_understood: true, certificate: server.forwards(&hello.shows) })
        }
        Err(reason) => {
            let what = format!("fails, because {}: the connection is closed", refusal(&hello.shows, reason));
            step.steps.push(Step::new("handshake", what));
            Err(reason)
        }
    };
    steps.push(step);
    outcome
}

/// Tells what a chain would terminate TLS with that is closed.
pub(super) fn tell_unused(
    world: &World<'_>,
    listener: &Listener,
    chain: Option<usize>,
    steps: &mut Vec<Step>,
) {
    let declared = chain.and_then(|chain| listener.declared.chains().nth(chain));
    if let Some(tls) = declared.and_then(|chain| chain.tls.as_ref()) {
        steps.push(told(world, tls, None));
    }
}

fn succeeds(server: &Server, hello: &Hello) -> String {
    let agreed = match server.agrees_on(&hello.protocols) {
        Some(protocol) => format!("it agrees on {protocol}"),
        None => "no protocol is agreed on by ALPN".to_owned(),
    };
    let shown = match (&server.declared().client_certificates, &hello.shows) {
        (ClientCertificates::NotAsked, _) => String::new(),
        (_, Shows::Nothing) => "; the client shows no certificate".to_owned(),
        (_, Shows::Chain(_)) => "; the client's certificate is verified".to_owned(),
        (_, Shows::Identity(identity)) => {
            format!("; the client is {identity}, taken to be signed by one who is believed")
        }
    };
    format!("succeeds, and {agreed}{shown}")
}

fn refusal(shows: &Shows, reason: &str) -> String {
    match shows {
        Shows::Nothing => format!("the client shows no certificate ({reason})"),
        Shows::Chain(_) => format!("the client's certificate is not believed ({reason})"),
        Shows::Identity(identity) => format!("{identity} is not let in ({reason})"),
    }
}

/// How a chain terminates TLS; `server` is what does, if something can.
fn told(world: &World<'_>, tls: &DownstreamTls, server: Option<&Server>) -> Step {
    let mode = match &tls.client_certificates {
        _ if tls.certificates.iter().any(|name| **name == *OWN_CERTIFICATE) => "ISTIO_MUTUAL",
        ClientCertificates::NotAsked => "SIMPLE",
        ClientCertificates::Optional(_) => "OPTIONAL_MUTUAL",
        ClientCertificates::Required(_) => "MUTUAL",
    };
    let versions = match (tls.version_min, tls.version_max) {
        (TlsVersion::V1_2, TlsVersion::V1_2) => "TLS 1.2",
        (TlsVersion::V1_3, TlsVersion::V1_3) => "TLS 1.3",
        _ => "TLS 1.2 or 1.3",
    };
    let what = format!("is terminated, {mode}: {versions}, {}", tls.alpn.join(" or "));
    let mut step = Step::new("tls", what).by(tls.origin.as_deref());
    let shown = server.map(Server::shown);
    for name in &tls.certificates {
        let known = shown.iter().flat_map(|shown| &shown.chain).find(|shown| *shown.secret == **name);
        let what = match known {
            Some(known) => format!("`{name}`, {}", of_certificate(known)),
            None if server.is_some() => format!("`{name}`, the workload's own, which is taken to be there"),
            None => format!("`{name}`, which cannot be used"),
        };
        step.steps.push(Step::new("certificate", what).by(world.snapshot.secrets.origin(name)));
    }
    let (must, trust) = match &tls.client_certificates {
        ClientCertificates::NotAsked => {
            step.steps.push(Step::new("client", "is not asked for a certificate"));
            return step;
        }
        ClientCertificates::Optional(trust) => ("may", trust),
        ClientCertificates::Required(trust) => ("must", trust),
    };
    let names = transport::named(&trust.subject_alt_names);
    let known = match trust.fingerprints.len() {
        0 => String::new(),
        1 => ", with one fingerprint".to_owned(),
        count => format!(", with one of {count} fingerprints"),
    };
    let what = format!("{must} show a certificate that `{}` signed{names}{known}", trust.roots);
    step.steps.push(Step::new("client", what).by(world.snapshot.secrets.origin(&trust.roots)));
    step
}

/// Whose it is, and until when it holds.
fn of_certificate(certificate: &Certificate) -> String {
    let names: Vec<&str> = certificate
        .names
        .iter()
        .map(|name| match name {
            AlternativeName::Dns(name) | AlternativeName::Uri(name) | AlternativeName::Ip(name) => &**name,
        })
        .collect();
    let names = if names.is_empty() { "nobody by name".to_owned() } else { names.join(", ") };
    match certificate.expiration.duration_since(now()) {
        Ok(left) => format!("for {names}; it holds for {}", told_time(left)),
        Err(_) => format!("for {names}; it holds no longer"),
    }
}

fn told_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = UNITS.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    let (unit, name) = unit.unwrap_or((1, "seconds"));
    format!("{} {name}", seconds / unit)
}

fn now() -> SystemTime {
    crate::time::wall()
}
