//! Pieces of bodies that h2 has and the socket has not. The windows of a peer that does not read may be as large as it likes, and
//! h2 tells nobody what it keeps: up to [`super::h2_settings::SEND_BUFFER_BYTES`] of each stream. So each piece counts until it
//! is written, as does what is kept of HTTP/1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::reads;

/// A piece of a body below this is not counted where the other side takes what it is sent: counting costs an allocation.
pub(super) const COUNTED_BYTES_MIN: usize = reads::BYTES_MIN;

/// What h2 has of one stream, if any of it was counted.
#[derive(Debug, Default)]
pub(super) struct Unsent(Option<Arc<OfStream>>);

#[derive(Debug, Default)]
struct OfStream {
    bytes: AtomicUsize,
    /// Who is told when it becomes less.
    waiting: ArcSwapOption<Waker>,
}

/// A piece, until h2 has written it or let it go.
struct Piece {
    data: Bytes,
    of: Arc<OfStream>,
    _held: reads::Held,
}

impl Unsent {
    /// Counts this piece for as long as anybody has any of it.
    pub(super) fn count(&mut self, data: Bytes) -> Bytes {
        let of = self.0.get_or_insert_default().clone();
        of.bytes.fetch_add(data.len(), Ordering::Relaxed);
        let mut held = reads::Held::default();
        held.set(data.len());
        Bytes::from_owner(Piece { data, of, _held: held })
    }

    /// Ready when there is less than `most`.
    pub(super) fn poll_below(&self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Some(of) = self.0.as_ref().filter(|of| of.bytes.load(Ordering::Relaxed) >= most) else {
            return Poll::Ready(());
        };
        // Who writes is another task, but not on another thread.
        of.waiting.store(Some(Arc::new(cx.waker().clone())));
        Poll::Pending
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.data.len(), Ordering::Relaxed);
        if let Some(waker) = self.of.waiting.swap(None) {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Buf;

    use super::*;

    #[tokio::test]
    async fn a_piece_counts_until_all_of_it_is_gone() {
        let mut unsent = Unsent::default();
        let is_below = async |unsent: &Unsent, most| {
            poll_fn(|cx| Poll::Ready(unsent.poll_below(most, cx).is_ready())).await
        };
        assert!(is_below(&unsent, 0).await, "nothing was counted");
        let mut first = unsent.count(Bytes::from_static(b"abcdef"));
        let second = unsent.count(Bytes::from_static(b"gh"));
        assert!(is_below(&unsent, 9).await && !is_below(&unsent, 8).await);
        first.advance(5);
        assert!(!is_below(&unsent, 8).await);
        let waits = poll_fn(|cx| unsent.poll_below(8, cx));
        let writes = async {
            assert_eq!((&first[..], &second[..]), (&b"f"[..], &b"gh"[..]));
            drop(first);
        };
        tokio::join!(waits, writes);
        assert!(is_below(&unsent, 3).await && !is_below(&unsent, 2).await);
        drop(second);
        assert!(is_below(&unsent, 1).await);
    }
}
