//! duroxide's orchestrations of three activities that do nothing, in an SQLite file.
//!
//! It asks SQLite for `synchronous = WAL`, which is no value of that setting and so leaves it at less than FULL:
//! it does not wait for the disk where ours does.

#[path = "../../../src/disk.rs"]
#[allow(dead_code, reason = "a rival needs a part of it")]
mod disk;
#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use disk::{Disk, sustained, two_workers_and_sockets};
use duroxide::providers::sqlite::SqliteProvider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{Runtime, RuntimeOptions};
use duroxide::{
    ActivityContext, Client, OrchestrationContext, OrchestrationRegistry, OrchestrationStatus,
};
use measure::Session;

const FIGURES: [&str; 2] = [
    "saga_3_steps_journal_1000_at_once",
    "saga_3_steps_sqlite_1000_at_once",
];
/// So many orchestrations at once by so many dispatchers of each kind.
const SETUPS: [(u64, usize); 3] = [(32, 2), (32, 8), (64, 8)];

async fn orchestration(context: OrchestrationContext, value: String) -> Result<String, String> {
    let one = context.schedule_activity("act", value).await?;
    let two = context.schedule_activity("act", one).await?;
    context.schedule_activity("act", two).await
}

fn main() {
    let session = Session::of("duroxide");
    let disk = Disk::of_environment();
    let (warm, window, setups) = if session.is_quick() {
        (500, 1_500, &SETUPS[..1])
    } else {
        (2_000, 6_000, &SETUPS[..])
    };
    let window = (Duration::from_millis(warm), Duration::from_millis(window));
    for &(at_once, dispatchers) in setups {
        let scratch = disk.scratch("duroxide");
        // It opens a file only if there is one.
        let path = scratch.path("duroxide.db");
        std::fs::File::create(&path).expect("a file can be made");
        let url = format!("sqlite:{}", path.display());
        let runtime = two_workers_and_sockets();
        let (store, started) = runtime.block_on(async {
            let store = SqliteProvider::new(&url, None).await;
            let store = Arc::new(store.expect("a new file"));
            let activities = ActivityRegistry::builder()
                .register("act", |_: ActivityContext, value: String| async move {
                    Ok(value)
                })
                .build();
            let orchestrations = OrchestrationRegistry::builder()
                .register("noop", orchestration)
                .build();
            let options = RuntimeOptions {
                orchestration_concurrency: dispatchers,
                worker_concurrency: dispatchers,
                ..RuntimeOptions::default()
            };
            let start =
                Runtime::start_with_options(store.clone(), activities, orchestrations, options);
            (store, start.await)
        });
        let number = Arc::new(AtomicU64::new(0));
        let work = move || {
            let client = Client::new(store.clone());
            let name = format!("noop-{}", number.fetch_add(1, Ordering::Relaxed));
            // Its file is locked now and then, for longer than it waits.
            async move {
                while client
                    .start_orchestration(&name, "noop", "7")
                    .await
                    .is_err()
                {}
                loop {
                    let ended = client.wait_for_orchestration(&name, Duration::from_secs(60));
                    if let Ok(status) = ended.await {
                        assert!(matches!(status, OrchestrationStatus::Completed { .. }));
                        return;
                    }
                }
            }
        };
        let rate = sustained(&runtime, at_once, window, work);
        eprintln!("duroxide: {at_once} at once, {dispatchers} dispatchers: {rate:.0} sagas/s");
        for figure in FIGURES {
            session.value(figure, rate, "sagas/s");
        }
        runtime.block_on(started.shutdown(None));
    }
}
