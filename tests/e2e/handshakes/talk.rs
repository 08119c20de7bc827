//! A client of the table: it makes its handshake, asks for HTTP, and tells by what it hears who answers.

use support::PATIENCE;
use support::tls::{believing, handshake};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::places::Places;
use super::{Outcome, Row};

const HTTP1: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The preface, no settings, and GET https://a/ as stream 1 (RFC 9113 sections 3.4 and 6, RFC 7541 appendix A).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\0\x04\0\0\0\0\0\
    \0\0\x06\x01\x05\0\0\0\x01\x82\x87\x84\x41\x01a";

/// Type of a frame of headers.
const HEADERS: u8 = 1;

/// `:status: 200` in the static table.
const STATUS_200: u8 = 0x88;

/// Bytes of a frame's head.
const FRAME_HEAD: usize = 9;

/// What becomes of a connection; why it ended, where nothing does.
pub(super) async fn talk(places: &Places, row: &Row) -> Result<Outcome, String> {
    tokio::time::timeout(PATIENCE, connected(places, row)).await.unwrap_or(Err("nothing came".to_owned()))
}

async fn connected(places: &Places, row: &Row) -> Result<Outcome, String> {
    let to = places.at(row.mode).listener(0);
    let Some(offers) = row.offers else { return http1(&mut TcpStream::connect(to).await.unwrap()).await };
    // Whom a proxy shows is not the question here: a server of any name will do.
    let mut config = believing(&places.ca, places.certificates.get(row.shown), offers);
    config.enable_sni = row.server_name().is_some();
    let mut stream = handshake(config, to, row.server_name().unwrap_or("nobody.example")).await?;
    let (_, session) = stream.get_ref();
    let is_own = session.peer_certificates() == Some(places.app.as_slice());
    let is_http2 = session.alpn_protocol() == Some(b"h2".as_slice());
    let heard = if is_http2 { http2(&mut stream).await } else { http1(&mut stream).await };
    match heard? {
        Outcome::Http if is_own => Ok(Outcome::Untouched),
        heard => Ok(heard),
    }
}

async fn http1(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Outcome, String> {
    stream.write_all(HTTP1).await.map_err(|error| error.to_string())?;
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).await.map_err(|error| error.to_string())?;
    match &heard {
        b"HTTP/1.1 200" => Ok(Outcome::Http),
        b"GET / HTTP/1" => Ok(Outcome::Bytes),
        // How metadata begins.
        [b'=', b'#', 4, b'g', ..] => Ok(Outcome::Exchanged),
        _ => panic!("{:?}", String::from_utf8_lossy(&heard)),
    }
}

async fn http2(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Outcome, String> {
    stream.write_all(HTTP2).await.map_err(|error| error.to_string())?;
    loop {
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head).await.map_err(|error| error.to_string())?;
        if head == *b"PRI * HTT" {
            return Ok(Outcome::Bytes);
        }
        let [high, middle, low, kind, ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut payload).await.map_err(|error| error.to_string())?;
        if kind == HEADERS {
            assert!(payload.contains(&STATUS_200), "{payload:?}");
            return Ok(Outcome::Http);
        }
    }
}
