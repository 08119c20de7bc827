//! Meshes in YAML, written to a directory a proxy reads.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A configuration directory, gone with the value.
#[derive(Debug)]
pub struct Mesh {
    directory: tempfile::TempDir,
    kubernetes: String,
}

impl Mesh {
    /// An empty one, with the namespace `shop`.
    pub fn new() -> Mesh {
        let kubernetes = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
        Mesh { directory: tempfile::tempdir().expect("a temporary directory"), kubernetes }
    }

    /// Adds a Service of namespace `shop` with one port. `port` is written as `NAME/NUMBER`, such as `http/8000`.
    #[must_use]
    pub fn service(self, name: &str, port: &str) -> Mesh {
        self.service_at(name, port, "10.96.0.1")
    }

    /// The same at another address.
    #[must_use]
    pub fn service_at(mut self, name: &str, port: &str, address: &str) -> Mesh {
        let (port_name, number) = port.split_once('/').expect("NAME/NUMBER");
        let _ = write!(
            self.kubernetes,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  clusterIP: {address}\n  selector: {{app: {name}}}\n  ports:\n\
             \x20 - {{name: {port_name}, port: {number}}}\n"
        );
        self
    }

    /// Adds an endpoint of a service: a Pod with labels `app` and `version`, and an EndpointSlice for the service's
    /// port of that name.
    #[must_use]
    pub fn endpoint(mut self, service: &str, port_name: &str, version: &str, address: SocketAddr) -> Mesh {
        let pod = format!("{service}-{version}-{}", address.port());
        let (ip, port) = (address.ip(), address.port());
        let _ = write!(
            self.kubernetes,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: shop\n\
             \x20 labels: {{app: {service}, version: {version}}}\n\
             spec: {{serviceAccountName: {service}}}\nstatus: {{podIP: {ip}, podIPs: [{{ip: '{ip}'}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {pod}\n\
             \x20 namespace: shop\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\n\
             endpoints:\n- addresses: ['{ip}']\n  conditions: {{ready: true}}\n\
             \x20 targetRef: {{kind: Pod, name: {pod}, namespace: shop}}\n\
             ports:\n- {{name: {port_name}, port: {port}}}\n"
        );
        self
    }

    /// Writes a file of the directory, at once: a reader sees the old one or the new one.
    pub fn write(&self, file: &str, text: &str) {
        let draft = self.directory.path().join(format!(".{file}.draft"));
        fs::write(&draft, text).expect("the draft is written");
        fs::rename(&draft, self.directory.path().join(file)).expect("the draft is renamed");
    }

    /// The same, in passing.
    #[must_use]
    pub fn with(self, file: &str, text: &str) -> Mesh {
        self.write(file, text);
        self
    }

    /// A file of the directory.
    pub fn file(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Writes what was added and returns the directory.
    pub fn directory(&self) -> &Path {
        if !self.kubernetes.is_empty() {
            self.write("kubernetes.yaml", &self.kubernetes);
        }
        self.directory.path()
    }
}

impl Default for Mesh {
    fn default() -> Mesh {
        Mesh::new()
    }
}

/// A VirtualService of namespace `shop` for one host, with these HTTP rules as YAML in flow or block form, indented by
/// two.
pub fn virtual_service(host: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec:\n  hosts: [{host}]\n  http:\n{http}\n"
    )
}

/// A DestinationRule of namespace `shop` for one host, with this spec beside the host, as YAML indented by two.
pub fn destination_rule(host: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec:\n  host: {host}\n{spec}\n"
    )
}
