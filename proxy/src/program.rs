//! The pages of the program file. Starting, reading a configuration, looking for changes of it and asking DNS touch most of
//! a program's code, serving touches little of it; but what was mapped once stays resident until memory is short, and the
//! kernel maps sixteen pages for each that is touched. So when such work is over, the process lets go of these pages. What is still needed comes back at its next use from the page cache, some pages at a time, a few microseconds
//! each time; the rest no longer counts.

use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::ptr;
use std::time::{Duration, Instant};

use rustix::mm::{Advice, madvise};
use tokio::sync::Notify;

/// How long nothing must have been published or asked before pages are let go: what a burst of changes needs stays.
const QUIET: Duration = Duration::from_secs(1);

/// When they are let go even though the burst goes on: a name may be asked for each second for ever.
const BURST_MAX: Duration = Duration::from_secs(10);

/// Least time between two times.
const PAUSE: Duration = Duration::from_millis(100);

/// Where it is told of work that is seldom done, so that the pages it needed are let go of.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// Some was done, and more of it may follow.
    pub(crate) done: Notify,
    /// Some was done that nothing follows from.
    pub(crate) over: Notify,
}

/// When pages are let go of, by what was done: pure decisions.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    due: Option<Instant>,
    /// When the burst began that goes on.
    began: Option<Instant>,
    last: Option<Instant>,
}

impl Rhythm {
    /// When to let go of them next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was done, and more of it may follow.
    pub(crate) fn done(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.due = Some((now + QUIET).min(began + BURST_MAX));
    }

    /// Something was done that nothing follows from.
    pub(crate) fn over(&mut self, now: Instant) {
        let soon = self.last.map_or(now, |last| now.max(last + PAUSE));
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// They were let go of.
    pub(crate) fn let_go(&mut self, now: Instant) {
        *self = Rhythm { last: Some(now), ..Rhythm::default() };
    }
}

/// Lets go of all pages of files that are only mapped to be read or executed.
pub(crate) fn let_go() {
    // Where the kernel does not tell, they stay.
    let areas = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for Range { start, end } in unwritten(&areas) {
        // An area that must stay, because somebody locked it, is refused; it stays.
        #[expect(unsafe_code, reason = "the compiler cannot know what becomes of the pages")]
        // SAFETY: the pages are those of a file, privately mapped, not writable, and the kernel has counted none that differs
        // from the file: whoever reads them next finds the same bytes there. They would differ only if an area were written
        // after it was counted. The dynamic linker does that before `main` and for libraries that are opened later, of which
        // there are none; and what it wrote it never loses, because such an area is counted as written for good.
        let _ = unsafe {
            madvise(ptr::with_exposed_provenance_mut::<c_void>(start), end - start, Advice::LinuxDontNeed)
        };
    }
}

/// The areas of memory that hold what is in a file, cannot be written, and never were: of all that `smaps` tells of.
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut area = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        match first.strip_suffix(':') {
            None => area = of_file(first, words),
            // The last of the counts of written pages, which come in this order.
            Some("Swap") if words.next() == Some("0") => found.extend(area.take()),
            Some("Anonymous") if words.next() == Some("0") => {}
            Some("Anonymous" | "Swap") => area = None,
            Some(_) => {}
        }
    }
    found
}

