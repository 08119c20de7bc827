//! The list of certificates that the authority of the mesh has revoked, where it is mounted as a file.
//!
//! It counts beside whatever roots the workload has, wherever those come from. What is there and cannot be read is never
//! taken for a mesh that revokes nothing: what was last good of it stays, and where nothing ever was, there are no roots, so
//! that nobody is believed; of a file that comes while the proxy runs that is so once it has been quiet for a while, because
//! it may still be written. A file that is gone is no reason to believe again who was revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::finding::{Finding, Severity, code};
use config::{OWN_ROOTS, Secret, SecretContent};

use crate::tls;

/// How long a file that comes while the proxy runs may be none that can be used, because it is still being written.
const QUIET: Duration = Duration::from_secs(1);

/// The file, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RevokedFile {
    path: PathBuf,
    known: Known,
    /// Why what is there now cannot be used.
    trouble: Option<Arc<str>>,
    /// What was looked at last.
    last: Option<Seen>,
    /// Since when what never was good is to be whole, where somebody waits for that.
    waiting_since: Option<Instant>,
}

/// What there was when it was looked at: its content, or why it cannot be read; `None` when it is not there.
pub(super) type Seen = Option<Result<Arc<[u8]>, Arc<str>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// What there was could never be used.
    Nothing,
    /// There was no list yet.
    NoList,
    /// The last that was good, in PEM.
    Lists(Arc<[u8]>),
}

impl RevokedFile {
    /// It was not looked at yet.
    pub(super) fn new(path: PathBuf) -> RevokedFile {
        RevokedFile { path, known: Known::Nothing, trouble: None, last: None, waiting_since: None }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When it is to be looked at again, if it is not only to be looked at when it changes.
    pub(super) fn again(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + QUIET)
    }

    /// Takes what there is now, and whether anything follows from it.
    pub(super) fn look(&mut self, seen: Seen, now: Instant) -> bool {
        if self.last.as_ref() == Some(&seen) {
            let is_over = self.again().is_some_and(|over| over <= now);
            if is_over {
                self.waiting_since = None;
                self.known = Known::Nothing;
                tracing::warn!(
                    "nobody in the mesh is believed until there is a list that can be used, or none"
                );
            }
            return is_over;
        }
        self.last = Some(seen.clone());
        let path = self.path.display();
        let was_told = self.trouble.take();
        self.trouble = match seen {
            None => match &self.known {
                Known::Lists(_) => Some(format!("{path} is gone").into()),
                Known::Nothing | Known::NoList => {
                    self.known = Known::NoList;
                    None
                }
            },
            Some(Err(why)) => Some(why),
            Some(Ok(pem)) => match tls::check_lists(&pem) {
                Ok(()) => {
                    self.known = Known::Lists(pem);
                    None
                }
                Err(why) => Some(format!("{path}: {why}").into()),
            },
        };
        let waits = self.trouble.is_some() && self.known == Known::NoList;
        self.waiting_since = waits.then_some(now);
        if let Some(trouble) = &self.trouble
            && self.trouble != was_told
        {
            tracing::warn!("the list of revoked certificates cannot be used: {trouble}");
        }
        true
    }

    /// Whether nobody is believed for want of a list that can be used.
    pub(super) fn closes(&self) -> bool {
        self.known == Known::Nothing && self.trouble.is_some()
    }

    /// The lists that hold.
    pub(super) fn lists(&self) -> Option<&Arc<[u8]>> {
        match &self.known {
            Known::Lists(lists) => Some(lists),
            Known::Nothing | Known::NoList => None,
        }
    }

    /// Why what is there now cannot be used, if it cannot.
    pub(super) fn trouble(&self) -> Option<&Arc<str>> {
        self.trouble.as_ref()
    }

    /// A secret as it holds: roots are those of the mesh with the lists.
    pub(super) fn beside(&self, secret: &Arc<Secret>) -> Arc<Secret> {
        let Ok(SecretContent::Roots { roots, revoked, besides, bundles }) = &secret.content else {
            return secret.clone();
        };
        if *secret.name != *OWN_ROOTS {
            return secret.clone();
        }
        let content = match (&self.known, &self.trouble) {
            (Known::Lists(lists), _) => {
                let revoked = Some(match revoked {
                    // Whoever is on any list of an authority is revoked.
                    Some(others) => [lists, &b"\n"[..], others].concat().into(),
                    None => lists.clone(),
                });
                let (roots, besides, bundles) = (roots.clone(), besides.clone(), bundles.clone());
                Ok(SecretContent::Roots { roots, revoked, besides, bundles })
            }
            (Known::Nothing, Some(trouble)) => Err(trouble.clone()),
            (Known::Nothing | Known::NoList, _) => return secret.clone(),
        };
        Arc::new(Secret { content, ..Secret::clone(secret) })
    }

