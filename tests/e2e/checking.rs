//! `weft check` as a pipeline runs it: what it says of a configuration, and how it ends.

use std::path::Path;

use data_encoding::BASE64;
use support::binary;
use support::tls::Ca;

/// Two pods that take mutual TLS alone, and a rule that has them spoken to in plain text.
const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: catalog, namespace: shop, labels: {kubernetes.io/service-name: catalog}}
endpoints:
- {addresses: [10.2.0.1], targetRef: {kind: Pod, name: catalog-1}}
- {addresses: [10.2.0.2], targetRef: {kind: Pod, name: catalog-2}}
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-1, namespace: shop, labels: {app: catalog, security.istio.io/tlsMode: istio}}
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-2, namespace: shop, labels: {app: catalog, security.istio.io/tlsMode: istio}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec:
  mtls: {mode: STRICT}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: shop}
spec:
  host: catalog
  trafficPolicy:
    tls: {mode: DISABLE}
";

/// What `weft check` prints, and whether it found nothing as bad as a warning.
async fn checked(path: &Path) -> (String, bool) {
    let command = tokio::process::Command::new(binary::weft())
        .args(["check", "--fail-on", "warning"])
        .arg(path)
        .output();
    let output = command.await.expect("weft runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

#[tokio::test]
async fn a_tls_mode_that_cannot_work_is_found_where_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    std::fs::write(&file, MESH).unwrap();
    let (said, is_good) = checked(&file).await;
    let file_name = file.display();
    let at = format!("{file_name}:34: warning: DestinationRule shop/catalog: spec.trafficPolicy.tls: ");
    let by = format!("PeerAuthentication shop/default ({file_name}:26) [conflicting-tls-mode]");
    for expected in [&*at, &*by, "`catalog.shop.svc.cluster.local`", "all 2 endpoints", "remedy: write"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!is_good && said.ends_with("0 errors, 1 warning, 0 notes\n"), "{said}");

    for works in [MESH.replace("DISABLE", "ISTIO_MUTUAL"), MESH.replace("STRICT", "PERMISSIVE")] {
        std::fs::write(&file, works).unwrap();
        let (said, is_good) = checked(&file).await;
        // Whether a workload has an identity for that is not for a configuration to say.
        assert_eq!((&*said, is_good), ("0 errors, 0 warnings, 0 notes\n", true));
    }
}

/// A gateway in another namespace than its object, and what its Secret holds.
fn gateway(values: Option<(&str, &str)>) -> String {
    let mut mesh = "\
apiVersion: v1
kind: Pod
metadata: {name: gateway-1, namespace: edge, labels: {app: gateway}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: web}
"
    .to_owned();
    if let Some((chain, key)) = values {
        let [chain, key] = [chain, key].map(|pem| BASE64.encode(pem.as_bytes()));
        mesh.push_str(&format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: web, namespace: edge}}\n\
             data: {{tls.crt: {chain}, tls.key: {key}}}\n"
        ));
    }
    mesh
}

#[tokio::test]
async fn secrets_of_gateways_are_looked_at_where_there_are_any() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let ca = Ca::new("shop");
    let (good, other) = (ca.issue("shop.example", |_| {}), ca.issue("shop.example", |_| {}));
    let elsewhere = gateway(Some((&good.chain, &good.key)))
        .replace("name: web, namespace: edge", "name: web, namespace: b");
    let cases = [
        (gateway(Some((&good.chain, &good.key))), "", "0 errors, 0 warnings, 0 notes"),
        (
            gateway(Some((&good.chain, &other.key))),
            "not that of the certificate",
            "0 errors, 1 warning, 0 notes",
        ),
        (
            gateway(Some((&good.chain[..100], &good.key))),
            "not all of it is there",
            "0 errors, 1 warning, 0 notes",
        ),
        (elsewhere, "there is no Secret web in namespace edge", "0 errors, 1 warning, 0 notes"),
        // Whoever keeps Secrets elsewhere is not told at each.
        (gateway(None), "there is no Secret web in namespace edge", "0 errors, 0 warnings, 1 note"),
    ];
    for (mesh, why, counts) in cases {
        std::fs::write(&file, mesh).unwrap();
        let (said, _) = checked(&file).await;
        assert!(said.contains(why) && said.ends_with(&format!("{counts}\n")), "{said}");
    }
}

#[tokio::test]
async fn an_authority_of_the_mesh_config_that_cannot_be_read_is_found_where_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    std::fs::write(&file, format!("caCertificates: [{{pem: garbage}}, {{pem: {:?}}}]\n", Ca::new("a").pem))
        .unwrap();
    let (said, is_good) = checked(directory.path()).await;
    let at = format!("{}:1: error: MeshConfig mesh: caCertificates[0].pem: ", file.display());
    assert!(!is_good && said.contains(&at) && said.ends_with("1 error, 0 warnings, 0 notes\n"), "{said}");
}
