//! As much of an HTTP/2 client (RFC 9113) as the benchmark needs: one request at a time, written frame by frame.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::TIMES;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` in HPACK's static table (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

/// Sends one request after the other; returns how many were answered as they should.
pub(crate) fn one_by_one(mut stream: TcpStream) -> usize {
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut hello, SETTINGS, 0, 0, &[]);
    // The connection's window never is what the proxy waits for.
    frame(&mut hello, WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
    stream.write_all(&hello).expect("a preface is sent");
    for number in 0..TIMES {
        let id = u32::try_from(number * 2 + 1).expect("a stream's number");
        let mut request = Vec::new();
        frame(
            &mut request,
            HEADERS,
            END_STREAM | END_HEADERS,
            id,
            &head("/v1/things/4711?page=2", "catalog"),
        );
        stream.write_all(&request).expect("a request is sent");
        if !answered(&mut stream, id) {
            return number;
        }
    }
    TIMES
}

/// GET as a block of headers, without Huffman coding and without use of the dynamic table.
fn head(path: &str, authority: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, authority)] {
        block.push(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend_from_slice(value.as_bytes());
    }
    block
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a small frame");
    out.extend_from_slice(length.to_be_bytes().get(1..).expect("three bytes"));
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Reads frames to the end of a stream; whether it had status 200 and ended in order.
fn answered(stream: &mut TcpStream, id: u32) -> bool {
    let mut found = false;
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).is_err() {
            return false;
        }
        let [high, middle, low, kind, flags, number @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload).expect("the rest of a frame");
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut settled = Vec::new();
                frame(&mut settled, SETTINGS, ACK, 0, &[]);
                stream.write_all(&settled).expect("settings are acknowledged");
            }
            SETTINGS | WINDOW_UPDATE => {}
            HEADERS if u32::from_be_bytes(number) == id => found = payload.first() == Some(&STATUS_200),
            DATA if u32::from_be_bytes(number) == id => {}
            _ => return false,
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return found;
        }
    }
}
