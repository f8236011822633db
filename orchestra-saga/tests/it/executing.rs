//! An executor on its good and its bad paths, in virtual time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, IdempotencyKey};
use orchestra_saga::{
    Call, Cause, Definition, ErrorKind, Executor, MemoryStore, Operation, Operator, Retry,
    SagaStore, SagaView, Start, Status,
};

use crate::checkout::{Answer, World, checkout};

async fn executor(store: &Arc<MemoryStore>, world: &Arc<World>) -> Executor {
    let builder = Executor::builder(Arc::clone(store))
        .definition(checkout(world))
        .seed(7);
    builder.build().await.expect("built")
}

async fn run(world: &Arc<World>) -> (Executor, SagaView) {
    let executor = executor(&Arc::default(), world).await;
    let saga = executor
        .start(Start::of("checkout"))
        .await
        .expect("started");
    let view = executor.settled(saga).await.expect("settled");
    (executor, view)
}

fn effects<const N: usize>(of: [&str; N]) -> HashMap<String, i32> {
    of.into_iter().map(|step| (step.to_owned(), 1)).collect()
}

const ALL: [&str; 5] = ["check", "reserve", "hold", "charge", "notify"];

#[tokio::test(start_paused = true)]
async fn every_step_is_done_once() {
    let world = World::new();
    let (executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Completed);
    assert_eq!((view.total_steps, view.completed_steps), (5, 5));
    assert_eq!((view.is_active, view.ended), (false, Some(view.updated)));
    assert!(view.current.is_empty());
    assert_eq!(world.effects(), effects(ALL));
    assert_eq!(
        world.calls(),
        ["check#1", "reserve#1", "hold#1", "charge#1", "notify#1"]
    );
    assert_eq!(
        view.output("charge"),
        Some(&serde_json::json!("charge done").into())
    );
    executor.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_pivot_undoes_what_was_done() {
    let world = World::new();
    world.script("charge", Operation::Action, &[Answer::Rejected]);
    let (_executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Compensated);
    assert!(matches!(view.cause, Some(Cause::Rejected { step, .. }) if step.as_str() == "charge"));
    assert_eq!(world.effects(), effects(["check"]));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_asked_again_with_the_same_key() {
    let world = World::new();
    world.script(
        "reserve",
        Operation::Action,
        &[Answer::LostAfter, Answer::LostBefore],
    );
    let (_executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Completed);
    assert_eq!(world.effects(), effects(ALL));
    assert_eq!(view.steps[1].attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_stays_unknown_is_compensated_if_applied() {
    for lost in [
        Answer::LostAfter,
        Answer::LostBefore,
        Answer::Silence,
        Answer::Panic,
    ] {
        let world = World::new();
        world.script("reserve", Operation::Action, &[lost; 3]);
        let (_executor, view) = run(&world).await;
        assert_eq!(view.status, Status::Compensated, "{lost:?}");
        assert!(
            matches!(view.cause, Some(Cause::Unknown { .. })),
            "{lost:?}"
        );
        assert_eq!(world.effects(), effects(["check"]), "{lost:?}");
        assert!(
            world.calls().contains(&"undo reserve#1".to_owned()),
            "{lost:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_step_panicked_with_is_its_reason() {
    let mut d = Definition::builder("brittle", "1");
    d.step("break", (), |_: Call, (): ()| async {
        let shelf: [u8; 0] = [];
        Ok(shelf.first().copied().expect("a cup"))
    })
    .retry(Retry::new(0, Backoff::fixed(Duration::ZERO)))
    .read_only();
    let builder = Executor::builder(MemoryStore::default()).definition(d.build().expect("valid"));
    let executor = builder.build().await.expect("built");
    let view = executor.run(Start::of("brittle")).await.expect("ended");
    let said = view.steps.first().and_then(|step| step.reason.as_deref());
    assert_eq!(said, Some("the step panicked: a cup"));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_fails_parks_the_saga_until_it_succeeds() {
    let world = World::new();
    world.script("charge", Operation::Action, &[Answer::Rejected]);
    world.script("reserve", Operation::Compensation, &[Answer::Retryable; 3]);
    let (executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Parked);
    assert_eq!((view.is_active, view.ended), (true, None));
    assert_eq!(view.current.len(), 1, "{:?}", view.current);
    assert!(view.completed_steps < view.total_steps);
    assert_eq!(
        view.steps[1].parked.map(|parked| parked.op),
        Some(Operation::Compensation)
    );
    assert_eq!(
        executor.wait(view.id).await.expect("ended").status,
        Status::Compensated
    );
    assert_eq!(world.effects(), effects(["check"]));
}

#[tokio::test(start_paused = true)]
async fn an_operator_retries_a_parked_saga_at_once() {
    let world = World::new();
    world.script("notify", Operation::Action, &[Answer::Rejected]);
    let (executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Parked);
    assert_eq!((view.is_active, view.ended), (true, None));
    assert_eq!(view.current.len(), 1, "{:?}", view.current);
    assert!(view.completed_steps < view.total_steps);
    let before = tokio::time::Instant::now();
    assert!(
        executor
            .retry(view.id, Operator::new("ada", "now"))
            .await
            .expect("told")
    );
    assert_eq!(
        executor.wait(view.id).await.expect("ended").status,
        Status::Completed
    );
    assert!(before.elapsed() < Duration::from_secs(1));
    assert!(
        !executor
            .retry(view.id, Operator::new("ada", "now"))
            .await
            .expect("told")
    );
}

#[tokio::test(start_paused = true)]
async fn a_pivot_in_doubt_is_asked_until_it_is_known() {
    let world = World::new();
    world.script("charge", Operation::Action, &[Answer::LostAfter; 5]);
    let (executor, view) = run(&world).await;
    assert_eq!(view.status, Status::Parked);
    assert_eq!((view.is_active, view.ended), (true, None));
    assert_eq!(view.current.len(), 1, "{:?}", view.current);
    assert!(view.completed_steps < view.total_steps);
    assert_eq!(
        executor.wait(view.id).await.expect("ended").status,
        Status::Completed
    );
    assert_eq!(world.effects(), effects(ALL));
}

#[tokio::test(start_paused = true)]
async fn a_start_key_starts_once() {
    let world = World::new();
    let executor = executor(&Arc::default(), &world).await;
    let key = IdempotencyKey::new("order-7").expect("valid");
    let start = Start::of("checkout").key(key.clone());
    let first = executor.start(start.clone()).await.expect("started");
    assert_eq!(
        executor.start(start.clone()).await.expect("repeated"),
        first
    );
    assert_eq!(executor.find(&key).await.expect("found"), Some(first));
    let other = start.input(&"another").expect("json");
    let refused = executor.start(other).await.expect_err("another input");
    assert_eq!(refused.kind(), ErrorKind::KeyReused);
    executor.wait(first).await.expect("ended");
    assert_eq!(world.effects(), effects(ALL));
}

#[tokio::test(start_paused = true)]
async fn the_next_executor_continues_what_was_left() {
    let world = World::new();
    world.script("reserve", Operation::Action, &[Answer::Silence]);
    let store = Arc::new(MemoryStore::default());
    let first = executor(&store, &world).await;
    let saga = first.start(Start::of("checkout")).await.expect("started");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = executor(&store, &world).await;
    assert!(second.epoch() > first.epoch());
    let view = second.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
    assert_eq!(world.effects(), effects(ALL));
    // The first one learns of it when its call ends.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let refused = first
        .start(Start::of("checkout"))
        .await
        .expect_err("fenced off");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    let log = store
        .load(saga, orchestra_saga::Version(0))
        .await
        .expect("read");
    assert!(log.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch));
}
