//! Questions over HTTP/2, one after the other on one connection, for checks that are not written in Rust.
//!
//! A question is a line of JSON, `{"path": "/a", "headers": {"x-user": "a"}}` with `:authority` as a header; the answer is
//! one too, with status, headers and body.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::http2::hpack::{Decoder, append_unindexed};
use crate::http2::{
    Frame, Kind, PREFACE, append, append_acknowledgement, append_settings, append_window_update, flag,
    setting,
};
use crate::response::Malformed;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

struct Client {
    stream: TcpStream,
    incoming: Vec<u8>,
    decoder: Decoder,
    next_stream: u32,
}

#[derive(Default)]
struct Answer {
    headers: Map<String, Value>,
    body: Vec<u8>,
}

/// Answers the questions until they end.
pub(crate) fn run(target: SocketAddr, questions: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let mut client = Client::connect(target)?;
    for line in questions.lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let answer = client.ask(&question)?;
        let body = String::from_utf8_lossy(&answer.body);
        writeln!(answers, "{}", json!({ "headers": answer.headers, "body": body }))?;
        answers.flush()?;
    }
    Ok(())
}

impl Client {
    fn connect(target: SocketAddr) -> io::Result<Client> {
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut greeting = PREFACE.to_vec();
        append_settings(&mut greeting, &[(setting::ENABLE_PUSH, 0)]);
        stream.write_all(&greeting)?;
        Ok(Client { stream, incoming: Vec::new(), decoder: Decoder::default(), next_stream: 1 })
    }

    fn ask(&mut self, question: &Value) -> io::Result<Answer> {
        let mut block = Vec::new();
        append_unindexed(&mut block, ":method", "GET");
        append_unindexed(&mut block, ":scheme", "http");
        append_unindexed(&mut block, ":path", text(question.get("path")));
        for (name, value) in question.get("headers").and_then(Value::as_object).into_iter().flatten() {
            append_unindexed(&mut block, name, text(Some(value)));
        }
        let mut out = Vec::new();
        let stream = self.next_stream;
        append(&mut out, Kind::Headers, flag::END_STREAM | flag::END_HEADERS, stream, &block);
        self.stream.write_all(&out)?;
        self.next_stream += 2;
        let mut answer = Answer::default();
        while !self.read(stream, &mut answer).map_err(|it| io::Error::new(ErrorKind::InvalidData, it.0))? {
            let mut read = [0; 4096];
            let count = self.stream.read(&mut read)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.incoming.extend_from_slice(read.get(..count).unwrap_or_default());
        }
        Ok(answer)
    }

    /// Reads what came of the answer on `stream`; whether it is whole.
    fn read(&mut self, stream: u32, answer: &mut Answer) -> Result<bool, Malformed> {
        let (incoming, mut out, mut whole) = (std::mem::take(&mut self.incoming), Vec::new(), false);
        let mut rest = incoming.as_slice();
        while let Some(frame) = Frame::take(&mut rest)? {
            append_acknowledgement(&mut out, &frame);
            match frame.kind {
                Kind::Headers => self.decoder.decode(frame.content()?, |name, value| {
                    let value = String::from_utf8_lossy(value).into_owned();
                    answer.headers.insert(String::from_utf8_lossy(name).into_owned(), value.into());
                })?,
                Kind::Data => {
                    answer.body.extend_from_slice(frame.content()?);
                    let length = u32::try_from(frame.payload.len()).unwrap_or(0);
                    // To widen by nothing is an error.
                    if length > 0 {
                        append_window_update(&mut out, 0, length);
                    }
                }
                Kind::RstStream | Kind::GoAway => return Err(Malformed("the peer gave up")),
                Kind::Unsupported(_) => return Err(Malformed("a push or a header block of several frames")),
                Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Ignored(_) => {}
            }
            let ends = matches!(frame.kind, Kind::Headers | Kind::Data) && frame.has(flag::END_STREAM);
            whole |= ends && frame.stream == stream;
        }
        self.incoming = rest.to_vec();
        // A failure is found by the next read.
        let _ = self.stream.write_all(&out);
        Ok(whole)
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}
