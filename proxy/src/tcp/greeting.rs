//! The exchange of metadata that a TCP connection begins with where ALPN has agreed on `istio-peer-exchange`: each side
//! says first who it is, and hears the same of the other. This is the hearing side, as bytes come; it reads and writes
//! nothing by itself.
//!
//! Nobody waits for it: what goes the other way goes on meanwhile, and who never says a word is waited for as for any
//! other silent side, by the idle timeout of the connection (Envoy: the same). A side that does not begin as it agreed
//! to is nobody in particular, and its bytes are passed on from the first that differs; Envoy does so once it has eight.
//! Of a message that is too long, or is none, nothing is kept and nothing passed on.

use crate::peers::{FRAME_HEAD_BYTES, MAGIC};

/// What has been heard so far.
#[derive(Debug)]
pub(super) struct Greeting {
    bytes_max: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What comes before the message; so much of it was heard.
    Head([u8; FRAME_HEAD_BYTES], usize),
    /// The message, and how many bytes of it are to come.
    Message(Vec<u8>, usize),
    /// A message that is too long, and how many bytes of it are to come.
    TooLong(usize),
}

/// What a side has said, once that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This message.
    Message(Vec<u8>),
    /// A message that is longer than any that is read.
    TooMuch,
    /// Nothing of the kind: these bytes, which were heard before, are the connection's own.
    Nothing(Vec<u8>),
}

impl Greeting {
    /// Nothing yet; a message of more than so many bytes is not kept.
    pub(super) fn new(bytes_max: usize) -> Greeting {
        Greeting { bytes_max, stage: Stage::Head([0; FRAME_HEAD_BYTES], 0) }
    }

    /// Hears bytes. Once it is over: what was said, and the bytes after it; `None` as long as more is to come.
    pub(super) fn hear<'b>(&mut self, mut bytes: &'b [u8]) -> Option<(Said, &'b [u8])> {
        if let Stage::Head(head, heard) = &mut self.stage {
            let rest = head.get_mut(*heard..).unwrap_or_default();
            let fitting = rest.len().min(bytes.len());
            let (now, later) = bytes.split_at(fitting);
            rest.iter_mut().zip(now).for_each(|(place, byte)| *place = *byte);
            *heard += fitting;
            bytes = later;
            let heard = head.get(..*heard).unwrap_or_default();
            if !heard.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) {
                return Some((Said::Nothing(heard.to_vec()), bytes));
            }
            if heard.len() < FRAME_HEAD_BYTES {
                return None;
            }
            let [_, _, _, _, length @ ..] = *head;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.stage = match length <= self.bytes_max {
                true => Stage::Message(Vec::with_capacity(length), length),
                false => Stage::TooLong(length),
            };
        }
        let (Stage::Message(_, missing) | Stage::TooLong(missing)) = &mut self.stage else { return None };
        let (now, later) = bytes.split_at((*missing).min(bytes.len()));
        *missing -= now.len();
        let over = *missing == 0;
        let said = match &mut self.stage {
            Stage::Message(message, _) => {
                message.extend_from_slice(now);
                over.then(|| Said::Message(std::mem::take(message)))
            }
            _ => over.then_some(Said::TooMuch),
        };
        said.map(|said| (said, later))
    }

    /// The side says nothing more: what it has said, where it has come to no end.
    pub(super) fn end(&mut self) -> Said {
        match &self.stage {
            Stage::Head(head, heard) => Said::Nothing(head.get(..*heard).unwrap_or_default().to_vec()),
            Stage::Message(..) | Stage::TooLong(_) => Said::Nothing(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 100;

    /// What is heard, in pieces of so many bytes: what was said, and what is passed on; at the end of the side if it came
    /// to none before.
    fn hear(bytes: &[u8], piece: usize) -> (Said, Vec<u8>) {
        let mut greeting = Greeting::new(BYTES_MAX);
        let mut pieces = bytes.chunks(piece);
        while let Some(now) = pieces.next() {
            if let Some((said, after)) = greeting.hear(now) {
                let rest = [after, &pieces.collect::<Vec<_>>().concat()].concat();
                return match said {
                    Said::Nothing(held) => (Said::Nothing(Vec::new()), [held, rest].concat()),
                    said => (said, rest),
                };
            }
        }
        match greeting.end() {
            Said::Nothing(held) => (Said::Nothing(Vec::new()), held),
            said => (said, Vec::new()),
        }
    }

    #[test]
    fn in_pieces_of_any_size() {
        let framed = |length: u32, message: &[u8], rest: &[u8]| {
            [&MAGIC, &length.to_be_bytes()[..], message, rest].concat()
        };
        let nothing = || Said::Nothing(Vec::new());
        let check = |bytes: &[u8], said: &dyn Fn() -> Said, rest: &[u8]| {
            for piece in 1..=bytes.len().max(1) {
                assert_eq!(hear(bytes, piece), (said(), rest.to_vec()), "{bytes:?} by {piece}");
            }
        };
        check(&framed(5, b"hello", b"rest"), &|| Said::Message(b"hello".to_vec()), b"rest");
        check(&framed(5, b"hello", b""), &|| Said::Message(b"hello".to_vec()), b"");
        check(&framed(0, b"", b"rest"), &|| Said::Message(Vec::new()), b"rest");
        check(&framed(101, &[7; 101], b"rest"), &|| Said::TooMuch, b"rest");
        check(b"GET / HTTP/1.1\r\n\r\n", &nothing, b"GET / HTTP/1.1\r\n\r\n");
        // It begins as the other one does.
        check(b"\x3d\x23\x04\x68rest", &nothing, b"\x3d\x23\x04\x68rest");
        check(b"=", &nothing, b"=");
        check(b"", &nothing, b"");
        // Whoever ends in the middle has said nothing, and nothing of it is passed on.
        check(&framed(5, b"hell", b""), &nothing, b"");
        check(&framed(u32::MAX, b"hello", b""), &nothing, b"");
    }
}
