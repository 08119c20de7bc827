//! Who the endpoints of clusters are, in which order of preference, and what is known of them.

use super::clusters::{WEB, rule, with_policy};
use super::mesh::{Mesh, Output, service};
use crate::compile::Proxy;
use crate::resource::{DiscoveryType, TransportSocket};
use crate::store::Store;

/// Endpoints of `web` (`pods` are name, node and further fields of the endpoint, and labels), as
/// `priority region/zone/subzone*weight: addresses`.
fn groups(pods: &[(&str, &str, &str, &str)], rest: &str, proxy: impl FnOnce(&mut Proxy)) -> Vec<String> {
    let node = |name: &str, region: &str, zone: &str| {
        format!(
            "kind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}}}}}\n---\n"
        )
    };
    let mut text =
        service("web") + &node("n1", "r1", "r1-a") + &node("n2", "r1", "r1-b") + &node("n3", "r2", "r2-a");
    let mut endpoints = String::new();
    for (at, (name, node, endpoint, labels)) in pods.iter().enumerate() {
        text += &format!(
            "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\nspec: {{nodeName: {node}}}\n---\n"
        );
        let address = at + 1;
        endpoints += &format!(
            "{{addresses: [10.0.0.{address}], targetRef: {{kind: Pod, name: {name}}}, {endpoint}}}, "
        );
    }
    text += &format!(
        "kind: EndpointSlice\nmetadata: {{name: web-x, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         endpoints: [{endpoints}]\nports: [{{name: http, port: 8080}}]\n---\n{rest}"
    );
    let output = Mesh::new(&text).seen_by(proxy).compile();
    let groups = output.endpoints(WEB).localities.iter().map(|group| {
        let addresses: Vec<String> = group.endpoints.iter().map(|it| it.address.ip().to_string()).collect();
        let addresses = addresses.join(" ").replace("10.0.0.", "");
        format!("{} {}*{}: {addresses}", group.priority, group.locality, group.weight)
    });
    groups.collect()
}

const PODS: [(&str, &str, &str, &str); 4] = [
    ("a", "n3", "", "v: '1'"),
    ("b", "n1", "", "v: '2'"),
    ("c", "n2", "", "v: '1'"),
    ("d", "n1", "", "v: '1'"),
];

#[track_caller]
fn check_groups(policy: &str, expected: &[&str]) {
    let rule = rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"));
    let made = groups(&PODS, &rule, |proxy| {
        proxy.labels.insert("v".to_owned(), "1".to_owned());
    });
    assert_eq!(made, expected, "{policy}");
}

