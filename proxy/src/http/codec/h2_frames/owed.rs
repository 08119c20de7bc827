//! Which streams their client is waited for on: their requests are not whole, there is room for more, and nothing comes.

use config::Limits;

/// Streams of one client whose requests have begun and not ended.
#[derive(Debug)]
pub(super) struct Owed {
    /// By their numbers, which go upwards.
    streams: Vec<Open>,
    /// Data of all streams that is here.
    unread: u32,
    /// Of a stream, and of all, what it is at least that we are waited for: we have not read half of a window.
    stream_max: u32,
    unread_max: u32,
    /// Seconds that passed.
    second: u64,
}

#[derive(Debug)]
struct Open {
    stream: u32,
    /// The second in which data came or went last.
    moved: u64,
    unread: u32,
}

/// So many are known: of those that the library refuses in time there are far fewer.
const STREAMS_MAX: usize = 4_096;

impl Owed {
    pub(super) fn new(limits: &Limits) -> Owed {
        let half = |bytes: u64| u32::try_from(bytes / 2).unwrap_or(u32::MAX);
        Owed {
            streams: Vec::new(),
            unread: 0,
            stream_max: half(limits.http2_stream_window_bytes),
            unread_max: half(limits.http2_connection_window_bytes),
            second: 0,
        }
    }

    /// A stream has begun, on which the client is owing the rest of its request or is not.
    pub(super) fn begins(&mut self, stream: u32, is_owing: bool) {
        if is_owing && self.streams.len() < STREAMS_MAX {
            self.streams.push(Open { stream, moved: self.second, unread: 0 });
        }
    }

    /// It is whole, or given up.
    pub(super) fn ends(&mut self, stream: u32) {
        if let Some(at) = self.find(stream) {
            self.streams.remove(at);
        }
    }

    /// So much data came on a stream.
    pub(super) fn came(&mut self, stream: u32, bytes: u32) {
        self.unread = self.unread.saturating_add(bytes);
        let second = self.second;
        if let Some(open) = self.open(stream).filter(|_| bytes > 0) {
            open.moved = second;
            open.unread = open.unread.saturating_add(bytes);
        }
    }

    /// Data went the other way.
    pub(super) fn went(&mut self, stream: u32) {
        let second = self.second;
        if let Some(open) = self.open(stream) {
            open.moved = second;
        }
    }

    /// There is room for so much again, on a stream or, where it is 0, on all of them. Where nobody knows how much, all has been
    /// read.
    pub(super) fn read(&mut self, stream: u32, bytes: Option<u32>) {
        let bytes = bytes.unwrap_or(u32::MAX);
        let second = self.second;
        if stream == 0 {
            self.unread = self.unread.saturating_sub(bytes);
        } else if let Some(open) = self.open(stream) {
            open.unread = open.unread.saturating_sub(bytes);
            open.moved = second;
        }
    }

    pub(super) fn passed(&mut self, seconds: u32) {
        self.second += u64::from(seconds);
    }

    /// On how many the client has been waited for since so many seconds ago.
    pub(super) fn still(&self, seconds: u64) -> usize {
        if self.unread >= self.unread_max {
            return 0;
        }
        let is_still = |open: &&Open| open.unread < self.stream_max && self.second - open.moved >= seconds;
        self.streams.iter().filter(is_still).count()
    }

    fn open(&mut self, stream: u32) -> Option<&mut Open> {
        let at = self.find(stream)?;
        self.streams.get_mut(at)
    }

    fn find(&self, stream: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&stream, |open| open.stream).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for() {
        let mut owed = Owed::new(&Limits { http2_stream_window_bytes: 100, ..Limits::default() });
        (0..4).for_each(|number| owed.begins(2 * number + 1, true));
        owed.passed(2);
        assert_eq!((owed.still(3), owed.still(0)), (0, 4), "it may be one second and a bit");
        owed.came(1, 50);
        owed.came(3, 10);
        owed.went(5);
        owed.passed(1);
        assert_eq!(owed.still(3), 1);
        owed.passed(2);
        assert_eq!(owed.still(3), 3, "of one half a window is not read");
        owed.read(1, Some(50));
        owed.passed(3);
        assert_eq!(owed.still(3), 4);
        owed.ends(7);
        owed.ends(9);
        assert_eq!(owed.still(3), 3);
        owed.came(9, u32::MAX);
        assert_eq!(owed.still(3), 0, "nobody may send anything");
        owed.read(0, None);
        assert_eq!(owed.still(3), 3);
    }
}
