//! The workload behind an endpoint: what istiod derives from a pod and its node.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Scope;
use super::behind::target;
use super::texts::Texts;
use crate::hashed::{HashMap, HashSet};
use crate::istio::WorkloadEntry;
use crate::kubernetes::{EndpointSlice, LabelsOnly, Pod, PodAnnotations};
use crate::labels::{LabelSet, Labels};
use crate::objects::{Key, Metadata, Object};
use crate::resource::{EndpointMetadata, Locality, Workload};

/// Label of a pod that says whether its sidecar accepts mutual TLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Label of a pod that overrides the workload name.
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
const NAME_LABELS: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
const REVISION_LABELS: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
/// Label of a pod that overrides the locality of its node.
const LOCALITY: &str = "istio-locality";
const REGION_LABELS: [&str; 2] =
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const SUB_ZONE_LABELS: [&str; 1] = ["topology.istio.io/subzone"];

/// Labels together with those that Istio adds to every workload from where it runs.
pub(super) struct WorkloadLabels<'a> {
    labels: &'a dyn LabelSet,
    locality: &'a Locality,
    cluster_id: &'a str,
    node: &'a str,
}

impl<'a> WorkloadLabels<'a> {
    /// The same place with other labels.
    pub(super) fn with(self, labels: &'a dyn LabelSet) -> WorkloadLabels<'a> {
        WorkloadLabels { labels, ..self }
    }

    /// Labels of the workload that the proxy stands beside.
    pub(super) fn of_proxy(scope: &Scope<'a>) -> WorkloadLabels<'a> {
        let proxy = scope.proxy;
        WorkloadLabels {
            labels: &proxy.labels,
            locality: &proxy.locality,
            cluster_id: &proxy.cluster_id,
            node: proxy.node(),
        }
    }

    /// The value of a label.
    pub(super) fn get(&self, label: &str) -> Option<&'a str> {
        let added: &'a str = match label {
            "topology.kubernetes.io/region" => &self.locality.region,
            "topology.kubernetes.io/zone" => &self.locality.zone,
            "topology.istio.io/subzone" => &self.locality.sub_zone,
            "topology.istio.io/cluster" => self.cluster_id,
            "kubernetes.io/hostname" => self.node,
            _ => "",
        };
        if added.is_empty() { self.labels.value(label) } else { Some(added) }
    }

    /// Whether it carries all of `wanted`.
    pub(super) fn carries(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(label, value)| self.get(label) == Some(value))
    }

    /// Whether it carries all that a selector of Kubernetes' asks for.
    pub(super) fn is_selected_by(&self, selector: &Labels) -> bool {
        selector.iter().all(|(label, value)| self.get(label) == Some(value))
    }
}

/// The labels of a WorkloadEntry: those of its metadata come before those that it says its workload has.
impl LabelSet for Object<WorkloadEntry> {
    fn value(&self, label: &str) -> Option<&str> {
        self.metadata.labels.get(label).or_else(|| self.spec.labels.value(label))
    }
}

/// A pod, or another endpoint that is written, as the registry sees it.
pub(super) struct Instance<'a> {
    labels: &'a dyn LabelSet,
    annotations: Option<&'a PodAnnotations>,
    node: &'a str,
    cluster_id: &'a str,
    /// Its namespace and service account; without one nobody knows its identity.
    pub(super) account: Option<(&'a str, &'a str)>,
    pub(super) locality: Locality,
    /// Its share among the endpoints of its locality.
    pub(super) weight: u32,
    /// Host name and subdomain that DNS knows it by.
    pub(super) host_name: Option<(&'a str, &'a str)>,
    /// With the TLS mode that its label says, whatever it is.
    labelled: Arc<EndpointMetadata>,
    /// Without TLS mode.
    plain: Arc<EndpointMetadata>,
}

