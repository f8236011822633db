//! Who is woken when there are many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestra_core::{SystemWallClock, Timestamp, WallClock};
use orchestra_saga::{Call, Definition, Executor, Failure, MemoryStore, Start, Status};

/// One step that is refused until the world is put right.
fn stubborn(id: &str, right: &Arc<AtomicBool>) -> Definition {
    let right = Arc::clone(right);
    let mut d = Definition::builder(id, "1");
    d.step("work", (), move |_: Call, (): ()| {
        let right = right.load(Ordering::Relaxed);
        async move {
            if right {
                Ok(1u32)
            } else {
                Err(Failure::rejected("not yet"))
            }
        }
    })
    .retriable();
    d.build().expect("valid")
}

/// A day after the first executor, when all that it parked is due.
#[derive(Debug)]
struct Tomorrow;

impl WallClock for Tomorrow {
    fn wall(&self) -> Timestamp {
        SystemWallClock.wall() + Duration::from_secs(24 * 3_600)
    }
}

#[tokio::test(start_paused = true)]
async fn sagas_that_cannot_be_continued_keep_nobody_asleep() {
    let store = Arc::new(MemoryStore::default());
    let right = Arc::new(AtomicBool::new(false));
    let builder = Executor::builder(Arc::clone(&store));
    let builder = builder.definition(stubborn("old", &right));
    let before = builder.build().await.expect("built");
    for _ in 0..300 {
        let saga = before.start(Start::of("old")).await.expect("started");
        before.settled(saga).await.expect("parked");
    }
    before.shutdown().await;

    // The next release does not know them any more.
    let builder = Executor::builder(store).definition(stubborn("new", &right));
    let builder = builder.wall_clock(Arc::new(Tomorrow));
    let executor = builder.build().await.expect("built");
    let saga = executor.start(Start::of("new")).await.expect("started");
    executor.settled(saga).await.expect("parked");
    right.store(true, Ordering::Relaxed);
    let wait = tokio::time::timeout(Duration::from_secs(3_600), executor.wait(saga));
    let view = wait.await.expect("woken").expect("ended");
    assert_eq!(view.status, Status::Completed);
}
