//! Secrets in files: those that TLS towards upstreams names by their paths, the roots of the operating system, and the
//! workload's own identity.
//!
//! Files are read when their marks differ from those of before. What is read is given on as it is: whether a certificate
//! and a key belong together is for the one who parses them, and who keeps what was there before when they do not. What
//! takes the place of something else is given on when all files have been quiet for a moment, because half of the roots is as
//! good to read as all of them, and whoever the other half vouches for would be parted with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use config::{
    ClientCertificates, FILE_CERTIFICATE, FILE_REVOKED, FILE_ROOTS, OWN_CERTIFICATE, OWN_ROOTS, PrivateKey,
    Resources, SYSTEM_ROOTS, Secret, SecretContent, TransportSocket, Trust,
};

use super::files::{Stamp, too_long};
use super::revoked::{RevokedFile, Seen};
use super::settle::Burst;
use super::watch::{Wanted, parent};

/// Where operating systems have the roots that they trust, the first that is there; those that Istio's agent knows.
const SYSTEM_ROOTS_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The link that Kubernetes changes when it swaps all files of a volume at once.
const VOLUME_LINK: &str = "..data";

/// How often files are read again that were swapped while they were read.
const SWAPS_MAX: usize = 5;

/// Where the identity of the workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Its certificate and those between it and a root, the leaf first.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The roots of the mesh.
    pub roots: PathBuf,
}

/// What the files hold that are named.
#[derive(Debug)]
pub(crate) struct SecretFiles {
    identity: Option<IdentityFiles>,
    /// The certificates that the mesh has revoked; `None` where nobody asks.
    revoked: Option<RevokedFile>,
    /// Files besides, whose content somebody asks for.
    besides: Vec<PathBuf>,
    /// Largest file that is read.
    file_bytes_max: u64,
    /// Names of secrets that are named by somebody.
    wanted: BTreeSet<Arc<str>>,
    /// What was read last, by path.
    read: BTreeMap<PathBuf, Known>,
    /// What of it counts, and the change that is not over yet.
    settled: BTreeMap<PathBuf, Known>,
    burst: Option<Burst>,
    secrets: BTreeMap<Arc<str>, Arc<Secret>>,
}

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    stamp: Option<Stamp>,
    /// Whether there is something, if only what cannot be read.
    is_there: bool,
    content: Result<Arc<[u8]>, Arc<str>>,
}

impl Known {
    /// Whether both say the same, whenever they were written.
    fn holds(&self, other: &Known) -> bool {
        self.is_there == other.is_there && self.content == other.content
    }
}

impl SecretFiles {
    /// With the identity of the workload, if it is in files, the list of what the mesh has revoked, which need not be there,
    /// and whatever is read `besides`; files have at most `file_bytes_max` bytes.
    pub(crate) fn new(
        identity: Option<IdentityFiles>,
        revoked: Option<PathBuf>,
        besides: Vec<PathBuf>,
        file_bytes_max: u64,
    ) -> SecretFiles {
        SecretFiles {
            identity,
            revoked: revoked.map(RevokedFile::new),
            besides,
            file_bytes_max,
            wanted: BTreeSet::new(),
            read: BTreeMap::new(),
            settled: BTreeMap::new(),
            burst: None,
            secrets: BTreeMap::new(),
        }
    }

    /// Takes over what `resources` name, and whether that is something else than before.
    pub(crate) fn want(&mut self, resources: &Resources) -> bool {
        let mut wanted = BTreeSet::new();
        let trusted = |trust: &Trust, wanted: &mut BTreeSet<Arc<str>>| {
            wanted.insert(trust.roots.clone());
            wanted.extend(trust.revoked.clone());
        };
        for tls in resources.clusters.values().flat_map(|cluster| cluster.sockets()) {
            let TransportSocket::Tls(tls) = tls else { continue };
            wanted.extend(tls.certificate.clone());
            tls.trust().into_iter().for_each(|trust| trusted(trust, &mut wanted));
        }
        for chain in resources.listeners.values().flat_map(|listener| listener.chains()) {
            let Some(tls) = &chain.tls else { continue };
            wanted.extend(tls.certificates.iter().cloned());
            let trust = ClientCertificates::trust(&tls.client_certificates);
            trust.into_iter().for_each(|trust| trusted(trust, &mut wanted));
        }
        let in_files = [FILE_CERTIFICATE, FILE_ROOTS, FILE_REVOKED];
        wanted.retain(|name| in_files.iter().any(|prefix| name.starts_with(prefix)));
        if self.identity.is_some() {
            wanted.extend([OWN_CERTIFICATE.into(), OWN_ROOTS.into()]);
        }
        let differs = wanted != self.wanted;
        self.wanted = wanted;
        differs
    }

