//! HTTP/1 messages of clients and upstreams.

use http::Method;
use weft::fuzz::{Request, http1_requests, http1_responses};

/// The first byte says how the rest is cut, the second what it is. However it is cut, it is taken for the same messages; and
/// a request that is let through is read by the upstream as it was read by us, so that nobody smuggles one past.
pub fn http1(bytes: &[u8]) {
    let [size, what, message @ ..] = bytes else { return };
    // What is wrong with a line may be told when the line has ended, and not before.
    let message = &[message, b"\n"].concat()[..];
    let (size, whole) = (usize::from(*size).max(1), message.len());
    match what % 3 {
        0 => {
            assert_eq!(http1_requests(message, size), http1_requests(message, whole), "in pieces of {size}");
            forward(message);
        }
        kind => {
            let method = if kind == 1 { Method::GET } else { Method::HEAD };
            let pieces = http1_responses(message, size, &method);
            assert_eq!(pieces, http1_responses(message, whole, &method), "in pieces of {size}");
        }
    }
}

fn forward(message: &[u8]) {
    let Some((request, has_body)) = Request::admitted(message) else { return };
    // CONNECT is routed nowhere; what follows an upgrade is framed by nothing.
    if request.path().is_none() || request.headers().contains_key(http::header::UPGRADE) {
        return;
    }
    let lengths: &[Option<u64>] = if has_body { &[None, Some(7)] } else { &[Some(0)] };
    for length in lengths {
        let Some(received) = request.as_upstream(*length) else {
            panic!("the upstream reads something else, with a body of {length:?} bytes");
        };
        assert_eq!(received.method(), request.method());
        assert_eq!(received.path(), request.path());
        assert_eq!(received.authority(), request.authority());
        for (name, value) in request.headers() {
            let is_framing = *name == http::header::CONTENT_LENGTH || *name == http::header::HOST;
            let arrives = received.headers().get_all(name).iter().any(|arrived| arrived == value);
            assert!(is_framing || arrives, "{name} does not arrive as it was");
        }
    }
}
