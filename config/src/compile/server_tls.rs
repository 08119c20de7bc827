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
    ClientCertificates, DownstreamTls, PrivateKey, Secret, SecretContent, StringMatch, TlsVersion, Trust,
};

/// How istiod calls a secret that is a Secret.
const KUBERNETES: &str = "kubernetes://";
/// What it adds for the one with the roots, and what the Secret is called that has them alone.
pub(super) const ROOTS_SUFFIX: &str = "-cacert";
/// What a gateway offers, whether it speaks HTTP behind TLS or passes bytes on.
const ALPN: [&str; 2] = ["h2", "http/1.1"];
/// What istiod allows for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A name of the values that a Secret may have.
type Value = fn(&SecretData) -> &Option<crate::kubernetes::Sensitive>;

/// How TLS is terminated as `told`; otherwise why it cannot be.
pub(super) fn downstream(told: &ServerTlsSettings) -> Result<DownstreamTls, String> {
    let is = |given: &Option<String>| given.as_deref().is_some_and(|text| !text.is_empty());
    if is(&told.server_certificate)
        || is(&told.private_key)
        || is(&told.ca_certificates)
        || !told.tls_certificates.is_empty()
    {
        return Err("certificates in files are not read yet".to_owned());
    }
    if is(&told.ca_crl)
        || told.insecure_skip_verify == Some(true)
        || !told.verify_certificate_spki.is_empty()
        || !told.verify_certificate_hash.is_empty()
    {
        return Err("it asks for a verification of clients that is not made yet".to_owned());
    }
    let names: Vec<&str> =
        told.credential_name.iter().chain(&told.credential_names).map(|name| &**name).collect();
    let mut certificates = Vec::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        certificates.push(secret_name(name)?);
    }
    let Some(first) = certificates.first() else {
        return Err("`credentialName` is missing".to_owned());
    };
    let trust = || -> Result<Trust, String> {
        let own = told.ca_cert_credential_name.as_deref().filter(|name| !name.is_empty());
        let roots = match own {
            Some(name) => {
                format!("{}{ROOTS_SUFFIX}", secret_name(name)?.trim_end_matches(ROOTS_SUFFIX)).into()
            }
            None => format!("{first}{ROOTS_SUFFIX}").into(),
        };
        let names = told.subject_alt_names.iter();
        let subject_alt_names = names.map(|name| StringMatch::Exact(name.as_str().into())).collect();
        Ok(Trust { roots, revoked: None, subject_alt_names })
    };
    let client_certificates = match told.mode {
        ServerTlsMode::Mutual => ClientCertificates::Required(trust()?),
        ServerTlsMode::OptionalMutual => ClientCertificates::Optional(trust()?),
        ServerTlsMode::Simple => ClientCertificates::NotAsked,
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough | ServerTlsMode::IstioMutual => {
            return Err("TLS of this mode is not terminated".to_owned());
        }
    };
    let version = |told: &Option<String>, default| match told.as_deref() {
        None | Some("" | "TLS_AUTO") => Ok(default),
        Some("TLSV1_2") => Ok(TlsVersion::V1_2),
        Some("TLSV1_3") => Ok(TlsVersion::V1_3),
        Some(other) => Err(format!("{other} is not spoken")),
    };
    let version_min = version(&told.min_protocol_version, TlsVersion::V1_2)?;
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
        alpn: ALPN.map(Arc::from).to_vec(),
        handshake_timeout: Some(HANDSHAKE_TIMEOUT),
    })
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
            Ok(SecretContent::Roots { roots: roots.into(), revoked })
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
