//! The identity of the workload from the authority of the mesh: a key that is made here, a request for it, and the
//! certificate that comes back, again and again before it ends.
//!
//! The authority may be slow, gone or lie. What it answers is an identity only when its certificate is the workload's own and
//! leads to the roots that are mounted; those, and never what it answers, are what peers are believed by. The key does not
//! leave the process unless a directory for it is named. Semantics: Istio's agent.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{Limits, PrivateKey};
use xds_client::certificate::client::{self, Address, Question};
use xds_client::certificate::schedule::Schedule;
use xds_client::certificate::signing_request::{KeyKind, SigningRequest};

use super::pushed::{Identity, Pusher, bounds, rule, wall};
use super::secret_files::{content, system_roots};
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, Shard};
use crate::time;
use crate::tls::{Flaw, FlawKind, Verified};

/// Certificates of an answer at least: the workload's own and a root.
const CERTIFICATES_MIN: usize = 2;

/// How long it waits at most before it asks the clock again, which may have been set.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How the workload's certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshAuthority {
    /// Where the authority is.
    pub address: Address,
    /// By which roots it is believed.
    pub believed_by: AuthorityRoots,
    /// The roots of the mesh.
    pub roots: PathBuf,
    /// The token by which the authority knows the workload; it is read for each request.
    pub token: PathBuf,
    /// Of which kind the key is.
    pub key: KeyKind,
    /// How long a certificate is to hold. The authority may decide otherwise.
    pub validity: Duration,
    /// Part of the life that is left when it is renewed, in thousandths.
    pub grace_per_mille: u32,
    /// How much more or less that is, at random.
    pub grace_jitter_per_mille: u32,
    /// The cluster that the proxy is of; empty for none.
    pub cluster_id: String,
    /// Who is to sign; empty for whoever does by default.
    pub signer: String,
    /// Directory that each identity is written to, with its key.
    pub output: Option<PathBuf>,
}

/// Roots by which an authority is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityRoots {
    /// Those in a file.
    File(PathBuf),
    /// Those of the operating system.
    System,
}