impl<'a> Instance<'a> {
    fn new(pod: &'a Object<Pod>, locality: Locality, scope: &Scope<'a>) -> Instance<'a> {
        let cluster_id = &scope.proxy.cluster_id;
        let labels = &pod.metadata.labels;
        let mode = labels.get(TLS_MODE).unwrap_or_default();
        let (labelled, plain) =
            metadata_of(workload(&pod.metadata, cluster_id, &scope.texts), mode, &scope.texts);
        let node = pod.spec.spec.node_name.as_deref().unwrap_or_default();
        let told = |name: &'a Option<Box<str>>| name.as_deref().filter(|name| !name.is_empty());
        let host_name = told(&pod.spec.spec.hostname).zip(told(&pod.spec.spec.subdomain));
        // What the API server writes where nobody did.
        let account = pod.spec.spec.service_account_name.as_deref().unwrap_or("default");
        let account = Some((&**pod.namespace(), account));
        let annotations = pod.spec.annotations.as_deref();
        let weight = 1;
        Instance {
            labels,
            annotations,
            node,
            cluster_id,
            account,
            locality,
            weight,
            host_name,
            labelled,
            plain,
        }
    }

    /// The node it runs on; empty where nobody says it.
    pub(super) fn node(&self) -> &'a str {
        self.node
    }

    /// An endpoint that is written; `name` is what its workload is called. One with a service account has a sidecar,
    /// unless its label says otherwise.
    pub(super) fn of_entry(
        entry: &'a WorkloadEntry,
        labels: &'a dyn LabelSet,
        name: &str,
        namespace: &'a Arc<str>,
        scope: &Scope<'a>,
    ) -> Instance<'a> {
        let cluster_id = &scope.proxy.cluster_id;
        let account = entry.service_account.as_deref().filter(|account| !account.is_empty());
        let mode = labels.value(TLS_MODE).unwrap_or(if account.is_some() { "istio" } else { "" });
        let (labelled, plain) = metadata_of(
            workload_of(scope.texts.get(name), labels, namespace.clone(), cluster_id, &scope.texts),
            mode,
            &scope.texts,
        );
        let label = labels.value(LOCALITY).map(|label| label.replace('.', "/"));
        let told = entry.locality.as_deref().or(label.as_deref()).unwrap_or_default();
        Instance {
            labels,
            annotations: None,
            node: "",
            cluster_id,
            account: account.map(|account| (&**namespace, account)),
            locality: locality_of(told, '/'),
            weight: entry.weight.filter(|weight| *weight > 0).unwrap_or(1),
            host_name: None,
            labelled,
            plain,
        }
    }

    /// Its labels, and those that Istio adds.
    pub(super) fn labels(&self) -> WorkloadLabels<'_> {
        WorkloadLabels {
            labels: self.labels,
            locality: &self.locality,
            cluster_id: self.cluster_id,
            node: self.node,
        }
    }

    /// Whether it has a sidecar that accepts mutual TLS.
    pub(super) fn accepts_mutual_tls(&self) -> bool {
        self.labelled.tls_mode.as_deref() == Some("istio")
    }

    /// Whether its label says nothing of TLS, or that there is none.
    pub(super) fn is_without_tls(&self) -> bool {
        self.labelled.tls_mode.is_none()
    }

    /// Whether it is a pod of which its label would say that it has a sidecar, and does not.
    pub(super) fn is_without_sidecar(&self) -> bool {
        let is_told = self.labels.value(TLS_MODE).is_some_and(|mode| !mode.is_empty());
        self.account.is_some() && !is_told && !self.accepts_mutual_tls()
    }

    /// Whether what comes to `port` goes through its sidecar, if it has one.
    pub(super) fn is_captured(&self, port: u16) -> bool {
        self.annotations.is_none_or(|annotations| annotations.is_captured(port))
    }

    /// The workload that it is of.
    pub(super) fn workload(&self) -> Option<&Workload> {
        self.plain.workload.as_ref()
    }

    /// Its metadata with the TLS mode of its label, or without.
    pub(super) fn metadata(&self, with_tls_mode: bool) -> &Arc<EndpointMetadata> {
        if with_tls_mode { &self.labelled } else { &self.plain }
    }
}

/// Metadata with the TLS mode that a label says, and without.
fn metadata_of(
    workload: Workload,
    mode: &str,
    texts: &Texts,
) -> (Arc<EndpointMetadata>, Arc<EndpointMetadata>) {
    let plain = Arc::new(EndpointMetadata { tls_mode: None, workload: Some(workload) });
    if mode.is_empty() || mode == "disabled" {
        return (plain.clone(), plain);
    }
    let labelled = EndpointMetadata { tls_mode: Some(texts.get(mode)), workload: plain.workload.clone() };
    (Arc::new(labelled), plain)
}

/// Pods, by namespace and name.
pub(super) struct Instances<'a> {
    by_namespace: HashMap<&'a str, HashMap<&'a str, Instance<'a>>>,
}

