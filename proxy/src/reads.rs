//! How much is read of a connection at once: what the other side does not take of it is here, and counted for the whole process.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a body of HTTP/1, or of what is passed on as it is, that are read from a connection at once, at most and at least.
pub(crate) const BYTES_MAX: usize = 64 * 1024;
pub(crate) const BYTES_MIN: usize = 4 * 1024;

/// Which part of the room for what nobody takes may be read at once: whoever comes after the first finds some, too.
const PARTS: u64 = 64;

/// Which part of the room for everything may be held: as many as are left of it are for others, and what lies around what is held.
const HELD: u64 = 8;

/// There is one memory of the process, whoever reads.
static READS: Reads = Reads { held: AtomicU64::new(0), held_max: AtomicU64::new(u64::MAX) };

/// What was read and nobody takes.
#[derive(Debug)]
struct Reads {
    held: AtomicU64,
    /// How much of it there may be until somebody looks at memory again.
    held_max: AtomicU64,
}

/// Bytes of one connection that the other side does not take, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    reads: &'static Reads,
    bytes: usize,
}

impl Default for Held {
    fn default() -> Held {
        Held { reads: &READS, bytes: 0 }
    }
}

impl Held {
    /// How many they are now. That mostly nothing is held costs nothing that workers share.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.reads.held.fetch_add((bytes - before) as u64, Ordering::Relaxed);
        } else if bytes < before {
            self.reads.held.fetch_sub((before - bytes) as u64, Ordering::Relaxed);
        }
    }

    /// How many they are.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Reads {
    fn share(&self, room: u64) {
        let all = self.held.load(Ordering::Relaxed).saturating_add(room);
        self.held_max.store(all / HELD, Ordering::Relaxed);
    }

    #[inline]
    fn bytes(&self) -> usize {
        let room = self.held_max.load(Ordering::Relaxed).saturating_sub(self.held.load(Ordering::Relaxed));
        usize::try_from(room / PARTS).unwrap_or(usize::MAX).clamp(BYTES_MIN, BYTES_MAX)
    }
}

/// There is so much `room` now beside what is held of what was read; a part of both may be.
pub(crate) fn share(room: u64) {
    READS.share(room);
}

/// Bytes that are held now.
pub(crate) fn held() -> u64 {
    READS.held.load(Ordering::Relaxed)
}

/// Bytes that may be read of a connection at once.
#[inline]
pub(crate) fn bytes() -> usize {
    READS.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_shrinks_with_what_nobody_takes() {
        let reads: &Reads =
            Box::leak(Box::new(Reads { held: AtomicU64::new(0), held_max: AtomicU64::new(u64::MAX) }));
        assert_eq!(reads.bytes(), BYTES_MAX, "nobody knows how much memory there is");
        let room = 64 << 20;
        reads.share(room);
        let mut all = Vec::new();
        for number in 0..1000 {
            let bytes = reads.bytes();
            assert_eq!(bytes == BYTES_MAX, number <= 64, "{number}: {bytes}");
            let mut held = Held { reads, bytes: 0 };
            held.set(bytes);
            assert_eq!(held.bytes(), bytes);
            all.push(held);
        }
        assert_eq!(reads.bytes(), BYTES_MIN);
        let held: usize = all.iter().map(Held::bytes).sum();
        assert!(held < (8 << 20) + 700 * BYTES_MIN, "{held}");
        // However often it is looked at.
        reads.share(room - held as u64);
        assert_eq!(reads.bytes(), BYTES_MIN);
        reads.share(2 * room);
        assert_eq!(reads.bytes(), BYTES_MAX, "there is more room now");
        reads.share(0);
        all.truncate(500);
        all.iter_mut().for_each(|held| held.set(1));
        assert!(reads.bytes() > BYTES_MIN);
        drop(all);
        assert_eq!(reads.held.load(Ordering::Relaxed), 0);
    }
}