/// Why there is no new certificate: as metrics name it, and in words.
type Trouble = (&'static str, String);

/// Asks whenever it is time, until the proxy is gone.
pub(super) async fn follow(
    authority: MeshAuthority,
    pusher: Pusher,
    limits: Limits,
    registry: Arc<Registry>,
) {
    let (mut wanted, mut mounted) = (pusher.wanted(), pusher.mounted());
    let mut source = Source::new(authority, limits, registry);
    loop {
        let name = wanted.borrow_and_update().clone();
        let wait = source.schedule.wait(wall());
        // Nothing is asked for before it is known for whom.
        source.revoked.clone_from(&mounted.borrow().revoked);
        let wait = match name {
            Some(name) if wait.is_zero() => {
                tokio::select! {
                    () = pusher.closed() => return,
                    () = source.renew(&name, &pusher) => continue,
                }
            }
            Some(_) => wait,
            None => WAIT_MAX,
        };
        let due = (time::now() + wait.min(WAIT_MAX)).into();
        tokio::select! {
            () = pusher.closed() => return,
            changed = wanted.changed() => match changed {
                Ok(()) => source.schedule.at_once(wall()),
                Err(_) => return,
            },
            changed = mounted.changed() => match changed {
                Ok(()) => {
                    source.revoked.clone_from(&mounted.borrow_and_update().revoked);
                    source.look_at_roots(&pusher);
                }
                Err(_) => return,
            },
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

/// Roots, and lists of what is revoked.
type Strange = (Arc<[u8]>, Option<Arc<[u8]>>);

struct Source {
    authority: MeshAuthority,
    limits: Limits,
    schedule: Schedule,
    /// What was handed on last, and whose it is.
    held: Option<(Identity, Arc<str>)>,
    /// What the mesh has revoked, as it was last good.
    revoked: Option<Arc<[u8]>>,
    /// What is held has been looked at with these lists.
    looked_at_with: Option<Arc<[u8]>>,
    /// Roots, and lists, by which what is held is not believed.
    strange: Option<Strange>,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
}

impl Source {
    fn new(authority: MeshAuthority, limits: Limits, registry: Arc<Registry>) -> Source {
        let [part, jitter] =
            [authority.grace_per_mille, authority.grace_jitter_per_mille].map(|mille| f64::from(mille) / 1e3);
        let schedule = Schedule::new(rule(&limits, part, jitter), wall());
        let shard = registry.shard();
        Source {
            authority,
            limits,
            schedule,
            held: None,
            revoked: None,
            looked_at_with: None,
            strange: None,
            shard,
            registry,
        }
    }

    /// Asks once, and hands on what came or says why nothing did.
    async fn renew(&mut self, name: &Arc<str>, pusher: &Pusher) {
        let obtained = Box::pin(self.obtain(name)).await;
        let (now, random) = (wall(), RandomState::new().hash_one(name));
        match obtained {
            Ok((identity, verified)) => {
                let ends = Duration::from_secs(u64::try_from(verified.ends).unwrap_or(0));
                self.schedule.issued(ends, now, random);
                pusher.renews_at(SystemTime::UNIX_EPOCH + self.schedule.due());
                self.write_out(&identity);
                self.strange = None;
                self.looked_at_with.clone_from(&self.revoked);
                self.held = Some((identity.clone(), name.clone()));
                pusher.push(identity);
            }
            Err((reason, why)) => {
                self.shard.increment(self.registry.series(Family::IdentityFailures, &[reason]));
                self.schedule.failed(now, random);
                pusher.renews_at(SystemTime::UNIX_EPOCH + self.schedule.due());
                pusher.fails(why);
            }
        }
    }

    async fn obtain(&self, name: &Arc<str>) -> Result<(Identity, Verified), Trouble> {
        let MeshAuthority { address, validity, cluster_id, signer, key, .. } = &self.authority;
        let roots = self.content(&self.authority.roots).map_err(|why| ("roots", why.to_string()))?;
        let believed_by = match &self.authority.believed_by {
            AuthorityRoots::File(path) if *path == self.authority.roots => Ok(roots.clone()),
            AuthorityRoots::File(path) => self.content(path),
            AuthorityRoots::System => self.content(&system_roots()),
        };
        let believed_by = believed_by.map_err(|why| ("roots", why.to_string()))?;
        let token = self.token()?;
        let (kind, of) = (*key, name.clone());
        // A key of RSA takes its time, and this thread has others to serve.
        let made = tokio::task::spawn_blocking(move || SigningRequest::new(kind, &of)).await;
        let request = made.map_err(|error| error.to_string()).and_then(|made| made);
        let request = request.map_err(|why| ("request", why))?;
        let question = Question {
            csr: &request.csr,
            validity: *validity,
            token: &token,
            cluster_id,
            signer,
            roots: &believed_by,
            answer_bytes_max: usize::try_from(self.limits.identity_bytes_max).unwrap_or(usize::MAX),
            time_max: Duration::from_millis(self.limits.ca_answer_time_max_ms),
        };
        let answer = client::ask(address, question).await;
        let chain = answer.map_err(|failure| (failure.kind.name(), failure.why))?;
        if chain.len() < CERTIFICATES_MIN {
            let why =
                format!("it answered with {} certificates, and there must be a root besides", chain.len());
            return Err(("answer", why));
        }
        // Each on lines of its own, whether or not it ends its last one.
        let chain = chain.iter().flat_map(|pem| [pem.trim_end(), "\n"]).collect::<String>();
        let identity = Identity {
            chain: chain.into_bytes().into(),
            key: PrivateKey::new(request.key.into_bytes()),
            roots,
            // What the mesh has revoked is mounted beside it, wherever an identity comes from.
            revoked: None,
            bundles: Vec::new(),
        };
        match self.verify(&identity, name) {
            Ok(verified) => Ok((identity, verified)),
            Err(flaw) => Err((flaw.kind.name(), format!("what it answered is refused, because {flaw}"))),
        }
    }

    fn content(&self, path: &Path) -> Result<Arc<[u8]>, Arc<str>> {
        content(path, self.limits.file_bytes())
    }

    fn token(&self) -> Result<String, Trouble> {
        let bytes = self.content(&self.authority.token).map_err(|why| ("token", why.to_string()))?;
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Err(("token", format!("{} holds no token", self.authority.token.display())));
        }
        Ok(text.to_owned())
    }

    /// Checks an identity by its roots and by what the mesh has revoked, whose size is bounded where it is read.
    fn verify(&self, identity: &Identity, name: &str) -> Result<Verified, Flaw> {
        let mut bounds = bounds(&self.limits);
        let bytes = self.revoked.as_ref().map_or(0, |lists| lists.len() as u64);
        bounds.bytes_max = bounds.bytes_max.saturating_add(bytes);
        Identity { revoked: self.revoked.clone(), ..identity.clone() }.verify(name, bounds)
    }

    /// Hands on what is held with other roots when those that are mounted have changed. When it does not lead to them, or the
    /// mesh has revoked it, a new certificate is asked for at once, and what is held stays until it comes; of roots that it does
    /// not lead to, those before do, too.
    fn look_at_roots(&mut self, pusher: &Pusher) {
        let Some((held, name)) = &self.held else { return };
        let Ok(roots) = self.content(&self.authority.roots) else { return };
        let is_known = |(strange, revoked): &(Arc<[u8]>, _)| *strange == roots && *revoked == self.revoked;
        if (held.roots == roots && self.looked_at_with == self.revoked)
            || self.strange.as_ref().is_some_and(is_known)
        {
            return;
        }
        let roots_differ = held.roots != roots;
        let identity = Identity { roots: roots.clone(), ..held.clone() };
        let name = name.clone();
        match self.verify(&identity, &name) {
            Ok(_) => {
                self.looked_at_with.clone_from(&self.revoked);
                self.strange = None;
            }
            Err(flaw) => {
                let what =
                    if roots_differ { "the roots of the mesh have" } else { "what the mesh has revoked has" };
                tracing::info!("{what} changed, and a new identity is asked for: {flaw}");
                self.strange = Some((roots, self.revoked.clone()));
                self.schedule.at_once(wall());
                // Its end says nothing of roots, nor does who revoked it: whom the mesh believes no longer waits for no renewal.
                if !matches!(flaw.kind, FlawKind::Expired | FlawKind::NotYetValid | FlawKind::Revoked) {
                    return;
                }
            }
        }
        if roots_differ {
            self.write_out(&identity);
            self.held = Some((identity.clone(), name));
            pusher.push(identity);
        }
    }

    /// Writes an identity where it is asked for. That it cannot be written is no reason not to use it.
    fn write_out(&self, identity: &Identity) {
        let Some(directory) = &self.authority.output else { return };
        if let Err(error) = write_out(directory, identity) {
            self.shard.increment(self.registry.series(Family::IdentityFailures, &["output"]));
            tracing::warn!("the identity cannot be written to {}: {error}", directory.display());
        }
    }
}

/// Writes chain, key and roots, each put in its place when it is whole.
fn write_out(directory: &Path, identity: &Identity) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let files = [
        ("key.pem", identity.key.pem(), 0o600),
        ("cert-chain.pem", &*identity.chain, 0o644),
        ("root-cert.pem", &*identity.roots, 0o644),
    ];
    let draft = |name: &str| directory.join(format!(".{name}.draft"));
    for (name, bytes, mode) in files {
        let draft = draft(name);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // New, so that nobody has it open, and it has the mode from the first byte on.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    files.iter().try_for_each(|(name, _, _)| fs::rename(draft(name), directory.join(name)))
}
