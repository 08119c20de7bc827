//! `weft explain`: why a request goes where it goes, or fails.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use config::compile::{Mode, Request};
use http::{Method, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::limits::LimitArguments;
use super::run::parse_pod;
use super::{identity, local};
use crate::app::Workload;
use crate::control::{self, GivenIdentity, Loaded};
use crate::explain::{self, Asked, Question, Way, World};

/// Why a request or connection goes where it goes, or fails: every step with its object, file and line.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Method and URL of a request; GET when only the URL is given.
    #[arg(value_name = "METHOD|URL", num_args = 0..=2)]
    request: Vec<String>,

    /// A header of the request, as NAME: VALUE; may be given several times. `Host` is what the proxy sees as such; the
    /// URL says where the client connects to.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The request is HTTP/2.
    #[arg(long)]
    http2: bool,

    /// A connection that is not HTTP, to this address.
    #[arg(long, value_name = "ADDRESS", value_parser = explain::address, conflicts_with_all = ["request", "headers", "http2"])]
    tcp: Option<SocketAddr>,

    /// The server name that it asks for by TLS; that of the URL, when that is https:// and this is not given.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// The protocols that it offers by ALPN, with commas between them, such as istio-http/1.1,istio; '' for none. Those of
    /// its HTTP when not given.
    #[arg(long, value_name = "PROTOCOLS")]
    alpn: Option<String>,

    /// The certificate that the client shows in TLS, with those between it and a root, in PEM.
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,

    /// It comes in the mesh's mutual TLS, as the sidecar of --source would send it; with --inbound.
    #[arg(long, requires = "inbound")]
    mtls: bool,

    /// Directories or files of configuration.
    #[arg(long, value_name = "DIR|FILE")]
    config: Vec<PathBuf>,

    /// MeshConfig, when it is not in the configuration.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,

    /// Revision of Istio whose ConfigMap `istio-REVISION` holds the MeshConfig.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REVISION")]
    revision: String,

    /// The workload whose proxy decides, as POD.NAMESPACE.
    #[arg(long = "as", value_name = "POD.NAMESPACE", value_parser = parse_pod)]
    pod: Option<(String, String)>,

    /// The traffic comes to the workload; it goes out from it when not given.
    #[arg(long, conflicts_with = "gateway")]
    inbound: bool,

    /// The workload is a gateway, and the traffic comes to it.
    #[arg(long)]
    gateway: bool,

    /// Who asks: an address, or a pod or app as NAME.NAMESPACE.
    #[arg(long, value_name = "ADDRESS|NAME.NAMESPACE")]
    source: Option<String>,

    /// Where the client connects to, when that is not what the URL's host resolves to.
    #[arg(long, value_name = "ADDRESS", value_parser = explain::address)]
    destination: Option<SocketAddr>,

    /// Name of the listener, when it is not the one that the destination leads to.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// The random number by which a weighted destination is drawn.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    draw: u64,

    /// The random number by which an endpoint is chosen; that of --draw when not given.
    #[arg(long, value_name = "NUMBER")]
    pick: Option<u64>,

    /// Explain as if the proxy ran with this flag.
    #[arg(long)]
    allow_unenforced_security: bool,

    /// Explain as if the workload had an identity in the mesh, so that mutual TLS is spoken.
    #[arg(long)]
    assume_identity: bool,

    /// The same with this identity: cert-chain.pem, key.pem and root-cert.pem of a directory, and ca-crl.pem with what the mesh
    /// has revoked, if that is there.
    #[arg(long, value_name = "DIR", conflicts_with = "assume_identity")]
    identity_from: Option<PathBuf>,

    /// Ask the proxy that runs on this host, which tells its generation, requests in flight, ejections and limits too.
    #[arg(long, conflicts_with_all = ["config", "pod", "mesh_config", "allow_unenforced_security", "assume_identity", "identity_from"])]
    live: bool,

    /// A request that the proxy of this host has recorded: how it was decided, and what came of it. By its `x-request-id`, or
    /// by the recorder's own number, such as @0-17, which connections have too.
    #[arg(long, value_name = "ID", conflicts_with_all = ["request", "headers", "http2", "tcp", "config", "pod", "live"])]
    request_id: Option<String>,

    /// Its admin console.
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    admin: SocketAddr,

    #[command(flatten)]
    limits: LimitArguments,

    /// How it is told.
    #[arg(long, default_value = "text", value_name = "FORM")]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  weft explain --config config/ --as web-1.shop GET http://catalog:8000/items -H 'x-user: tester'
  weft explain --config config/ --as web-1.shop --tcp 10.96.0.14:3306
  weft explain --config config/ --as catalog-v1-1.shop --inbound --source web.shop http://catalog:8000/items
  weft explain --config config/ --as catalog-v1-1.shop --assume-identity --inbound --mtls --source web.shop http://catalog:8000/
  weft explain --config config/ --as ingress-1.istio-system --gateway https://shop.example/
  weft explain --request-id 0f0e3bd8-0e22-4e5d-8f11-6a3a4f1b8c2d
  weft explain --live http://catalog:8000/items       what the proxy of this host would do now

Exit status: 0 it is explained, whatever comes of it; 1 it cannot be.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Short lines.
    Text,
    /// The same as JSON.
    Json,
}

