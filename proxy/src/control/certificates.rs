//! What there is to say about secrets: those that cannot be used, and certificates that are not renewed in time.

use config::finding::{Finding, Severity, code};
use config::{OWN_CERTIFICATE, OWN_ROOTS};

use crate::tls::{Doubt, Flaw, Life, Unusable};

/// The certificates that end soon, and whether they have ended.
pub(super) fn ending(lives: &[Life]) -> Vec<(&str, bool)> {
    lives.iter().filter(|life| life.ends_soon).map(|life| (&*life.name, life.has_ended)).collect()
}

/// What there is to say about a certificate that is not renewed in time.
pub(super) fn about_life(life: &Life) -> Finding {
    let what = match life.has_ended {
        true => format!("the certificate of {} holds no longer: nobody believes it", life.name),
        false => format!("the certificate of {} holds for less than a fifth of its life yet", life.name),
    };
    Finding::general(
        Severity::Warning,
        code::EXPIRING_CERTIFICATE,
        what,
        "renew it; what is in its place then is used at once",
    )
}

/// What there is to say about a list of revoked certificates that cannot be relied on.
pub(super) fn about_doubt(Doubt { name, why, closes }: &Doubt) -> Finding {
    let (severity, holds) = match closes {
        true => {
            (Severity::Error, "unless there is another, nobody for whom that authority vouches is believed")
        }
        false => (
            Severity::Warning,
            "it came with a certificate that is refused, and revokes whom it names, but closes nothing",
        ),
    };
    Finding::general(
        severity,
        code::UNUSABLE_SECRET,
        format!("of the revoked certificates of {name}, {why}: {holds}"),
        "write the newest list of that authority in its place",
    )
}

/// What there is to say about a secret that cannot be used; whether somebody hands the workload's own on that is no file.
pub(super) fn about_secret(unusable: Unusable, is_handed_on: bool) -> Finding {
    let Unusable { name, origin, flaw, last_good } = unusable;
    let remedy = match [OWN_CERTIFICATE, OWN_ROOTS].contains(&&*name) {
        true if is_handed_on => {
            "let its source hand on a certificate of this workload, with its key and the roots of the mesh that it leads to; \
             it is asked again by itself"
        }
        false if !name.starts_with("file-") => {
            "write a Secret of that name in the gateway's namespace, with `tls.crt` and the `tls.key` of its first certificate \
             in PEM, and `ca.crt` where clients show certificates"
        }
        _ => {
            "write its files anew, whole and in PEM: a certificate with its key, and the roots that it leads to"
        }
    };
    let holds = match last_good {
        true => "what was last good of it serves",
        false => "connections that need it are closed",
    };
    Finding {
        place: origin.as_ref().and_then(|origin| origin.place.clone()),
        severity: Severity::Warning,
        code: code::UNUSABLE_SECRET,
        object: origin.map(|origin| origin.object),
        path: String::new(),
        what: format!("the secret {name} cannot be used, because {flaw}: {holds}"),
        remedy: remedy.to_owned(),
    }
}

/// What there is to say about the workload's own certificate where it is shown though it is revoked, or nobody can know whether.
pub(super) fn about_own(flaw: &Flaw) -> Finding {
    Finding::general(
        Severity::Error,
        code::UNUSABLE_SECRET,
        format!(
            "the workload shows its own certificate for want of a better one, and {flaw}: whoever has the list of that refuses it"
        ),
        "have its source issue another by an authority that is not revoked and whose list can be relied on, or write the newest \
         list of that authority; either is used at once",
    )
}

/// What there is to say about the workload's own certificate where the trust domain of the mesh has become another.
pub(super) fn about_domain(why: String) -> Finding {
    Finding::general(
        Severity::Warning,
        code::UNUSABLE_SECRET,
        why,
        "have its source issue one of the new trust domain, and name the old one in MeshConfig's `trustDomainAliases` until \
         all have theirs",
    )
}
