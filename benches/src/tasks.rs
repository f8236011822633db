//! Batches of asynchronous operations.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The runtime that all asynchronous figures are taken in: two workers.
pub fn two_workers() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_time();
    builder.build().expect("two threads can be started")
}

/// Batches shared evenly by so many concurrent tasks, each of which `work`s through its part.
pub fn shared_by<F>(
    tasks: u64,
    runtime: &Runtime,
    work: impl Fn(u64) -> F,
) -> impl FnMut(u64) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    move |count| {
        runtime.block_on(async {
            let begun = Instant::now();
            let mut running = JoinSet::new();
            for task in 0..tasks {
                running.spawn(work((count + task) / tasks));
            }
            running.join_all().await;
            begun.elapsed()
        })
    }
}
