//! Several executors on one store, each with a share of the sagas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestra_saga::{
    Call, Definition, ErrorKind, Executor, MemoryStore, Operator, Partition, Start, Status,
};

/// One step that takes a second and counts how often it is called.
fn slow(calls: &Arc<AtomicU32>) -> Definition {
    let calls = Arc::clone(calls);
    let mut d = Definition::builder("slow", "1");
    d.step("work", (), move |_: Call, (): ()| {
        calls.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(7u32)
        }
    })
    .read_only();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn an_executor_leaves_the_sagas_of_other_partitions_alone() {
    let store = Arc::new(MemoryStore::default());
    let calls = Arc::new(AtomicU32::new(0));
    let build = |partition| {
        let builder = Executor::builder(Arc::clone(&store)).definition(slow(&calls));
        builder.partition(Partition(partition)).build()
    };
    let owner = build(0).await.expect("built");
    let other = build(1).await.expect("built");
    let saga = owner.start(Start::of("slow")).await.expect("started");
    tokio::time::sleep(Duration::from_millis(10)).await;

    let told = other.cancel(saga, "not mine").await;
    assert_eq!(
        told.expect_err("not its own").kind(),
        ErrorKind::ForeignPartition
    );
    let retried = other.retry(saga, Operator::new("ada", "now")).await;
    assert_eq!(
        retried.expect_err("not its own").kind(),
        ErrorKind::ForeignPartition
    );

    let view = owner.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let mine = other.start(Start::of("slow")).await.expect("not fenced");
    other.wait(mine).await.expect("ended");
}
