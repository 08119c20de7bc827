//! Meshes for tests, from YAML, without the checks that [`yaml`](crate::yaml) makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::compile::{
    Compiled, ExplicitListener, ListenTarget, Mode, Proxy, Request, TakesOrders, compile_as,
};
use crate::mesh::MeshConfig;
use crate::objects::{Kept, Metadata, Object, Objects, Source};
use crate::origin::ObjectRef;
use crate::resource::{Cluster, ClusterLoadAssignment, Resources, RouteConfiguration, VirtualHost};

#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    generate_name: Option<Box<str>>,
    creation_timestamp: Option<Box<str>>,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Deserialize)]
struct Spec<T> {
    spec: T,
}

/// Adds every object of `text` that compile knows.
pub(crate) fn load(objects: &mut Objects, file: &str, text: &str) {
    let mut line = 1;
    for text in text.split("\n---\n") {
        let begins = line;
        line += u32::try_from(text.lines().count()).unwrap() + 1;
        if text.trim().is_empty() {
            continue;
        }
        let document: Document =
            crate::testing::from_yaml(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let kind = document.kind.clone();
        let metadata = metadata(document, file, begins);
        match kind.as_str() {
            "Namespace" => add(&mut objects.namespaces, metadata, crate::kubernetes::LabelsOnly {}),
            "Node" => add(&mut objects.nodes, metadata, crate::kubernetes::LabelsOnly {}),
            "Service" => add(&mut objects.services, metadata, whole(text)),
            "Secret" => add(&mut objects.secrets, metadata, whole(text)),
            "EndpointSlice" => add(&mut objects.endpoint_slices, metadata, whole(text)),
            "Pod" => add(&mut objects.pods, metadata, whole(text)),
            "VirtualService" => add(&mut objects.virtual_services, metadata, whole::<Spec<_>>(text).spec),
            "DestinationRule" => add(&mut objects.destination_rules, metadata, whole::<Spec<_>>(text).spec),
            "Gateway" => add(&mut objects.gateways, metadata, whole::<Spec<_>>(text).spec),
            "ServiceEntry" => add(&mut objects.service_entries, metadata, whole::<Spec<_>>(text).spec),
            "WorkloadEntry" => add(&mut objects.workload_entries, metadata, whole::<Spec<_>>(text).spec),
            "Sidecar" => add(&mut objects.sidecars, metadata, whole::<Spec<_>>(text).spec),
            "PeerAuthentication" => {
                add(&mut objects.peer_authentications, metadata, whole::<Spec<_>>(text).spec);
            }
            "RequestAuthentication" => {
                add(&mut objects.request_authentications, metadata, whole::<Spec<_>>(text).spec);
            }
            "AuthorizationPolicy" => {
                add(&mut objects.authorization_policies, metadata, whole::<Spec<_>>(text).spec);
            }
            _ => {}
        }
    }
}

fn whole<T: DeserializeOwned>(text: &str) -> T {
    crate::testing::from_yaml(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn metadata(document: Document, file: &str, line: u32) -> Metadata {
    let Document { kind, metadata: meta } = document;
    let controller = meta.owner_references.into_iter().find(|owner| owner.controller);
    let object = ObjectRef { kind: kind.into(), namespace: meta.namespace.into(), name: meta.name.into() };
    Metadata {
        object: Arc::new(object),
        labels: (&meta.labels).into(),
        generate_name: meta.generate_name,
        controller: controller.map(|owner| Box::new((owner.kind, owner.name))),
        creation_timestamp: meta.creation_timestamp,
        source: Source { file: file.into(), line, fields: None },
    }
}

fn add<T: Clone>(objects: &mut Kept<T>, metadata: Metadata, spec: T) {
    let key = (metadata.object.namespace.clone(), metadata.object.name.clone());
    Arc::make_mut(objects).insert(key, Arc::new(Object { metadata, spec }));
}

/// A mesh, and the proxy that looks at it.
pub(super) struct Mesh {
    pub(super) objects: Objects,
    pub(super) proxy: Proxy,
    pub(super) listeners: Vec<ExplicitListener>,
    pub(super) mode: Mode,
    pub(super) allow_unenforced_security: bool,
    pub(super) products_max: Option<usize>,
    pub(super) orders: TakesOrders,
}

impl Mesh {
    /// The objects of `text`, seen by a proxy of namespace `shop` that listens for all of port 80.
    pub(super) fn new(text: &str) -> Mesh {
        let mut objects = Objects::default();
        load(&mut objects, "mesh.yaml", text);
        let mut mesh = Mesh::of(objects, proxy("client", "shop"));
        mesh.listen_outbound(80);
        mesh
    }

    /// `objects`, seen by `proxy`, which has no listeners.
    pub(super) fn of(objects: Objects, proxy: Proxy) -> Mesh {
        Mesh {
            objects,
            proxy,
            listeners: Vec::new(),
            mode: Mode::Explicit,
            allow_unenforced_security: false,
            products_max: None,
            orders: TakesOrders::default(),
        }
    }

    /// The objects of `text`, seen by a sidecar of namespace `shop`.
    pub(super) fn sidecar(text: &str) -> Mesh {
        let mut objects = Objects::default();
        load(&mut objects, "mesh.yaml", text);
        Mesh { mode: Mode::Sidecar, ..Mesh::of(objects, proxy("client", "shop")) }
    }

    pub(super) fn configure(mut self, change: impl FnOnce(&mut MeshConfig)) -> Mesh {
        change(Arc::make_mut(&mut self.objects.mesh));
        self
    }

    pub(super) fn seen_by(mut self, change: impl FnOnce(&mut Proxy)) -> Mesh {
        change(&mut self.proxy);
        self
    }

    pub(super) fn listen_outbound(&mut self, port: u16) {
        self.listen(ListenTarget::Outbound { port });
    }

    pub(super) fn listen_service(&mut self, host: &str, port: u16) {
        self.listen(ListenTarget::Service { host: host.into(), port });
    }

    fn listen(&mut self, target: ListenTarget) {
        self.listeners.push(ExplicitListener { address: "127.0.0.1:0".parse().unwrap(), target });
    }

    pub(super) fn compile(&self) -> Output {
        let request = Request {
            listeners: self.listeners.clone(),
            mode: self.mode,
            allow_unenforced_security: self.allow_unenforced_security,
            products_max: self.products_max,
            orders: self.orders,
            ..Request::default()
        };
        let compiled = compile_as(&self.objects, &self.proxy, &request);
        assert_eq!(compiled, compile_as(&self.objects, &self.proxy, &request), "compile is not pure");
        let mut resources = Resources::default();
        resources.apply(compiled.update.clone());
        Output { compiled, resources }
    }
}

pub(crate) fn proxy(name: &str, namespace: &str) -> Proxy {
    Proxy {
        name: name.into(),
        namespace: namespace.into(),
        labels: BTreeMap::new(),
        service_account: name.into(),
        ips: vec!["10.244.1.10".parse().unwrap()],
        locality: crate::resource::Locality { region: "r1".into(), zone: "r1-a".into(), sub_zone: "".into() },
        ..Proxy::default()
    }
}

/// What was compiled, with ways to look at it.
pub(super) struct Output {
    pub(super) compiled: Compiled,
    pub(super) resources: Resources,
}

impl Output {
    pub(super) fn cluster(&self, name: &str) -> &Cluster {
        let names = || self.resources.clusters.keys().map(|name| &**name).collect::<Vec<_>>().join("\n");
        self.resources.clusters.get(name).unwrap_or_else(|| panic!("no cluster {name} among\n{}", names()))
    }

    pub(super) fn has_cluster(&self, name: &str) -> bool {
        self.resources.clusters.contains_key(name)
    }

    pub(super) fn endpoints(&self, name: &str) -> &ClusterLoadAssignment {
        self.resources.endpoints.get(name).unwrap_or_else(|| panic!("no endpoints of {name}"))
    }

    pub(super) fn routes(&self, name: &str) -> &RouteConfiguration {
        self.resources.routes.get(name).unwrap_or_else(|| panic!("no route configuration {name}"))
    }

    /// The virtual host of port 80 with that host.
    pub(super) fn host(&self, host: &str) -> &VirtualHost {
        let name = format!("{host}:80");
        let found = self.routes("80").virtual_hosts.iter().find(|known| *known.name == name);
        found.unwrap_or_else(|| panic!("no virtual host {name}"))
    }

    /// Names of the virtual hosts of port 80, without the last, which catches what is left.
    pub(super) fn hosts(&self) -> Vec<&str> {
        let hosts = &self.routes("80").virtual_hosts;
        hosts[..hosts.len() - 1].iter().map(|host| &*host.name).collect()
    }

    /// Codes of the findings.
    pub(super) fn codes(&self) -> Vec<&str> {
        self.compiled.findings.iter().map(|finding| finding.code).collect()
    }
}

/// A service of namespace `shop` with port 80, named `http`, and nothing else.
pub(super) fn service(name: &str) -> String {
    service_in(name, "shop", "http")
}

/// A service with port 80 of that name.
pub(super) fn service_in(name: &str, namespace: &str, port: &str) -> String {
    format!(
        "
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: {port}, port: 80}}]}}
---
"
    )
}
