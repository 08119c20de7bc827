//! Which settings hold for one proxy, of all that are written for proxies. Semantics: istiod's
//! `EffectiveProxyConfig`, then the Istio agent's: what the pod itself was given wins over what istiod knows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{INTERCEPTION_MODE, ROOT_NAMESPACE, age};
use crate::istio;
use crate::mesh::{self, GatewayTopology, InterceptionMode, ProxyConfig};
use crate::objects::{Object, Objects};

/// Settings that hold for a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveProxyConfig {
    /// How many workers are asked for.
    pub concurrency: Option<Concurrency>,
    /// How long a proxy that is told to end goes on for clients that have not heard of it yet.
    pub termination_drain_duration: Option<Duration>,
    /// Node metadata: `ISTIO_META_X` among the proxy's metadata and environment variables becomes `X`.
    pub metadata: BTreeMap<String, String>,
    /// Who stands before it, if it is a gateway.
    pub gateway_topology: Option<GatewayTopology>,
    /// How the pod's traffic comes to it; what decides is the metadata.
    pub interception_mode: Option<InterceptionMode>,
}

/// A number of workers that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// 0 means one per core.
    pub workers: u32,
    /// Who asks, such as `ProxyConfig shop/web (a.yaml:3)`.
    pub asked_by: String,
}

/// Settings that a proxy was given where it runs, and what gave them, such as `PROXY_CONFIG`.
pub type GivenConfig = (String, ProxyConfig);

/// What holds for the proxy of a workload with these labels. `pod` is the name of its Pod, if that is known; `given` are
/// the settings its container was given, the one that wins last.
pub fn effective_proxy_config(
    objects: &Objects,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    pod: &str,
    given: &[GivenConfig],
) -> EffectiveProxyConfig {
    let mut effective = EffectiveProxyConfig::default();
    let mesh = &objects.mesh.default_config;
    effective.add_config("MeshConfig defaultConfig.concurrency", mesh);
    let root = objects.mesh.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE);
    let of_root = of_namespace(objects, root);
    let of_namespace = of_namespace(objects, namespace).filter(|_| namespace != root);
    for object in of_root.into_iter().chain(of_namespace) {
        effective.add_object(object);
    }
    let pod = objects.pods.get(&(namespace.into(), pod.into()));
    if let Some(pod) = pod
        && let Some(Ok(read)) = pod.spec.proxy_config().map(mesh::read_proxy_config)
    {
        let by = format!("annotation {} of {}", mesh::PROXY_CONFIG_ANNOTATION, pod.metadata.object);
        effective.add_config(&by, &read.config);
    }
    if let Some(object) = of_workload(objects, namespace, labels) {
        effective.add_object(object);
    }
    for (by, config) in given {
        effective.add_config(by, config);
    }
    let annotated = pod.and_then(|pod| pod.spec.interception_mode());
    if let Some(mode) = annotated.and_then(InterceptionMode::of_name).or(effective.interception_mode) {
        // What the injector told the container wins, and is metadata by now or will be.
        effective.metadata.entry(INTERCEPTION_MODE.to_owned()).or_insert_with(|| mode.name().to_owned());
    }
    effective
}

impl EffectiveProxyConfig {
    /// Lays settings over those that hold so far.
    fn add(&mut self, by: &str, concurrency: Option<i32>, metadata: &BTreeMap<String, String>) {
        if let Some(workers) = concurrency.and_then(|concurrency| u32::try_from(concurrency).ok()) {
            self.concurrency = Some(Concurrency { workers, asked_by: by.to_owned() });
        }
        self.metadata.extend(mesh::node_metadata(metadata));
    }

    fn add_config(&mut self, by: &str, config: &ProxyConfig) {
        self.add(by, config.concurrency, &config.proxy_metadata);
        let duration = config.termination_drain_duration.map(|duration| duration.0);
        self.termination_drain_duration = duration.or(self.termination_drain_duration);
        // As in Istio, what is written nearer replaces all of it.
        if let Some(topology) = &config.gateway_topology {
            self.gateway_topology = Some(topology.clone());
        }
        self.interception_mode = config.interception_mode.or(self.interception_mode);
    }

    fn add_object(&mut self, object: &Object<istio::ProxyConfig>) {
        let by = object.origin_at("spec.concurrency").to_string();
        self.add(&by, object.spec.concurrency, &object.spec.environment_variables);
    }
}

