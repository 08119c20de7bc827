//! What is wrong or not honoured, in one object and across objects.
//!
//! [`object`] looks at one object alone. What Istio's own validation refuses is an error here, and refuses the
//! object; what it warns of is a warning. Fields that weft does not honour yet are warnings, listed in one file.
//! [`references`](fn@references) looks at all objects together; what it finds are warnings, because an object may
//! name another that comes later.

mod check;
mod conditions;
mod destination_rule;
mod gateway;
mod host_set;
mod http_extras;
mod http_match;
mod http_route;
mod kubernetes;
mod layer4;
mod load_balancer;
mod mesh;
mod names;
mod not_honoured;
mod proxy_config;
mod reachability;
mod references;
mod security;
mod service_entry;
mod sidecar;
mod taken;
mod traffic_policy;
mod values;
mod virtual_service;

#[cfg(test)]
mod tests;

pub use references::{References, references};
pub use values::{DIRECT_RESPONSE_BYTES_MAX, REGEX_TEXT_BYTES_MAX};

use crate::finding::Finding;
use crate::objects::AnyObject;
use crate::yaml::Limits;

pub(crate) use check::Check;
pub(crate) use host_set::HostSet;
pub(crate) use mesh::check_mesh;

/// What there is to say about one object alone. An error among it refuses the object.
pub fn object(object: &AnyObject, limits: &Limits) -> Vec<Finding> {
    let metadata = object.metadata();
    let mut check = Check::new(&metadata.object, &metadata.source, limits);
    match object {
        AnyObject::VirtualService(object) => {
            virtual_service::check(&mut check, &object.spec);
            virtual_service::check_products(&mut check, &object.spec, limits);
            not_honoured::virtual_service(&mut check, &object.spec);
        }
        AnyObject::DestinationRule(object) => {
            destination_rule::check(&mut check, &object.spec);
            not_honoured::destination_rule(&mut check, &object.spec);
        }
        AnyObject::Service(object) => kubernetes::check_service(&mut check, &object.spec),
        AnyObject::EndpointSlice(object) => kubernetes::check_endpoint_slice(&mut check, &object.spec),
        AnyObject::ProxyConfig(object) => proxy_config::check(&mut check, &object.spec),
        AnyObject::Pod(object) => proxy_config::check_pod(&mut check, &object.spec),
        AnyObject::PeerAuthentication(object) => security::peer_authentication(&mut check, &object.spec),
        AnyObject::RequestAuthentication(object) => {
            security::request_authentication(&mut check, &object.spec);
        }
        AnyObject::AuthorizationPolicy(object) => security::authorization_policy(&mut check, &object.spec),
        AnyObject::ServiceEntry(object) => {
            service_entry::check(&mut check, &object.spec);
            service_entry::check_products(&mut check, &object.spec, limits);
        }
        AnyObject::WorkloadEntry(object) => {
            service_entry::check_endpoint(&mut check, "spec", &object.spec);
        }
        AnyObject::Sidecar(object) => sidecar::check(&mut check, &object.spec),
        AnyObject::Gateway(object) => gateway::check(&mut check, &object.spec),
        AnyObject::Namespace(_) | AnyObject::Node(_) | AnyObject::Secret(_) => {}
    }
    check.into_findings()
}
