//! Lists of revoked certificates that cannot be relied on, and what they do to the workload's own certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{OWN_CERTIFICATE, OWN_ROOTS};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use super::{Held, List, Roots, Secrets, seconds};
use crate::time;
use crate::tls::whole::{self, Flaw, FlawKind};

/// A list of revoked certificates that cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Doubt {
    /// Of which secret it is.
    pub(crate) name: Arc<str>,
    /// Why.
    pub(crate) why: String,
    /// Whether nobody is believed for it whom its authority vouches for.
    pub(crate) closes: bool,
}

impl Roots {
    /// Why it is known that none of them has signed a list, if it is: of an authority that is none of them it is not, as that may
    /// be one between them and a peer.
    pub(in crate::tls) fn forged(&self, list: &List) -> Option<String> {
        let algorithms = default_provider().signature_verification_algorithms.all;
        list.doubt(self.anchors(), algorithms, i64::MIN)
    }
}

impl Secrets {
    /// What is wrong with the workload's own certificate by its roots, if that is of these kinds: where its authority's list is
    /// doubted, nobody of that is believed.
    pub(crate) fn own_flaw(&self, kinds: &[FlawKind]) -> Option<Flaw> {
        let (own, roots) = (self.certificate(OWN_CERTIFICATE)?, self.roots(OWN_ROOTS)?);
        let (leaf, intermediates) = own.cert.split_first()?;
        let flaw = whole::is_heard_of(leaf, intermediates, roots, seconds(time::wall())).err()?;
        kinds.contains(&flaw.kind).then_some(flaw)
    }

    /// Lists of revoked certificates that cannot be relied on.
    pub(crate) fn doubts(&self, now: SystemTime) -> Vec<Doubt> {
        let now = seconds(now);
        let algorithms = default_provider().signature_verification_algorithms.all;
        let chains = self.held.values().filter_map(Held::certificate).flat_map(|it| it.cert.iter().skip(1));
        let between: Vec<_> = chains.flat_map(webpki::anchor_from_trusted_cert).collect();
        let roots = || self.held.values().filter_map(Held::roots);
        let known = || roots().flat_map(|it| it.anchors()).chain(&between);
        let mut doubts = Vec::new();
        for (name, held) in &self.held {
            doubts.extend(held.lists().iter().filter_map(|list| {
                let why = list.doubt(known(), algorithms, now)?;
                Some(Doubt { name: name.clone(), why, closes: list.closes() })
            }));
        }
        doubts.sort();
        doubts
    }

    /// When the doubts of `now` are others, though the secrets are these: a list ends then.
    pub(crate) fn doubts_end(&self, now: SystemTime) -> Option<SystemTime> {
        let lists = self.held.values().flat_map(Held::lists);
        let next = lists.filter_map(List::ends).filter(|ends| *ends > seconds(now)).min()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(next).ok()?))
    }
}