    /// Reads what differs from what was read before, and whether any secret that counts does.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        let before = self.read.clone();
        self.read();
        self.settle(&before, now);
        let revoked_differs = self.look_at_revoked(now);
        let mut secrets = BTreeMap::new();
        for name in &self.wanted {
            let Some(content) = self.secret(name) else { continue };
            let secret = Secret { name: name.clone(), content, origin: None };
            let known = self.secrets.get(name).filter(|known| ***known == secret).cloned();
            secrets.insert(name.clone(), known.unwrap_or_else(|| Arc::new(secret)));
        }
        let differs = secrets != self.secrets;
        self.secrets = secrets;
        differs || revoked_differs
    }

    fn read(&mut self) {
        let paths: BTreeSet<PathBuf> = self.paths();
        for _ in 0..SWAPS_MAX {
            let mut read = BTreeMap::new();
            for path in &paths {
                let metadata = fs::metadata(path);
                let is_there =
                    metadata.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::NotFound);
                let stamp = metadata.ok().map(|metadata| Stamp::of(&metadata));
                // What could not be read may be readable now and look the same.
                let is_as_before = |known: &Known| known.stamp == stamp && known.content.is_ok();
                let known = self.read.remove(path).filter(is_as_before);
                let unknown = || Known { stamp, is_there, content: content(path, self.file_bytes_max) };
                read.insert(path.clone(), known.unwrap_or_else(unknown));
            }
            self.read = read;
            let is_still = |(path, known): (&PathBuf, &Known)| {
                fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata)) == known.stamp
            };
            if self.read.iter().all(is_still) {
                break;
            }
        }
    }

    /// Lets count what was read, where it is the first that was read of a file, or all files have been quiet.
    fn settle(&mut self, before: &BTreeMap<PathBuf, Known>, now: Instant) {
        let differs = |from: &BTreeMap<PathBuf, Known>| {
            let is_other =
                |(path, known): (&PathBuf, &Known)| from.get(path).is_some_and(|it| !it.holds(known));
            self.read.iter().any(is_other)
        };
        self.burst = match self.burst {
            _ if !differs(&self.settled) => None,
            Some(burst) if !differs(before) => Some(burst),
            burst => Some(Burst::with(burst, now)),
        };
        self.burst = self.burst.filter(|burst| now < burst.secrets_over());
        let counts = |(path, known): (&PathBuf, &Known)| {
            let held = self.settled.get(path).filter(|_| self.burst.is_some());
            (path.clone(), held.unwrap_or(known).clone())
        };
        self.settled = self.read.iter().map(counts).collect();
    }

    /// When they are to be looked at again, if not only when they change.
    pub(super) fn again(&self) -> Option<Instant> {
        let revoked = self.revoked.as_ref().and_then(RevokedFile::again);
        self.burst.map(Burst::secrets_over).into_iter().chain(revoked).min()
    }

    fn look_at_revoked(&mut self, now: Instant) -> bool {
        let Some(file) = &mut self.revoked else { return false };
        let known = self.settled.get(file.path());
        let seen: Seen = known.filter(|known| known.is_there).map(|known| known.content.clone());
        file.look(seen, now)
    }

    /// What is known of the certificates that the mesh has revoked.
    pub(super) fn revoked(&self) -> Option<&RevokedFile> {
        self.revoked.as_ref()
    }

    /// What one of the files besides holds, if it can be read.
    pub(super) fn content(&self, path: &Path) -> Option<&Arc<[u8]>> {
        self.settled.get(path)?.content.as_ref().ok()
    }

    /// These secrets as they hold: the mesh's roots with what the mesh has revoked.
    pub(crate) fn with_revoked<'s>(
        &self,
        secrets: impl Iterator<Item = &'s Arc<Secret>>,
    ) -> Vec<Arc<Secret>> {
        let with_revoked = |secret: &Arc<Secret>| match &self.revoked {
            Some(file) => file.beside(secret),
            None => secret.clone(),
        };
        secrets.map(with_revoked).collect()
    }

    /// What they hold now.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// Adds the directories of what is named to those that are watched.
    pub(crate) fn watch(&self, watched: &mut Wanted) {
        for path in self.paths() {
            // Few meshes mount a list, and what is mounted may come late: where there is no directory for it, the nearest
            // above tells when there is one.
            let mut path = path.as_path();
            while !parent(path).is_dir()
                && let Some(above) = path.parent().filter(|above| above.file_name().is_some())
            {
                path = above;
            }
            let names = watched.entry(parent(path).to_owned()).or_insert_with(|| Some(BTreeSet::new()));
            if let Some(names) = names {
                names.extend(path.file_name().map(ToOwned::to_owned));
                names.insert(VOLUME_LINK.into());
            }
        }
    }

    fn paths(&self) -> BTreeSet<PathBuf> {
        let named = self.wanted.iter().flat_map(|name| paths_of(name));
        let own = self.identity.iter().flat_map(|own| [&own.chain, &own.key, &own.roots]).cloned();
        let revoked = self.revoked.iter().map(|file| file.path().to_owned());
        named.chain(own).chain(revoked).chain(self.besides.iter().cloned()).collect()
    }

    fn secret(&self, name: &str) -> Option<Result<SecretContent, Arc<str>>> {
        let read = |path: &Path| -> Result<Arc<[u8]>, Arc<str>> {
            let known = self.settled.get(path).map(|known| known.content.clone());
            known.unwrap_or_else(|| Err(format!("{} is not there", path.display()).into()))
        };
        let certificate = |chain: &Path, key: &Path| {
            let key = PrivateKey::new(read(key)?);
            Ok(SecretContent::Certificate { chain: read(chain)?, key })
        };
        let roots = |path: &Path| {
            Ok(SecretContent::Roots { roots: read(path)?, revoked: None, besides: None, bundles: Vec::new() })
        };
        let own = self.identity.as_ref();
        Some(match name {
            OWN_CERTIFICATE => own.map(|own| certificate(&own.chain, &own.key))?,
            OWN_ROOTS => own.map(|own| roots(&own.roots))?,
            name => match paths_of(name).as_slice() {
                [chain, key] => certificate(chain, key),
                [path] if name.starts_with(FILE_ROOTS) => roots(path),
                [path] => read(path).map(|lists| SecretContent::Revoked { lists }),
                _ => Err("its name does not say which files it is in".into()),
            },
        })
    }
}

