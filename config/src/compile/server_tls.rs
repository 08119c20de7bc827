//! TLS that servers of a Gateway terminate: with which certificates, and whose they believe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Scope;
use crate::istio::{ServerTlsMode, ServerTlsSettings};
use crate::kubernetes::SecretData;
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::{
    ClientCertificates, DownstreamTls, FILE_CERTIFICATE, FILE_REVOKED, FILE_ROOTS, Fingerprint, PrivateKey,
    Secret, SecretContent, StringMatch, TlsVersion, Trust,
};

/// How istiod calls a secret that is a Secret.
const KUBERNETES: &str = "kubernetes://";
/// What it adds for the one with the roots, and what the Secret is called that has them alone.
pub(super) const ROOTS_SUFFIX: &str = "-cacert";
/// What a gateway offers, whether it speaks HTTP behind TLS or passes bytes on.
const ALPN: [&str; 2] = ["h2", "http/1.1"];
/// What it speaks first of all where bytes of the mesh are passed on.
const PEER_EXCHANGE: &str = "istio-peer-exchange";
/// What istiod allows for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A name of the values that a Secret may have.
type Value = fn(&SecretData) -> &Option<crate::kubernetes::Sensitive>;

/// What a server speaks behind TLS that it terminates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// HTTP.
    Http,
    /// Bytes that nobody understands.
    Bytes,
}

/// How TLS is terminated as `asking` has `told`; otherwise why it cannot be.
pub(super) fn downstream(
    scope: &Scope<'_>,
    told: &ServerTlsSettings,
    asking: &Origin,
    behind: Behind,
) -> Result<DownstreamTls, String> {
    let is_mutual = told.mode == ServerTlsMode::IstioMutual;
    let (certificates, roots) = match is_mutual {
        true => {
            let (certificate, roots) = scope.mutual.names();
            (vec![certificate.clone()], Some(roots.clone()))
        }
        false => shown(told)?,
    };
    let trust = || trust(told, roots);
    let client_certificates = match told.mode {
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => ClientCertificates::Required(trust()?),
        ServerTlsMode::OptionalMutual => ClientCertificates::Optional(trust()?),
        ServerTlsMode::Simple => ClientCertificates::NotAsked,
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            return Err("TLS of this mode is not terminated".to_owned());
        }
    };
    let version = |told: &Option<String>, default| match told.as_deref() {
        None | Some("" | "TLS_AUTO") => Ok(default),
        Some("TLSV1_2") => Ok(TlsVersion::V1_2),
        Some("TLSV1_3") => Ok(TlsVersion::V1_3),
        Some(other) => Err(format!("{other} is not spoken")),
    };
    // Istio: with the identity of the workload, versions and suites are those of the mesh.
    let told = if is_mutual { &ServerTlsSettings::default() } else { told };
    let of_mesh = scope.mesh.mutual_tls_version_min.filter(|_| is_mutual);
    let version_min = version(&told.min_protocol_version, of_mesh.unwrap_or(TlsVersion::V1_2))?;
    let version_max = version(&told.max_protocol_version, TlsVersion::V1_3)?;
    if version_min > version_max {
        return Err("the oldest version is newer than the newest".to_owned());
    }
    Ok(DownstreamTls {
        certificates,
        client_certificates,
        version_min,
        version_max,
        cipher_suites: told.cipher_suites.iter().map(|suite| suite.as_str().into()).collect(),
        alpn: match (is_mutual, behind) {
            (true, Behind::Bytes) => [PEER_EXCHANGE].iter().chain(&ALPN).copied().map(Arc::from).collect(),
            _ => ALPN.map(Arc::from).to_vec(),
        },
        handshake_timeout: Some(HANDSHAKE_TIMEOUT),
        forwards_certificate: true,
        origin: Some(Box::new(asking.clone())),
    })
}

/// Names of the secrets with what is shown, and of the one with the roots of clients.
type Named = (Vec<Arc<str>>, Option<Arc<str>>);