/// The oldest of a namespace that is for all of it.
fn of_namespace<'o>(objects: &'o Objects, namespace: &str) -> Option<&'o Object<istio::ProxyConfig>> {
    oldest(objects, namespace, |config| config.selector.is_none())
}

/// The oldest of a namespace that selects these labels.
fn of_workload<'o>(
    objects: &'o Objects,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<&'o Object<istio::ProxyConfig>> {
    oldest(objects, namespace, |config| {
        let wanted = config.selector.as_ref().map(|selector| &selector.match_labels);
        wanted.is_some_and(|wanted| {
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    })
}

fn oldest<'o>(
    objects: &'o Objects,
    namespace: &str,
    fits: impl Fn(&istio::ProxyConfig) -> bool,
) -> Option<&'o Object<istio::ProxyConfig>> {
    let of_namespace = objects.proxy_configs.values().filter(|object| &**object.namespace() == namespace);
    of_namespace
        .filter(|object| fits(&object.spec))
        .min_by(|one, other| age(&one.metadata).cmp(&age(&other.metadata)))
        .map(|object| &**object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::yaml::{Limits, read_file};

    fn object(namespace: &str, name: &str, made: &str, spec: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\n\
             metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{made}'}}\nspec: {{{spec}}}\n"
        )
    }

    /// Who decides for `web` of `shop`, and the metadata.
    fn check(texts: &[String], mesh_concurrency: Option<i32>, given: &[GivenConfig], expected: &str) {
        let mut objects = Objects::default();
        let read = read_file(&Arc::from("f.yaml"), &texts.join("---\n"), &Limits::DEFAULT);
        assert!(read.findings.is_empty(), "{:?}", read.findings);
        read.objects.into_iter().for_each(|read| objects.insert(read.value.unwrap()));
        let config = ProxyConfig { concurrency: mesh_concurrency, ..ProxyConfig::default() };
        objects.mesh = Arc::new(mesh::MeshConfig { default_config: config, ..Default::default() });
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let found = effective_proxy_config(&objects, "shop", &labels, "web-1", given);
        let asked = found.concurrency.map(|asked| format!("{} {}", asked.workers, asked.asked_by));
        let metadata: Vec<_> = found.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            format!("{} | {}", asked.unwrap_or_default(), metadata.join(",")),
            expected,
            "{texts:?} {given:?}"
        );
    }

    #[test]
    fn the_nearest_decides() {
        let root =
            object("istio-system", "r", "1", "concurrency: 3, environmentVariables: {ISTIO_META_A: r, X: x}");
        let namespace = object(
            "shop",
            "n",
            "2",
            "concurrency: 4, environmentVariables: {ISTIO_META_A: n, ISTIO_META_B: n}",
        );
        let older = object("shop", "o", "1", "concurrency: 5");
        let workload = object("shop", "w", "9", "concurrency: 0, selector: {matchLabels: {app: web}}");
        let other = object("shop", "x", "1", "concurrency: 7, selector: {matchLabels: {app: other}}");
        let nobody = object("shop", "y", "1", "concurrency: 8, selector: {}");
        let elsewhere = object("bank", "z", "1", "concurrency: 9");
        check(&[], None, &[], " | ");
        check(&[other, nobody, elsewhere], Some(2), &[], "2 MeshConfig defaultConfig.concurrency | ");
        check(std::slice::from_ref(&root), Some(2), &[], "3 ProxyConfig istio-system/r (f.yaml:4) | A=r");
        let both = [root, namespace.clone()];
        check(&both, Some(2), &[], "4 ProxyConfig shop/n (f.yaml:9) | A=n,B=n");
        check(&[namespace.clone(), older], None, &[], "5 ProxyConfig shop/o (f.yaml:9) | ");
        let pod = "apiVersion: v1\nkind: Pod\n\
                   metadata: {name: web-1, namespace: shop, annotations: {proxy.istio.io/config: 'concurrency: 6'}}\n"
            .to_owned();
        let annotation = "6 annotation proxy.istio.io/config of Pod shop/web-1 | A=n,B=n";
        check(&[namespace, pod.clone()], None, &[], annotation);
        check(&[pod, workload.clone()], Some(2), &[], "0 ProxyConfig shop/w (f.yaml:8) | ");
        let given = |by: &str, workers| {
            (by.to_owned(), ProxyConfig { concurrency: Some(workers), ..ProxyConfig::default() })
        };
        check(&[workload], None, &[given("one", 1), given("two", 2)], "2 two | ");
    }

    #[test]
    fn the_nearest_says_how_long_a_drain_takes() {
        let seconds = |seconds| ProxyConfig {
            termination_drain_duration: Some(istio::GoDuration(Duration::from_secs(seconds))),
            ..ProxyConfig::default()
        };
        let check = |mesh: ProxyConfig, given: &[ProxyConfig], expected: Option<u64>| {
            let mesh = Arc::new(mesh::MeshConfig { default_config: mesh, ..Default::default() });
            let objects = Objects { mesh, ..Objects::default() };
            let given: Vec<GivenConfig> =
                given.iter().map(|config| ("PROXY_CONFIG".to_owned(), config.clone())).collect();
            let found = effective_proxy_config(&objects, "shop", &BTreeMap::new(), "web-1", &given);
            assert_eq!(found.termination_drain_duration, expected.map(Duration::from_secs));
        };
        check(ProxyConfig::default(), &[], None);
        check(seconds(7), &[], Some(7));
        check(seconds(7), &[ProxyConfig::default()], Some(7));
        check(seconds(7), &[seconds(9)], Some(9));
        check(seconds(7), &[seconds(0)], Some(0));
    }
    #[test]
    fn the_nearest_says_who_stands_before_a_gateway() {
        let hops = |num_trusted_proxies| ProxyConfig {
            gateway_topology: Some(GatewayTopology { num_trusted_proxies, ..GatewayTopology::default() }),
            ..ProxyConfig::default()
        };
        let check = |mesh: ProxyConfig, given: &[ProxyConfig], expected: Option<u32>| {
            let mesh = Arc::new(mesh::MeshConfig { default_config: mesh, ..Default::default() });
            let objects = Objects { mesh, ..Objects::default() };
            let given: Vec<GivenConfig> =
                given.iter().map(|config| ("PROXY_CONFIG".to_owned(), config.clone())).collect();
            let found = effective_proxy_config(&objects, "shop", &BTreeMap::new(), "web-1", &given);
            assert_eq!(found.gateway_topology.map(|topology| topology.num_trusted_proxies), expected);
        };
        check(ProxyConfig::default(), &[], None);
        check(hops(1), &[ProxyConfig::default()], Some(1));
        check(hops(1), &[hops(2)], Some(2));
        check(hops(1), &[hops(0)], Some(0));
    }
    #[test]
    fn how_traffic_comes() {
        let mode = |interception_mode| ProxyConfig { interception_mode, ..ProxyConfig::default() };
        let check = |mesh: Option<InterceptionMode>, given, annotations: &str, expected: Option<&str>| {
            let mut objects = Objects::default();
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, namespace: shop, annotations: {{{annotations}}}}}\n"
            );
            let read = read_file(&Arc::from("f.yaml"), &pod, &Limits::DEFAULT);
            read.objects.into_iter().for_each(|read| objects.insert(read.value.unwrap()));
            objects.mesh = Arc::new(mesh::MeshConfig { default_config: mode(mesh), ..Default::default() });
            let given = [("PROXY_CONFIG".to_owned(), mode(given))];
            let found = effective_proxy_config(&objects, "shop", &BTreeMap::new(), "web-1", &given);
            let told = found.metadata.get("INTERCEPTION_MODE").map(String::as_str);
            assert_eq!(told, expected, "{mesh:?} {annotations}");
        };
        let (tproxy, none) = (Some(InterceptionMode::Tproxy), Some(InterceptionMode::None));
        check(None, None, "", None);
        check(tproxy, None, "", Some("TPROXY"));
        check(tproxy, none, "", Some("NONE"));
        check(tproxy, None, "proxy.istio.io/config: 'interceptionMode: REDIRECT'", Some("REDIRECT"));
        check(tproxy, none, "sidecar.istio.io/interceptionMode: REDIRECT", Some("REDIRECT"));
        check(tproxy, None, "sidecar.istio.io/interceptionMode: SOME", Some("TPROXY"));
        let said = "proxy.istio.io/config: 'proxyMetadata: {ISTIO_META_INTERCEPTION_MODE: NONE}'";
        check(tproxy, None, said, Some("NONE"));
    }
}
