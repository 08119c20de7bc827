//! The identity of the workload where it is not read from files: a source hands it on, whole, whenever it has a new one.
//!
//! What is handed on is treated as files are that changed: checked, and taken only when all of it is good; what was last
//! good stays otherwise. Before the first came, nothing is published.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::finding::{Finding, Severity, code};
use config::{Limits, OWN_CERTIFICATE, OWN_ROOTS, PrivateKey, Secret, SecretContent, TrustBundle};
use tokio::sync::watch;
use xds_client::certificate::schedule::Rule;

use super::authority::{self, MeshAuthority};
use super::secret_files::IdentityFiles;
use super::socket;
use super::status::IdentityState;
use crate::telemetry::metrics::Family;
use crate::telemetry::{Registry, Shard};
use crate::time;
use crate::tls::{Bounds, Flaw, FlawKind, Unusable, Verified, Whole};

/// Where the identity of the workload comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// Files, which are watched.
    Files(IdentityFiles),
    /// The authority of the mesh, which is asked.
    Authority(Box<MeshAuthority>),
    /// A socket of this machine, at which somebody serves it: SPIRE's agent, say.
    Socket(PathBuf),
    /// Somebody who hands it on.
    Pushed(PushedIdentity),
}

impl From<IdentityFiles> for IdentitySource {
    fn from(files: IdentityFiles) -> IdentitySource {
        IdentitySource::Files(files)
    }
}

impl IdentitySource {
    /// The roots of the mesh, where those are in a file beside a source that is not one.
    pub(super) fn mesh_roots(&self) -> Option<&PathBuf> {
        match self {
            IdentitySource::Authority(authority) => Some(&authority.roots),
            IdentitySource::Files(_) | IdentitySource::Socket(_) | IdentitySource::Pushed(_) => None,
        }
    }

    /// The files, if it is files.
    pub(super) fn files(&self) -> Option<&IdentityFiles> {
        match self {
            IdentitySource::Files(files) => Some(files),
            IdentitySource::Authority(_) | IdentitySource::Socket(_) | IdentitySource::Pushed(_) => None,
        }
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentitySource::Files(files) => write!(f, "the files {} and beside it", files.chain.display()),
            IdentitySource::Authority(authority) => write!(f, "the authority {}", authority.address),
            IdentitySource::Socket(path) => write!(f, "the socket {}", path.display()),
            IdentitySource::Pushed(pushed) => f.write_str(&pushed.from),
        }
    }
}

/// A whole identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, the leaf first, in PEM.
    pub chain: Arc<[u8]>,
    /// The key of the leaf.
    pub key: PrivateKey,
    /// The roots of the mesh, in PEM.
    pub roots: Arc<[u8]>,
    /// Lists of revoked certificates, in PEM.
    pub revoked: Option<Arc<[u8]>>,
    /// Roots by trust domain, where those are told apart.
    pub bundles: Vec<TrustBundle>,
}

impl Identity {
    /// As secrets: the certificate and the roots.
    fn secrets(&self) -> [Secret; 2] {
        let Identity { chain, key, roots, revoked, bundles } = self.clone();
        let secret = |name: &str, content| Secret { name: name.into(), content: Ok(content), origin: None };
        [
            secret(OWN_CERTIFICATE, SecretContent::Certificate { chain, key }),
            secret(OWN_ROOTS, SecretContent::Roots { roots, revoked, besides: None, bundles }),
        ]
    }

    /// Checks it by its own roots, and that it is that of `name`.
    pub(super) fn verify(&self, name: &str, bounds: Bounds) -> Result<Verified, Flaw> {
        verify(&self.secrets(), Some(name), bounds)
    }
}

fn verify([certificate, roots]: &[Secret; 2], name: Option<&str>, bounds: Bounds) -> Result<Verified, Flaw> {
    Whole { certificate, roots }.verify(name, bounds, time::wall())
}

/// What of an identity is looked at.
pub(super) fn bounds(limits: &Limits) -> Bounds {
    Bounds { bytes_max: limits.identity_bytes_max, chain_max: limits.identity_certificates_max }
}