impl<'a> Instances<'a> {
    /// The pods of `scope`.
    pub(super) fn new(scope: &Scope<'a>) -> Instances<'a> {
        Instances::of(scope, scope.objects.pods.values().map(|pod| &**pod))
    }

    /// Those that `slices` name, those that they mean otherwise, and those that entries may select.
    pub(super) fn of_slices(
        scope: &Scope<'a>,
        slices: impl Iterator<Item = &'a Object<EndpointSlice>>,
        meant: impl Iterator<Item = &'a Object<Pod>>,
    ) -> Instances<'a> {
        let named = |slice: &'a Object<EndpointSlice>| {
            let targets = slice.spec.endpoints.iter().filter_map(|endpoint| target(slice, endpoint));
            targets.filter_map(|(namespace, name)| scope.objects.pods.get(&(namespace.into(), name.into())))
        };
        let entries = scope.objects.service_entries.values();
        let selecting = entries.filter(|entry| entry.spec.workload_selector.is_some());
        let namespaces: HashSet<&Arc<str>> = selecting.map(|entry| entry.namespace()).collect();
        let selected = scope.objects.pods.values().filter(|pod| namespaces.contains(pod.namespace()));
        Instances::of(scope, slices.flat_map(named).chain(selected).map(|pod| &**pod).chain(meant))
    }

    fn of(scope: &Scope<'a>, pods: impl Iterator<Item = &'a Object<Pod>>) -> Instances<'a> {
        let objects = scope.objects;
        let nodes: HashMap<&str, Locality> =
            objects.nodes.values().map(|node| (&**node.name(), node_locality(node))).collect();
        let mut by_namespace: HashMap<&'a str, HashMap<&'a str, Instance<'a>>> = HashMap::default();
        for pod in pods {
            let instance = Instance::new(pod, pod_locality(pod, &nodes), scope);
            by_namespace.entry(pod.namespace()).or_default().insert(pod.name(), instance);
        }
        Instances { by_namespace }
    }

    /// The pods of a namespace, by name.
    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<(&'a str, &Instance<'a>)> {
        let mut pods: Vec<_> =
            self.by_namespace.get(namespace).into_iter().flatten().map(|(name, pod)| (*name, pod)).collect();
        pods.sort_by_key(|(name, _)| *name);
        pods
    }

    /// Namespace and name of the pod that this very instance is.
    pub(super) fn key_of(&self, instance: &Instance<'_>) -> Option<Key> {
        self.by_namespace.iter().find_map(|(namespace, pods)| {
            let is_it = |pod: &Instance<'_>| std::ptr::addr_eq(pod, instance);
            let (name, _) = pods.iter().find(|(_, pod)| is_it(pod))?;
            Some(((*namespace).into(), (*name).into()))
        })
    }

    /// The pod of that namespace and name.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Instance<'a>> {
        self.by_namespace.get(namespace)?.get(name)
    }
}

/// Where a pod runs: what its label says, or else its node.
pub(super) fn pod_locality(pod: &Object<Pod>, nodes: &HashMap<&str, Locality>) -> Locality {
    label_locality(&pod.metadata.labels).unwrap_or_else(|| {
        let node = pod.spec.spec.node_name.as_deref().unwrap_or_default();
        nodes.get(node).cloned().unwrap_or_default()
    })
}

/// Where a workload says by its label that it runs.
pub(super) fn label_locality(labels: &dyn LabelSet) -> Option<Locality> {
    let label = labels.value(LOCALITY).filter(|label| !label.is_empty())?;
    // A label cannot hold slashes, so dots stand for them.
    Some(locality_of(label, if label.contains('/') { '/' } else { '.' }))
}

fn locality_of(text: &str, separator: char) -> Locality {
    let mut parts = text.split(separator);
    let mut part = || parts.next().unwrap_or_default().into();
    Locality { region: part(), zone: part(), sub_zone: part() }
}

/// Where a node is.
pub(super) fn node_locality(node: &Object<LabelsOnly>) -> Locality {
    let labels = &node.metadata.labels;
    let first = |keys: &[&str]| -> Arc<str> { first_label(labels, keys).unwrap_or_default().into() };
    Locality { region: first(&REGION_LABELS), zone: first(&ZONE_LABELS), sub_zone: first(&SUB_ZONE_LABELS) }
}

/// The first of these labels that is there.
pub(super) fn first_label<'l>(labels: &'l dyn LabelSet, keys: &[&str]) -> Option<&'l str> {
    keys.iter().find_map(|key| labels.value(key))
}

/// What istiod writes as `istio.workload` of a pod.
pub(super) fn workload(pod: &Metadata, cluster_id: &str, texts: &Texts) -> Workload {
    let (name, object) = (workload_name(pod), &pod.object);
    let name = if *name == *object.name { object.name.clone() } else { texts.get(name) };
    workload_of(name, &pod.labels, object.namespace.clone(), cluster_id, texts)
}

