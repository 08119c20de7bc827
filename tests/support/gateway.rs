//! What makes a proxy of the namespace `shop` with the label `app: client` a gateway of HTTPS.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};

use weft::app::Settings;

use crate::Mesh;
use crate::backend::own_address;
use crate::tls::Pem;

/// Servers of a Gateway that listen at one address of their own, and lead to the service `catalog` and its port 8000.
#[derive(Debug)]
pub struct Edge {
    /// Where they listen.
    pub address: SocketAddr,
    servers: String,
    hosts: Vec<String>,
    secrets: String,
}

impl Edge {
    /// Without servers.
    pub fn new() -> Edge {
        // Nobody else has that IP address.
        let free = TcpListener::bind((own_address(), 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a port");
        Edge { address, servers: String::new(), hosts: Vec::new(), secrets: String::new() }
    }

    /// A server for one host, with these settings of TLS as YAML in flow form.
    #[must_use]
    pub fn server(mut self, host: &str, tls: &str) -> Edge {
        let (ip, port) = (self.address.ip(), self.address.port());
        let _ = write!(
            self.servers,
            "\n  - {{bind: {ip}, port: {{number: {port}, name: {host}, protocol: HTTPS}}, hosts: [{host}], tls: {{{tls}}}}}"
        );
        self.hosts.push(host.to_owned());
        self
    }

    /// A Secret with a certificate, and with whom it believes.
    #[must_use]
    pub fn secret(mut self, name: &str, pem: &Pem, roots: Option<&str>) -> Edge {
        let indented = |text: &str| text.trim_end().replace('\n', "\n    ");
        let _ = write!(
            self.secrets,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n  \
             tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
            indented(&pem.chain),
            indented(&pem.key)
        );
        if let Some(roots) = roots {
            let _ = writeln!(self.secrets, "  ca.crt: |\n    {}", indented(roots));
        }
        self
    }

    /// The mesh with all of it, as `edge.yaml`; the Gateway is called `edge`.
    pub fn of(&self, mesh: Mesh) -> Mesh {
        let (servers, hosts) = (&self.servers, self.hosts.join(", "));
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\n\
             spec:\n  selector: {{app: client}}\n  servers:{servers}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: edge, namespace: shop}}\n\
             spec:\n  hosts: [{hosts}]\n  gateways: [edge]\n  http:\n  \
             - route: [{{destination: {{host: catalog, port: {{number: 8000}}}}}}]\n{}",
            self.secrets
        );
        mesh.with("edge.yaml", &text)
    }

    /// Has a proxy be a gateway.
    pub fn serve(settings: &mut Settings) {
        settings.mode = config::compile::Mode::Gateway;
    }
}

impl Default for Edge {
    fn default() -> Edge {
        Edge::new()
    }
}
