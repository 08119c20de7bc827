//! Where the identity of the workload comes from, as the environment of its container tells it. Semantics: the Istio agent's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::istio::GoDuration;
use xds_client::certificate::client::Address;
use xds_client::certificate::signing_request::KeyKind;

use super::environment::Variables;
use crate::app::{AuthorityRoots, IdentityFiles, IdentitySource, MeshAuthority};

/// Where the certificate of the workload's identity is, its key, and the roots of the mesh, in every directory of those.
const IDENTITY_FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];
/// Where an implementation of SPIFFE serves them, in this directory; and how the socket is called, when nobody says it
/// (`WORKLOAD_IDENTITY_SOCKET_FILE`).
const SPIFFE_SOCKETS: &str = "/var/run/secrets/workload-spiffe-uds";
const SPIFFE_SOCKET: &str = "socket";
/// Where an implementation of SPIFFE mounts them.
const SPIFFE_CREDENTIALS: &str = "/var/run/secrets/workload-spiffe-credentials";
/// Where they are mounted otherwise.
const MOUNTED_CERTIFICATES: &str = "/etc/certs";
/// The list of certificates that the authority of the mesh has revoked.
pub(super) const MESH_REVOKED: &str = "/var/run/secrets/istio/crl/ca-crl.pem";

/// Where the authority is when `CA_ADDR` does not say it.
const CA_ADDR: &str = "istiod.istio-system.svc:15012";
/// The roots of the mesh and of the authority, by who has issued its certificate (`PILOT_CERT_PROVIDER`).
const MESH_ROOTS: &str = "/var/run/secrets/istio/root-cert.pem";
const KUBERNETES_ROOTS: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const CUSTOM_ROOTS: &str = "/etc/certs/root-cert.pem";
/// The token that is for the authority, and that of the service account (`JWT_POLICY`).
const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How long a certificate is to hold (`SECRET_TTL`).
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// Part of its life that is left when it is renewed (`SECRET_GRACE_PERIOD_RATIO`), and how much more or less
/// (`SECRET_GRACE_PERIOD_RATIO_JITTER`), in thousandths.
const GRACE_PER_MILLE: u32 = 500;
const GRACE_JITTER_PER_MILLE: u32 = 10;

/// The files of an identity in a directory.
pub(super) fn in_directory(directory: &Path) -> IdentityFiles {
    let [chain, key, roots] = IDENTITY_FILES.map(|file| directory.join(file));
    IdentityFiles { chain, key, roots }
}

/// Where the identity of the workload comes from, in the order in which Istio's agent looks: the socket at which an
/// implementation of SPIFFE serves it, if it is there or named; what such a one mounts; what is mounted as `FILE_MOUNTED_CERTS` says or is there anyway; what another process leaves in the
/// directory `PROV_CERT`; the authority of the mesh, where `CA_ADDR` names it or a token for it is mounted; and without
/// one, what another process has left in the directory `OUTPUT_CERTS`. Directories that are told are waited for.
///
/// # Errors
///
/// When a variable says what weft cannot do: which one and why.
pub(super) fn source(
    variables: &Variables,
    is_there: &dyn Fn(&Path) -> bool,
) -> Result<Option<IdentitySource>, String> {
    let told = |name: &str| variables.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let of = |directory: &str| in_directory(Path::new(directory));
    let whole =
        |files: &IdentityFiles| [&files.chain, &files.key, &files.roots].iter().all(|it| is_there(it));
    let named = told("WORKLOAD_IDENTITY_SOCKET_FILE");
    let socket = Path::new(SPIFFE_SOCKETS).join(named.unwrap_or(SPIFFE_SOCKET));
    if named.is_some_and(|name| name.contains('/')) {
        return Err(bad(
            "WORKLOAD_IDENTITY_SOCKET_FILE",
            named.unwrap_or_default(),
            "the name of a file in /var/run/secrets/workload-spiffe-uds",
        ));
    }
    if named.is_some() || is_there(&socket) {
        return Ok(Some(IdentitySource::Socket(socket)));
    }
    let spiffe = of(SPIFFE_CREDENTIALS);
    if whole(&spiffe) {
        return Ok(Some(spiffe.into()));
    }
    let mut mounted = of(MOUNTED_CERTIFICATES);
    let parts = [
        ("ISTIO_META_TLS_CLIENT_CERT_CHAIN", &mut mounted.chain),
        ("ISTIO_META_TLS_CLIENT_KEY", &mut mounted.key),
        ("ISTIO_META_TLS_CLIENT_ROOT_CERT", &mut mounted.roots),
    ];
    for (name, path) in parts {
        if let Some(told) = told(name) {
            *path = told.into();
        }
    }
    for (name, path) in [
        ("ISTIO_META_TLS_SERVER_CERT_CHAIN", &mounted.chain),
        ("ISTIO_META_TLS_SERVER_KEY", &mounted.key),
        ("ISTIO_META_TLS_SERVER_ROOT_CERT", &mounted.roots),
    ] {
        if let Some(other) = told(name).filter(|told| Path::new(told) != path) {
            tracing::warn!(
                "{name}: {other} has no effect: clients are shown and believed as servers are, by {}",
                path.display()
            );
        }
    }
    if told("FILE_MOUNTED_CERTS") == Some("true") || whole(&mounted) {
        return Ok(Some(mounted.into()));
    }
    if let Some(provided) = told("PROV_CERT") {
        return Ok(Some(of(provided).into()));
    }
    if let Some(authority) = authority(&told, is_there)? {
        return Ok(Some(IdentitySource::Authority(Box::new(authority))));
    }
    Ok(told("OUTPUT_CERTS").map(of).filter(whole).map(Into::into))
}

