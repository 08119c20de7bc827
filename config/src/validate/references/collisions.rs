//! Hosts that several VirtualServices speak for.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::hosts::{exported_to, full_name};
use crate::finding::{Finding, code};
use crate::istio::VirtualService;
use crate::objects::{Object, Objects};
use crate::origin::ObjectRef;
use crate::validate::Check;
use crate::validate::virtual_service::is_for_mesh;
use crate::yaml::Limits;

/// Warns of hosts that several VirtualServices speak for. For sidecars Istio merges nothing: the oldest holds.
pub(super) fn check(objects: &Objects, limits: &Limits) -> Vec<Finding> {
    /// One entry of `hosts`: its number and its object.
    type Claim<'o> = (usize, &'o Object<VirtualService>);
    let mut by_host: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for object in objects.virtual_services.values().filter(|object| is_for_mesh(&object.spec)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            by_host.entry(full_name(host, object.namespace())).or_default().push((index, object));
        }
    }
    let mut checks: BTreeMap<&ObjectRef, Check<'_>> = BTreeMap::new();
    for (host, mut claims) in by_host {
        claims.sort_by_cached_key(|(_, object)| age(object));
        let mut older = Older::default();
        for (index, object) in claims {
            let Some(older) = older.seen_together(object, &objects.mesh.default_virtual_service_export_to)
            else {
                continue;
            };
            let metadata = &object.metadata;
            let check = checks
                .entry(&metadata.object)
                .or_insert_with(|| Check::new(&metadata.object, &metadata.source, limits));
            check.warning_with(code::CONFLICTING_HOST, &format!("spec.hosts[{index}]"), || {
                let what = format!(
                    "{} is older and holds for `{host}`; this one has no effect on it",
                    older.origin()
                );
                (what, "write the rules of one host in one VirtualService, or delegate to several".to_owned())
            });
        }
    }
    checks.into_values().flat_map(Check::into_findings).collect()
}

/// The VirtualServices of one host so far, the oldest first.
#[derive(Default)]
struct Older<'o> {
    all: Option<&'o Object<VirtualService>>,
    /// The oldest that each namespace sees, with its number; `*` stands for those that all see.
    by_namespace: HashMap<&'o str, (usize, &'o Object<VirtualService>)>,
    count: usize,
}

impl<'o> Older<'o> {
    /// The oldest that some namespace sees together with `object`, which is one of them from now on.
    fn seen_together(
        &mut self,
        object: &'o Object<VirtualService>,
        default: &'o [String],
    ) -> Option<&'o Object<VirtualService>> {
        let names = exported_to(&object.spec.export_to, default);
        let own = object.namespace().as_ref();
        let names: Vec<&'o str> = match names {
            Cow::Borrowed(names) => names.iter().map(|name| if name == "." { own } else { name }).collect(),
            Cow::Owned(_) => vec!["*"],
        };
        let found = if names.contains(&"*") {
            self.all
        } else {
            let seen = names.iter().chain(&["*"]).filter_map(|name| self.by_namespace.get(name));
            seen.min_by_key(|(number, _)| *number).map(|(_, older)| *older)
        };
        for name in names {
            self.by_namespace.entry(name).or_insert((self.count, object));
        }
        self.count += 1;
        self.all.get_or_insert(object);
        found
    }
}

/// istiod's order: by time of creation, objects without one last, then by name and namespace.
fn age(object: &Object<VirtualService>) -> (bool, Option<Box<str>>, String) {
    let created = object.metadata.creation_timestamp.clone();
    (created.is_none(), created, format!("{}.{}", object.name(), object.namespace()))
}