/// By which rule a source is asked; these parts of a life are left when it is renewed.
pub(super) fn rule(limits: &Limits, grace_part: f64, grace_jitter: f64) -> Rule {
    Rule {
        grace_part,
        grace_jitter,
        retry_min: Duration::from_millis(limits.ca_retry_min_ms),
        retry_max: Duration::from_millis(limits.ca_retry_max_ms.max(limits.ca_retry_min_ms)),
    }
}

/// The time of day, since 1970, as schedules count it.
pub(super) fn wall() -> Duration {
    time::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What a source says: the identity that it has, and what hinders it from having a newer one.
#[derive(Debug, Clone, Default)]
struct Said {
    identity: Option<Arc<Identity>>,
    trouble: Option<Arc<str>>,
    renewal: Option<SystemTime>,
}

/// What is mounted beside an identity that is handed on, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// The roots of the mesh, if they can be read.
    pub(super) roots: Option<Arc<[u8]>>,
    /// The last good lists of what the mesh has revoked.
    pub(super) revoked: Option<Arc<[u8]>>,
}

/// The end of a source.
#[derive(Debug)]
pub struct Pusher {
    says: watch::Sender<Said>,
    wanted: watch::Receiver<Option<Arc<str>>>,
    mounted: watch::Receiver<Mounted>,
}

/// The end of the proxy.
#[derive(Debug, Clone)]
pub struct PushedIdentity {
    from: Arc<str>,
    said: watch::Receiver<Said>,
    wanted: Arc<watch::Sender<Option<Arc<str>>>>,
    mounted: Arc<watch::Sender<Mounted>>,
}

impl PartialEq for PushedIdentity {
    fn eq(&self, other: &PushedIdentity) -> bool {
        self.said.same_channel(&other.said)
    }
}

impl Eq for PushedIdentity {}

impl PushedIdentity {
    /// A source, called `from` where operators read of it, and the end that the proxy is given.
    pub fn new(from: impl Into<Arc<str>>) -> (Pusher, PushedIdentity) {
        let (says, said) = watch::channel(Said::default());
        let (tells, wanted) = watch::channel(None);
        let (mounts, mounted) = watch::channel(Mounted::default());
        let pushed =
            PushedIdentity { from: from.into(), said, wanted: Arc::new(tells), mounted: Arc::new(mounts) };
        (Pusher { says, wanted, mounted }, pushed)
    }
}

impl Pusher {
    /// Hands on an identity. It replaces the one before, if it is good; whatever hindered is over.
    pub fn push(&self, identity: Identity) {
        self.says.send_modify(|said| {
            said.identity = Some(Arc::new(identity));
            said.trouble = None;
        });
    }

    /// There is no newer identity, and why.
    pub fn fails(&self, why: impl Into<Arc<str>>) {
        self.says.send_modify(|said| said.trouble = Some(why.into()));
    }

    /// Whether it is this identity that was handed on last.
    pub(super) fn has_pushed(&self, identity: &Identity) -> bool {
        self.says.borrow().identity.as_deref() == Some(identity)
    }

    /// Nothing hinders it any more, and what it handed on last is what there is.
    pub(super) fn works(&self) {
        self.says.send_modify(|said| said.trouble = None);
    }

    /// When the next is asked for.
    pub fn renews_at(&self, at: SystemTime) {
        self.says.send_modify(|said| said.renewal = Some(at));
    }

    /// The SPIFFE identity that the workload is to have; `None` before the proxy knows who it stands beside. It may change.
    pub fn wanted(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.wanted.clone()
    }

    /// What is mounted beside the identity. It may change.
    pub(super) fn mounted(&self) -> watch::Receiver<Mounted> {
        self.mounted.clone()
    }

    /// Waits until the proxy is gone.
    pub async fn closed(&self) {
        self.says.closed().await;
    }
}

