//! A root that issues certificates of workloads, kept in a directory or in memory. For demos, tests and meshes without
//! another authority: it revokes nothing, and whoever reads its key is everybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

use super::server::Refusal;
use crate::pem;

/// Its certificate and its key in a directory.
const ROOT_FILE: &str = "root-cert.pem";
const KEY_FILE: &str = "root-key.pem";

/// How long a root holds.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates hold since a little before they are issued: clocks differ. Istio: `ClockSkewGracePeriod`.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// A root and its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The leaf.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new root of that name, in memory alone.
    ///
    /// # Errors
    ///
    /// When none can be made.
    pub fn new(name: &str, now: SystemTime) -> Result<Authority, String> {
        Ok(Authority::generate(name, now)?.0)
    }

    /// That in a directory; a new one of that name is put there when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, or is broken: it is never replaced.
    pub fn open(directory: &Path, name: &str, now: SystemTime) -> Result<Authority, String> {
        let (root_file, key_file) = (directory.join(ROOT_FILE), directory.join(KEY_FILE));
        let told = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        match (fs::read(&root_file), fs::read(&key_file)) {
            (Ok(root), Ok(key)) => Authority::load(&root, &key)
                .map_err(|why| format!("the authority in {} cannot be used: {why}", directory.display())),
            (Err(root), Err(key))
                if [&root, &key].iter().all(|error| error.kind() == io::ErrorKind::NotFound) =>
            {
                let (authority, key) = Authority::generate(name, now)?;
                fs::create_dir_all(directory).map_err(|error| told(directory, &error))?;
                // The key first: a root without its key would be one that nobody can use and nobody may replace.
                write_new(&key_file, &key, 0o600).map_err(|error| told(&key_file, &error))?;
                write_new(&root_file, &authority.root, 0o644).map_err(|error| told(&root_file, &error))?;
                Ok(authority)
            }
            (Err(error), _) => Err(told(&root_file, &error)),
            (_, Err(error)) => Err(told(&key_file, &error)),
        }
    }

    fn generate(name: &str, now: SystemTime) -> Result<(Authority, String), String> {
        let told = |error: rcgen::Error| format!("no root can be made: {error}");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFE).into();
        let key = KeyPair::generate().map_err(told)?;
        let key_pem = pem::encode("PRIVATE KEY", key.serialized_der());
        let root = pem::encode("CERTIFICATE", params.self_signed(&key).map_err(told)?.der());
        Ok((Authority { issuer: Issuer::new(params, key), root }, key_pem))
    }

    fn load(root: &[u8], key: &[u8]) -> Result<Authority, String> {
        let certificate = CertificateDer::from_pem_slice(root).map_err(|_| "its root is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "its key is not PEM")?;
        // What the library says of a key is not told: it may quote it.
        let key = KeyPair::try_from(&key).map_err(|_| "its key is of no kind that weft has")?;
        let public = key.subject_public_key_info();
        if !certificate.windows(public.len()).any(|bytes| bytes == public) {
            return Err("its key is not that of its root".to_owned());
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| format!("its root cannot be read: {error}"))?;
        Ok(Authority { issuer, root: pem::encode("CERTIFICATE", &certificate) })
    }

    /// Its root, in PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// A certificate of `identity` for the key of a request, which may ask for that identity and no other.
    ///
    /// # Errors
    ///
    /// When the request is none, or for somebody else.
    pub fn sign(
        &self,
        csr: &str,
        identity: &str,
        validity: Duration,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let malformed = |why: &str| Refusal::Malformed(format!("the request cannot be read: {why}"));
        let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes())
            .map_err(|_| malformed("it is not PEM"))?;
        let request =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| malformed(&error.to_string()))?;
        let wanted = [SanType::URI(identity.try_into().map_err(|_| malformed("the identity is none"))?)];
        let asked = &request.params.subject_alt_names;
        if !asked.is_empty() && *asked != wanted {
            return Err(Refusal::Denied(format!("the request is not for {identity}, and the token is")));
        }
        let [name] = wanted;
        let params = leaf(vec![name], validity, now);
        let certificate = params.signed_by(&request.public_key, &self.issuer);
        let certificate = certificate.map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(pem::encode("CERTIFICATE", certificate.der()))
    }

    /// A certificate with a new key for a server of these names, which may be addresses.
    ///
    /// # Errors
    ///
    /// When one of them is none.
    pub fn server(&self, names: &[String], validity: Duration, now: SystemTime) -> Result<Issued, String> {
        let name = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        let told = |error: rcgen::Error| format!("no certificate of a server can be made: {error}");
        let names: Result<Vec<_>, _> = names.iter().map(name).collect();
        let params = leaf(names.map_err(told)?, validity, now);
        let key = KeyPair::generate().map_err(told)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(told)?;
        Ok(Issued {
            certificate: pem::encode("CERTIFICATE", certificate.der()),
            key: pem::encode("PRIVATE KEY", key.serialized_der()),
        })
    }
}

/// A certificate with an empty subject and these names, for clients and servers.
fn leaf(names: Vec<SanType>, validity: Duration, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity.min(ROOT_LIFE)).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Writes a file that is not there yet, and that nobody else sees half of.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::signing_request::{KeyKind, SigningRequest};
    use super::*;

    const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn it_signs_for_whom_the_token_is_and_nobody_else() {
        let authority = Authority::new("test", now()).unwrap();
        let life = Duration::from_secs(60);
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
            let request = SigningRequest::new(kind, IDENTITY).unwrap();
            let signed = authority.sign(&request.csr, IDENTITY, life, now()).unwrap();
            assert!(signed.starts_with("-----BEGIN CERTIFICATE-----"), "{signed}");
            let other = authority.sign(&request.csr, "spiffe://cluster.local/ns/a/sa/b", life, now());
            assert!(matches!(other, Err(Refusal::Denied(_))), "{other:?}");
        }
        let good = SigningRequest::new(KeyKind::EcdsaP256, IDENTITY).unwrap().csr;
        for bad in ["", "-----BEGIN", &good[..good.len() / 2], &good.replacen("MI", "MJ", 1)] {
            let refused = authority.sign(bad, IDENTITY, life, now());
            assert!(matches!(refused, Err(Refusal::Malformed(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn one_in_a_directory_stays_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca");
        let first = Authority::open(&path, "test", now()).unwrap();
        let again = Authority::open(&path, "other", now()).unwrap();
        assert_eq!(first.root(), again.root());
        let mode = fs::metadata(path.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        assert!(again.server(&names, Duration::from_secs(60), now()).is_ok());
        // One that is broken is not replaced.
        let other = Authority::generate("other", now()).unwrap().1;
        for bad in [other.as_str(), "", "-----BEGIN PRIVATE KEY-----"] {
            fs::write(path.join(KEY_FILE), bad).unwrap();
            let why = Authority::open(&path, "test", now()).unwrap_err();
            assert!(why.contains("cannot be used") && !why.contains("BEGIN"), "{why}");
        }
        fs::remove_file(path.join(KEY_FILE)).unwrap();
        assert!(Authority::open(&path, "test", now()).is_err());
        assert_eq!(fs::read_to_string(path.join(ROOT_FILE)).unwrap(), first.root());
    }
}
