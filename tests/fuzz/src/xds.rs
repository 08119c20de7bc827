//! Messages of a control plane.

use config::Update;
use xds_client::convert::{Converted, Kind, Resource, convert};
use xds_client::stream::{self, Declared};

/// The first byte says what the rest is: a resource of one of the kinds, or a recorded stream. What is converted is converted
/// to the same again, and a snapshot can be made of it.
pub fn xds(bytes: &[u8]) {
    let Some((what, message)) = bytes.split_first() else { return };
    let kinds = Kind::ALL.len();
    match Kind::ALL.get(usize::from(*what) % (kinds + 1)) {
        Some(kind) => {
            let converted = convert(*kind, message);
            assert!(crate::same(&converted, &convert(*kind, message)), "it is converted to something else");
            if let Ok(Converted { resource, notes: _ }) = converted {
                assert_eq!(resource.kind(), *kind);
                weft::fuzz::run(alone(resource));
            }
        }
        None => {
            let Ok(responses) = stream::read(message) else { return };
            let declared = Declared::of(responses);
            declared.notes();
            weft::fuzz::run(declared.update());
        }
    }
}

/// An update with one resource. A route configuration comes without the listener that asks for it.
fn alone(resource: Resource) -> Update {
    let mut update = Update::default();
    match resource {
        Resource::Cluster(cluster) => update.clusters.push(*cluster),
        Resource::Endpoints(endpoints) => update.endpoints.push(endpoints),
        Resource::Listener(listener) => update.listeners.push(*listener),
        Resource::Routes(routes) => update.routes.push(routes),
    }
    update
}