/// The area that a line begins to tell of, if it is one of a file that cannot be written.
fn of_file<'a>(range: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Range<usize>> {
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let (rights, inode) = (words.next()?, words.nth(2)?);
    let is_of_file = matches!(rights, "r--p" | "r-xp") && inode != "0";
    (is_of_file && start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(line: &str, anonymous_kb: usize, swap_kb: usize) -> String {
        format!(
            "{line}\nSize: 4 kB\nRss: 4 kB\nReferenced: 4 kB\nAnonymous: {anonymous_kb} kB\nKSM: 0 kB\n\
             AnonHugePages: 0 kB\nSwap: {swap_kb} kB\nSwapPss: 0 kB\nLocked: 0 kB\nVmFlags: rd mr mw me\n"
        )
    }

    #[test]
    fn only_what_is_in_a_file_and_was_never_written_is_let_go() {
        let check = |line: &str, anonymous_kb, swap_kb, is_found: bool| {
            let expected = is_found.then_some(0x1000..0x3000);
            assert_eq!(unwritten(&area(line, anonymous_kb, swap_kb)), Vec::from_iter(expected), "{line}");
        };
        let code = "1000-3000 r-xp 00001000 fe:00 42 /usr/bin/weft";
        check(code, 0, 0, true);
        // Relocated: the linker wrote to it before it was made unwritable.
        check(code, 4, 0, false);
        check(code, 0, 4, false);
        check("1000-3000 r--p 00000000 fe:00 42 /usr/bin/a name", 0, 0, true);
        for line in [
            "1000-3000 rw-p 00000000 fe:00 42 /usr/bin/weft",
            "1000-3000 rwxp 00000000 fe:00 42 /usr/bin/weft",
            "1000-3000 r--s 00000000 fe:00 42 /usr/bin/weft",
            "1000-3000 ---p 00000000 fe:00 42 /usr/bin/weft",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
            "1000-3000 r--p 00000000 00:00 0",
            "3000-1000 r--p 00000000 fe:00 42 /usr/bin/weft",
            "x-3000 r--p 00000000 fe:00 42 /usr/bin/weft",
            "1000-3000 r--p",
        ] {
            check(line, 0, 0, false);
        }
        let all = area("1000-2000 r--p 0 fe:00 42 /a", 0, 0)
            + &area("2000-3000 r--p 0 fe:00 42 /a", 4, 0)
            + &area("3000-4000 rw-p 0 fe:00 42 /a", 0, 0)
            + &area("4000-5000 r-xp 0 fe:00 42 /a", 0, 0);
        assert_eq!(unwritten(&all), [0x1000..0x2000, 0x4000..0x5000]);
        assert!(unwritten("").is_empty());
        assert!(unwritten("1000-2000 r--p 0 fe:00 42 /a\nSize: 4 kB\n").is_empty());
    }

    #[test]
    fn pages_are_let_go_when_it_is_quiet_or_over_and_never_without_pause() {
        let began = crate::time::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.due(), None);
        rhythm.over(at(0));
        assert_eq!(rhythm.due(), Some(at(0)));
        rhythm.let_go(at(0));
        rhythm.over(at(40));
        assert_eq!(rhythm.due(), Some(at(0) + PAUSE));
        rhythm.let_go(at(100));
        rhythm.done(at(200));
        rhythm.done(at(900));
        assert_eq!(rhythm.due(), Some(at(900) + QUIET));
        // What is over does not wait for a burst.
        rhythm.over(at(1_000));
        assert_eq!(rhythm.due(), Some(at(1_000)));
        rhythm.let_go(at(1_000));
        (0..30).for_each(|turn| rhythm.done(at(2_000 + 500 * turn)));
        assert_eq!(rhythm.due(), Some(at(2_000) + BURST_MAX));
    }

    #[test]
    fn what_was_let_go_comes_back_as_it_was() {
        static TABLE: [u64; 4096] = [0x5a5a_a5a5; 4096];
        let areas = fs::read_to_string("/proc/self/smaps").unwrap();
        let table = TABLE.as_ptr().addr();
        let holds = |areas: &[Range<usize>], address| areas.iter().any(|area| area.contains(&address));
        let areas = unwritten(&areas);
        assert!(holds(&areas, table), "a constant table is in none of {areas:x?}");
        assert!(holds(&areas, let_go as *const () as usize), "this code is in none of {areas:x?}");
        for _ in 0..3 {
            let_go();
            assert!(std::hint::black_box(&TABLE).iter().all(|word| *word == 0x5a5a_a5a5));
        }
    }
}
