//! What memory a process keeps that does nothing for the moment.

use std::{convert::Infallible, time::Duration};

use tikv_jemalloc_ctl::raw;

/// Objects live as trees of many small pieces that one thread makes and another frees. The C library's allocator spent a
/// third of a busy cluster's CPU on them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads when it starts. What is free goes back to the system within half a second, not ten: a burst of writes
/// leaves a third of what it needed. No thread keeps pieces above 4 KiB for itself. Neither costs time that can be measured.
#[expect(unsafe_code, reason = "the allocator looks its settings up by this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 35] = b"dirty_decay_ms:500,tcache_max:4096\0";

/// How often an agent lets go of the program. What comes back of it at once takes less than a millisecond.
const LET_GO_EVERY: Duration = Duration::from_secs(30);

/// Has memory that is free go back to the system by itself. Without a thread for it, what a part of the program let go of goes back
/// only when the same part asks for more: after the state was written to disk, tens of MiB stayed for ever.
pub fn give_back() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "the allocator gives no memory back in the background");
    }
}

/// Has the calling thread take memory where all others of an agent do, and keep nothing of it for itself. An agent does little, and
/// what each thread keeps of the burst in which pods start is a third of what it holds ever after.
#[expect(
    unsafe_code,
    reason = "the allocator's settings are written by name, and have the type that stands beside the name"
)]
pub fn share() {
    // SAFETY: `thread.arena` is an `unsigned`, `thread.tcache.enabled` a `bool`.
    let done = unsafe {
        raw::write(b"thread.arena\0", 0_u32).and_then(|()| raw::write(b"thread.tcache.enabled\0", false))
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a thread keeps memory for itself");
    }
}

/// Holds, until dropped, no more of the program's file than the last half minute used: of a machine's memory that is for pods, a
/// third of what an agent at rest had was code that its start had run.
pub async fn hold_little() -> Infallible {
    loop {
        tokio::time::sleep(LET_GO_EVERY).await;
        claw_nodeagent::let_go_of_program();
    }
}