/// The names of the secrets with what is shown, in Secrets or else in files, and of the one with the roots of clients.
fn shown(told: &ServerTlsSettings) -> Result<Named, String> {
    let names: Vec<&str> =
        told.credential_name.iter().chain(&told.credential_names).map(|it| &**it).collect();
    let names: Result<Vec<_>, _> =
        names.into_iter().filter(|name| !name.is_empty()).map(secret_name).collect();
    let names = names?;
    if let Some(first) = names.first() {
        let roots = match given_text(&told.ca_cert_credential_name) {
            Some(name) => format!("{}{ROOTS_SUFFIX}", secret_name(name)?.trim_end_matches(ROOTS_SUFFIX)),
            None => format!("{first}{ROOTS_SUFFIX}"),
        };
        return Ok((names, Some(roots.into())));
    }
    let pairs: Vec<(&Option<String>, &Option<String>)> = match told.tls_certificates.as_slice() {
        [] => vec![(&told.server_certificate, &told.private_key)],
        several => several.iter().map(|it| (&it.server_certificate, &it.private_key)).collect(),
    };
    let file = |(chain, key)| match (given_text(chain), given_text(key)) {
        // Nothing else tells one path from the other.
        (Some(chain), Some(key)) if !chain.contains('~') && !key.contains('~') => {
            Ok(format!("{FILE_CERTIFICATE}{chain}~{key}").into())
        }
        (Some(_), Some(_)) => Err("the path of a certificate has a `~`".to_owned()),
        _ => Err("neither `credentialName` nor `serverCertificate` and `privateKey` are there".to_owned()),
    };
    let certificates = pairs.into_iter().map(file).collect::<Result<_, String>>()?;
    Ok((certificates, given_text(&told.ca_certificates).map(|path| format!("{FILE_ROOTS}{path}").into())))
}

/// Whose certificates are believed. Istio leaves fingerprints and the list of revoked certificates out where certificates
/// are in files, or in Secrets; here both always count.
fn trust(told: &ServerTlsSettings, roots: Option<Arc<str>>) -> Result<Trust, String> {
    if told.insecure_skip_verify == Some(true) {
        return Err("it asks for clients that are not verified".to_owned());
    }
    let fingerprints = (told.verify_certificate_hash.iter().map(|it| Fingerprint::of_certificate(it)))
        .chain(told.verify_certificate_spki.iter().map(|it| Fingerprint::of_public_key(it)));
    let fingerprints: Option<Vec<_>> = fingerprints.collect();
    let names = told.subject_alt_names.iter();
    Ok(Trust {
        roots: roots.ok_or("`caCertificates` is missing")?,
        revoked: given_text(&told.ca_crl).map(|path| format!("{FILE_REVOKED}{path}").into()),
        subject_alt_names: names.map(|name| StringMatch::Exact(name.as_str().into())).collect(),
        fingerprints: fingerprints.ok_or("a fingerprint of a certificate cannot be read")?,
    })
}

fn given_text(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// istiod's name of the Secret that an object calls so.
pub(super) fn secret_name(told: &str) -> Result<Arc<str>, String> {
    let name = told.strip_prefix(KUBERNETES).unwrap_or(told);
    if name.contains('/') {
        return Err(format!("`{told}` is not the name of a Secret in the namespace of the proxy"));
    }
    Ok(format!("{KUBERNETES}{name}").into())
}

/// Adds the secrets that `tls` names, as `asking` asks for them. Istio: they are in the namespace of the workload.
pub(super) fn collect(
    scope: &Scope<'_>,
    tls: &DownstreamTls,
    asking: &Origin,
    secrets: &mut BTreeMap<Arc<str>, Secret>,
) {
    let trusted = tls.client_certificates.trust().map(|trust| &trust.roots);
    collect_named(scope, (&tls.certificates, trusted), asking, secrets);
}

/// Adds the secrets of these names, of certificates and of roots, that are in objects, as `asking` asks for them.
pub(super) fn collect_named<'n>(
    scope: &Scope<'_>,
    (certificates, trusted): (impl IntoIterator<Item = &'n Arc<str>>, Option<&'n Arc<str>>),
    asking: &Origin,
    secrets: &mut BTreeMap<Arc<str>, Secret>,
) {
    for name in certificates.into_iter().filter(|name| name.starts_with(KUBERNETES)) {
        secrets.entry(name.clone()).or_insert_with(|| certificate(scope, name, asking));
    }
    if let Some(name) = trusted.filter(|name| name.starts_with(KUBERNETES)) {
        secrets.entry(name.clone()).or_insert_with(|| roots(scope, name, asking));
    }
}

