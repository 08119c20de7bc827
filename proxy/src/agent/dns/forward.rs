//! Asking somebody else: the servers of the pod's resolver configuration, one after the other.
//!
//! A question goes on as it came but for its number, from a port of its own, so that nobody who cannot see it can answer
//! it. The answer goes back as it came.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Header, MessageType, Query, ResponseCode};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinDecoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::Transport;

/// How long a server may take to answer; Istio's.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// What `servers` answer to the question in `bytes`, asked as it came; `None` when none does. They are asked in another
/// order each time.
pub(super) async fn forward(
    servers: &[SocketAddr],
    bytes: &[u8],
    query: &Query,
    transport: Transport,
    random: u64,
) -> Option<Vec<u8>> {
    let mut question = bytes.to_vec();
    let [high, low, seed, ..] = random.to_be_bytes();
    let asked_as = [high, low];
    let told = [*bytes.first()?, *bytes.get(1)?];
    question.get_mut(..2)?.copy_from_slice(&asked_as);
    let first = usize::from(seed) % servers.len().max(1);
    let (before, after) = servers.split_at_checked(first)?;
    for server in after.iter().chain(before) {
        let asking = async {
            match transport {
                Transport::Udp => over_udp(*server, &question, query).await,
                Transport::Tcp => over_tcp(*server, &question, query).await,
            }
        };
        match tokio::time::timeout(SERVER_TIMEOUT, asking).await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(mut answer) => {
                answer.get_mut(..2)?.copy_from_slice(&told);
                return Some(answer);
            }
            Err(error) => tracing::debug!(%server, %error, "a server of names does not answer"),
        }
    }
    None
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {SERVER_TIMEOUT:?}"))
}

async fn over_udp(server: SocketAddr, question: &[u8], query: &Query) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        let bytes = answer.get(..length).unwrap_or_default();
        // Something else is not an answer, whoever sent it.
        if answers(bytes, question, query) {
            return Ok(bytes.to_vec());
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8], query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&with_length(question)).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answers(&answer, question, query) {
        return Ok(answer);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what it says is no answer"))
}

/// A message as it is written on a connection. One that is too long for that is empty.
pub(super) fn with_length(message: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(message.len()) else { return Vec::new() };
    [&length.to_be_bytes(), message].concat()
}

/// Whether `bytes` answer the question of that number.
fn answers(bytes: &[u8], question: &[u8], query: &Query) -> bool {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(head) = Header::read(&mut decoder) else { return false };
    head.metadata.message_type == MessageType::Response
        && bytes.get(..2) == question.get(..2)
        && match head.counts.queries {
            // A server that cannot read a question does not repeat it.
            0 => matches!(head.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp),
            1 => Query::read(&mut decoder).is_ok_and(|answered| answered == *query),
            _ => false,
        }
}
