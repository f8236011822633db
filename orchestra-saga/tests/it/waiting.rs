//! Signals, timers, pauses: what a saga waits for.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::IdempotencyKey;
use orchestra_saga::executor::Delivery;
use orchestra_saga::{
    Call, Cause, Definition, ErrorKind, Executor, MemoryStore, Operator, Start, Status,
};
use serde_json::json;

fn ada() -> Operator {
    Operator::new("ada", "a test")
}

async fn executor(store: &Arc<MemoryStore>, definition: Definition) -> Executor {
    let builder = Executor::builder(Arc::clone(store)).definition(definition);
    builder.build().await.expect("built")
}

/// Waits for two answers, the second for a minute at most, and adds them.
fn answers() -> Definition {
    let mut d = Definition::builder("answers", "1");
    let one = d.signal::<u32, _>("one", (), "answer", None);
    let two = d.signal::<u32, _>("two", one, "answer", Duration::from_secs(60));
    d.step(
        "sum",
        (one, two),
        |_: Call, (one, two): (u32, u32)| async move { Ok(one + two) },
    )
    .read_only();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn signals_that_come_early_are_kept_and_each_step_takes_one() {
    let store = Arc::default();
    let executor = executor(&store, answers()).await;
    let saga = executor.start(Start::of("answers")).await.expect("started");
    let id = IdempotencyKey::new("first").ok();
    let signal = async |id, value: u32| {
        let delivered = executor.signal(saga, "answer", id, &value).await;
        delivered.expect("told")
    };
    assert_eq!(signal(id.clone(), 3).await, Delivery::Delivered);
    assert_eq!(signal(id, 9).await, Delivery::NotAwaited, "the same again");
    let other = executor.signal(saga, "question", None, &1).await;
    assert_eq!(other.expect("told"), Delivery::NotAwaited);
    assert_eq!(signal(None, 4).await, Delivery::Delivered);
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.output("sum"), Some(&json!(7).into()));
    assert_eq!(signal(None, 5).await, Delivery::NotAwaited, "after the end");
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_does_not_come_in_time_turns_the_saga_back() {
    let store = Arc::default();
    let executor = executor(&store, answers()).await;
    let saga = executor.start(Start::of("answers")).await.expect("started");
    executor
        .signal(saga, "answer", None, &1)
        .await
        .expect("told");
    let before = tokio::time::Instant::now();
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
    assert!(
        matches!(view.cause, Some(Cause::Rejected { reason, .. }) if reason == "no signal answer")
    );
    assert!(
        before.elapsed() >= Duration::from_secs(59),
        "{:?}",
        before.elapsed()
    );
}

fn reminder() -> Definition {
    let mut d = Definition::builder("reminder", "1");
    let name = d.input::<String>();
    let later = d.sleep("a_day", name, Duration::from_secs(86_400));
    d.step("remind", name, |_: Call, name: String| async move {
        Ok(format!("hi {name}"))
    })
    .after(later)
    .retriable();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_sleeps_is_not_in_memory_and_wakes_in_another_process() {
    let store = Arc::default();
    let first = executor(&store, reminder()).await;
    let mut d = Start::of("reminder").input("ada").expect("json");
    d = d.attribute("who", "ada");
    let saga = first.start(d).await.expect("started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(first.running(), 0);
    first.shutdown().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;

    let second = executor(&store, reminder()).await;
    let view = second.wait(saga).await.expect("ended");
    assert_eq!(view.output("remind"), Some(&json!("hi ada").into()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_during_a_pause_and_time_goes_on() {
    let mut d = Definition::builder("slow", "1");
    let first = d
        .step("first", (), |_: Call, (): ()| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(1)
        })
        .compensate(|_: Call, (): (), _: Option<i32>| async { Ok(()) });
    d.step("second", first, |_: Call, n: i32| async move { Ok(n + 1) })
        .read_only();
    let definition = d.timeout(Duration::from_secs(60)).build().expect("valid");
    let store = Arc::default();
    let executor = executor(&store, definition).await;

    let saga = executor.start(Start::of("slow")).await.expect("started");
    assert!(executor.pause(saga, ada()).await.expect("told"));
    assert!(
        !executor.pause(saga, ada()).await.expect("told"),
        "it is already"
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    let view = executor.status(saga).await.expect("read");
    assert_eq!(view.status, Status::Paused);
    assert_eq!((view.steps[0].attempts, view.steps[1].attempts), (1, 0));
    assert!(executor.resume(saga, ada()).await.expect("told"));
    let view = executor.wait(saga).await.expect("ended");
    assert_eq!(view.output("second"), Some(&json!(2).into()));
    assert!(!executor.resume(saga, ada()).await.expect("told"));

    let late = executor.start(Start::of("slow")).await.expect("started");
    executor.pause(late, ada()).await.expect("told");
    tokio::time::sleep(Duration::from_secs(120)).await;
    executor.resume(late, ada()).await.expect("told");
    let view = executor.wait(late).await.expect("ended");
    assert_eq!(
        (view.status, view.cause),
        (Status::Compensated, Some(Cause::TimedOut))
    );
}

#[tokio::test(start_paused = true)]
async fn ended_sagas_are_forgotten_when_their_time_is_over() {
    let mut d = Definition::builder("short", "1");
    d.step("one", (), |_: Call, (): ()| async { Ok(1) })
        .read_only();
    let builder = Executor::builder(MemoryStore::default()).definition(d.build().expect("valid"));
    let kept = Duration::from_secs(3_600);
    let executor = builder.retention(kept).build().await.expect("built");
    let key = IdempotencyKey::new("once").expect("valid");
    let start = || Start::of("short").key(key.clone());
    let first = executor.run(start()).await.expect("ended");
    tokio::time::sleep(Duration::from_secs(3_540)).await;
    assert_eq!(executor.start(start()).await.expect("the same"), first.id);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let gone = executor.status(first.id).await.expect_err("forgotten");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_ne!(executor.start(start()).await.expect("another"), first.id);
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_allowed_is_refused_or_as_good_as_unheard() {
    let mut d = Definition::builder("large", "1");
    let size = d.input::<usize>();
    let text = d
        .step("write", size, |_: Call, size: usize| async move {
            Ok("x".repeat(size))
        })
        .compensate(|_: Call, _: usize, _: Option<String>| async { Ok(()) });
    d.signal::<String, _>("wait", text, "go", None);
    let builder = Executor::builder(MemoryStore::default()).definition(d.build().expect("valid"));
    let executor = builder
        .max_payload(100)
        .max_history(8)
        .build()
        .await
        .expect("built");

    let input = "1".repeat(101);
    let refused = executor
        .start(Start::of("large").input(&input).expect("json"))
        .await;
    assert_eq!(refused.expect_err("too large").kind(), ErrorKind::TooLarge);
    let saga = executor
        .start(Start::of("large").input(&200).expect("json"))
        .await;
    let view = executor.wait(saga.expect("started")).await.expect("ended");
    assert_eq!(view.status, Status::Compensated);
    assert!(
        matches!(view.cause, Some(Cause::Unknown { reason, .. }) if reason.contains("202 bytes"))
    );

    let saga = executor
        .start(Start::of("large").input(&3).expect("json"))
        .await
        .expect("started");
    let large = executor.signal(saga, "go", None, &input).await;
    assert_eq!(large.expect_err("too large").kind(), ErrorKind::TooLarge);
    for _ in 0..5 {
        executor.pause(saga, ada()).await.expect("told");
        executor.resume(saga, ada()).await.expect("told");
    }
    let full = executor.signal(saga, "go", None, "now").await;
    assert_eq!(full.expect_err("too long").kind(), ErrorKind::HistoryFull);
}
