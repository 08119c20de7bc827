//! The allocator: jemalloc, because it gives back what connections held once they are gone. glibc's keeps most of it, and a
//! process that once met a flood would be as large ever after.

use std::ffi::CStr;
use std::ptr;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Freed pages return to the kernel within a second, by a thread of jemalloc's own: workers spend nothing on it. Two arenas
/// for the whole process, because each keeps pages for itself and a thread's own cache meets nearly all of its needs. No
/// huge pages: a small process would be a tenth larger for none of the gain.
///
/// The environment's `_RJEM_MALLOC_CONF` is read after this and wins.
#[expect(
    unsafe_code,
    reason = "the name is one that jemalloc declares, with the same type: a pointer to a C string"
)]
// SAFETY: jemalloc declares `const char *_rjem_malloc_conf` and only reads it; nothing else has that name.
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONF: Conf =
    Conf(c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2,thp:never".as_ptr());

/// Orders to jemalloc: that all arenas give their free pages back (4096 means all), and that a thread's cache gives what it
/// has to the arenas.
const PURGE_ARENAS: &CStr = c"arena.4096.purge";
const FLUSH_CACHE: &CStr = c"thread.tcache.flush";

/// Gives back to the kernel at once what is free; what threads keep in their caches stays. Whether it is done.
pub(crate) fn give_back() -> bool {
    order(PURGE_ARENAS)
}

/// Takes what is free from this thread's cache, for [`give_back`]. Whether it is done.
pub(crate) fn flush_cache() -> bool {
    order(FLUSH_CACHE)
}

fn order(name: &CStr) -> bool {
    #[expect(unsafe_code, reason = "jemalloc is asked in C")]
    // SAFETY: the name is a C string. These orders take no value and return none, so that the other pointers may be null.
    let result = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
    };
    result == 0
}

/// A pointer to a constant C string.
#[repr(transparent)]
struct Conf(*const std::ffi::c_char);

#[expect(unsafe_code, reason = "a pointer is not `Sync` by itself")]
// SAFETY: it points to a constant, which nobody writes.
unsafe impl Sync for Conf {}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn jemalloc_knows_the_orders() {
        assert!(super::flush_cache() && super::give_back());
    }

    #[test]
    fn the_settings_reach_jemalloc() {
        // It begins with its thread when a second arena is first used.
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| drop(vec![1_u8; 1 << 20]))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names: Vec<String> =
            tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect();
        assert!(names.iter().any(|name| name.trim() == "jemalloc_bg_thd"), "{names:?}");
    }
}
