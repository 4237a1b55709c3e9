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
