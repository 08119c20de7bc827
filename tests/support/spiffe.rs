//! Who serves identities at a socket, as SPIRE's agent does: Envoy's secret discovery, or the SPIFFE Workload API. It can
//! misbehave.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use parking_lot::Mutex;
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{ServerStreamingService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::tls::Pem;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const BUNDLES: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Which service it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Envoy's secret discovery.
    Discovery,
    /// The SPIFFE Workload API.
    WorkloadApi,
}

/// What it says.
#[derive(Debug, Clone)]
pub enum Says {
    /// Nothing yet.
    Nothing,
    /// An identity: SPIFFE identity, certificate and key, roots in PEM.
    Identity(String, Pem, String),
    /// An identity, and roots in PEM by trust domain, its own among them.
    Federated(String, Pem, Vec<(String, String)>),
    /// What is none.
    Garbage,
    /// So many bytes in place of a chain.
    Huge(usize),
    /// It knows nobody.
    Denied,
    /// The one behind the other, to everybody who begins to follow.
    Both(Box<[Says; 2]>),
}

/// A socket at which identities are served, in a directory of its own.
#[derive(Debug)]
pub struct TestSocket {
    directory: TempDir,
    says: watch::Sender<Says>,
    /// What was refused, and why.
    pub refused: Arc<Mutex<Vec<String>>>,
    task: Option<JoinHandle<()>>,
    /// Whoever follows is cut off when it is dropped.
    listens: Option<watch::Sender<()>>,
    speaks: Speaks,
}

