//! What can be used of the secrets that are declared: at the start the workload's own identity, and whenever one changes, all.

use std::sync::Arc;

use config::compile::{Proxy, TrustAnchors};
use config::finding::Finding;
use config::{OWN_CERTIFICATE, OWN_ROOTS, Secret};

use super::certificates::{about_domain, about_doubt, about_life, about_own, about_secret};
use super::revoked::RevokedFile;
use super::{Control, time};
use crate::tls::{FlawKind, Secrets, Unusable};

/// Lists that are found, because they change nothing.
const LEFT_OUT: &str = "lists of revoked certificates that came with a certificate that is refused";

impl Control {
    /// Says who the workload is and what hinders its identity. At the start, why it is waited for.
    pub(super) fn awaits_identity(
        &mut self,
        proxy: &Proxy,
        anchors: Option<&TrustAnchors>,
        first: bool,
        findings: &mut Vec<Finding>,
    ) -> Option<String> {
        self.pushed.want(&proxy.principal());
        findings.extend(self.pushed.finding());
        if !first {
            return None;
        }
        self.pushed.awaited().or_else(|| self.awaits_whole(anchors, findings))
    }

    /// Why what its source has of the identity is waited for to become whole, with what the mesh has revoked: until then, whoever
    /// is in the mesh could not come in.
    fn awaits_whole(
        &mut self,
        anchors: Option<&TrustAnchors>,
        findings: &mut Vec<Finding>,
    ) -> Option<String> {
        let source = self.settings.workload.environment.identity.as_ref()?;
        let waited_for = format!("the identity of the workload has not come yet from {source}");
        self.want_files();
        let own = self.secret_files.secrets().filter(|it| [OWN_CERTIFICATE, OWN_ROOTS].contains(&&*it.name));
        let declared = self.secret_files.with_revoked(own.chain(self.pushed.secrets()));
        let declared = TrustAnchors::among(anchors, declared.iter());
        let (secrets, unusable) = Secrets::resolve(&declared, &Secrets::default(), &self.expected);
        self.pushed.refused(&unusable);
        let (doubt, is_handed_on) = (secrets.own_flaw(&[FlawKind::Doubted]), self.pushed.is_handed_on());
        if secrets.are_whole() && doubt.is_none() {
            return None;
        }
        let why = unusable.first().map(|first| &first.flaw).or(doubt.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        findings.extend(secrets.doubts(time::wall()).iter().map(about_doubt));
        findings.extend(doubt.as_ref().map(about_own));
        findings.extend(unusable.into_iter().map(|it| about_secret(it, is_handed_on)));
        findings.extend(self.secret_files.revoked().and_then(RevokedFile::finding));
        Some(format!("{waited_for}{why}"))
    }

    fn want_files(&mut self) {
        if self.secret_files.want(&self.resources) {
            self.secret_files.look(time::now());
        }
    }

    /// Parses the secrets that are declared now, and whether they are those of before.
    pub(super) fn resolve_secrets(
        &mut self,
        anchors: Option<&TrustAnchors>,
        findings: &mut Vec<Finding>,
    ) -> bool {
        self.want_files();
        let own = self.secret_files.secrets().chain(self.pushed.secrets());
        let offered = { own }.find(|it| *it.name == *OWN_ROOTS).cloned();
        let (mut secrets, mut unusable) = self.resolved(anchors, None);
        let refused = self.count(anchors, offered.as_ref(), (&secrets, &unusable));
        let counts = self.own_roots.counts().filter(|it| Some(*it) != offered.as_ref());
        if let Some(counts) = counts {
            // With what else is declared now: a list of revoked certificates counts beside the last good roots, too.
            (secrets, unusable) = self.resolved(anchors, Some(counts));
        }
        if let Some(refused) = refused {
            unusable.retain(|it| it.name != refused.name);
            unusable.push(refused);
        }
        let same_secrets = secrets.are(&self.secrets);
        self.secrets = secrets;
        self.lives = self.secrets.lives(time::wall());
        self.status.certificates(&self.lives);
        let doubts = self.secrets.doubts(time::wall());
        self.doubts_end = self.secrets.doubts_end(time::wall());
        findings.extend(doubts.iter().map(about_doubt));
        let flaw = self.secrets.own_flaw(&[FlawKind::Revoked, FlawKind::Doubted]);
        findings.extend(flaw.as_ref().map(about_own));
        self.status.own_refused(flaw.map(|flaw| format!("the workload has no whole identity: {flaw}")));
        findings.extend(self.secrets.own_stranger(&self.expected).map(about_domain));
        let is_handed_on = self.pushed.is_handed_on();
        findings.extend(unusable.into_iter().map(|it| about_secret(it, is_handed_on)));
        findings.extend(self.secret_files.revoked().and_then(RevokedFile::finding));
        findings.extend(self.lives.iter().filter(|life| life.ends_soon).map(about_life));
        same_secrets
    }

    /// Takes the roots that are offered, or what they take away if they cannot be taken, and why not, unless they are those of
    /// before; then what those that came since do.
    fn count(
        &mut self,
        anchors: Option<&TrustAnchors>,
        offered: Option<&Arc<Secret>>,
        (secrets, unusable): (&Secrets, &[Unusable]),
    ) -> Option<Unusable> {
        let is_refused = self.pushed.refused(unusable);
        let bad = || unusable.iter().find(|it| *it.name == *OWN_ROOTS).cloned();
        // What one hand gives is taken whole or not at all.
        let half = || is_refused.then(|| Unusable::of_own_roots("the certificate with them is refused"));
        let are_new = !self.own_roots.has_taken(offered);
        let mut refused = if are_new { bad().or_else(|| secrets.apart()).or_else(half) } else { None };
        let since = self.pushed.refused_roots();
        let mut own_roots = std::mem::take(&mut self.own_roots);
        if refused.is_none() && !is_refused && (are_new || since.is_none()) {
            own_roots.take(offered.cloned());
        }
        let leads = |roots: &Arc<Secret>| {
            let (secrets, _) = self.resolved(anchors, Some(roots));
            secrets.are_whole() && secrets.apart().is_none()
        };
        let mut forged = None;
        let worse = offered.filter(|_| refused.is_some() || is_refused);
        for roots in worse.into_iter().chain(since) {
            forged = own_roots.refuse(roots, self.pushed.bytes_max(), leads).or(forged);
        }
        for why in [own_roots.too_many(), forged.as_deref()].into_iter().flatten() {
            let why = format!("{LEFT_OUT} do not count: {why}");
            refused = Some(Unusable::of_own_roots(match refused {
                Some(told) => format!("{}; {why}", told.flaw),
                None => why,
            }));
        }
        self.own_roots = own_roots;
        refused.filter(|_| self.own_roots.counts().is_some())
    }

    /// What is declared now, with these roots of the mesh instead of those of its source, if any are given.
    fn resolved(
        &self,
        anchors: Option<&TrustAnchors>,
        roots: Option<&Arc<Secret>>,
    ) -> (Secrets, Vec<Unusable>) {
        let own = self.secret_files.secrets().chain(self.pushed.secrets());
        let own = own.map(|it| roots.filter(|roots| roots.name == it.name).unwrap_or(it));
        let declared = self.resources.secrets.values().chain(own);
        let declared = self.secret_files.with_revoked(declared);
        let declared = TrustAnchors::among(anchors, declared.iter());
        // What was good of the roots was so without a list that is there now.
        let closes = self.secret_files.revoked().is_some_and(RevokedFile::closes);
        let known = closes.then(|| self.secrets.without(OWN_ROOTS));
        Secrets::resolve(&declared, known.as_ref().unwrap_or(&self.secrets), &self.expected)
    }
}
