//! A workload's identity from a socket of its machine, whoever makes it: Envoy's secret discovery (SDS), as SPIRE's agent
//! serves it, or the SPIFFE Workload API, which is asked for where the first is not known.
//!
//! What is handed on has been read and nothing more: whether it is an identity, and whose, is for whoever asked. Messages are
//! bounded; a stream that says nothing is one that has nothing new to say.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use config::TrustBundle;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::words::told;

mod der;
mod discovery;
mod workload_api;

/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: u32 = 65_536;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The socket.
    pub socket: &'q Path,
    /// Who asks, as SDS has it: the id of the node.
    pub node: &'q str,
    /// The SPIFFE identity that is taken where there are several; the first where none is this.
    pub wanted: &'q str,
    /// Bytes of one message at most.
    pub message_bytes_max: usize,
}

/// A whole identity, as it was served.
#[derive(Clone, PartialEq, Eq)]
pub struct Served {
    /// The chain, the leaf first, in PEM.
    pub chain: Arc<[u8]>,
    /// The key of the leaf, in PEM.
    pub key: Arc<[u8]>,
    /// The roots of its trust domain, in PEM.
    pub roots: Arc<[u8]>,
    /// Roots by trust domain, its own among them, where those are told apart.
    pub bundles: Vec<TrustBundle>,
    /// Lists of revoked certificates, in PEM.
    pub revoked: Option<Arc<[u8]>>,
}

/// What is heard while the stream lasts.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    /// An identity.
    Identity(Served),
    /// Something else, and why it is none.
    Nothing(String),
}

/// Why nothing more is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Of which kind it is.
    pub kind: EndedKind,
    /// In one line. Words of the other side are quoted and cut short.
    pub why: String,
}

/// Kinds of ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedKind {
    /// There is no connection.
    Unreachable,
    /// The other side knows of no identity for the workload.
    Denied,
    /// A message is past its limit.
    TooLarge,
    /// The other side has ended the stream.
    Closed,
    /// Anything else that it said.
    Refused,
}

impl EndedKind {
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            EndedKind::Unreachable => "unreachable",
            EndedKind::Denied => "denied",
            EndedKind::TooLarge => "too_large",
            EndedKind::Closed => "closed",
            EndedKind::Refused => "refused",
        }
    }
}

/// Asks, and tells what is heard until the stream ends.
pub async fn follow(question: Question<'_>, heard: &mut dyn FnMut(Heard)) -> Ended {
    let channel = match connect(&question).await {
        Ok(channel) => channel,
        Err(why) => return Ended { kind: EndedKind::Unreachable, why },
    };
    let status = discovery::follow(channel.clone(), &question, heard).await;
    // Who does not know the one service may know the other.
    let status = match status {
        Some(status) if status.code() == Code::Unimplemented => {
            workload_api::follow(channel, &question, heard).await
        }
        status => status,
    };
    match status {
        Some(status) => ended(&status),
        None => Ended { kind: EndedKind::Closed, why: "it has ended the stream".to_owned() },
    }
}

async fn connect(question: &Question<'_>) -> Result<Channel, String> {
    // The connector knows where; the name is only what calls are addressed to.
    let endpoint = Endpoint::from_static("http://localhost").http2_max_header_list_size(HEAD_BYTES_MAX);
    let connector = Connector(question.socket.to_owned());
    endpoint.connect_with_connector(connector).await.map_err(|error| innermost(&error))
}

/// What is behind an error: the outermost alone says "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    told(&error.to_string())
}

fn ended(status: &Status) -> Ended {
    let kind = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => EndedKind::Denied,
        // How the decoder calls a message past its limit.
        Code::OutOfRange | Code::ResourceExhausted => EndedKind::TooLarge,
        Code::Unavailable => EndedKind::Unreachable,
        Code::Cancelled => EndedKind::Closed,
        _ => EndedKind::Refused,
    };
    Ended { kind, why: format!("it answered {:?}: {}", status.code(), told(status.message())) }
}

/// Connects to a socket of this machine.
#[derive(Clone)]
struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