impl TestSocket {
    /// A place for it; nobody listens there yet.
    pub fn new(speaks: Speaks) -> TestSocket {
        let (says, _) = watch::channel(Says::Nothing);
        let directory = tempfile::tempdir().unwrap();
        TestSocket { directory, says, refused: Arc::default(), task: None, listens: None, speaks }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The directory it is in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// From now on it says that, to everybody who follows.
    pub fn says(&self, says: Says) {
        self.says.send_replace(says);
    }

    /// Somebody listens.
    pub fn comes(&mut self) {
        let listener = UnixListener::bind(self.path()).unwrap();
        let (listens, gone) = watch::channel(());
        self.listens = Some(listens);
        let (says, refused) = (self.says.subscribe(), self.refused.clone());
        let serves = Serves { says, gone, refused, speaks: self.speaks };
        self.task = Some(tokio::spawn(async move {
            let server = tonic::transport::Server::builder();
            let _ = server.serve_with_incoming(serves, UnixListenerStream::new(listener)).await;
        }));
    }

    /// Nobody listens any more, and whoever followed is cut off.
    pub async fn goes(&mut self) {
        self.listens = None;
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        let _ = std::fs::remove_file(self.path());
    }
}

impl Drop for TestSocket {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[derive(Clone)]
struct Serves {
    says: watch::Receiver<Says>,
    gone: watch::Receiver<()>,
    refused: Arc<Mutex<Vec<String>>>,
    speaks: Speaks,
}

impl Service<http::Request<tonic::body::Body>> for Serves {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let serves = self.clone();
        Box::pin(async move {
            Ok(match (request.uri().path(), serves.speaks) {
                (STREAM_SECRETS, Speaks::Discovery) => {
                    let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
                    tonic::server::Grpc::new(codec).streaming(serves, request).await
                }
                (FETCH_X509_SVID, Speaks::WorkloadApi) => {
                    let codec = ProstCodec::<Fetched, Fetch>::default();
                    tonic::server::Grpc::new(codec).server_streaming(serves, request).await
                }
                (path, _) => Status::unimplemented(path).into_http(),
            })
        })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl StreamingService<DiscoveryRequest> for Serves {
    type Response = DiscoveryResponse;
    type ResponseStream = Answers<DiscoveryResponse>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let (says, gone, refused) = (self.says.clone(), self.gone.clone(), self.refused.clone());
        Box::pin(async move {
            let mut requests = request.into_inner();
            let first =
                requests.message().await?.ok_or_else(|| Status::invalid_argument("nothing is asked"))?;
            if first.type_url != SECRET
                || first.resource_names != ["default", "ROOTCA"]
                || first.node.is_none()
            {
                return Err(Status::invalid_argument(format!("{first:?}")));
            }
            tokio::spawn(async move {
                while let Ok(Some(request)) = requests.message().await {
                    refused.lock().extend(request.error_detail.map(|detail| detail.message));
                }
            });
            Ok(Response::new(follow(says, gone, discovered)))
        })
    }
}

impl ServerStreamingService<Fetch> for Serves {
    type Response = Fetched;
    type ResponseStream = Answers<Fetched>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Fetch>) -> Self::Future {
        let (says, gone) = (self.says.clone(), self.gone.clone());
        Box::pin(async move {
            let header = request.metadata().get("workload.spiffe.io");
            if header.is_none_or(|value| value != "true") {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            Ok(Response::new(follow(says, gone, fetched)))
        })
    }
}

/// Tells what is said, and again whenever that changes.
fn follow<T: Send + 'static>(
    mut says: watch::Receiver<Says>,
    mut gone: watch::Receiver<()>,
    told: fn(&Says, u64) -> Option<Result<T, Status>>,
) -> Answers<T> {
    let (sender, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        for version in 0.. {
            let said = says.borrow_and_update().clone();
            let said = if let Says::Both(both) = said { both.to_vec() } else { vec![said] };
            for answer in said.iter().filter_map(|said| told(said, version)) {
                if sender.send(answer).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = sender.closed() => return,
                _ = gone.changed() => return,
                changed = says.changed() => if changed.is_err() { return },
            }
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

fn discovered(says: &Says, version: u64) -> Option<Result<DiscoveryResponse, Status>> {
    let inline = |text: &str| {
        let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    let secret = |name: &str, kind| {
        let secret = Secret { name: name.to_owned(), r#type: Some(kind) };
        Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() }
    };
    let bundles = |bundles: &[(String, String)]| {
        let domain = |(domain, roots): &(String, String)| TrustDomain {
            name: domain.clone(),
            trust_bundle: inline(roots),
            ..TrustDomain::default()
        };
        let trust_domains = bundles.iter().map(domain).collect();
        let config = SpiffeCertValidatorConfig { trust_domains, ..Default::default() };
        let config = Any { type_url: BUNDLES.to_owned(), value: config.encode_to_vec() };
        let name = "envoy.tls.cert_validator.spiffe".to_owned();
        let config = TypedExtensionConfig { name, typed_config: Some(config) };
        CertificateValidationContext { custom_validator_config: Some(config), ..Default::default() }
    };
    let believing =
        |roots: &str| CertificateValidationContext { trusted_ca: inline(roots), ..Default::default() };
    let whole = |chain: &str, key: &str, roots: CertificateValidationContext| {
        let certificate = TlsCertificate {
            certificate_chain: inline(chain),
            private_key: inline(key),
            ..TlsCertificate::default()
        };
        vec![
            secret("default", secret::Type::TlsCertificate(certificate)),
            secret("ROOTCA", secret::Type::ValidationContext(roots)),
        ]
    };
    let resources = match says {
        Says::Nothing | Says::Both(_) => return None,
        Says::Denied => return Some(Err(Status::permission_denied("no identity issued"))),
        Says::Identity(_, pem, roots) => whole(&pem.chain, &pem.key, believing(roots)),
        Says::Federated(_, pem, roots) => whole(&pem.chain, &pem.key, bundles(roots)),
        Says::Huge(bytes) => whole(&"#".repeat(*bytes), "", believing("")),
        Says::Garbage => vec![Any { type_url: SECRET.to_owned(), value: vec![0xff; 9] }],
    };
    let version_info = version.to_string();
    let nonce = format!("nonce-{version}");
    Some(Ok(DiscoveryResponse {
        version_info,
        nonce,
        resources,
        type_url: SECRET.to_owned(),
        ..DiscoveryResponse::default()
    }))
}

fn fetched(says: &Says, _: u64) -> Option<Result<Fetched, Status>> {
    let svid = |id: &str, chain: Vec<u8>, key: Vec<u8>, bundle: Vec<u8>| {
        let svid = Svid {
            spiffe_id: id.to_owned(),
            x509_svid: chain,
            x509_svid_key: key,
            bundle,
            hint: String::new(),
        };
        Fetched { svids: vec![svid], ..Fetched::default() }
    };
    Some(Ok(match says {
        Says::Nothing | Says::Both(_) => return None,
        Says::Denied => return Some(Err(Status::permission_denied("no identity issued"))),
        Says::Identity(id, pem, roots) => {
            svid(id, der(&pem.chain), pem.parsed().1.secret_der().to_vec(), der(roots))
        }
        Says::Federated(id, pem, roots) => {
            let own = |domain: &str| id.starts_with(&format!("spiffe://{domain}/"));
            let (mine, others): (Vec<_>, Vec<_>) = roots.iter().partition(|(domain, _)| own(domain));
            let mine = mine.iter().flat_map(|(_, roots)| der(roots)).collect();
            let others = others.iter().map(|(domain, roots)| (format!("spiffe://{domain}"), der(roots)));
            let own = svid(id, der(&pem.chain), pem.parsed().1.secret_der().to_vec(), mine);
            Fetched { federated_bundles: others.collect(), ..own }
        }
        Says::Huge(bytes) => svid("", vec![0; *bytes], Vec::new(), Vec::new()),
        Says::Garbage => svid("", vec![7; 9], Vec::new(), Vec::new()),
    }))
}

/// Certificates in PEM as DER, one after the other.
fn der(pem: &str) -> Vec<u8> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).flat_map(|one| one.unwrap().to_vec()).collect()
}

/// `X509SVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Fetch {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Fetched {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, prost::Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}