/// The files that the name of a secret names.
fn paths_of(name: &str) -> Vec<PathBuf> {
    if let Some(pair) = name.strip_prefix(FILE_CERTIFICATE) {
        return pair.split_once('~').map(|(chain, key)| vec![chain.into(), key.into()]).unwrap_or_default();
    }
    match name.strip_prefix(FILE_ROOTS) {
        Some(SYSTEM_ROOTS) => {
            vec![system_roots()]
        }
        Some(path) => vec![path.into()],
        None => name.strip_prefix(FILE_REVOKED).map(PathBuf::from).into_iter().collect(),
    }
}

/// Where the roots of the operating system are, or would be first.
pub(super) fn system_roots() -> PathBuf {
    let [first, ..] = SYSTEM_ROOTS_FILES;
    SYSTEM_ROOTS_FILES.into_iter().find(|path| Path::new(path).exists()).unwrap_or(first).into()
}

/// All of a file that has at most so many bytes; otherwise why it cannot be read.
pub(super) fn content(path: &Path, bytes_max: u64) -> Result<Arc<[u8]>, Arc<str>> {
    let refused = |why: String| Arc::<str>::from(format!("{} cannot be read: {why}", path.display()));
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    // What is too long is tried again whenever it is looked at.
    if file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > bytes_max) {
        return Err(refused(too_long(bytes_max).to_string()));
    }
    let mut bytes = Vec::new();
    let mut file = file.take(bytes_max.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(refused(too_long(bytes_max).to_string()));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time;

    const ROOTS: &str = "file-root:";

    #[test]
    fn what_takes_the_place_of_something_is_given_on_when_all_is_quiet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        fs::write(&path, "one, two").unwrap();
        let mut files = SecretFiles::new(None, None, Vec::new(), 1000);
        files.wanted.insert(format!("{ROOTS}{}", path.display()).into());
        let begin = time::now();
        let mut check = |at: u64, written: Option<&str>, differs: bool, again: Option<u64>, held: &str| {
            if let Some(text) = written {
                fs::write(&path, text).unwrap();
            }
            let after = |at| begin + Duration::from_millis(at);
            assert_eq!(files.look(after(at)), differs, "{at}");
            assert_eq!(files.again(), again.map(after), "{at}");
            let content = files.secrets().next().map(|secret| secret.content.clone());
            let Some(Ok(SecretContent::Roots { roots, .. })) = content else { panic!("{content:?}") };
            assert_eq!(&*roots, held.as_bytes(), "{at}");
        };
        // What was first is given on at once.
        check(0, None, true, None, "one, two");
        // As it was before, it never was anything else.
        check(10, Some("one"), false, Some(260), "one, two");
        check(60, Some("one, two"), false, None, "one, two");
        check(400, Some("on"), false, Some(650), "one, two");
        check(500, None, false, Some(650), "one, two");
        check(600, Some("one, three"), false, Some(850), "one, two");
        check(850, None, true, None, "one, three");
        // Who never stops writing is believed some time.
        check(1000, Some("four"), false, Some(1250), "one, three");
        check(1200, Some("fifth"), false, Some(1450), "one, three");
        check(1400, Some("sixteen"), false, Some(1650), "one, three");
        check(1600, Some("twenty one"), false, Some(1750), "one, three");
        check(1760, Some("twenty-four."), true, None, "twenty-four.");
    }

    #[test]
    fn where_there_is_no_directory_the_nearest_above_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("istio/crl/ca-crl.pem");
        let files = SecretFiles::new(None, Some(list.clone()), Vec::new(), 1000);
        let check = |path: &Path, name: &str| {
            let mut watched = Wanted::new();
            files.watch(&mut watched);
            let names = watched.remove(path).flatten().unwrap_or_default();
            assert!(names.contains(std::ffi::OsStr::new(name)), "{names:?}");
            assert!(watched.is_empty());
        };
        check(directory.path(), "istio");
        fs::create_dir_all(directory.path().join("istio/crl")).unwrap();
        check(parent(&list), "ca-crl.pem");
    }
}
