//! Work that is done over everything, again and again: a queue with one key.
//!
//! Must never know: what is swept.

use std::{sync::Arc, time::Duration};

use claw_runtime::{Runtime, queue::Queue};

/// Sweeps now and `every` so often until the runtime is cancelled; sooner, and later each time, after a sweep that says
/// that it was not whole.
pub async fn run<F>(runtime: &Runtime, name: &'static str, every: Duration, sweep: impl Fn() -> F + Sync)
where
    F: Future<Output = bool> + Send,
{
    let queue = Arc::new(Queue::counted(runtime.env.clone(), runtime.figures.of(name)));
    queue.add(());
    let (next, sweep) = (&queue, &sweep);
    let process = |(): ()| {
        let swept = sweep();
        async move {
            if swept.await {
                next.forget(&());
                next.add_after((), every);
            } else {
                next.retry(());
            }
        }
    };
    queue.work(&runtime.cancel, 1, process).await;
}