fn find<'s>(scope: &Scope<'s>, name: &str) -> Option<&'s Object<crate::kubernetes::Secret>> {
    let key = (scope.proxy.namespace.clone(), Arc::from(name));
    scope.objects.secrets.get(&key).map(|object| &**object)
}

fn missing(scope: &Scope<'_>, name: &str) -> Arc<str> {
    format!("there is no Secret {name} in namespace {}", scope.proxy.namespace).into()
}

fn certificate(scope: &Scope<'_>, name: &Arc<str>, asking: &Origin) -> Secret {
    let own = name.strip_prefix(KUBERNETES).unwrap_or(name);
    let Some(object) = find(scope, own) else {
        return Secret {
            name: name.clone(),
            content: Err(missing(scope, own)),
            origin: Some(asking.clone()),
        };
    };
    let either = |names: [(&str, Value); 2]| one_of(object, &names);
    let content = either([("tls.crt", |it| &it.tls_crt), ("cert", |it| &it.cert)]).and_then(|chain| {
        let key = either([("tls.key", |it| &it.tls_key), ("key", |it| &it.key)])?;
        Ok(SecretContent::Certificate { chain: chain.into(), key: PrivateKey::new(key) })
    });
    Secret { name: name.clone(), content, origin: Some(object.origin()) }
}

/// The Secret of that name, or else the one with the certificate.
fn roots(scope: &Scope<'_>, name: &Arc<str>, asking: &Origin) -> Secret {
    let own = name.strip_prefix(KUBERNETES).unwrap_or(name);
    let beside = own.trim_end_matches(ROOTS_SUFFIX);
    let Some(object) = find(scope, own).or_else(|| find(scope, beside)) else {
        let content = Err(format!("{}, and no {own} either", missing(scope, beside)).into());
        return Secret { name: name.clone(), content, origin: Some(asking.clone()) };
    };
    let content =
        one_of(object, &[("ca.crt", |it| &it.ca_crt), ("cacert", |it| &it.cacert)]).and_then(|roots| {
            let lists: [(&str, Value); 2] = [("ca.crl", |it| &it.ca_crl), ("crl", |it| &it.crl)];
            let revoked = given(object, &lists)?.map(Into::into);
            Ok(SecretContent::Roots { roots: roots.into(), revoked, besides: None, bundles: Vec::new() })
        });
    Secret { name: name.clone(), content, origin: Some(object.origin()) }
}

/// The first of these values that the Secret has.
fn given(
    object: &Object<crate::kubernetes::Secret>,
    names: &[(&str, Value)],
) -> Result<Option<Vec<u8>>, Arc<str>> {
    for (name, value) in names {
        match object.spec.value(value) {
            Ok(Some(value)) => return Ok(Some(value)),
            Ok(None) => {}
            Err(_) => return Err(format!("`data` has a `{name}` that is not base64").into()),
        }
    }
    Ok(None)
}

fn one_of(object: &Object<crate::kubernetes::Secret>, names: &[(&str, Value)]) -> Result<Vec<u8>, Arc<str>> {
    given(object, names)?.ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("it has no `{}`", names.join("` and no `")).into()
    })
}
