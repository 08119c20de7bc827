//! `exportTo`: which objects a namespace sees.
//!
//! `*` means every namespace, `.` the object's own, `~` nobody, anything else a namespace by name. A Service of Kubernetes
//! says it by an annotation. An object that does not say it follows the mesh default, of which Istio honours only `.` and
//! `*`.

/// How an object is seen from some namespace, in the order in which Istio lets virtual services win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    /// It is for its own namespace, which is the one that looks.
    Own,
    /// It names the namespace that looks.
    Named,
    /// It is for everyone.
    Public,
}

/// How `viewer` sees an object of namespace `own`; `None` when it does not.
pub(crate) fn sight(export_to: &[String], mesh_default: &[String], own: &str, viewer: &str) -> Option<Sight> {
    let says = |word: &str| export_to.iter().any(|namespace| namespace == word);
    if export_to.is_empty() {
        return by_default(mesh_default, own, viewer);
    }
    if says("*") {
        return Some(Sight::Public);
    }
    if says("~") {
        return None;
    }
    if own == viewer {
        return (says(".") || says(own)).then_some(Sight::Own);
    }
    says(viewer).then_some(Sight::Named)
}

/// How `viewer` sees an object of namespace `own` that does not say who sees it.
fn by_default(mesh_default: &[String], own: &str, viewer: &str) -> Option<Sight> {
    let says = |word: &str| mesh_default.iter().any(|namespace| namespace == word);
    if says(".") {
        return (own == viewer).then_some(Sight::Own);
    }
    (mesh_default.is_empty() || says("*")).then_some(Sight::Public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_to() {
        let check = |export_to: &[&str], default: &[&str], viewer, expected| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let seen = sight(&owned(export_to), &owned(default), "shop", viewer);
            assert_eq!(seen, expected, "{export_to:?} {default:?} {viewer}");
        };
        check(&[], &[], "ops", Some(Sight::Public));
        check(&[], &["."], "ops", None);
        check(&[], &["."], "shop", Some(Sight::Own));
        check(&[], &["*"], "ops", Some(Sight::Public));
        check(&[], &["~"], "shop", None);
        check(&["*", "~"], &["."], "ops", Some(Sight::Public));
        check(&["~", "ops"], &[], "ops", None);
        check(&["."], &[], "shop", Some(Sight::Own));
        check(&["."], &[], "ops", None);
        check(&["shop"], &[], "shop", Some(Sight::Own));
        check(&["ops"], &[], "ops", Some(Sight::Named));
        check(&["ops"], &[], "shop", None);
        check(&[".", "ops"], &[], "ops", Some(Sight::Named));
    }
}
