//! Whether gateways serve the hosts of VirtualServices.

use super::hosts::{full_name, gateway_named};
use crate::finding::code;
use crate::hashed::HashMap;
use crate::istio::{Gateway, VirtualService};
use crate::objects::{Key, Object, Objects};
use crate::validate::Check;
use crate::validate::host_set::HostSet;
use crate::validate::virtual_service::{MESH_GATEWAY, is_for_mesh};

/// The hosts of servers by the namespace whose virtual services may speak for them; `*` for any.
type Scopes<'o> = HashMap<&'o str, HostSet>;

/// What gateways serve, put in order once for each, when the first object asks.
pub(super) struct Served<'o> {
    objects: &'o Objects,
    by_gateway: HashMap<Key, Scopes<'o>>,
}

impl<'o> Served<'o> {
    pub(super) fn of(objects: &'o Objects) -> Served<'o> {
        Served { objects, by_gateway: HashMap::default() }
    }

    /// Warns of hosts that no server has of the gateways that an object is for.
    pub(super) fn check(&mut self, check: &mut Check<'_>, object: &Object<VirtualService>) {
        let spec = &object.spec;
        let gateways: Vec<_> = spec.gateways.iter().filter(|gateway| *gateway != MESH_GATEWAY).collect();
        let mut keys = Vec::new();
        for written in &gateways {
            // One that is not there is told; it may serve what the others do not.
            let Some(gateway) = gateway_named(self.objects, written, object.namespace()) else { return };
            let key: Key = (gateway.namespace().clone(), gateway.name().clone());
            self.by_gateway.entry(key.clone()).or_insert_with(|| scopes(gateway));
            keys.push(key);
        }
        let is_served = |written: &String| {
            let host = full_name(written, object.namespace()).to_lowercase();
            keys.iter().filter_map(|key| self.by_gateway.get(key)).any(|scopes| {
                let scopes = ["*", object.namespace()].into_iter().filter_map(|scope| scopes.get(scope));
                scopes.into_iter().any(|hosts| hosts.overlapping(&host).is_some())
            })
        };
        let hosts = spec.hosts.iter().enumerate();
        let unserved: Vec<_> = hosts.filter(|(_, host)| !keys.is_empty() && !is_served(host)).collect();
        // Of an object for the mesh too, some hosts may be meant for the mesh alone.
        if is_for_mesh(spec) && unserved.len() < spec.hosts.len() {
            return;
        }
        for (index, written) in unserved {
            check.warning_with(code::UNSERVED_HOST, &format!("spec.hosts[{index}]"), || {
                let named: Vec<_> = gateways.iter().map(|gateway| format!("`{gateway}`")).collect();
                let what = format!(
                    "no server of {} has the host `{written}` for virtual services of the namespace `{}`; no gateway \
                     serves these rules for it",
                    named.join(" or "),
                    object.namespace()
                );
                (what, "add the host to `hosts` of a server there, or correct it".to_owned())
            });
        }
    }
}

fn scopes(gateway: &Object<Gateway>) -> Scopes<'_> {
    let mut scopes = Scopes::default();
    let servers = gateway.spec.servers.iter();
    for (scope, host) in servers.flat_map(|server| server.scoped_hosts(gateway.namespace())) {
        scopes.entry(scope).or_default().insert(&host.to_lowercase());
    }
    scopes
}
