//! HTTP/1 as it stands on the wire: requests written byte by byte, where a client library would not let them out.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PATIENCE;
use crate::client::Answer;

/// A client's connection.
#[derive(Debug)]
pub struct Wire {
    /// The connection.
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// Sends one request on a connection of its own and reads its answer. The request is written with `\n` for line ends,
/// its first line, its headers, an empty line and the body.
pub async fn ask(to: SocketAddr, request: &str) -> Answer {
    let mut wire = Wire::connect(to).await;
    wire.request(request).await;
    wire.answer(request.starts_with("HEAD ")).await
}

impl Wire {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Wire {
        Wire { stream: TcpStream::connect(to).await.expect("a connection"), unread: Vec::new() }
    }

    /// Sends a request as [`ask`] takes it. Bytes of the body are sent as they are.
    pub async fn request(&mut self, request: &str) {
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end_matches('\n'), ""));
        let bytes = format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"));
        self.send(bytes).await;
    }

    /// Sends bytes as they are; that the other side has left is no error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads one answer in full.
    pub async fn answer(&mut self, to_head: bool) -> Answer {
        let reading = async {
            loop {
                let answer = self.head().await?;
                // 100 (Continue) and its like come before the answer.
                if !answer.status.is_informational() {
                    return self.body(answer, to_head).await;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time");
        answer.expect("a whole answer")
    }

    /// Reads the head of an answer, also of an informational one; `None` when the connection ends before it is whole.
    pub async fn head(&mut self) -> Option<Answer> {
        let end = loop {
            match self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.read().await == 0 => return None,
                None => {}
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head in text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            (name, HeaderValue::from_str(value.trim()).expect("a header value"))
        });
        Some(Answer {
            status: StatusCode::from_bytes(status.as_bytes()).unwrap_or_else(|_| panic!("a status: {head}")),
            headers: headers.collect(),
            body: bytes::Bytes::new(),
            trailers: None,
        })
    }

    async fn body(&mut self, mut answer: Answer, to_head: bool) -> Option<Answer> {
        let bodiless = to_head || matches!(answer.status.as_u16(), 204 | 304);
        if bodiless {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == "chunked" {
            return self.chunks(answer).await;
        }
        let length = answer.headers.get("content-length").map(|_| answer.header("content-length"));
        let body = match length {
            Some(length) => self.exactly(length.parse().expect("a length")).await?,
            None => self.rest().await,
        };
        answer.body = body.into();
        Some(answer)
    }

    async fn chunks(&mut self, mut answer: Answer) -> Option<Answer> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
        let mut trailers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a trailer's name");
            trailers.insert(name, HeaderValue::from_str(value.trim()).expect("a trailer's value"));
        }
        answer.body = body.into();
        answer.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        Some(answer)
    }

    /// Reads this many bytes; `None` when the connection ends before.
    pub async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if self.read().await == 0 {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.read().await == 0 {
                return None;
            }
        }
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let reading = async { while self.read().await > 0 {} };
        tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends in time");
        std::mem::take(&mut self.unread)
    }

    async fn read(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let read = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }
}
