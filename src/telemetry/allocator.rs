//! The allocator of the static binary: jemalloc with its settings built in.
//!
//! musl's own malloc is several times slower under threads, and an allocator
//! with default settings keeps what a burst of frames once needed. These
//! settings give memory back within about a second and hold the idle process
//! to a few MiB. Other targets keep the allocator of their system.
//!
//! A binary that links this library has it; `main.rs` needs no line for it.

/// What jemalloc reads at its first allocation, before `main`.
///
/// Two arenas are enough for two busy threads and cost little when idle; a
/// background thread returns unused pages after a second; nothing is kept as
/// lazily freed. The text ends in a zero byte, as C expects.
#[cfg(target_env = "musl")]
#[expect(
    unsafe_code,
    reason = "jemalloc takes its compiled-in settings only from a symbol of this name. Sound: the type is \
              a thin pointer to a constant, zero-terminated text that lives for ever, and nothing else \
              in the program defines the symbol"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
pub static SETTINGS: &[u8; 71] =
    b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2\0\0";

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(all(test, target_env = "musl"))]
mod tests {
    use std::fs;

    fn resident_kib() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
    }

    #[test]
    fn a_spike_is_given_back_by_the_background_thread() {
        let names = fs::read_dir("/proc/self/task").unwrap();
        let names =
            names.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        assert!(
            names
                .into_iter()
                .any(|name| name.trim() == "jemalloc_bg_thd"),
            "the settings were not read"
        );
        let before = resident_kib();
        let spike: Vec<Vec<u8>> = (0..1000).map(|n| vec![n as u8; 100_000]).collect();
        assert!(resident_kib() > before + 90_000);
        drop(spike);
        // The allocator works on its own clock; polling is the only way to see it.
        let returned = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            resident_kib() < before + 10_000
        });
        assert!(returned, "{} KiB are still held", resident_kib());
    }
}
