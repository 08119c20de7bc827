//! Who decides which workload the proxy stands beside.

use config::store::Store;

use super::*;

/// The Pod `web-1` of `shop`, as an object.
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: of-pod, version: v1}}
spec: {serviceAccountName: of-pod, nodeName: n}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Node
metadata: {name: n, labels: {topology.kubernetes.io/region: r}}
";

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn told() -> Workload {
    Workload {
        namespace: "bank".to_owned(),
        labels: pairs(&[("app", "told")]),
        service_account: "told".to_owned(),
        ip: "10.0.0.1".parse().ok(),
        ..Workload::default()
    }
}

fn given() -> Environment {
    Environment {
        pod_name: "web-1".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "given".to_owned(),
        ips: vec!["10.0.0.2".parse().unwrap()],
        ips_by: "INSTANCE_IP".to_owned(),
        labels: pairs(&[("app", "given")]),
        labels_by: "labels file".to_owned(),
        ..Environment::default()
    }
}

/// What is resolved, as `NAME.NAMESPACE ACCOUNT ADDRESSES LABELS`, and the line that tells it holds these parts.
fn check(workload: &Workload, objects: &str, expected: &str, told: &[&str]) -> Proxy {
    let mut store = Store::new();
    store.read("objects.yaml", objects);
    let resolved = workload.resolve(&store.objects()).unwrap();
    let line = resolved.line(None);
    let Proxy { name, namespace, labels, service_account, ips, .. } = &resolved.proxy;
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(format!("{name}.{namespace} {service_account} {ips:?} {}", labels.join(",")), expected);
    told.iter().for_each(|part| assert!(line.contains(part), "{part} is not in {line}"));
    resolved.proxy
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_pod() {
    let nobody = Workload::default();
    check(&nobody, POD, ".default default [] ", &["default (default)", "service account default (default)"]);
    check(
        &told(),
        POD,
        ".bank told [10.0.0.1] app=told",
        &["bank (--namespace)", "[10.0.0.1] (--ip)", "(--labels)"],
    );
    let environment = Workload { environment: given(), ..Workload::default() };
    let parts = [
        "shop (POD_NAMESPACE)",
        "given (SERVICE_ACCOUNT)",
        "(INSTANCE_IP)",
        "1 labels (labels file)",
        "locality `r//`",
    ];
    let proxy = check(&environment, POD, "web-1.shop given [10.0.0.2] app=given", &parts);
    assert_eq!(proxy.principal(), "spiffe://cluster.local/ns/shop/sa/given");
    // Without the Pod object.
    check(&environment, "", "web-1.shop given [10.0.0.2] app=given", &["web-1"]);
    let both = Workload { environment: given(), ..told() };
    check(&both, POD, "web-1.bank told [10.0.0.1] app=told", &["bank (--namespace)"]);
    let one = Workload { service_account: "told".to_owned(), environment: given(), ..Workload::default() };
    check(&one, POD, "web-1.shop told [10.0.0.2] app=given", &["told (--service-account)"]);
    // Names only: all else is the Pod object's.
    let names = Environment { pod_name: "web-1".into(), namespace: "shop".into(), ..Environment::default() };
    let names = Workload { environment: names, ..Workload::default() };
    check(&names, POD, "web-1.shop of-pod [10.0.0.3] app=of-pod,version=v1", &["of-pod (Pod object)"]);
}

#[test]
fn a_pod_that_is_named_is_all_there_is() {
    let named = Workload {
        pod: Some(("web-1".to_owned(), "shop".to_owned())),
        metadata: pairs(&[("CLUSTER_ID", "c1"), ("WORKLOAD_NAME", "web")]),
        environment: Environment { trust_domain: "corp".to_owned(), ..given() },
        ..Workload::default()
    };
    let parts =
        ["Pod shop/web-1 (--as)", "workload `web`", "cluster c1", "identity spiffe://corp/ns/shop/sa/of-pod"];
    let proxy = check(&named, POD, "web-1.shop of-pod [10.0.0.3] app=of-pod,version=v1", &parts);
    assert_eq!(proxy.workload().cluster_id.as_ref(), "c1");
    let missing = named.resolve(&Store::new().objects()).unwrap_err();
    assert!(missing.what.contains("no Pod `web-1` in namespace `shop`"), "{missing}");
}

#[test]
fn the_trust_domain_is_the_containers_or_the_meshs() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'trustDomain: of-mesh'}\n";
    let expected = "web-1.shop given [10.0.0.2] app=given";
    for (objects, given_domain, domain) in
        [("", "", "cluster.local"), (mesh, "", "of-mesh"), (mesh, "corp", "corp")]
    {
        let environment = Environment { trust_domain: given_domain.to_owned(), ..given() };
        let workload = Workload { environment, ..Workload::default() };
        let principal = format!("identity spiffe://{domain}/ns/shop/sa/given");
        check(&workload, objects, expected, &[&principal]);
    }
}

#[test]
fn canonical_names_are_labels() {
    let mut environment = given();
    environment.canonical_service = "storefront".to_owned();
    environment.canonical_revision = "v7".to_owned();
    let workload = Workload { environment, ..Workload::default() };
    let labels =
        "app=given,service.istio.io/canonical-name=storefront,service.istio.io/canonical-revision=v7";
    let expected = format!("web-1.shop given [10.0.0.2] {labels}");
    let proxy = check(&workload, POD, &expected, &["canonical name `storefront`"]);
    assert_eq!(proxy.workload().canonical_revision.as_ref(), "v7");
    let labels = pairs(&[("service.istio.io/canonical-name", "told")]);
    let told = Workload { labels, ..workload };
    let expected = "web-1.shop given [10.0.0.2] service.istio.io/canonical-name=told,service.istio.io/canonical-revision=v7";
    check(&told, POD, expected, &["canonical name `told`"]);
}

/// The annotation of its Pod says who stands before a gateway, and what the container was given says it better.
#[test]
fn who_stands_before_a_gateway() {
    let annotated = POD.replace(
        "labels:",
        "annotations: {proxy.istio.io/config: 'gatewayTopology: {numTrustedProxies: 2}'}, labels:",
    );
    let hops = |workload: &Workload| {
        let expected = "web-1.shop of-pod [10.0.0.3] app=of-pod,version=v1";
        check(workload, &annotated, expected, &[]).gateway_topology.num_trusted_proxies
    };
    let mut workload = Workload { pod: Some(("web-1".to_owned(), "shop".to_owned())), ..Workload::default() };
    assert_eq!(hops(&workload), 2);
    let text = "gatewayTopology: {numTrustedProxies: 1}";
    let given = config::mesh::read_proxy_config(text).unwrap().config;
    workload.environment.proxy_configs.push(("PROXY_CONFIG".to_owned(), given));
    assert_eq!(hops(&workload), 1);
}