#[test]
fn localities() {
    let flat = ["0 r1/r1-a/*2: 2 4", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"];
    check_groups("", &flat);
    // Outlier detection turns on failover from the proxy's zone to its region to the rest.
    let by_distance = ["0 r1/r1-a/*2: 2 4", "1 r1/r1-b/*1: 3", "2 r2/r2-a/*1: 1"];
    check_groups("outlierDetection: {}", &by_distance);
    check_groups("outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}", &flat);
    check_groups("loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}", &flat);
    let failover = "outlierDetection: {}, loadBalancer: {localityLbSetting: ";
    check_groups(&format!("{failover}{{failover: [{{from: r1, to: r3}}]}}}}"), &by_distance);
    check_groups(
        &format!("{failover}{{failoverPriority: [v]}}}}"),
        &["0 r1/r1-a/*1: 4", "1 r1/r1-a/*1: 2", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"],
    );
    check_groups(
        &format!("{failover}{{failoverPriority: [v=2, topology.kubernetes.io/region]}}}}"),
        &["0 r1/r1-a/*1: 2", "1 r1/r1-a/*1: 4", "1 r1/r1-b/*1: 3", "1 r2/r2-a/*1: 1"],
    );
    check_groups(
        "loadBalancer: {localityLbSetting: {distribute: [{from: 'r1/*', to: {'r1/*': 80, 'r2/*': 20}}]}}",
        &["0 r1/r1-a/*54: 2 4", "0 r1/r1-b/*27: 3", "0 r2/r2-a/*20: 1"],
    );
    check_groups(
        "loadBalancer: {localityLbSetting: {distribute: [{from: r1/r1-a, to: {r1/r1-a: 100}}]}}",
        &["0 r1/r1-a/*100: 2 4"],
    );
    check_groups("loadBalancer: {localityLbSetting: {distribute: [{from: r9, to: {r1/r1-a: 100}}]}}", &flat);
}

/// Without outlier detection too; what a DestinationRule says of localities comes before it.
#[test]
fn a_service_that_prefers_endpoints_that_are_close() {
    let flat = ["0 r1/r1-a/*2: 2 4", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"];
    let by_zone = ["0 r1/r1-a/*2: 2 4", "1 r1/r1-b/*1: 3", "2 r2/r2-a/*1: 1"];
    let check = |field: &str, annotation: &str, rest: &str, expected: &[&str]| {
        let of_spec = format!("{field} clusterIP");
        let of_metadata = format!("{{name: web, annotations: {{{annotation}}}, ");
        let service = service("web").replace("clusterIP", &of_spec).replace("{name: web, ", &of_metadata);
        let node = |proxy: &mut Proxy| drop(proxy.metadata.insert("NODE_NAME".to_owned(), "n1".to_owned()));
        assert_eq!(groups(&PODS, &(service + rest), node), expected, "{field} {annotation}");
    };
    let annotation = "networking.istio.io/traffic-distribution";
    check("", "", "", &flat);
    for word in ["PreferClose", "PreferSameZone"] {
        check(&format!("trafficDistribution: {word},"), "", "", &by_zone);
        check("", &format!("{annotation}: {}", word.to_lowercase()), "", &by_zone);
    }
    check("trafficDistribution: Somehow,", "", "", &flat);
    check("trafficDistribution: Somehow,", &format!("{annotation}: PreferClose"), "", &by_zone);
    let off = "host: web, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}";
    check("trafficDistribution: PreferClose,", "", &rule("r", "shop", "", off), &flat);
    // Those of the zone that are not on the node come after those that are.
    check("trafficDistribution: PreferSameNode,", "", "", &by_zone);
    let pods = [("a", "n1", "", ""), ("b", "n4", "", "")];
    let same = service("web").replace("clusterIP", "trafficDistribution: PreferSameNode, clusterIP");
    let node = "kind: Node\nmetadata: {name: n4, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: r1-a}}\n---\n";
    let on_n1 = |proxy: &mut Proxy| drop(proxy.metadata.insert("NODE_NAME".to_owned(), "n1".to_owned()));
    assert_eq!(groups(&pods, &(same + node), on_n1), ["0 r1/r1-a/*1: 1", "1 r1/r1-a/*1: 2"]);
}

/// A ServiceEntry says it by its annotation alone.
#[test]
fn an_entry_that_prefers_endpoints_that_are_close() {
    let check = |annotations: &str, expected: &[u32]| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: a, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{hosts: [a.b], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], \
             endpoints: [{{address: 10.0.0.1, locality: r1/r1-a}}, {{address: 10.0.0.2, locality: r2/r2-a}}]}}\n"
        );
        let mut store = Store::new();
        store.read("a.yaml", &text);
        let mut proxy = Proxy { namespace: "shop".into(), ..Proxy::default() };
        drop(proxy.labels.insert("istio-locality".to_owned(), "r1.r1-a".to_owned()));
        proxy.locate(&store.objects());
        let output = Mesh::of(store.objects(), proxy).compile();
        let groups = output.endpoints("outbound|80||a.b").localities.iter();
        assert_eq!(groups.map(|group| group.priority).collect::<Vec<_>>(), expected, "{annotations}");
    };
    check("", &[0, 0]);
    check("networking.istio.io/traffic-distribution: PreferClose", &[0, 1]);
}

