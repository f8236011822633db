//! What an executor keeps in memory, and whom it wakes when there are many.

use std::time::Duration;

use orchestra_saga::{Executor, MemoryStore, Operation, SagaId, Start};

use crate::checkout::{Answer, World, checkout};

/// The number of sagas that an executor keeps a channel for.
fn watched(executor: &Executor) -> String {
    let text = format!("{executor:?}");
    let at = text.find("watched: ").expect("shown");
    let number = text.get(at + 9..).unwrap_or_default();
    number.chars().take_while(char::is_ascii_digit).collect()
}

#[tokio::test(start_paused = true)]
async fn waiting_leaves_nothing_behind() {
    let world = World::new();
    world.script("check", Operation::Action, &[Answer::Silence]);
    let builder = Executor::builder(MemoryStore::default()).definition(checkout(&world));
    let executor = builder.build().await.expect("built");
    let saga = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    let impatient = executor.clone();
    let given_up = tokio::time::timeout(Duration::from_millis(10), impatient.wait(saga)).await;
    given_up.expect_err("still running");
    assert_eq!(watched(&executor), "0", "a wait that was given up");

    executor.wait(saga).await.expect("ended");
    executor.wait(saga).await.expect("ended before");
    assert_eq!(watched(&executor), "0", "a saga that has ended");

    let nobody = executor.wait(SagaId::from_bytes([1; 16])).await;
    nobody.expect_err("unknown");
    assert_eq!(watched(&executor), "0", "a saga that does not exist");
}