/// A workload by its name and labels.
pub(super) fn workload_of(
    name: Arc<str>,
    labels: &dyn LabelSet,
    namespace: Arc<str>,
    cluster_id: &str,
    texts: &Texts,
) -> Workload {
    let canonical_name = first_label(labels, &NAME_LABELS).map(|name| texts.get(name));
    // istiod leaves out the revision that everyone takes for granted.
    let canonical_revision = first_label(labels, &REVISION_LABELS).filter(|revision| *revision != "latest");
    Workload {
        canonical_name: canonical_name.unwrap_or_else(|| name.clone()),
        name,
        namespace,
        canonical_revision: texts.get(canonical_revision.unwrap_or_default()),
        cluster_id: texts.get(cluster_id),
    }
}

/// The name of the workload a pod belongs to, guessed as Istio does: a pod whose name the API server made belongs
/// to its controller, and a controller that a Deployment, Rollout, DeploymentConfig or CronJob made, to that.
fn workload_name(pod: &Metadata) -> &str {
    if let Some(name) = pod.labels.get(WORKLOAD_NAME) {
        return name;
    }
    let generated = pod.generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty());
    let Some((kind, controller)) = pod.controller.as_deref().filter(|_| generated) else {
        return &pod.object.name;
    };
    let label = |key: &str| pod.labels.get(key).filter(|value| !value.is_empty());
    let hash = |key: &str| label(key).filter(|hash| controller.ends_with(hash));
    let name: &str = match kind.as_str() {
        "ReplicaSet" => match hash("pod-template-hash").or_else(|| hash("rollouts-pod-template-hash")) {
            Some(hash) => {
                controller.strip_suffix(hash).and_then(|rest| rest.strip_suffix('-')).unwrap_or(controller)
            }
            None => controller,
        },
        "ReplicationController" => label("deploymentconfig").unwrap_or(controller),
        "Job" => cron_job_name(controller).unwrap_or(controller),
        _ => controller,
    };
    if name.is_empty() { &pod.object.name } else { name }
}

/// The CronJob of a Job that ends in 8 to 10 digits of its scheduled time.
fn cron_job_name(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Source;
    use crate::origin::ObjectRef;

    fn pod(
        generate_name: Option<&str>,
        controller: Option<(&str, &str)>,
        labels: &[(&str, &str)],
    ) -> Metadata {
        Metadata {
            object: Arc::new(ObjectRef {
                kind: "Pod".into(),
                namespace: "shop".into(),
                name: "pod-1".into(),
            }),
            labels: Labels::from(
                &labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ),
            generate_name: generate_name.map(Box::from),
            controller: controller.map(|(kind, name)| Box::new((kind.to_owned(), name.to_owned()))),
            creation_timestamp: None,
            source: Source { file: "pods.yaml".into(), line: 1, fields: None },
        }
    }

    #[test]
    fn names_of_workloads() {
        let check = |generate_name, controller, labels: &[(&str, &str)], expected| {
            let pod = pod(generate_name, controller, labels);
            assert_eq!(workload_name(&pod), expected, "{controller:?} {labels:?}");
        };
        let made = Some("x-");
        let replica_set = Some(("ReplicaSet", "web-7d9c"));
        check(None, replica_set, &[("pod-template-hash", "7d9c")], "pod-1");
        check(made, None, &[], "pod-1");
        check(made, replica_set, &[("pod-template-hash", "7d9c")], "web");
        check(made, replica_set, &[("pod-template-hash", "ffff")], "web-7d9c");
        check(made, replica_set, &[("rollouts-pod-template-hash", "7d9c")], "web");
        check(made, Some(("StatefulSet", "db")), &[], "db");
        check(made, Some(("ReplicationController", "db-3")), &[("deploymentconfig", "db")], "db");
        check(made, Some(("Job", "tidy-28123456")), &[], "tidy");
        check(made, Some(("Job", "tidy-1234567")), &[], "tidy-1234567");
        check(made, replica_set, &[(WORKLOAD_NAME, "named")], "named");
    }

    #[test]
    fn canonical_name_and_revision() {
        let check = |labels: &[(&str, &str)], name: &str, revision: &str| {
            let workload = workload(&pod(None, None, labels), "Kubernetes", &Texts::default());
            assert_eq!(
                (&*workload.canonical_name, &*workload.canonical_revision),
                (name, revision),
                "{labels:?}"
            );
        };
        check(&[], "pod-1", "");
        check(&[("app", "web"), ("version", "v1")], "web", "v1");
        check(
            &[("app", "web"), ("app.kubernetes.io/name", "shop-web"), ("version", "latest")],
            "shop-web",
            "",
        );
        check(&[("service.istio.io/canonical-name", "w"), ("app", "web")], "w", "");
    }
}