/// What localities weigh together is what their endpoints weigh, also those of one priority by labels.
#[test]
fn localities_weigh_what_their_endpoints_of_a_priority_weigh() {
    let check = |policy: &str, expected: &[&str]| {
        let text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a, namespace: shop}\n\
             spec: {hosts: [a.b], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [\
             {address: 10.0.0.1, weight: 90, locality: r1/z1, labels: {v: '1'}}, \
             {address: 10.0.0.2, weight: 10, locality: r1/z2, labels: {v: '1'}}, \
             {address: 10.0.0.3, weight: 7, locality: r1/z2, labels: {v: '2'}}, \
             {address: 10.0.0.4, locality: r1/z2, labels: {v: '2'}}]}\n---\n"
            .to_owned();
        let rule = rule("r", "shop", "", &format!("host: a.b, trafficPolicy: {{{policy}}}"));
        let version = |proxy: &mut Proxy| drop(proxy.labels.insert("v".to_owned(), "1".to_owned()));
        let output = Mesh::new(&(text + &rule)).seen_by(version).compile();
        let groups = output.endpoints("outbound|80||a.b").localities.iter().map(|group| {
            let weights: Vec<u32> = group.endpoints.iter().map(|endpoint| endpoint.weight).collect();
            format!("{} {}*{}: {weights:?}", group.priority, group.locality, group.weight)
        });
        assert_eq!(groups.collect::<Vec<_>>(), expected, "{policy}");
    };
    check("", &["0 r1/z1/*90: [90]", "0 r1/z2/*18: [10, 7, 1]"]);
    check(
        "outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [v]}}",
        &["0 r1/z1/*90: [90]", "0 r1/z2/*10: [10]", "1 r1/z2/*8: [7, 1]"],
    );
}

/// As in Istio: there labels of endpoints that DNS is asked for decide over nothing. Who asks for it is told.
#[test]
fn labels_do_not_decide_over_endpoints_that_dns_is_asked_for() {
    let check = |annotations: &str, setting: &str, expected: [u32; 2], codes: &[&str]| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: a, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{hosts: [a.b], resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [\
             {{address: one.b, locality: r1/z1, labels: {{v: '1'}}}}, {{address: two.b, locality: r2/z2}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\n"
        );
        let policy = match setting {
            "" => String::new(),
            _ => format!("outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{{setting}}}}}"),
        };
        let rule = rule("r", "shop", "", &format!("host: a.b, trafficPolicy: {{{policy}}}"));
        let mut store = Store::new();
        store.read("a.yaml", &(text + &rule));
        let mut proxy = Proxy { namespace: "shop".into(), ..Proxy::default() };
        drop(proxy.labels.insert("v".to_owned(), "1".to_owned()));
        let output = Mesh::of(store.objects(), proxy).compile();
        let DiscoveryType::StrictDns(dns) = &output.cluster("outbound|80||a.b").discovery else { panic!() };
        let priorities = dns.localities.iter().map(|group| group.priority);
        assert_eq!(priorities.collect::<Vec<_>>(), expected, "{annotations} {setting}");
        assert_eq!(output.codes(), codes, "{annotations} {setting}");
    };
    let ineffective = ["ineffective-value"];
    check("", "failoverPriority: [v]", [0, 0], &ineffective);
    check("networking.istio.io/traffic-distribution: PreferClose", "", [0, 0], &ineffective);
    // What the rule says of localities holds, whatever it says of labels.
    let failover = "failover: [{from: '', to: r2}]";
    check("", failover, [1, 0], &[]);
    check("", &format!("failoverPriority: [v], {failover}"), [1, 0], &ineffective);
    check("", "failoverPriority: [v], distribute: [{from: '*', to: {r1/*: 1, r2/*: 9}}]", [0, 0], &[]);
}

#[test]
fn priorities_have_no_gaps() {
    let pods = [("a", "n3", "", ""), ("b", "n2", "", "")];
    let rule = rule("r", "shop", "", "host: web, trafficPolicy: {outlierDetection: {}}");
    assert_eq!(groups(&pods, &rule, |_| {}), ["0 r1/r1-b/*1: 2", "1 r2/r2-a/*1: 1"]);
}

#[test]
fn localities_are_weighted_where_istiod_says_so() {
    let check = |policy: &str, expected| {
        assert_eq!(with_policy(policy).cluster(WEB).locality_weighted, expected, "{policy}");
    };
    check("outlierDetection: {}", false);
    check("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}", false);
    check("outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}", true);
    check("outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [a]}}", true);
    check("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}", true);
    check(
        "loadBalancer: {localityLbSetting: {enabled: false, distribute: [{from: a, to: {b: 100}}]}}",
        false,
    );
}

#[test]
fn which_endpoints_are_used() {
    let check = |endpoint: &str, labels: &str, rest: &str, expected: &[&str]| {
        assert_eq!(groups(&[("a", "n1", endpoint, labels)], rest, |_| {}), expected, "{endpoint}");
    };
    let used = ["0 r1/r1-a/*1: 1"];
    check("", "", "", &used);
    check("conditions: {ready: true}", "", "", &used);
    check("conditions: {ready: false}", "", "", &[]);
    let publish = service("web").replace("clusterIP", "publishNotReadyAddresses: true, clusterIP");
    check("conditions: {ready: false}", "", &publish, &used);
    check("", "istio-locality: r7.z8.s9", "", &["0 r7/z8/s9*1: 1"]);
}

/// Those of other nodes are left out, and with them all whose node nobody knows.
#[test]
fn a_service_that_keeps_to_the_node_of_its_client() {
    let local = |policy: &str| {
        service("web").replace("clusterIP", &format!("internalTrafficPolicy: {policy}, clusterIP"))
    };
    let check = |policy: &str, node: Option<&str>, expected: &[&str]| {
        let told = |proxy: &mut Proxy| {
            proxy.metadata.extend(node.map(|node| ("NODE_NAME".to_owned(), node.to_owned())));
        };
        assert_eq!(groups(&PODS, &local(policy), told), expected, "{policy} {node:?}");
    };
    let all = ["0 r1/r1-a/*2: 2 4", "0 r1/r1-b/*1: 3", "0 r2/r2-a/*1: 1"];
    check("Cluster", Some("n1"), &all);
    check("Local", Some("n1"), &["0 r1/r1-a/*2: 2 4"]);
    check("Local", Some("n3"), &["0 r2/r2-a/*1: 1"]);
    check("Local", Some("n9"), &[]);
    check("Local", None, &[]);
    // Where there is no pod, its endpoint slice says the node.
    let slice = "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
        endpoints: [{addresses: [10.0.0.1], nodeName: n1}, {addresses: [10.0.0.2], nodeName: n2}, {addresses: [10.0.0.3]}]\n\
        ports: [{name: http, port: 8080}]\n";
    let near = |proxy: &mut Proxy| drop(proxy.metadata.insert("NODE_NAME".to_owned(), "n1".to_owned()));
    let output = Mesh::new(&(local("Local") + slice)).seen_by(near).compile();
    let [group] = &output.endpoints(WEB).localities[..] else { panic!() };
    let addresses: Vec<String> = group.endpoints.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:8080"]);
    assert!(output.codes().is_empty());
    let unknown = Mesh::new(&(local("Local") + slice)).compile();
    assert_eq!(unknown.codes(), ["ineffective-value"]);
}

#[test]
fn an_endpoint_whose_pod_is_missing_is_left_out_and_found() {
    let text = service("web")
        + "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
           endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: gone}}, {addresses: [10.0.0.2]}]\n\
           ports: [{name: http, port: 8080}]\n";
    let output = Mesh::new(&text).compile();
    assert_eq!(output.codes(), ["endpoint-without-pod"]);
    let [group] = &output.endpoints(WEB).localities[..] else { panic!() };
    let [endpoint] = &group.endpoints[..] else { panic!() };
    assert_eq!(endpoint.address.to_string(), "10.0.0.2:8080");
    assert_eq!(endpoint.metadata.tls_mode, None);
}

