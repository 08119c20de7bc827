//! One compile after the other for one proxy: what a change cannot have changed is not compiled again.
//!
//! `changes` says what that is, by the kinds of the objects that differ from those of the compile before. Clusters and their
//! endpoints are made again for the services that a change of a Service, EndpointSlice, Pod or DestinationRule is about;
//! listeners and routes, unless only endpoints changed. Of the routes, the virtual hosts of services that no virtual service
//! speaks for are taken over where they are known by the same names as before. After any other change, and where a Sidecar
//! object trims, everything is compiled anew.

use std::sync::Arc;

use super::noted::Noted;
use super::virtual_hosts::OfServices;
use super::{Compiled, Proxy, Request, steps};
use crate::finding::Finding;
use crate::hashed::{HashMap, HashSet};
use crate::objects::Objects;

/// Compiles one state of a mesh after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    last: Option<Last>,
}

/// What was compiled last, as far as the next compile may take it over.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) objects: Objects,
    pub(super) proxy: Proxy,
    pub(super) request: Request,
    /// Names of the clusters.
    pub(super) names: HashSet<Arc<str>>,
    /// What there is to note about clusters and endpoints.
    pub(super) noted: Noted,
    /// What there was to say about listeners and routes.
    pub(super) findings: Vec<Finding>,
    /// Virtual hosts of services that no virtual service speaks for, by port.
    pub(super) of_services: HashMap<u16, OfServices>,
}

/// What of the compile before still holds, and is not told again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Since {
    /// Clusters that are gone, with their endpoints. Those that are told are new or changed; all others are as they were.
    pub removed: Vec<Arc<str>>,
    /// Whether listeners, routes and secrets are as they were.
    pub same_listeners: bool,
    /// Whether the names for DNS are.
    pub same_names: bool,
}

impl Compiler {
    /// Compiles `objects` for `proxy` as `request` says. It never fails: what cannot be compiled is left out and found.
    /// Where [`Compiled::since`] says so, only what differs from the call before is told.
    pub fn compile(&mut self, objects: &Objects, proxy: &Proxy, request: &Request) -> Compiled {
        let last = self.last.take().filter(|last| last.proxy == *proxy && last.request == *request);
        let (compiled, last) = steps::compile_after(objects, proxy, request, last);
        self.last = last;
        compiled
    }

    /// The next compile takes nothing over: what the one before made was not kept.
    pub fn forget(&mut self) {
        self.last = None;
    }
}
