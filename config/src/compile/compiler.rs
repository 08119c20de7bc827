//! One compile after the other for one proxy: what a change cannot have changed is not compiled again.
//!
//! Clusters, their endpoints and the names for DNS are most of a large mesh, and follow from everything but the virtual
//! services, unless a Sidecar object lets in what virtual services lead to. So where only virtual services differ from the
//! compile before, those three are taken over, and so is what there was to say about them. Of the rest, the virtual hosts of
//! services that no virtual service speaks for are taken over where they are known by the same names as before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::clusters::Clusters;
use super::virtual_hosts::OfServices;
use super::{Compiled, Parts, Proxy, Request};
use crate::finding::Finding;
use crate::objects::Objects;
use crate::resource::Secret;

/// Compiles one state of a mesh after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    last: Option<Last>,
}

/// What was compiled last, as far as the next compile may take it over.
#[derive(Debug)]
pub(super) struct Last {
    /// All objects but the virtual services.
    objects: Objects,
    proxy: Proxy,
    request: Request,
    /// Names of the clusters.
    names: HashSet<Arc<str>>,
    /// The secrets that clusters name.
    secrets: Vec<Secret>,
    /// What there was to say about clusters and endpoints.
    findings: Vec<Finding>,
    /// Virtual hosts of services that no virtual service speaks for, by port.
    of_services: HashMap<u16, OfServices>,
}

impl Compiler {
    /// Compiles `objects` for `proxy` as `request` says. It never fails: what cannot be compiled is left out and found.
    /// Where [`Compiled::is_as_before`] says so, its clusters, endpoints and names are those of the call before, and
    /// only there.
    pub fn compile(&mut self, objects: &Objects, proxy: &Proxy, request: &Request) -> Compiled {
        let last = self.last.take().filter(|last| last.holds(objects, proxy, request));
        let (compiled, parts) = super::compile_after(objects, proxy, request, last.as_ref());
        self.last = parts.map(|Parts { names, secrets, findings, of_services }| match last {
            Some(last) => Last { of_services, ..last },
            None => {
                let objects = Objects { virtual_services: Default::default(), ..objects.clone() };
                let (proxy, request) = (proxy.clone(), request.clone());
                Last { objects, proxy, request, names, secrets, findings, of_services }
            }
        });
        compiled
    }

    /// The next compile takes nothing over: what the one before made was not kept.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

impl Last {
    fn holds(&self, objects: &Objects, proxy: &Proxy, request: &Request) -> bool {
        self.proxy == *proxy
            && self.request == *request
            && self.objects.is_same_but_for_virtual_services(objects)
    }

    /// Clusters of which only the names are known.
    pub(super) fn clusters(&self) -> Clusters {
        Clusters::named(self.names.clone())
    }

    /// The secrets that they name.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// What there was to say about clusters and endpoints.
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Virtual hosts of services on that port.
    pub(super) fn of_services(&self, port: u16) -> Option<&OfServices> {
        self.of_services.get(&port)
    }
}
