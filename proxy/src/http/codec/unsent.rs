//! Pieces of bodies that h2 has and the socket has not. The windows of a peer that does not read may be as large as it likes, and
//! h2 tells nobody what it keeps: up to [`super::h2_settings::SEND_BUFFER_BYTES`] of each stream. So pieces count until they are
//! written, as does what is kept of HTTP/1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::reads;

/// Bytes that are counted together: counting costs an allocation. A stream's pieces are written in their order, so that one of
/// them stands for those before it.
const COUNTED_BYTES_MIN: usize = reads::BYTES_MIN;

/// What a piece takes beside its bytes.
const PIECE_BYTES: usize = 256;

/// What h2 has of one stream.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// Once any of it was counted.
    of: Option<Arc<OfStream>>,
    /// Bytes of pieces that are not counted yet.
    small: usize,
}

#[derive(Debug, Default)]
struct OfStream {
    bytes: AtomicUsize,
    /// Who is told when it becomes less.
    waiting: ArcSwapOption<Waker>,
}

/// A piece, until h2 has written it or let it go.
struct Piece {
    data: Bytes,
    /// What it stands for.
    bytes: usize,
    of: Arc<OfStream>,
    _held: reads::Held,
}

impl Unsent {
    /// Counts this piece, and what is not counted yet, for as long as anybody has any of it, if that is enough.
    pub(super) fn count(&mut self, data: Bytes) -> Bytes {
        self.small += data.len() + PIECE_BYTES;
        if self.small < COUNTED_BYTES_MIN {
            return data;
        }
        let (of, bytes) = (self.of.get_or_insert_default().clone(), std::mem::take(&mut self.small));
        of.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut held = reads::Held::default();
        held.set(bytes);
        Bytes::from_owner(Piece { data, bytes, of, _held: held })
    }

    /// Ready when there is less than `most`.
    pub(super) fn poll_below(&self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Some(of) = self.of.as_ref().filter(|of| of.bytes.load(Ordering::Relaxed) >= most) else {
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
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
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
        let small = unsent.count(Bytes::from_static(b"abc"));
        assert!(is_below(&unsent, 0).await, "it is too little to count");
        let mut first = unsent.count(Bytes::from(vec![b'a'; COUNTED_BYTES_MIN]));
        let both = COUNTED_BYTES_MIN + 3 + 2 * PIECE_BYTES;
        drop(small);
        assert!(is_below(&unsent, both + 1).await && !is_below(&unsent, both).await, "one stands for both");
        let many: Vec<Bytes> = (0..16).map(|_| unsent.count(Bytes::from_static(b"x"))).collect();
        let all = both + 16 * (1 + PIECE_BYTES);
        assert!(is_below(&unsent, all + 1).await && !is_below(&unsent, all).await);
        first.advance(COUNTED_BYTES_MIN - 1);
        assert!(!is_below(&unsent, all).await);
        let waits = poll_fn(|cx| unsent.poll_below(all, cx));
        let writes = async {
            assert_eq!(&first[..], b"a");
            drop(first);
        };
        tokio::join!(waits, writes);
        assert!(!is_below(&unsent, all - both).await);
        drop(many);
        assert!(is_below(&unsent, 1).await);
    }
}
