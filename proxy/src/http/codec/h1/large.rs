//! Heads and trailers of answers that are larger than usual: a limit for all of the process. What an upstream may send bounds
//! what one answer holds, and nothing else bounds the answers, all of which may come at once.
//!
//! Nearly all heads are whole when they come, and so small that nothing is counted.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use crate::http::codec::unread::Share;
use crate::http::codec::{StreamError, Unread};

/// The limit's name.
const ANSWER_HEAD_BYTES_TOTAL_MAX: &str = "answer_head_bytes_total_max";

/// Up to how many bytes a head is not counted, nor the room that it is read into.
pub(super) const USUAL_BYTES: usize = 4 * 1024;

/// Up to how many fields: of more, the table takes as much as a large head does.
pub(super) const USUAL_FIELDS: usize = 40;

/// What a field takes besides its name and value.
const FIELD_BYTES: usize = 128;

/// What one connection has of a head, or of trailers, that are large and not whole.
pub(super) struct Large {
    unread: Rc<Unread>,
    part: Cell<Option<Share>>,
}

/// The value of a field, which counts for as long as anybody has it.
struct Value {
    bytes: Box<[u8]>,
    _share: Share,
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Large {
    /// Nothing yet. `unread` is where it counts.
    pub(super) fn new(unread: &Rc<Unread>) -> Large {
        Large { unread: unread.clone(), part: Cell::default() }
    }

    /// So much of a head or of trailers is in this large `buffer`, and the rest is waited for.
    #[cold]
    #[inline(never)]
    pub(super) fn waits(&self, buffer: &mut BytesMut) -> Result<(), StreamError> {
        self.rest();
        if buffer.len() > USUAL_BYTES {
            self.part.set(Some(self.share(buffer.capacity())?));
        } else {
            // Another was here before, or reading has made it larger than it has to be.
            *buffer = BytesMut::from(&buffer[..]);
        }
        Ok(())
    }

    /// Nothing is waited for any more.
    pub(super) fn rest(&self) {
        self.part.take();
    }

    /// These fields of a head have come, which was large. They count, each until nobody has it any more, and what is behind
    /// them in the `buffer` gets a smaller one.
    #[cold]
    #[inline(never)]
    pub(super) fn came(&self, fields: &mut HeaderMap, buffer: &mut BytesMut) -> Result<(), StreamError> {
        *buffer = BytesMut::from(&buffer[..]);
        self.rest();
        for (name, value) in fields.iter_mut() {
            let share = self.share(name.as_str().len() + value.len() + FIELD_BYTES)?;
            let bytes = Value { bytes: value.as_bytes().into(), _share: share };
            // It was one before.
            if let Ok(counted) = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)) {
                *value = counted;
                // The codec of HTTP/2 keeps others, for heads to come.
                value.set_sensitive(true);
            }
        }
        Ok(())
    }

    fn share(&self, bytes: usize) -> Result<Share, StreamError> {
        self.unread.share_head(bytes).ok_or(StreamError::Limit(ANSWER_HEAD_BYTES_TOTAL_MAX))
    }
}