/// The authority of the mesh, if there is one to ask.
fn authority<'v>(
    told: &dyn Fn(&str) -> Option<&'v str>,
    is_there: &dyn Fn(&Path) -> bool,
) -> Result<Option<MeshAuthority>, String> {
    if told("CA_ADDR").is_none() && !is_there(Path::new(TOKEN)) {
        return Ok(None);
    }
    let token = match told("JWT_POLICY") {
        None | Some("third-party-jwt") => TOKEN,
        Some("first-party-jwt") => ACCOUNT_TOKEN,
        Some(other) => return Err(bad("JWT_POLICY", other, "third-party-jwt or first-party-jwt")),
    };
    if let Some(provider) = told("CA_PROVIDER").filter(|provider| *provider != "Citadel") {
        return Err(bad("CA_PROVIDER", provider, "Citadel"));
    }
    let roots = match told("PILOT_CERT_PROVIDER") {
        None | Some("istiod") => MESH_ROOTS,
        Some("kubernetes") => KUBERNETES_ROOTS,
        Some("custom") => CUSTOM_ROOTS,
        Some(other) => return Err(bad("PILOT_CERT_PROVIDER", other, "istiod, kubernetes or custom")),
    };
    let believed_by = match told("CA_ROOT_CA") {
        None => AuthorityRoots::File(roots.into()),
        Some("SYSTEM") => AuthorityRoots::System,
        Some(path) => AuthorityRoots::File(path.into()),
    };
    let address = told("CA_ADDR").unwrap_or(CA_ADDR);
    let mut address = Address::parse(address).map_err(|why| format!("CA_ADDR: {why}"))?;
    address.server_name = told("ISTIOD_SAN").map(str::to_owned);
    let validity = match told("SECRET_TTL") {
        None => VALIDITY,
        Some(text) => match GoDuration::parse(text) {
            Ok(GoDuration(duration)) if duration.as_secs() > 0 => duration,
            _ => return Err(bad("SECRET_TTL", text, "a duration of a second or more, like 24h")),
        },
    };
    Ok(Some(MeshAuthority {
        address,
        believed_by,
        roots: roots.into(),
        token: token.into(),
        key: key_kind(told)?,
        validity,
        grace_per_mille: part(told, "SECRET_GRACE_PERIOD_RATIO", GRACE_PER_MILLE)?,
        grace_jitter_per_mille: part(told, "SECRET_GRACE_PERIOD_RATIO_JITTER", GRACE_JITTER_PER_MILLE)?,
        cluster_id: told("ISTIO_META_CLUSTER_ID").unwrap_or("Kubernetes").to_owned(),
        signer: told("ISTIO_META_CERT_SIGNER").unwrap_or_default().to_owned(),
        output: told("OUTPUT_CERTS").map(PathBuf::from),
    }))
}

/// Of which kind the key is. Istio's is RSA when nothing is said.
fn key_kind<'v>(told: &dyn Fn(&str) -> Option<&'v str>) -> Result<KeyKind, String> {
    match (told("ECC_SIGNATURE_ALGORITHM"), told("ECC_CURVE"), told("WORKLOAD_RSA_KEY_SIZE")) {
        (Some(algorithm), _, _) if algorithm != "ECDSA" => {
            Err(bad("ECC_SIGNATURE_ALGORITHM", algorithm, "ECDSA"))
        }
        (_, Some("P384"), _) => Ok(KeyKind::EcdsaP384),
        (_, Some(curve), _) if curve != "P256" => Err(bad("ECC_CURVE", curve, "P256 or P384")),
        (Some(_), _, _) | (_, Some(_), _) | (_, _, None) => Ok(KeyKind::EcdsaP256),
        (None, None, Some("2048")) => Ok(KeyKind::Rsa2048),
        (None, None, Some(size)) => Err(bad("WORKLOAD_RSA_KEY_SIZE", size, "2048")),
    }
}

/// A part of one, in thousandths.
fn part<'v>(told: &dyn Fn(&str) -> Option<&'v str>, name: &str, otherwise: u32) -> Result<u32, String> {
    let Some(text) = told(name) else { return Ok(otherwise) };
    let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
    let part = part.ok_or_else(|| bad(name, text, "a number from 0 to 1"))?;
    // From 0 to 1000: it is the nearest of those.
    Ok((0..=1000).min_by_key(|mille| (f64::from(*mille) - part * 1e3).abs().to_bits()).unwrap_or(otherwise))
}

fn bad(name: &str, text: &str, good: &str) -> String {
    format!("{name}: `{text}` is not what weft has; say {good}")
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;