/// How long the console may take.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Arguments {
    fn question(&self) -> Result<Question, String> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (method, url) = match self.request.as_slice() {
            [url] => (None, Some(url.clone())),
            [method, url, ..] => (Some(method.clone()), Some(url.clone())),
            [] => (None, None),
        };
        Ok(Question {
            way: match (self.inbound, self.gateway) {
                (true, _) => Way::Inbound,
                (_, true) => Way::Gateway,
                (false, false) => Way::Outbound,
            },
            method,
            url,
            headers: self.headers.clone(),
            http2: self.http2,
            tcp: self.tcp,
            sni: self.sni.clone(),
            alpn: self.alpn.clone(),
            certificate: self.client_certificate.as_ref().map(read).transpose()?,
            mtls: self.mtls,
            destination: self.destination,
            listener: self.listener.clone(),
            source: self.source.clone(),
            draw: self.draw,
            pick: self.pick,
        })
    }

    /// By the configuration, without a proxy.
    fn by_configuration(&self) -> Result<String, String> {
        if self.config.is_empty() || self.pod.is_none() {
            let what = "say what decides: --config DIR --as POD.NAMESPACE, or --live for the proxy that runs on this host";
            return Err(what.to_owned());
        }
        let workload =
            Workload { pod: self.pod.clone(), revision: self.revision.clone(), ..Workload::default() };
        let request = Request {
            mode: if self.gateway { Mode::Gateway } else { Mode::Sidecar },
            allow_unenforced_security: self.allow_unenforced_security,
            ..Request::default()
        };
        let given = match &self.identity_from {
            Some(directory) => GivenIdentity::Files(identity::in_directory(directory)),
            None if self.assume_identity => GivenIdentity::Assumed,
            None => GivenIdentity::Nothing,
        };
        let (mesh_config, limits) = (self.mesh_config.as_deref(), self.limits.limits());
        let loaded = control::load(&self.config, mesh_config, &workload, &request, (given, &limits))?;
        let Loaded { objects, findings, proxy, names, snapshot, unserved } = &loaded;
        let limits = &limits;
        let allows_unenforced = self.allow_unenforced_security;
        let world = World {
            snapshot,
            objects,
            names,
            proxy,
            findings,
            told: SystemTime::UNIX_EPOCH,
            is_live: false,
            unserved: unserved.as_deref(),
            bound: &[],
            allows_unenforced,
            limits,
        };
        let explanation = explain::explain(&world, &self.question()?)?;
        match self.output {
            Output::Text => Ok(explain::text(&explanation)),
            Output::Json => serde_json::to_string_pretty(&explanation)
                .map(|text| text + "\n")
                .map_err(|error| error.to_string()),
        }
    }

    /// As the proxy that runs has recorded it.
    fn recorded(&self, id: &str) -> Result<String, String> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        let format = if self.output == Output::Json { "json" } else { "text" };
        console(Method::GET, self.admin, &format!("/recorder?id={id}&format={format}"))
    }

    /// By the proxy that runs.
    fn by_console(&self) -> Result<String, String> {
        let asked = Asked { question: self.question()?, json: self.output == Output::Json };
        console(Method::POST, self.admin, &format!("/explain?{}", asked.query()))
    }
}

/// What the admin console at `admin` answers.
///
/// # Errors
///
/// When it does not answer, or refuses: why.
pub(super) fn console(method: Method, admin: SocketAddr, page: &str) -> Result<String, String> {
    let url = format!("http://{admin}{page}");
    let url: Uri = url.parse().map_err(|error| format!("`{url}`: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let answered = runtime.block_on(local::ask(method, &url, TIMEOUT));
    let answered =
        answered.map_err(|why| format!("no proxy answers at {admin} (--admin says where): {why}"))?;
    let text = String::from_utf8_lossy(&answered.body).into_owned();
    if answered.status.is_success() { Ok(text) } else { Err(text.trim_end().to_owned()) }
}

/// Explains, and prints it.
pub(super) fn explain(arguments: &Arguments) -> ExitCode {
    super::tell(match (&arguments.request_id, arguments.live) {
        (Some(id), _) => arguments.recorded(id),
        (None, true) => arguments.by_console(),
        (None, false) => arguments.by_configuration(),
    })
}