/// Clusters of a service with two pods, one with a sidecar.
fn two_pods(cluster_ip: &str, policy: &str, second: &str) -> Output {
    let pod = |name: &str, labels: &str| {
        format!("kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n---\n")
    };
    let text = service("web").replace("10.0.0.1", cluster_ip)
        + &pod("a", "security.istio.io/tlsMode: istio, version: v1")
        + &pod("b", second)
        + "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
           endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}}, {addresses: [10.0.0.2], targetRef: {kind: Pod, name: b}}]\n\
           ports: [{name: http, port: 8080}]\n---\n"
        + &rule(
            "r",
            "shop",
            "",
            &format!(
                "host: web, trafficPolicy: {{{policy}}}, subsets: [{{name: v1, labels: {{version: v1}}}}]"
            ),
        );
    Mesh::new(&text).compile()
}

#[test]
fn endpoints_say_whether_they_accept_mutual_tls() {
    let check = |policy: &str, expected: &[Option<&str>]| {
        let output = two_pods("10.0.0.9", policy, "");
        let modes =
            output.endpoints(WEB).localities[0].endpoints.iter().map(|it| it.metadata.tls_mode.as_deref());
        assert_eq!(modes.collect::<Vec<_>>(), expected, "{policy}");
        let subset = output.endpoints("outbound|80|v1|web.shop.svc.cluster.local");
        assert_eq!(subset.localities[0].endpoints.len(), 1);
    };
    check("", &[Some("istio"), None]);
    check("tls: {mode: ISTIO_MUTUAL}", &[Some("istio"), None]);
    check("tls: {mode: DISABLE}", &[None, None]);
    check("tls: {mode: SIMPLE}", &[None, None]);
}