    /// What there is to say about it.
    pub(super) fn finding(&self) -> Option<Finding> {
        let trouble = self.trouble.as_ref()?;
        let holds = match self.known {
            Known::Nothing => "there never was a good one, and nobody in the mesh is believed",
            Known::NoList => "there was none before, and it may still be written",
            Known::Lists(_) => "the last good one holds",
        };
        Some(Finding::general(
            Severity::Error,
            code::UNUSABLE_SECRET,
            format!(
                "the list of certificates that the authority of the mesh has revoked cannot be used, because {trouble}: {holds}"
            ),
            "write the file anew, whole, in PEM; who wants no list any more removes it and starts the proxy anew",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing;

    fn roots(revoked: Option<&[u8]>) -> Arc<Secret> {
        let revoked = revoked.map(Arc::from);
        let content =
            SecretContent::Roots { roots: Arc::from(*b"roots"), revoked, besides: None, bundles: Vec::new() };
        Arc::new(Secret { name: OWN_ROOTS.into(), content: Ok(content), origin: None })
    }

    /// What comes of roots after these looks: the lists beside them, or why there are no roots.
    fn check(seen: &[Seen], own: Option<&[u8]>, expected: Result<Option<&str>, &str>) {
        let mut file = RevokedFile::new("/crl".into());
        let now = crate::time::now();
        for seen in seen {
            file.look(seen.clone(), now);
        }
        let last = seen.last().unwrap();
        assert!(!file.look(last.clone(), now), "nothing follows from what was seen already");
        let is_awaited = file.again().is_some();
        assert_eq!(file.look(last.clone(), now + QUIET), is_awaited, "it is waited for as long as is told");
        assert_eq!(file.again(), None);
        assert_eq!(file.finding().is_some(), file.trouble().is_some());
        match (&file.beside(&roots(own)).content, expected) {
            (Ok(SecretContent::Roots { revoked, .. }), Ok(expected)) => {
                assert_eq!(revoked.as_deref(), expected.map(str::as_bytes), "{seen:?}");
            }
            (Err(why), Err(expected)) => assert_eq!(&**why, expected),
            (other, _) => panic!("{seen:?}: {other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_read_is_never_no_list() {
        let [_, list] = testing::authority("shop");
        let good: Seen = Some(Ok(list.as_bytes().into()));
        let garbage: Seen = Some(Ok(Arc::from(*b"garbage")));
        let unreadable: Seen = Some(Err("it is a directory".into()));
        check(&[None], None, Ok(None));
        check(std::slice::from_ref(&good), None, Ok(Some(&list)));
        check(std::slice::from_ref(&good), Some(b"own"), Ok(Some(&format!("{list}\nown"))));
        check(&[None, good.clone()], None, Ok(Some(&list)));
        for bad in [garbage.clone(), unreadable.clone(), None] {
            check(&[good.clone(), bad], None, Ok(Some(&list)));
        }
        check(std::slice::from_ref(&unreadable), None, Err("it is a directory"));
        let why = "/crl: the list of revoked certificates is not one in PEM";
        check(std::slice::from_ref(&garbage), None, Err(why));
        // One that comes while the proxy runs may not be whole yet, and closes when it has been quiet.
        let mut file = RevokedFile::new("/crl".into());
        let now = crate::time::now();
        file.look(None, now);
        file.look(garbage.clone(), now);
        assert!(file.beside(&roots(None)).content.is_ok());
        check(&[None, garbage.clone()], None, Err(why));
        check(&[None, garbage.clone(), None], None, Ok(None));
        check(&[None, garbage, good.clone()], None, Ok(Some(&list)));
        check(&[unreadable.clone(), good], None, Ok(Some(&list)));
        check(&[unreadable, None], None, Ok(None));
    }
}
