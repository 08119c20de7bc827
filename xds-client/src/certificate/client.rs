//! One question to the authority: a connection of TLS, a call, an answer or why there is none. Nothing is kept between two.
//!
//! The authority is believed by the roots that are given and by its name, and by nothing else; its answer is bounded.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::message::{CREATE_CERTIFICATE, Request, Response, signed_by};
use crate::words::told;

/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: u32 = 65_536;

/// Where the authority is, and by which name it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name in its certificate; that of its host where none is told.
    pub server_name: Option<String>,
}

impl Address {
    /// Parses `HOST:PORT`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Address, String> {
        let form = || format!("`{text}` is not HOST:PORT, like istiod.istio-system.svc:15012");
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(form)?,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
        if ServerName::try_from(host).is_err() {
            return Err(form());
        }
        Ok(Address { host: host.to_owned(), port, server_name: None })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    /// The request to sign, in PEM.
    pub csr: &'q str,
    /// How long the certificate is to hold; the authority may decide otherwise.
    pub validity: Duration,
    /// By which the authority knows who asks.
    pub token: &'q str,
    /// Which cluster it is of; empty for none.
    pub cluster_id: &'q str,
    /// Who is to sign; empty for whoever does by default.
    pub signer: &'q str,
    /// The roots by which the authority is believed, in PEM.
    pub roots: &'q [u8],
    /// Bytes of an answer at most.
    pub answer_bytes_max: usize,
    /// Time that all of it takes at most.
    pub time_max: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind it is.
    pub kind: FailureKind,
    /// In one line. Words of the authority are quoted and cut short.
    pub why: String,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The roots cannot be read.
    Roots,
    /// The token cannot be sent.
    Token,
    /// There is no connection, or the authority is not believed.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The authority does not know who asks.
    Unauthenticated,
    /// It knows, and issues nothing.
    Denied,
    /// The answer is past its limit.
    TooLarge,
    /// Anything else that the authority said.
    Refused,
}

impl FailureKind {
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Roots => "roots",
            FailureKind::Token => "token",
            FailureKind::Unreachable => "unreachable",
            FailureKind::Timeout => "timeout",
            FailureKind::Unauthenticated => "unauthenticated",
            FailureKind::Denied => "denied",
            FailureKind::TooLarge => "too_large",
            FailureKind::Refused => "refused",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Asks once: the certificates in PEM, the leaf first and the root last.
///
/// # Errors
///
/// Why there are none.
pub async fn ask(address: &Address, question: Question<'_>) -> Result<Vec<String>, Failure> {
    match tokio::time::timeout(question.time_max, Box::pin(ask_without_limit(address, question))).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("it did not answer within {:?}", question.time_max);
            Err(Failure { kind: FailureKind::Timeout, why })
        }
    }
}

async fn ask_without_limit(address: &Address, question: Question<'_>) -> Result<Vec<String>, Failure> {
    let connector = Connector::new(address, question.roots)?;
    let unreachable = |why: String| Failure { kind: FailureKind::Unreachable, why };
    // What connects knows where; the name is only what the call is addressed to.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| unreachable(chain(&error)))?
        .http2_max_header_list_size(HEAD_BYTES_MAX);
    let channel =
        endpoint.connect_with_connector(connector).await.map_err(|error| unreachable(chain(&error)))?;
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(question.answer_bytes_max);
    grpc.ready().await.map_err(|error| unreachable(chain(&error)))?;
    let codec = ProstCodec::<Request, Response>::default();
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
    let answer = grpc.unary(call(question)?, path, codec).await.map_err(|status| refused(&status))?;
    Ok(answer.into_inner().cert_chain)
}

fn call(question: Question<'_>) -> Result<tonic::Request<Request>, Failure> {
    let metadata = (!question.signer.is_empty()).then(|| signed_by(question.signer));
    let mut call = tonic::Request::new(Request {
        csr: question.csr.to_owned(),
        validity_duration: i64::try_from(question.validity.as_secs()).unwrap_or(i64::MAX),
        metadata,
    });
    let value = |text: &str, what: &str| -> Result<MetadataValue<Ascii>, Failure> {
        text.parse().map_err(|_| Failure {
            kind: FailureKind::Token,
            why: format!("the {what} has characters that cannot be sent"),
        })
    };
    let mut token = value(&format!("Bearer {}", question.token), "token")?;
    token.set_sensitive(true);
    call.metadata_mut().insert("authorization", token);
    if !question.cluster_id.is_empty() {
        call.metadata_mut().insert("clusterid", value(question.cluster_id, "cluster's name")?);
    }
    Ok(call)
}

fn refused(status: &Status) -> Failure {
    let kind = match status.code() {
        Code::Unauthenticated => FailureKind::Unauthenticated,
        Code::PermissionDenied => FailureKind::Denied,
        // How the decoder calls a message past its limit.
        Code::OutOfRange | Code::ResourceExhausted => FailureKind::TooLarge,
        Code::Unavailable => FailureKind::Unreachable,
        Code::DeadlineExceeded | Code::Cancelled => FailureKind::Timeout,
        _ => FailureKind::Refused,
    };
    Failure { kind, why: format!("it answered {:?}: {}", status.code(), told(status.message())) }
}

/// What an error says and what is behind it: the outermost alone says "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push(text);
        }
        source = error.source();
    }
    told(&said.join(": "))
}

/// Makes connections of TLS to one authority.
#[derive(Clone)]
struct Connector {
    host: Arc<str>,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    fn new(address: &Address, roots: &[u8]) -> Result<Connector, Failure> {
        let bad = |why: &str| Failure { kind: FailureKind::Roots, why: why.to_owned() };
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            let root = root.map_err(|_| bad("the roots by which it is believed are not PEM"))?;
            // Of those of an operating system, one may be too old for us.
            let _ = store.add(root);
        }
        if store.is_empty() {
            return Err(bad("there is no root by which it could be believed"));
        }
        let name = address.server_name.as_ref().unwrap_or(&address.host).clone();
        let name = ServerName::try_from(name)
            .map_err(|_| Failure { kind: FailureKind::Unreachable, why: "its name is none".to_owned() })?;
        let mut config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Connector { host: address.host.as_str().into(), port: address.port, name, tls })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { host, port, name, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((&*host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let parsed = Address::parse(text).ok();
            let found = parsed.as_ref().map(|address| (address.host.as_str(), address.port));
            assert_eq!(found, expected, "{text}");
            if let Some(address) = &parsed {
                assert_eq!(address.to_string(), text);
            }
        };
        check("istiod.istio-system.svc:15012", Some(("istiod.istio-system.svc", 15012)));
        check("127.0.0.1:1", Some(("127.0.0.1", 1)));
        check("[::1]:15012", Some(("::1", 15012)));
        for bad in ["", ":1", "host", "host:", "host:0", "host:70000", "[::1:1", "a b:1", "https://a:1"] {
            check(bad, None);
        }
    }
}
