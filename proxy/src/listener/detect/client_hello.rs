//! A ClientHello, as far as it says where it wants to go: server name and offered protocols.
//!
//! Read and not consumed: whoever terminates TLS, here or elsewhere, gets every byte. Only what TLS says about lengths is
//! believed, and only within the bytes that are there. Semantics: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC
//! 7301; what is malformed is not TLS, as in Envoy.

use std::borrow::Cow;
use std::sync::Arc;

use super::{FIRST_BYTES_MAX, Verdict};

/// `ContentType.handshake`.
const HANDSHAKE: u8 = 22;
/// `HandshakeType.client_hello`.
const CLIENT_HELLO: u8 = 1;
/// Bytes of a record's header: type, version, length.
const RECORD_HEADER: usize = 5;
/// Bytes of a handshake message's header: type, length.
const MESSAGE_HEADER: usize = 4;
/// Bytes of a plain text record.
const RECORD_BYTES_MAX: usize = 16 * 1024;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// `NameType.host_name`.
const HOST_NAME: u8 = 0;

/// What a TLS client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The server's name, in lower case; `None` when it names none.
    pub(crate) server_name: Option<Arc<str>>,
    /// The protocols it offers, in its order of preference.
    pub(crate) protocols: Vec<Arc<str>>,
}

/// A handshake message that is put together from records, as far as they are whole.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The message as far as whole records have it.
    joined: Vec<u8>,
    /// Bytes of those records.
    passed: usize,
}

impl Progress {
    /// Looks for a ClientHello in all that has come: [`Verdict::Tls`], [`Verdict::NeedMore`],
    /// [`Verdict::TooLarge`] or [`Verdict::Other`].
    pub(super) fn detect(&mut self, bytes: &[u8]) -> Verdict {
        loop {
            match record(bytes.get(self.passed..).unwrap_or_default()) {
                Record::Whole(fragment, after) => {
                    let verdict = self.judge(fragment);
                    if verdict != Verdict::NeedMore {
                        return verdict;
                    }
                    self.joined.extend_from_slice(fragment);
                    self.passed = bytes.len() - after.len();
                }
                Record::Begun(fragment) => {
                    return match self.judge(fragment) {
                        Verdict::NeedMore if bytes.len() >= FIRST_BYTES_MAX => Verdict::TooLarge,
                        verdict => verdict,
                    };
                }
                Record::Wrong => return Verdict::Other,
            }
        }
    }

    /// Bytes that are not looked at again.
    #[cfg(test)]
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Judges the message, which goes on with this part. It is copied only when it is whole, and not at all when one record
    /// has all of it, as a rule.
    fn judge(&self, part: &[u8]) -> Verdict {
        let mut begin = self.joined.iter().chain(part).copied();
        match begin.next() {
            None => return Verdict::NeedMore,
            Some(CLIENT_HELLO) => {}
            Some(_) => return Verdict::Other,
        }
        let has = self.joined.len() + part.len();
        if has < MESSAGE_HEADER {
            return Verdict::NeedMore;
        }
        let length = begin.take(MESSAGE_HEADER - 1).fold(0, |length, byte| length << 8 | usize::from(byte));
        if length > FIRST_BYTES_MAX - MESSAGE_HEADER - RECORD_HEADER {
            return Verdict::TooLarge;
        }
        let message = MESSAGE_HEADER..MESSAGE_HEADER + length;
        if has < message.end {
            return Verdict::NeedMore;
        }
        let whole = match self.joined.as_slice() {
            [] => Cow::Borrowed(part),
            joined => Cow::Owned([joined, part].concat()),
        };
        let body = whole.get(message).unwrap_or_default();
        hello(&mut Reader(body)).map_or(Verdict::Other, Verdict::Tls)
    }
}

/// What bytes begin with.
enum Record<'b> {
    /// A record's content, and what follows it.
    Whole(&'b [u8], &'b [u8]),
    /// As much of a record's content as is there.
    Begun(&'b [u8]),
    /// No handshake record.
    Wrong,
}

fn record(bytes: &[u8]) -> Record<'_> {
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] => return Record::Begun(&[]),
        [HANDSHAKE, 3, ..] => {}
        _ => return Record::Wrong,
    }
    // Of the version only the first half is looked at (RFC 8446 section 5.1), and a record may be empty, as in Envoy.
    let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
        return Record::Begun(&[]);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > RECORD_BYTES_MAX {
        return Record::Wrong;
    }
    match rest.split_at_checked(length) {
        Some((content, after)) => Record::Whole(content, after),
        None => Record::Begun(rest),
    }
}

fn hello(body: &mut Reader<'_>) -> Option<ClientHello> {
    let mut found = ClientHello::default();
    // The version is judged by who speaks TLS with the client: whatever it is, the client asks for a server.
    body.take(2 + 32)?;
    let session = body.vector8()?;
    let suites = body.vector16()?;
    let compressions = body.vector8()?;
    let is_well_formed = session.0.len() <= 32
        && !suites.0.is_empty()
        && suites.0.len() % 2 == 0
        && !compressions.0.is_empty();
    if !is_well_formed {
        return None;
    }
    if body.0.is_empty() {
        // Before TLS 1.2 there may be no extensions.
        return Some(found);
    }
    let mut extensions = body.vector16()?;
    if !body.0.is_empty() {
        return None;
    }
    // A bit for each kind, of which there is one at most (RFC 8446 section 4.2): of two names nobody knows which counts.
    let mut seen = vec![0_u8; (1 << u16::BITS) / 8];
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let (bits, bit) = (seen.get_mut(usize::from(kind / 8))?, 1 << (kind % 8));
        if *bits & bit != 0 {
            return None;
        }
        *bits |= bit;
        let mut content = extensions.vector16()?;
        match kind {
            SERVER_NAME => found.server_name = Some(server_name(&mut content)?),
            // Who offers nothing that is well formed offers nothing.
            ALPN => found.protocols = protocols(&mut content).unwrap_or_default(),
            _ => {}
        }
    }
    Some(found)
}

fn server_name(content: &mut Reader<'_>) -> Option<Arc<str>> {
    let mut names = content.vector16()?;
    let (kind, name) = (names.number8()?, names.vector16()?);
    // Of the kinds of names only one was ever defined, and of each kind there is one.
    let is_one = kind == HOST_NAME && names.0.is_empty() && content.0.is_empty();
    // Envoy takes control characters but NUL, too; here they do not get into logs.
    let is_name = (1..=255).contains(&name.0.len()) && !name.0.iter().any(u8::is_ascii_control);
    (is_one && is_name).then(|| String::from_utf8_lossy(name.0).to_ascii_lowercase().into())
}

fn protocols(content: &mut Reader<'_>) -> Option<Vec<Arc<str>>> {
    let mut names = content.vector16()?;
    let mut found = Vec::new();
    if names.0.is_empty() || !content.0.is_empty() {
        return None;
    }
    while !names.0.is_empty() {
        let name = names.vector8()?;
        if name.0.is_empty() {
            return None;
        }
        // A name that is no text is one that no chain asks for (RFC 8701 has such names).
        if let Ok(name) = std::str::from_utf8(name.0) {
            found.push(name.into());
        }
    }
    Some(found)
}

/// Reads TLS's presentation language; `None` where the bytes end too early.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    fn vector8(&mut self) -> Option<Reader<'b>> {
        let length = self.number8()?;
        self.take(length.into()).map(Reader)
    }

    fn vector16(&mut self) -> Option<Reader<'b>> {
        let length = self.number16()?;
        self.take(length.into()).map(Reader)
    }
}
