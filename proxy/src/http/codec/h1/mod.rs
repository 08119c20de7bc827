//! HTTP/1.1 (RFC 9112), both directions.
//!
//! [`head`] and [`decode`] turn bytes into heads and bodies, [`encode`] the other way, all without I/O and strictly: what
//! could be read in two ways is refused, so that nobody behind us reads it the other way. [`conn`] is one socket with its
//! buffers; [`server`] and [`client`] are the two roles, and [`once`] is a client for one exchange on a stream of any kind.
//! [`mod@received`] is what a server makes of a head, without a connection.
//! [`transcript`] tells what bytes are taken for, and is for tests.
//! There is no task per connection and no channel: whoever waits for a message polls the socket. An idle connection holds no
//! buffer.

pub(crate) mod client;
mod conn;
mod decode;
mod encode;
mod head;
mod large;
pub(crate) mod once;
mod received;
pub(crate) mod server;
pub(crate) mod transcript;

pub(crate) use received::received;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// By chunks, the last of which is empty.
    Chunked,
    /// By the end of the connection. Of a request: what comes after it is no HTTP, if the upstream agrees (101).
    UntilClose,
}
