//! Who is believed as a workload of the mesh, and where mutual TLS is spoken by itself.

use super::clusters::{WEB, rule};
use super::mesh::{Mesh, Output, service};
use crate::mesh::MeshConfig;
use crate::resource::{Cluster, NetworkFilter, ServerCertificate, StringMatch, TransportSocket, Trust};

/// A service with a pod, one that has no selector, and what else there is.
fn mesh(rest: &str) -> Mesh {
    let pod = "kind: Pod\nmetadata: {name: a, namespace: shop, labels: {security.istio.io/tlsMode: istio}}\n\
               spec: {serviceAccountName: web}\n---\n\
               kind: EndpointSlice\nmetadata: {name: web-x, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
               endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}}]\nports: [{name: http, port: 8080}]\n---\n";
    Mesh::sidecar(&(service("web") + pod + rest))
}

fn trust(cluster: &Cluster) -> &Trust {
    let matches = cluster.transport_socket_matches.iter().map(|it| &it.transport_socket);
    let mut sockets = matches.chain([&cluster.transport_socket]);
    let trust = sockets.find_map(|socket| match socket {
        TransportSocket::Tls(tls) => match &tls.server {
            ServerCertificate::Verified(trust) => Some(trust),
            ServerCertificate::Any | ServerCertificate::Refused(_) => None,
        },
        TransportSocket::RawBuffer => None,
    });
    trust.unwrap_or_else(|| panic!("{} believes nobody", cluster.name))
}

fn told(names: &[StringMatch]) -> Vec<String> {
    let told = names.iter().map(|name| match name {
        StringMatch::Exact(name) => name.to_string(),
        StringMatch::Prefix(prefix) => format!("{prefix}*"),
        StringMatch::SafeRegex(_) => panic!("{name:?}"),
    });
    told.collect()
}

/// The names of clients that any chain lets in; all of them must let in the same.
fn clients(output: &Output) -> Vec<String> {
    let listener = &output.resources.listeners["virtualInbound"];
    let chains = listener.filter_chains.iter().filter(|it| !matches!(it.filter, NetworkFilter::Closed(_)));
    let trusts = chains.filter_map(|chain| chain.tls.as_ref()?.client_certificates.trust());
    let mut all: Vec<Vec<String>> = trusts.map(|trust| told(&trust.subject_alt_names)).collect();
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn aliases_of_the_trust_domain_stand_for_the_same_workloads() {
    let check = |aliases: &[&str], expected_clients: &[&str], expected_servers: &[&str]| {
        let aliases: Vec<String> = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        let told_aliases = |mesh: &mut MeshConfig| mesh.trust_domain_aliases.clone_from(&aliases);
        let output = mesh("").configure(told_aliases).seen_by(|proxy| proxy.trust_domain = "corp".into());
        let output = output.compile();
        assert_eq!(clients(&output), expected_clients, "{aliases:?}");
        assert_eq!(told(&trust(output.cluster(WEB)).subject_alt_names), expected_servers, "{aliases:?}");
    };
    let own = "spiffe://corp/ns/shop/sa/web";
    check(&[], &["spiffe://corp/*"], &[own]);
    check(
        &["old.corp", "corp", "old.corp"],
        &["spiffe://corp/*", "spiffe://old.corp/*"],
        &[own, "spiffe://old.corp/ns/shop/sa/web"],
    );
}

/// What a ServiceEntry says of its servers stands for the same workloads, where it is an identity of Istio's; what a
/// DestinationRule says is what it is.
#[test]
fn names_that_objects_tell_of_servers() {
    let entry = |names: &str| {
        format!(
            "kind: ServiceEntry\nmetadata: {{name: vm, namespace: shop}}\nspec: {{hosts: [vm.example], location: MESH_INTERNAL, \
             resolution: STATIC, ports: [{{name: http, number: 80, protocol: HTTP}}], subjectAltNames: [{names}]}}\n---\n"
        )
    };
    let check = |rest: &str, cluster: &str, expected: &[&str]| {
        let output =
            mesh(rest).configure(|mesh| mesh.trust_domain_aliases = vec!["old".to_owned()]).compile();
        assert_eq!(told(&trust(output.cluster(cluster)).subject_alt_names), expected, "{rest}");
    };
    let vm = "outbound|80||vm.example";
    let identity = "spiffe://cluster.local/ns/shop/sa/vm";
    check(&entry(identity), vm, &[identity, "spiffe://old/ns/shop/sa/vm"]);
    check(&entry("vm.example, 'spiffe://a/vm'"), vm, &["spiffe://a/vm", "vm.example"]);
    let exactly =
        format!("host: web, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL, subjectAltNames: ['{identity}']}}}}");
    check(&rule("r", "shop", "", &exactly), WEB, &[identity]);
}

#[test]
fn mutual_tls_is_spoken_by_itself_unless_the_mesh_says_otherwise() {
    let check = |told: Option<bool>, policy: &str, expected: &str| {
        let policy = rule("r", "shop", "", &format!("host: web, trafficPolicy: {{{policy}}}"));
        let output = mesh(&policy).configure(|mesh| mesh.enable_auto_mtls = told).compile();
        let cluster = output.cluster(WEB);
        let tls = matches!(cluster.transport_socket, TransportSocket::Tls(_));
        let spoken = match cluster.transport_socket_matches.len() {
            0 if tls => "always",
            0 => "never",
            _ => "by endpoint",
        };
        assert_eq!(spoken, expected, "{told:?} {policy}");
    };
    check(None, "", "by endpoint");
    check(Some(true), "", "by endpoint");
    check(Some(false), "", "never");
    check(Some(false), "tls: {mode: ISTIO_MUTUAL}", "always");
    check(Some(false), "tls: {mode: SIMPLE}", "always");
    check(Some(false), "loadBalancer: {simple: PASSTHROUGH}", "never");
}