/// What the control thread holds of a source that hands on identities.
pub(super) struct Pushed {
    source: Option<PushedIdentity>,
    bounds: Bounds,
    /// What was handed on last, good or not.
    last: Option<Arc<Identity>>,
    /// The last that was good.
    held: Option<[Arc<Secret>; 2]>,
    /// The certificate that is shown: that of the last good one that is the workload's, too.
    shown: Option<Arc<Secret>>,
    /// The roots of the last, if that was not.
    refused_roots: Option<Arc<Secret>>,
    /// Why the last was not, and what of it.
    flaw: Option<(Flaw, &'static str)>,
    /// What turned out to be wrong with the certificate that is held, as far as that is not told by `flaw`.
    refused: Option<FlawKind>,
    /// What hinders the source.
    trouble: Option<Arc<str>>,
    /// Why what the mesh has revoked cannot be read now, if it cannot.
    revoked_trouble: Option<Arc<str>>,
    registry: Arc<Registry>,
    shard: Arc<Shard>,
}

impl Pushed {
    /// Of that source, if it is one that hands on. The authority is asked from now on, by a task of this thread.
    pub(super) fn new(source: Option<&IdentitySource>, limits: &Limits, registry: &Arc<Registry>) -> Pushed {
        let source = match source {
            Some(IdentitySource::Pushed(source)) => Some(source.clone()),
            Some(source @ IdentitySource::Authority(authority)) => {
                let (pusher, pushed) = PushedIdentity::new(source.to_string());
                let (limits, registry) = (limits.clone(), registry.clone());
                let asking = authority::follow((**authority).clone(), pusher, limits, registry);
                tokio::task::spawn_local(asking);
                Some(pushed)
            }
            Some(source @ IdentitySource::Socket(path)) => {
                let (pusher, pushed) = PushedIdentity::new(source.to_string());
                let following = socket::follow(path.clone(), pusher, limits.clone(), registry.clone());
                tokio::task::spawn_local(following);
                Some(pushed)
            }
            Some(IdentitySource::Files(_)) | None => None,
        };
        Pushed {
            source,
            bounds: bounds(limits),
            last: None,
            held: None,
            shown: None,
            refused_roots: None,
            flaw: None,
            refused: None,
            trouble: None,
            revoked_trouble: None,
            shard: registry.shard(),
            registry: registry.clone(),
        }
    }

    /// The workload is to have this identity.
    pub(super) fn want(&self, identity: &str) {
        let Some(source) = &self.source else { return };
        source.wanted.send_if_modified(|wanted| {
            let differs = wanted.as_deref() != Some(identity);
            if differs {
                *wanted = Some(identity.into());
            }
            differs
        });
    }

    /// This is mounted beside it now, and that hinders reading what the mesh has revoked, if something does.
    pub(super) fn tell(&mut self, mounted: Mounted, trouble: Option<Arc<str>>) {
        if trouble.is_some() && trouble != self.revoked_trouble {
            self.shard.increment(self.registry.series(Family::IdentityFailures, &["revocation_list"]));
        }
        self.revoked_trouble = trouble;
        let Some(source) = &self.source else { return };
        source.mounted.send_if_modified(|known| {
            let differs = *known != mounted;
            *known = mounted;
            differs
        });
    }

    /// Waits until the source says something. It may be dropped at any time and called again: nothing is lost.
    pub(super) async fn changed(&mut self) {
        if let Some(source) = &mut self.source
            && source.said.changed().await.is_ok()
        {
            return;
        }
        // One that has ended has said all; what there is of it stays.
        std::future::pending::<()>().await;
    }

