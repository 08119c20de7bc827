//! How much is read of a connection at once: what the other side does not take of it is here.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a body, or of what is passed on as it is, that are read from a connection at once, at most and at least.
pub(crate) const BYTES_MAX: usize = 64 * 1024;
const BYTES_MIN: usize = 4 * 1024;

/// How many reads of a connection may be here at once, because the other side does not take what was read: two each way, of
/// which one may have been encrypted for it; and as many again, or those who come first would leave nothing for others.
const READS: u64 = 8;

/// Bytes that may be read at once now. There is one memory of the process, whoever reads.
static BYTES: AtomicUsize = AtomicUsize::new(BYTES_MAX);

/// So much may be read of a connection at once from now on, that all of so many `connections` may be stuck with it in this `room`.
pub(crate) fn share(room: u64, connections: usize) {
    BYTES.store(part(room, connections), Ordering::Relaxed);
}

fn part(room: u64, connections: usize) -> usize {
    let share = room / READS / (connections as u64).max(1);
    usize::try_from(share).unwrap_or(usize::MAX).clamp(BYTES_MIN, BYTES_MAX)
}

/// Bytes of a body, or of what is passed on as it is, that may be read at once: whatever a side does not take is here.
pub(crate) fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_fits_for_all() {
        let (room, large) = (64 << 20, 20_000);
        let reads = [0, 1, 128, 500, large].map(|connections| part(room, connections));
        assert_eq!(reads, [BYTES_MAX, BYTES_MAX, BYTES_MAX, 16_777, BYTES_MIN]);
        assert_eq!(part(0, 1), BYTES_MIN);
        assert_eq!(part(u64::MAX, 0), BYTES_MAX);
    }
}
