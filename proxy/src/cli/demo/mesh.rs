//! The YAML of the demo.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::backends::{Backend, Backends};
use super::sidecars::Sidecars;

/// The file to edit.
pub(super) const CATALOG_FILE: &str = "catalog.yaml";

/// What Kubernetes knows.
const KUBERNETES_FILE: &str = "kubernetes.yaml";

/// The MeshConfig.
const MESH_FILE: &str = "mesh.yaml";

/// How every file of the demo begins, so that it is known again.
const MARK: &str = "# The demo of weft.";

/// Writes all files.
pub(super) fn write(directory: &Path, backends: &Backends, sidecars: &Sidecars) -> io::Result<()> {
    fs::write(directory.join(KUBERNETES_FILE), kubernetes(&backends.all, sidecars))?;
    fs::write(directory.join(MESH_FILE), format!("{MARK}\n{MESH}"))?;
    replace(directory, &catalog(90))
}

/// Refuses a directory that holds files of these names that are not the demo's.
pub(super) fn refuse_foreign(directory: &Path) -> io::Result<()> {
    for name in [CATALOG_FILE, KUBERNETES_FILE, MESH_FILE] {
        let file = directory.join(name);
        let ours = match fs::read(&file) {
            Ok(text) => text.starts_with(MARK.as_bytes()),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !ours {
            let what = format!("{} is not the demo's; name another directory", file.display());
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}

/// Puts another text in place of the file to edit, at once.
pub(super) fn replace(directory: &Path, text: &str) -> io::Result<()> {
    let draft = directory.join(".catalog.draft");
    fs::write(&draft, text)?;
    fs::rename(draft, directory.join(CATALOG_FILE))
}

const MESH: &str = "\
# Istio's MeshConfig. With REGISTRY_ONLY, a host that no service has is answered 502.
outboundTrafficPolicy:
  mode: REGISTRY_ONLY
";

/// The file to edit, with so many percent for v1.
pub(super) fn catalog(v1: u32) -> String {
    format!(
        "\
{MARK}
# Edit me: weft follows as soon as the file is saved.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: catalog, namespace: shop}}
spec:
  hosts: [catalog]
  http:
  - name: testers
    match:
    - headers: {{x-user: {{exact: tester}}}}
    route:
    - destination: {{host: catalog, subset: v2}}
  - name: moved
    match:
    - uri: {{exact: /shop}}
    redirect: {{uri: /items, redirectCode: 308}}
  - name: split
    retries: {{attempts: 3, retryOn: \"connect-failure,refused-stream,reset\"}}
    route:
    - destination: {{host: catalog, subset: v1}}
      weight: {v1}
    - destination: {{host: catalog, subset: v2}}
      weight: {v2}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: catalog, namespace: shop}}
spec:
  host: catalog
  trafficPolicy:
    loadBalancer: {{simple: LEAST_REQUEST}}
    connectionPool:
      tcp: {{connectTimeout: 2s}}
  subsets:
  - name: v1
    labels: {{version: v1}}
  - name: v2
    labels: {{version: v2}}
",
        v2 = 100u32.saturating_sub(v1)
    )
}

/// What Kubernetes knows: a service, its pods, and where each of them is: its sidecar, where there is one.
fn kubernetes(backends: &[Backend], sidecars: &Sidecars) -> String {
    let mut text = format!(
        "{MARK}\n# What Kubernetes would say of this mesh.\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
    );
    for (number, service) in (1..).zip(["web", "catalog", "reviews"]) {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: shop}}\n\
             spec:\n  clusterIP: 10.96.0.{number}\n  selector: {{app: {service}}}\n  ports:\n  - {{name: http, port: 8000}}\n"
        );
    }
    for Backend { pod, service, version, address } in backends {
        let sidecar = sidecars.address(pod);
        let port = sidecar.unwrap_or(*address).port();
        let (ip, tls) =
            (address.ip(), if sidecar.is_some() { ", security.istio.io/tlsMode: istio" } else { "" });
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: shop\n\
             \x20 labels: {{app: {service}, version: {version}{tls}}}\n\
             spec: {{serviceAccountName: {service}}}\nstatus: {{podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {pod}\n  namespace: shop\n\
             \x20 labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nendpoints:\n\
             - addresses: [{ip}]\n  conditions: {{ready: true}}\n  targetRef: {{kind: Pod, name: {pod}, namespace: shop}}\n\
             ports:\n- {{name: http, port: {port}}}\n"
        );
    }
    text
}