    /// Takes what the source said, and whether anything follows from it.
    pub(super) fn look(&mut self) -> bool {
        let Some(source) = &mut self.source else { return false };
        let Said { identity, trouble, renewal } = source.said.borrow_and_update().clone();
        if let Some(at) = renewal {
            let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.shard.set_gauge(self.registry.series(Family::IdentityRenewal, &[]), seconds);
        }
        let mut differs = self.trouble != trouble;
        self.trouble = trouble;
        if let Some(identity) = identity
            && self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &identity))
        {
            differs = true;
            self.take(&identity);
            self.last = Some(identity);
        }
        differs
    }

    fn take(&mut self, identity: &Identity) {
        let secrets = identity.secrets();
        match verify(&secrets, None, self.bounds) {
            Ok(verified) => {
                tracing::info!(identity = verified.name, ends = verified.ends, "the identity is renewed");
                self.flaw = None;
            }
            Err(flaw) => {
                self.shard.increment(self.registry.series(Family::IdentityFailures, &[flaw.kind.name()]));
                // Its roots and lists count, as those in files do, where it is the certificate that is shown: that brings what it
                // always did, though it is revoked now or has come to its end. It is the source's last word with the workload's
                // own certificate, whatever came with others since. Any other would take the place of a better one.
                let is_shown = self.shown.as_ref().is_some_and(|shown| secrets[0] == **shown);
                let counts = is_shown
                    && [FlawKind::Revoked, FlawKind::Expired, FlawKind::NotYetValid].contains(&flaw.kind);
                let of = if counts { "the certificate that it handed on" } else { "what it handed on" };
                self.flaw = Some((flaw, of));
                if !counts {
                    let [_, roots] = secrets;
                    self.refused_roots = self.held.is_some().then(|| Arc::new(roots));
                    return;
                }
            }
        }
        self.refused = None;
        self.refused_roots = None;
        self.held = Some(secrets.map(Arc::new));
    }

    /// What may be used of it: a certificate and roots that belong together.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.held.iter().flatten()
    }

    /// The roots that came since with an identity that is refused by itself.
    pub(super) fn refused_roots(&self) -> Option<&Arc<Secret>> {
        self.refused_roots.as_ref()
    }

    /// How many bytes an identity may have at most.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bounds.bytes_max
    }

    /// Whether somebody hands it on, and it is not in files.
    pub(super) fn is_handed_on(&self) -> bool {
        self.source.is_some()
    }

    /// Whether its certificate is among those that cannot be used, so that its roots cannot either, and the one before is shown. It
    /// is counted once.
    pub(super) fn refused(&mut self, unusable: &[Unusable]) -> bool {
        let own = unusable.iter().find(|it| *it.name == *OWN_CERTIFICATE);
        let refused = own.filter(|_| self.held.is_some()).map(|own| own.flaw.kind);
        if let Some(kind) = refused
            && refused != self.refused
            && self.flaw.as_ref().is_none_or(|(told, _)| told.kind != kind)
        {
            self.shard.increment(self.registry.series(Family::IdentityFailures, &[kind.name()]));
        }
        self.refused = refused;
        if refused.is_none() {
            self.shown = self.held.as_ref().map(|[certificate, _]| certificate.clone());
        }
        refused.is_some()
    }

    /// Why the start waits for an identity; `None` when there is one, or nobody to hand it on.
    pub(super) fn awaited(&self) -> Option<String> {
        let source = self.source.as_ref().filter(|_| self.held.is_none())?;
        let why = self.why().map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!("the identity of the workload has not come yet from {}{why}", source.from))
    }

    /// What hinders it, if something does. A source in trouble was so after it handed on something bad: what it hands on ends
    /// its trouble.
    fn why(&self) -> Option<String> {
        let flaw = self.flaw.as_ref().map(|(flaw, of)| format!("{of} is refused, because {flaw}"));
        self.trouble.as_ref().map(ToString::to_string).or(flaw)
    }

    /// What is shown of it.
    pub(super) fn state(&self) -> Option<IdentityState> {
        let source = self.source.as_ref()?;
        let renewal = source.said.borrow().renewal;
        Some(IdentityState { source: source.from.to_string(), trouble: self.why(), renewal })
    }

    /// What there is to say about it.
    pub(super) fn finding(&self) -> Option<Finding> {
        let (source, why) = (self.source.as_ref()?, self.why()?);
        let holds = match self.held {
            Some(_) => "the last good one serves",
            None => "there was none before, and nothing is served",
        };
        Some(Finding::general(
            Severity::Warning,
            code::IDENTITY_SOURCE,
            format!("no new identity of the workload from {}: {why}; {holds}", source.from),
            "see to it that the source answers with a certificate of this workload, which leads to the roots of \
             the mesh; it is asked again by itself",
        ))
    }
}
