//! A mesh that lets nothing out that no service has.

use std::net::SocketAddr;

use support::Mesh;

use crate::incidents::refused_bytes;
use crate::no_interception::{free, sidecar};

/// Bytes for an address that no service has: the policy that refuses them is named, whoever says it.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_registry_only_refuses() {
    let sidecar_with = |at: SocketAddr, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: shop}}\nspec:\n{more}\
             \x20 egress: [{{port: {{number: {}, protocol: HTTP, name: http}}, bind: 0.0.0.0, hosts: ['*/*']}}]\n",
            at.port()
        )
    };
    let policy = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
    for (of_mesh, of_sidecar, by) in [
        (policy, String::new(), "MeshConfig mesh (DIRECTORY/mesh.yaml:1)"),
        ("{}\n", format!("  {policy}"), "Sidecar shop/default (DIRECTORY/sidecar.yaml:5)"),
    ] {
        let at = free();
        let mesh = Mesh::new()
            .service("catalog", &format!("http/{}", at.port()))
            .with("mesh.yaml", of_mesh)
            .with("sidecar.yaml", &sidecar_with(at, &of_sidecar));
        let proxy = sidecar(mesh).await;
        let cause = format!(
            "TCP UH: no service has this address and port: outboundTrafficPolicy REGISTRY_ONLY of {by}, cluster \
             BlackHoleCluster"
        );
        let rule = format!("rule: passes the bytes on to BlackHoleCluster\n    by {by}");
        refused_bytes(&proxy, at, &cause, &[&rule]).await;
    }
}
