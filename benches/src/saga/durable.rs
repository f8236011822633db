//! What waits for a disk: many sagas at once, one alone, and those that were left in flight.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestra_saga::{Definition, Executor, SagaStore};

use super::store::Kind;
use super::{definition, recovery, run};
use crate::disk::{Disk, Syncs, median, sustained, two_workers_and_sockets};
use crate::measure::Session;

/// A saga of three steps waits for so many syncs: one more.
const SYNCS: u32 = 4;

/// Between sagas that are alone, so that a disk which bounds the rate of syncs does not.
const PAUSE: Duration = Duration::from_millis(2);

/// Sagas at once.
const MANY: u64 = 1_000;

/// An executor with room for all sagas that are measured.
pub(super) async fn executor(store: Arc<dyn SagaStore>, definition: Definition) -> Executor {
    let builder = Executor::builder(store).definition(definition);
    let room = NonZeroU32::new(2_000_000).expect("some");
    let built = builder.max_running(room).build().await;
    built.expect("the store does not fail")
}

/// All figures that wait for a disk.
pub fn figures(session: &Session) {
    let disk = Disk::of_environment();
    let kinds = Kind::all();
    sync(session, &disk);
    for kind in &kinds {
        many(session, &disk, kind);
    }
    for kind in [Kind::Journal, Kind::Sqlite] {
        alone(session, &disk, &kind);
    }
    for kind in &kinds {
        recovery::figures(session, &disk, kind);
    }
}

/// What the other figures are to be read beside.
fn sync(session: &Session, disk: &Disk) {
    let scratch = disk.scratch("sync");
    let mut syncs = Syncs::growing(&scratch.path("syncs"));
    let count = if session.is_quick() { 20 } else { 500 };
    let mut samples: Vec<_> = (0..count).map(|_| syncs.sample()).collect();
    let figure = format!("saga_fdatasync_of_4096_{}_p50", disk.file_system);
    session.value(&figure, median(&mut samples), "us");
}

fn many(session: &Session, disk: &Disk, kind: &Kind) {
    let (warm, window, windows) = if session.is_quick() {
        (50, 200, 1)
    } else {
        (1_000, 2_000, 3)
    };
    let window = (Duration::from_millis(warm), Duration::from_millis(window));
    let scratch = disk.scratch(kind.name());
    let runtime = two_workers_and_sockets();
    let kind = runtime.block_on(kind.make_room());
    let opened = runtime.block_on(kind.open(&scratch));
    let definition = definition().expect("a valid definition");
    let executor = runtime.block_on(executor(opened.store(), definition));
    let figure = format!("saga_3_steps_{}_{MANY}_at_once", kind.name());
    for _ in 0..windows {
        let executor = executor.clone();
        let work = move || {
            let executor = executor.clone();
            async move { run(&executor).await.expect("the store does not fail") }
        };
        let rate = sustained(&runtime, MANY, window, work);
        session.value(&figure, rate, "sagas/s");
    }
    runtime.block_on(async {
        executor.shutdown().await;
        drop(executor);
        opened.close().await;
    });
}

/// One saga at a time, and as many syncs in between as it waits for, so that all see the same disk.
fn alone(session: &Session, disk: &Disk, kind: &Kind) {
    // A disk may take milliseconds for a sync.
    let (count, limit) = if session.is_quick() {
        (50, Duration::from_secs(1))
    } else {
        (2_000, Duration::from_secs(6))
    };
    let scratch = disk.scratch(kind.name());
    let runtime = two_workers_and_sockets();
    let opened = runtime.block_on(kind.open(&scratch));
    let definition = definition().expect("a valid definition");
    let executor = runtime.block_on(executor(opened.store(), definition));
    let mut growing = Syncs::growing(&scratch.path("growing"));
    let mut in_place = Syncs::in_place(&scratch.path("in-place"));
    let task = runtime.spawn({
        let executor = executor.clone();
        async move {
            let mut samples = [Vec::new(), Vec::new(), Vec::new()];
            let end = Instant::now() + limit;
            while samples[0].len() < count && Instant::now() < end {
                samples[0].push((0..SYNCS).map(|_| growing.sample()).sum());
                samples[1].push((0..SYNCS).map(|_| in_place.sample_in_place()).sum());
                let begun = Instant::now();
                run(&executor).await.expect("the store does not fail");
                samples[2].push(begun.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            samples
        }
    });
    let mut samples = runtime.block_on(task).expect("it does not panic");
    let [growing, in_place, saga] = samples.each_mut().map(|samples| median(samples));
    let figure = format!("saga_alone_{}", kind.name());
    session.value(&format!("{figure}_p50"), saga, "us");
    for (what, syncs) in [("syncs", growing), ("syncs_in_place", in_place)] {
        session.value(&format!("{figure}_{what}_p50"), syncs, "us");
        session.value(&format!("{figure}_over_{what}"), saga - syncs, "us");
    }
    runtime.block_on(async {
        executor.shutdown().await;
        drop(executor);
        opened.close().await;
    });
}
