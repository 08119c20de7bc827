//! Hosts that several ServiceEntry objects declare, or one besides a Service of Kubernetes.
//!
//! Of those that a client sees the first holds, and of others what [`Merged`] says: what they declare besides has no effect.

use std::collections::BTreeMap;

use super::hosts::Hosts;
use crate::compile::{Merged, age, entry_ports, merged, sight};
use crate::finding::{Finding, code};
use crate::hashed::HashMap;
use crate::istio::ServiceEntry;
use crate::objects::{Object, Objects};
use crate::origin::{ObjectRef, Origin};
use crate::validate::Check;
use crate::yaml::Limits;

/// One entry of `hosts`: its number and its object.
type Claim<'o> = (usize, &'o Object<ServiceEntry>);

/// Those of one host and namespace that are taken together: the first, and their ports.
struct Together<'o> {
    first: &'o Object<ServiceEntry>,
    ports: HashMap<u16, &'o str>,
}

/// Warns of entries that have no effect on a host, or not all that they say, because of another object.
pub(super) fn check(objects: &Objects, hosts: &Hosts<'_>, limits: &Limits) -> Vec<Finding> {
    let mut by_host: BTreeMap<String, Vec<Claim<'_>>> = BTreeMap::new();
    for object in objects.service_entries.values() {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            by_host.entry(host.to_lowercase()).or_default().push((index, object));
        }
    }
    let mut checks: BTreeMap<&ObjectRef, Check<'_>> = BTreeMap::new();
    for (host, mut claims) in by_host {
        claims.sort_by_key(|(_, object)| age(&object.metadata));
        let service = hosts.service(&host);
        let service = service.map(|it| (it.origin(), &**it.namespace(), it.spec.export_to()));
        let mut known: HashMap<&str, Together<'_>> = HashMap::default();
        let oldest = claims.first().map(|(_, object)| *object);
        for (index, object) in claims {
            let lost = match (&service, oldest) {
                (Some((origin, namespace, export_to)), _) => {
                    all_lost(objects, origin, (namespace, export_to), object)
                }
                (None, Some(oldest)) => lost(objects, &mut known, oldest, object),
                (None, None) => None,
            };
            let Some((first, lost)) = lost else { continue };
            let metadata = &object.metadata;
            let check = checks
                .entry(&metadata.object)
                .or_insert_with(|| Check::new(&metadata.object, &metadata.source, limits));
            check.warning_with(code::CONFLICTING_HOST, &format!("spec.hosts[{index}]"), || {
                let remedy = "declare a host by one object, or by some of one namespace whose ports and endpoints alone differ";
                (format!("{first} comes first and holds for `{host}`; {lost}"), remedy.to_owned())
            });
        }
    }
    checks.into_values().flat_map(Check::into_findings).collect()
}

/// What comes before `object`, which is `known`, and what of this has no effect because of that.
fn lost<'o>(
    objects: &Objects,
    known: &mut HashMap<&'o str, Together<'o>>,
    oldest: &Object<ServiceEntry>,
    object: &'o Object<ServiceEntry>,
) -> Option<(Origin, String)> {
    let all = |first: &Object<ServiceEntry>| {
        all_lost(objects, &first.origin(), (first.namespace(), &first.spec.export_to), object)
    };
    let Some(together) = known.get_mut(&**object.namespace()) else {
        let ports = entry_ports(&object.spec).collect();
        known.insert(object.namespace(), Together { first: object, ports });
        return all(oldest);
    };
    let first = together.first;
    let how = merged(first, object);
    if how == Merged::Nothing {
        return all(first);
    }
    let mut lost = Vec::new();
    for (number, name) in entry_ports(&object.spec) {
        match together.ports.get(&number) {
            Some(other) if *other != name => lost.push(format!("port {number} is named `{other}` there")),
            None if how == Merged::Endpoints => lost.push(format!(
                "its port {number} is not taken, as labels, `exportTo` or `workloadSelector` differ"
            )),
            Some(_) => {}
            None => drop(together.ports.insert(number, name)),
        }
    }
    let adds = |of: fn(&ServiceEntry) -> &[String]| {
        of(&object.spec).iter().any(|text| !of(&first.spec).contains(text))
    };
    let fields = [
        ("location", first.spec.location != object.spec.location),
        ("addresses", adds(|spec| &spec.addresses)),
        ("subjectAltNames", adds(|spec| &spec.subject_alt_names)),
    ];
    let fields = fields.into_iter().filter(|(_, is_lost)| *is_lost);
    lost.extend(fields.map(|(field, _)| format!("its own `{field}` has no effect")));
    (!lost.is_empty()).then(|| (first.origin(), lost.join(", ")))
}

/// What there is to say where nothing of `object` counts for clients that see what comes first as well, which is at `origin`,
/// in a namespace and for some.
fn all_lost(
    objects: &Objects,
    origin: &Origin,
    (namespace, export_to): (&str, &[String]),
    object: &Object<ServiceEntry>,
) -> Option<(Origin, String)> {
    let (own, default) = (&**object.namespace(), &objects.mesh.default_service_export_to);
    if *origin == object.origin() {
        return None;
    }
    let sees_both = |client: &str| {
        sight(export_to, default, namespace, client).is_some()
            && sight(&object.spec.export_to, default, own, client).is_some()
    };
    // All that nobody names are as one.
    let named = export_to.iter().chain(&object.spec.export_to).map(String::as_str);
    let named = named.filter(|name| !matches!(*name, "*" | "." | "~"));
    let mut clients = named.chain([namespace, ""]);
    // In its own namespace it comes first, unless the other is of the same.
    let is_some = clients.any(|client| (client != own || own == namespace) && sees_both(client));
    let but = if own == namespace { String::new() } else { format!(" in other namespaces than `{own}`") };
    is_some.then(|| (origin.clone(), format!("this one has no effect for clients{but} that see both")))
}