#[test]
fn to_endpoints_that_clients_choose_tls_is_spoken_by_all_or_none() {
    let check = |policy: &str, second: &str, cluster_ip: &str, expected: bool| {
        let output = two_pods(cluster_ip, policy, second);
        let cluster = output.cluster(WEB);
        assert_eq!(cluster.discovery, DiscoveryType::OriginalDst, "{policy} {second}");
        assert!(cluster.transport_socket_matches.is_empty());
        let is_tls = matches!(&cluster.transport_socket, TransportSocket::Tls(tls) if tls.origin.is_none());
        assert_eq!(is_tls, expected, "{policy} {second} {cluster_ip}");
    };
    let with_sidecar = "security.istio.io/tlsMode: istio";
    check("", with_sidecar, "None", true);
    check("", "", "None", false);
    check("", "security.istio.io/tlsMode: disabled", "None", false);
    check("loadBalancer: {simple: PASSTHROUGH}", with_sidecar, "10.0.0.9", true);
    check("loadBalancer: {simple: PASSTHROUGH}", "", "10.0.0.9", false);
}

#[test]
fn an_address_serves_a_port_by_one_number() {
    let slice = |name: &str, port: u16| {
        format!(
            "kind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
             endpoints: [{{addresses: [10.0.0.1]}}]\nports: [{{name: http, port: {port}}}]\n---\n"
        )
    };
    let once = Mesh::new(&(service("web") + &slice("a", 8080) + &slice("b", 8080))).compile();
    assert_eq!(once.codes(), [""; 0]);
    let twice = Mesh::new(&(service("web") + &slice("a", 8080) + &slice("b", 8081))).compile();
    assert_eq!(twice.codes(), ["repeated-endpoint"]);
    assert_eq!(twice.endpoints(WEB).localities[0].endpoints.len(), 1);
}

/// An endpoint that names no pod is the pod of its namespace that has its address, whichever comes first.
#[test]
fn endpoints_that_name_no_pod() {
    let check = |pods: &[(&str, &str, &str)], expected: (Option<&str>, &str, &str)| {
        let pods = pods.iter().map(|(name, namespace, status)| {
            format!(
                "kind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, \
                 labels: {{version: v1, security.istio.io/tlsMode: istio}}}}\n\
                 spec: {{serviceAccountName: them}}\nstatus: {{{status}}}\n---\n"
            )
        });
        let text = pods.collect::<String>()
            + &service("web")
            + "kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
               endpoints: [{addresses: [10.0.0.1]}]\nports: [{name: http, port: 8080}]\n---\n"
            + &rule("r", "shop", "", "host: web, subsets: [{name: v1, labels: {version: v1}}]");
        let output = Mesh::new(&text).compile();
        let endpoint = &output.endpoints(WEB).localities[0].endpoints[0];
        let workload = endpoint.metadata.workload.as_ref().unwrap();
        let subset = output.endpoints("outbound|80|v1|web.shop.svc.cluster.local");
        let subset: Vec<String> = subset
            .localities
            .iter()
            .flat_map(|group| &group.endpoints)
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        let made = (endpoint.metadata.tls_mode.as_deref(), &*workload.name, &*subset.join(" "));
        assert_eq!(made, expected, "{text}");
    };
    let (none, of) = ((None, "", ""), |name| (Some("istio"), name, "10.0.0.1:8080"));
    check(&[], none);
    check(&[("a", "shop", "podIP: 10.0.0.1")], of("a"));
    check(&[("a", "shop", "podIPs: [{ip: 'fd00::1'}, {ip: 10.0.0.1}]")], of("a"));
    check(&[("b", "shop", "podIP: 10.0.0.1"), ("a", "shop", "podIP: 10.0.0.1")], of("a"));
    // Not of another namespace, nor one whose address may be another's by now.
    check(&[("a", "ops", "podIP: 10.0.0.1")], none);
    check(&[("a", "shop", "podIP: 10.0.0.2")], none);
    check(&[("a", "shop", "podIP: 10.0.0.1, phase: Failed"), ("b", "shop", "podIP: 10.0.0.1")], of("b"));
}
