//! The allocator: jemalloc, because it gives back what connections held once they are gone. glibc's keeps most of it, and a
//! process that once met a flood would be as large ever after.

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
